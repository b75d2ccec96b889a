"""Pointwise ranking: a model says for each passage separately whether it answers the query (Liang et al., 2022).

The score is log p(yes) - log p(no) of the first token of the answer; later tokens do not matter.
"""

import collections
import math
from collections.abc import Sequence

YES, NO = "yes", "no"  # case and white space around a token are ignored

LEAST = 1e-9  # probability that endpoints round to 0


def yes_no_score(logprobs: list[tuple[str, float]]) -> float | None:
    """Return log p(yes) - log p(no) from the likeliest tokens and their log-probabilities; None if both are absent.

    An endpoint lists about twenty tokens. A word that is not among them gets the probability that is left over, but at
    most that of the least likely token listed.
    """
    sums = {YES: 0.0, NO: 0.0}
    for token, logprob in logprobs:
        word = token.strip(" \n\t\u2581\u0120").lower()  # the last two are tokenizers' marks for a space
        if word in sums:
            sums[word] += math.exp(logprob)
    if not any(sums.values()):
        return None
    listed = [math.exp(logprob) for _, logprob in logprobs]
    bound = max(min(*listed, 1 - sum(listed)), LEAST)
    yes, no = (max(sums[word] or bound, LEAST) for word in (YES, NO))
    return math.log(yes) - math.log(no)


def order_by_score(scores: list[float | None]) -> list[int]:
    """Return the places, best score first; ties keep their order, and places without a score come last, in order."""
    costs = [math.inf if score is None else -score for score in scores]
    return sorted(range(len(scores)), key=costs.__getitem__)


def ranks_by_score(scores: list[float | None]) -> list[float]:
    """Return the rank of each place, 1 = best; equal scores share their average rank, and so do places without one."""
    costs = [math.inf if score is None else -score for score in scores]
    rank_of, num_better = {}, 0
    for cost, equal in sorted(collections.Counter(costs).items()):
        rank_of[cost] = num_better + (1 + equal) / 2
        num_better += equal
    return [rank_of[cost] for cost in costs]


def mostly_tie(scores: Sequence[float | None]) -> bool:
    """Whether more than half of the passages share a score, so that the teacher does not order them."""
    counts = collections.Counter(scores).values()
    return 2 * sum(count for count in counts if count > 1) > len(scores)
