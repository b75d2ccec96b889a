"""Pointwise ranking: a model says of each passage by itself whether it answers the query (Liang et al., 2022).

The score is log p(yes) - log p(no) of the first token that it would write, whatever it then writes.
"""

import collections
import math
from collections.abc import Sequence

YES, NO = "yes", "no"  # case and white space around a token do not count

LEAST = 1e-9  # probability: what endpoints round away


def yes_no_score(logprobs: list[tuple[str, float]]) -> float | None:
    """Return log p(yes) - log p(no) from the likeliest tokens and their log-probabilities; None where both are absent.

    An endpoint lists some twenty tokens. One that is not among them takes what is left, but no more than the last has.
    """
    sums = {YES: 0.0, NO: 0.0}
    for token, logprob in logprobs:
        word = token.strip(" \n\t\u2581\u0120").lower()  # with the marks that tokenizers put for a space
        if word in sums:
            sums[word] += math.exp(logprob)
    if not any(sums.values()):
        return None
    listed = [math.exp(logprob) for _, logprob in logprobs]
    bound = max(min(*listed, 1 - sum(listed)), LEAST)
    yes, no = (max(sums[word] or bound, LEAST) for word in (YES, NO))
    return math.log(yes) - math.log(no)


def order_by_score(scores: list[float | None]) -> list[int]:
    """Return the places, best score first; ties keep their order, and so do those without a score, at the end."""
    return sorted(range(len(scores)), key=lambda place: math.inf if scores[place] is None else -scores[place])  # type: ignore[operator]


def mostly_tie(scores: Sequence[float | None]) -> bool:
    """Whether more than half of the passages share their score: they keep the first stage's order, no teacher's."""
    counts = collections.Counter(scores).values()
    return 2 * sum(count for count in counts if count > 1) > len(scores)
