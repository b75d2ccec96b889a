"""Negatives by the teacher's word: passages without a label that it scores too high to be called irrelevant.

with Negatives(cfg.data.negatives, directory / REPORT) as negatives:        # each false negative becomes a line
    labels = negatives.judge("q1", doc_ids, targets)        # without the false negatives, or with them relabelled
negatives.report("teacher.run")                             # how many there were
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import numpy as np
from omegaconf import DictConfig

from distill.errors import InputError
from distill.storage.writing import aside_of, writing
from distill.targets import BY_SCORE, MAIN

log = logging.getLogger(__name__)

# The score of a list's relevant passages that a negative's is compared with
POSITIVE: dict[str, Callable[[np.ndarray], float]] = {"best": np.nanmax, "median": np.nanmedian, "worst": np.nanmin}
REPORT = "false_negatives.tsv"  # in the output directory
COLUMNS = ("query_id", "doc_id", "rank", "score", "highest_allowed", "what_was_done")


def report_path(directory: Path, data_set: str) -> Path:
    """Return the file that lists the false negatives of a data set."""
    return directory / (REPORT if data_set == MAIN else f"false_negatives.{data_set}.tsv")


def by_score(rules: DictConfig) -> bool:
    """Whether the teacher's scores decide which passages are negatives."""
    return any(rules[key] is not None for key in BY_SCORE)


def are_chosen(rules: DictConfig) -> bool:
    """Whether there are any rules for negatives."""
    return by_score(rules) or rules.ranks is not None


class Negatives:
    """The rules for negatives, and which passages broke them."""

    def __init__(self, rules: DictConfig, path: Path | None = None):
        """Take the keys of data.negatives; path: where the false negatives are listed, if anywhere."""
        self.rules, self.path = rules, path if by_score(rules) else None
        self.lines: IO[str] | None = None
        self.num_negatives, self.num_false, self.num_outside, self.num_unscored = 0, 0, 0, 0
        self.first = ""  # the first false negative

    def __enter__(self) -> Self:
        """Begin the list of false negatives."""
        if self.path is not None:
            self.aside = aside_of(self.path)
            with writing(self.path):
                self.lines = open(self.aside, "w", encoding="utf-8")
            self._write(COLUMNS)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """End the list; it gets its name only if it is complete."""
        if self.lines is not None and self.path is not None:
            with writing(self.path):
                self.lines.close()
                if kind is None:
                    os.replace(self.aside, self.path)
                else:
                    self.aside.unlink()

    def _write(self, values: tuple) -> None:
        assert self.lines is not None and self.path is not None, "within the `with` block"
        with writing(self.path):
            self.lines.write("\t".join(map(str, values)) + "\n")

    def judge(self, query_id: str, doc_ids: list[str], targets: dict[str, np.ndarray]) -> np.ndarray:
        """Return the labels [K] of a list's passages, NaN for those that are not to be negatives.

        targets: labels, scores and ranks [K]. Raises InputError for a share of a score that is not above 0.
        """
        negative = targets["label"] <= 0
        highest = self._highest_score(query_id, targets)
        false = negative & (targets["score"] > highest)  # never where there is no score
        outside = np.zeros_like(negative)
        if self.rules.ranks is not None:
            first, last = self.rules.ranks
            outside = negative & ~((targets["rank"] >= first) & (targets["rank"] <= last)) & ~false
        self.num_negatives += int(negative.sum())
        self.num_false += int(false.sum())
        self.num_outside += int(outside.sum())
        if false.any() and not self.first:
            self.first = f"passage {doc_ids[int(np.argmax(false))]} of query {query_id}"
        for place in np.flatnonzero(false) if self.lines is not None else ():
            where = f"{targets['rank'][place]:g}", f"{targets['score'][place]:.6g}", f"{highest:.6g}"
            self._write((query_id, doc_ids[place], *where, self.what_was_done))
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

    @property
    def what_was_done(self) -> str:
        """What became of the false negatives."""
        return "left out" if self.rules.false_negatives == "drop" else "relabelled as relevant"

    def report(self, path: str) -> None:
        """Log how many negatives broke the rules."""
        if by_score(self.rules):
            log.info(
                "%s: %d of %d negatives score too high to be irrelevant: %s%s",
                *(path, self.num_false, self.num_negatives),
                self.what_was_done,
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
