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
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.sources.fields import NOT_IN_ID, checked_id, read_grade, read_number, usual_name
from distill.sources.inline import inline_qrels_rows, inline_run_rows, inline_shape
from distill.sources.locate import ir_datasets_records
from distill.storage.files import as_text, form_of, numbered_lines, numbered_rows, open_parquet

log = logging.getLogger(__name__)

RUN_COLUMNS = "query_id iteration doc_id rank score tag"
QRELS_COLUMNS = "query_id iteration doc_id grade"
QRELS_HEADER = (  # BEIR's `query-id corpus-id score`, and how others spell it
    ("query_id", "qid", "topic_id"),
    ("corpus_id", "doc_id", "docid", "docno", "pid", "passage_id"),
    ("score", "relevance", "rel", "label", "grade"),
)
LARGE_FILE = 2**24  # bytes: about 250 000 lines, which take about a quarter of a gigabyte as Python objects
PACKED = 4  # how much larger a .gz or parquet file is when unpacked, roughly

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
Qrels = dict[str, dict[str, int]]  # query_id -> doc_id -> grade; a grade below 1 means not relevant


def read_run(source: str) -> Run:
    """Read a run from a TREC file (plain or .gz), a parquet file or an `ir_datasets` id.

    Raises InputError for a missing source, a bad line, a duplicate (query, passage) pair and an empty file.
    """
    if os.path.isfile(source):
        size = Path(source).stat().st_size * (PACKED if source.endswith((".gz", ".parquet")) else 1)
        if size > LARGE_FILE:
            from distill.sources.runs import open_run  # here: small runs do without pyarrow

            return open_run(source)
        rows = run_rows(source)
    else:
        rows = _ir_datasets_rows(source)
    lists: dict[str, dict[str, tuple[float, float]]] = {}
    for _, query_id, doc_id, score, rank in unique_rows(rows):
        lists.setdefault(query_id, {})[doc_id] = (score, rank)
    if not lists:
        raise InputError(f"{source}: holds no ranking: expected lines of `{RUN_COLUMNS}`")
    num_reordered = 0
    run = {}
    for query_id, scored in lists.items():
        run[query_id], follows_rank_column = _sort(scored)
        num_reordered += not follows_rank_column
    if num_reordered:
        log.warning(
            "%s: the rank column contradicts the scores in %d of %d queries: the order follows the scores",
            source,
            num_reordered,
            len(run),
        )
    return run


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


def _sort(scored: dict[str, tuple[float, float]]) -> tuple[RankedList, bool]:
    keys = sorted(scored, key=lambda doc_id: (-scored[doc_id][0], scored[doc_id][1]))
    scores = np.array([scored[doc_id][0] for doc_id in keys])
    column = np.array([scored[doc_id][1] for doc_id in keys])  # ranks as the file gives them
    return RankedList(keys, scores, average_ranks(scores, column)), bool(np.all(np.diff(column) >= 0))


def average_ranks(scores: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the ranks [K] of passages in order; those equal in score and rank column share their average rank."""
    starts = np.flatnonzero(np.r_[True, (np.diff(scores) != 0) | (np.diff(column) != 0)])
    ends = np.r_[starts[1:], len(scores)]
    return np.repeat((starts + 1 + ends) / 2, ends - starts)  # the average of places starts + 1 .. ends


def read_qrels(source: str) -> Qrels:
    """Read qrels from a TREC file (four columns), a BEIR file (three, with a header) or an `ir_datasets` id.

    Raises InputError for a missing source, a bad line, a duplicate (query, passage) pair and an empty file.
    """
    rows = _qrels_rows(source) if os.path.isfile(source) else _ir_datasets_qrels_rows(source)
    qrels: Qrels = {}
    for place, query_id, doc_id, grade in rows:
        grades = qrels.setdefault(query_id, {})
        if doc_id in grades:
            raise InputError(f"{place}: passage {doc_id} is judged twice for query {query_id}: keep one of the two")
        grades[doc_id] = grade
    if not qrels:
        raise InputError(f"{source}: holds no judgment: expected lines of `{QRELS_COLUMNS}`")
    return qrels


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


def run_rows(path: str) -> Iterator[RunRow]:
    """Yield (place, query_id, doc_id, score, rank) of every line of a run file; raises InputError for a bad one."""
    form = form_of(path)
    if form == "parquet" and not is_inline_file(path):
        from distill.sources.runs import parquet_run_rows  # here: other small runs do without pyarrow

        yield from parquet_run_rows(path)
    elif form == "lines":
        for place, line in numbered_lines(path):
            yield (place, *parse_run_line(line, place))
    else:
        yield from inline_run_rows(numbered_rows(path, form))


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


def is_inline_file(path: str) -> bool:
    """Whether a file holds training lines with inline texts (see distill/sources/inline.py) and no columns of a run."""
    form = form_of(path)
    if form != "parquet":
        return form in ("jsonl", "csv")
    names = open_parquet(path).schema_arrow.names
    return inline_shape({name: [] for name in names}) is not None


def _ir_datasets_rows(source: str) -> Iterator[RunRow]:
    for row in ir_datasets_records(source, "scoreddocs"):
        query_id, doc_id = (checked_id(value, source) for value in (row.query_id, row.doc_id))
        yield source, query_id, doc_id, read_number(row.score, "score", source), 0.0


def _ir_datasets_qrels_rows(source: str) -> Iterator[tuple[str, str, str, int]]:
    seen: dict[tuple[str, str], int] = {}
    for row in ir_datasets_records(source, "qrels"):
        pair = (checked_id(row.query_id, source), checked_id(row.doc_id, source))
        if seen.get(pair) != row.relevance:  # published qrels repeat some judgments, which is no conflict
            seen[pair] = row.relevance
            yield source, *pair, read_grade(row.relevance, source)


def _qrels_rows(path: str) -> Iterator[tuple[str, str, str, int]]:
    form = form_of(path)
    if form != "lines":
        if not is_inline_file(path):
            raise InputError(f"{path}: is {form}, no qrels: expected lines of `{QRELS_COLUMNS}`, or BEIR's three")
        yield from inline_qrels_rows(numbered_rows(path, form))
        return
    num_columns = None
    for place, line in numbered_lines(path):
        text = as_text(line, place)
        columns = [column.decode() for column in line.split()]
        if num_columns is None:
            num_columns = len(columns)
            if num_columns not in (3, 4):
                raise InputError(f"{place}: {num_columns} columns: expected `{QRELS_COLUMNS}`, or BEIR's three")
            if num_columns == 3:  # BEIR: the first line is the header "query-id corpus-id score"
                if not all(usual_name(name) in names for name, names in zip(columns, QRELS_HEADER, strict=True)):
                    raise InputError(f"{place}: three columns without BEIR's header line `query-id corpus-id score`")
                continue
        if len(columns) != num_columns:
            raise InputError(f"{place}: {len(columns)} columns, where the lines before have {num_columns}: {text!r}")
        query_id, doc_id = checked_id(columns[0], place, "query id"), checked_id(columns[-2], place, "passage id")
        yield place, query_id, doc_id, read_grade(columns[-1], place)
