"""Runs and qrels in TREC format, read and written.

    run = read_run("bm25.run.gz")         # {"q1": RankedList(doc_ids=[...], scores=[...], ranks=[...])}
    qrels = read_qrels("qrels.txt")       # {"q1": {"d7": 2}}
    write_run(run, "run.txt", tag="student")

A run comes from a TREC file, a parquet file, JSONL with inline texts (distill/sources/inline.py) or the scoreddocs of
an `ir_datasets` id. Its order follows the scores, descending; the rank column only breaks ties. Bad lines raise
InputError with file, line and reason. Large files are read into a cache on disk once (distill/sources/runs.py), and
looked up there.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.sources.fields import NOT_IN_ID, checked_id, read_number
from distill.storage.files import as_text

log = logging.getLogger(__name__)

RUN_COLUMNS = "query_id iteration doc_id rank score tag"

RunRow = tuple[str, str, str, float, float]  # place, query_id, doc_id, score, rank column


@dataclass
class RankedList:
    """The ranked passages of one query, best first; K passages."""

    doc_ids: list[str]  # K ids
    scores: np.ndarray  # [K] float64, descending
    ranks: np.ndarray  # [K] float64, 1 = best; passages equal in score and rank column share their average rank

    def __len__(self) -> int:
        return len(self.doc_ids)

    def cut(self, depth: int | None) -> "RankedList":
        """Return the first `depth` passages, or all of them where depth is None."""
        return RankedList(self.doc_ids[:depth], self.scores[:depth], self.ranks[:depth])

    def keep(self, kept: Sequence[bool]) -> "RankedList":
        """Return the passages [K] that are to be kept, with the scores and ranks they have."""
        mask = np.array(kept, dtype=bool)
        doc_ids = [doc_id for doc_id, keep in zip(self.doc_ids, kept, strict=True) if keep]
        return RankedList(doc_ids, self.scores[mask], self.ranks[mask])

    @classmethod
    def in_order(cls, doc_ids: list[str], scores: np.ndarray) -> "RankedList":
        """Rank passages 1 to K as they stand: best first, ties by their place."""
        return cls(doc_ids, scores, np.arange(1.0, len(doc_ids) + 1))


Run = Mapping[str, RankedList]  # query_id -> ranked passages


def unique_rows(rows: Iterable[RunRow]) -> Iterator[RunRow]:
    """Yield the rows of a run; raises InputError where a query has a passage twice."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        place, query_id, doc_id, _, _ = row
        doc_ids = seen.setdefault(query_id, set())
        if doc_id in doc_ids:
            raise InputError(f"{place}: passage {doc_id} appears twice for query {query_id}: keep one of the two lines")
        doc_ids.add(doc_id)
        yield row


def average_ranks(scores: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the ranks [K] of passages in order; those equal in score and rank column share their average rank."""
    starts = np.flatnonzero(np.r_[True, (np.diff(scores) != 0) | (np.diff(column) != 0)])
    ends = np.r_[starts[1:], len(scores)]
    return np.repeat((starts + 1 + ends) / 2, ends - starts)  # the average of places starts + 1 .. ends


def write_run(run: Run, path: Path, tag: str) -> None:
    """Write a run as a TREC file, ranks from 1; scores keep enough digits to be read back unchanged.

    White space in the tag becomes an underscore. Raises InputError for an id that could not be read back.
    """
    tag = re.sub(NOT_IN_ID, "_", tag) or "run"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for query_id, ranked in run.items():
            checked_id(query_id, str(path), "query")
            for rank, (doc_id, score) in enumerate(zip(ranked.doc_ids, ranked.scores, strict=True), start=1):
                file.write(f"{query_id} Q0 {checked_id(doc_id, str(path))} {rank} {float(score)!r} {tag}\n")


def parse_run_line(line: bytes, place: str) -> tuple[str, str, float, float]:
    """Return query_id, doc_id, score and rank of a TREC line; columns stand between ASCII white space.

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
