"""Negatives by the teacher's word: passages without a label that it scores too high to be called irrelevant.

negatives = Negatives(cfg.data.negatives)
labels, kept = negatives.judge("q1", doc_ids, targets)      # without the false negatives, or with them relabelled
negatives.report("teacher.run")               # how many there were
"""

import logging
from collections.abc import Callable

import numpy as np
from omegaconf import DictConfig

from distill.errors import InputError

log = logging.getLogger(__name__)

# The score of a list's relevant passages that a negative's is compared with
POSITIVE: dict[str, Callable[[np.ndarray], float]] = {"best": np.nanmax, "median": np.nanmedian, "worst": np.nanmin}
BY_SCORE = ("max_percent_of_positive", "margin", "max_score")  # keys that need the teacher's scores


def by_score(rules: DictConfig) -> bool:
    """Whether the teacher's scores decide which passages are negatives."""
    return any(rules[key] is not None for key in BY_SCORE)


def are_chosen(rules: DictConfig) -> bool:
    """Whether there are any rules for negatives."""
    return by_score(rules) or rules.ranks is not None


class Negatives:
    """The rules for negatives, and how many broke them."""

    def __init__(self, rules: DictConfig):
        """Take the keys of data.negatives."""
        self.rules = rules
        self.num_negatives, self.num_false, self.num_outside, self.num_unscored = 0, 0, 0, 0
        self.first = ""  # the first false negative

    def judge(self, query_id: str, doc_ids: list[str], targets: dict[str, np.ndarray]) -> np.ndarray:
        """Return the labels [K] of a list's passages, NaN for those that are not to be negatives.

        targets: labels, scores and ranks [K]. Raises InputError for a share of a score that is not above 0.
        """
        negative = targets["label"] <= 0
        false = negative & (targets["score"] > self._highest_score(query_id, targets))  # never where there is no score
        outside = np.zeros_like(negative)
        if self.rules.ranks is not None:
            first, last = self.rules.ranks
            outside = negative & ~((targets["rank"] >= first) & (targets["rank"] <= last)) & ~false
        self.num_negatives += int(negative.sum())
        self.num_false += int(false.sum())
        self.num_outside += int(outside.sum())
        if false.any() and not self.first:
            self.first = f"passage {doc_ids[int(np.argmax(false))]} of query {query_id}"
        label = 1.0 if self.rules.false_negatives == "relabel" else np.nan
        return np.select([false, outside], [label, np.nan], targets["label"].astype(float))

    def _highest_score(self, query_id: str, targets: dict[str, np.ndarray]) -> float:
        """Return the highest score that a negative of a list may have."""
        rules = self.rules
        limits = [np.inf] if rules.max_score is None else [rules.max_score]
        relevant = targets["score"][targets["label"] > 0]
        if not np.isnan(relevant).all():  # False for a list without a relevant passage, too
            score = POSITIVE[rules.positive](relevant)
            limits += [] if rules.margin is None else [score - rules.margin]
            if rules.max_percent_of_positive is not None:
                if score <= 0:
                    raise InputError(
                        f"data.negatives.max_percent_of_positive={rules.max_percent_of_positive}: the relevant passage "
                        f"of query {query_id} has the score {score:g}, and a share of that is no limit: use "
                        "data.negatives.margin for scores that can be 0 or below"
                    )
                limits.append(score * rules.max_percent_of_positive)
        elif len(relevant):
            self.num_unscored += 1
        return min(limits)

    def report(self, path: str) -> None:
        """Log how many negatives broke the rules."""
        if by_score(self.rules):
            log.info(
                "%s: %d of %d negatives score too high to be irrelevant: %s%s",
                *(path, self.num_false, self.num_negatives),
                "left out" if self.rules.false_negatives == "drop" else "relabelled as relevant",
                f" (first: {self.first})" if self.first else "",
            )
        if self.num_unscored:
            log.info("%s: scores no relevant passage of %d lists, whose negatives all count", path, self.num_unscored)
        if self.rules.ranks is not None:
            first, last = self.rules.ranks
            log.info(
                "%s: %d of %d negatives are outside the ranks %d to %d: left out",
                *(path, self.num_outside, self.num_negatives, first, last),
            )
