"""Runs: what they are in memory, and the lines of a TREC file, parsed and written.

    query_id, doc_id, score, rank = parse_run_line(b"q1 Q0 d7 1 2.5 bm25", "bm25.run:7")
    write_run({"q1": RankedList(["d7"], scores, ranks)}, Path("run.txt"), tag="student")

A run's order follows the scores, descending; the rank column only breaks ties.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.sources.fields import NOT_IN_ID, checked_id, read_number
from distill.storage.files import as_text

log = logging.getLogger(__name__)

RUN_COLUMNS = "query_id iteration doc_id rank score tag"


@dataclass
class RankedList:
    """The ranked passages of one query, best first; K passages."""

    doc_ids: list[str]  # K ids
    scores: np.ndarray  # [K] float64, descending
    ranks: np.ndarray  # [K] float64, 1 = best; passages equal in score and rank column share their average rank

    def __len__(self) -> int:
        return len(self.doc_ids)

    def cut(self, depth: int | None) -> "RankedList":
        """Return the first `depth` passages, or all of them if depth is None."""
        return RankedList(self.doc_ids[:depth], self.scores[:depth], self.ranks[:depth])

    def keep(self, kept: Sequence[bool]) -> "RankedList":
        """Return the passages [K] to keep, with their scores and ranks."""
        mask = np.array(kept, dtype=bool)
        doc_ids = [doc_id for doc_id, keep in zip(self.doc_ids, kept, strict=True) if keep]
        return RankedList(doc_ids, self.scores[mask], self.ranks[mask])

    @property
    def places(self) -> list[int]:
        """The rank numbers [K] that a file gives: 1 to K, where passages that tie have that of the first of them."""
        is_first = np.r_[True, np.diff(self.ranks) != 0][: len(self)]
        return np.maximum.accumulate(np.where(is_first, np.arange(1, 1 + len(self)), 0)).tolist()

    @classmethod
    def in_order(cls, doc_ids: list[str], scores: np.ndarray) -> "RankedList":
        """Rank passages 1 to K in the given order: best first, ties by position."""
        return cls(doc_ids, scores, np.arange(1.0, len(doc_ids) + 1))

    @classmethod
    def by_score(cls, doc_ids: list[str], scores: np.ndarray) -> "RankedList":
        """Rank passages [K] by their scores, highest first; equal ones keep their order, and share their rank."""
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        return cls([doc_ids[place] for place in order], scores, average_ranks(scores, scores))


Run = Mapping[str, RankedList]  # query_id -> ranked passages
RunRow = tuple[str, str, str, float, float]  # place, query_id, doc_id, score, rank column


def parse_run_line(line: bytes, place: str) -> tuple[str, str, float, float]:
    """Return query_id, doc_id, score and rank of a TREC line; ASCII white space separates columns.

    Raises InputError for a bad line.
    """
    columns = line.split()
    text = as_text(line, place)
    if len(columns) != 6:
        is_csv = len(columns) < 3 and text.count(",") > 1
        remedy = ": for named columns, write parquet with query_id, doc_id and score" if is_csv else ""
        count = f"{len(columns)} column{'s' if len(columns) != 1 else ''}"
        raise InputError(f"{place}: {count} instead of six: expected `{RUN_COLUMNS}`{remedy}")
    query_id = checked_id(columns[0].decode(), place, "query id")
    doc_id = checked_id(columns[2].decode(), place, "passage id")
    return query_id, doc_id, read_number(columns[4], "score", place), read_number(columns[3], "rank", place)


def appears_twice(place: str, query_id: str, doc_id: str) -> InputError:
    """Return the error for a passage that an earlier line already gives for the query."""
    return InputError(f"{place}: passage {doc_id} appears twice for query {query_id}: keep one of the two lines")


def average_ranks(scores: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the ranks [K] of passages in order; those equal in score and rank column share their average rank."""
    starts = np.flatnonzero(np.r_[True, (np.diff(scores) != 0) | (np.diff(column) != 0)])
    ends = np.r_[starts[1:], len(scores)]
    return np.repeat((starts + 1 + ends) / 2, ends - starts)  # the average of places starts + 1 .. ends


def warn_of_reordered(source: str, num_reordered: int, num_queries: int) -> None:
    """Warn of queries whose scores and rank column disagree."""
    log.warning(
        "%s: the rank column contradicts the scores in %d of %d queries: the order follows the scores",
        *(source, num_reordered, num_queries),
    )


def write_run(run: Run, path: Path, tag: str) -> None:
    """Write a run as a TREC file, ranks from 1; scores keep enough digits to be read back unchanged.

    Passages that share their rank get the number of the first of them, so that they are read back as tied.
    White space in the tag becomes an underscore. Raises InputError for an id that could not be read back.
    """
    tag = re.sub(NOT_IN_ID, "_", tag) or "run"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for query_id, ranked in run.items():
            checked_id(query_id, str(path), "query")
            for doc_id, rank, score in zip(ranked.doc_ids, ranked.places, ranked.scores, strict=True):
                file.write(f"{query_id} Q0 {checked_id(doc_id, str(path))} {rank} {float(score)!r} {tag}\n")
