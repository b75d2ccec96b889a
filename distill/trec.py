"""Runs and qrels in TREC format, read and written.

    run = read_run("bm25.run.gz")         # {"q1": RankedList(doc_ids=[...], scores=[...], ranks=[...])}
    qrels = read_qrels("qrels.txt")       # {"q1": {"d7": 2}}
    write_run(run, "run.txt", tag="student")

A run comes from a TREC file, a parquet file, JSONL with inline texts (distill/inline.py) or the scoreddocs of an
`ir_datasets` id. Its order follows the scores, descending; the rank column only breaks ties. Bad lines raise InputError
with file, line and reason. Large files are read into a cache on disk once (distill/run_cache.py), and looked up there.
"""

import gzip
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from distill.errors import InputError, Unavailable
from distill.inline import inline_qrels_rows, inline_run_rows

log = logging.getLogger(__name__)

RUN_COLUMNS = "query_id iteration doc_id rank score tag"
QRELS_COLUMNS = "query_id iteration doc_id grade"
JSONL = (".jsonl", ".jsonl.gz")  # training lines with their texts inline, see distill/inline.py
PARQUET_NAMES = {  # of columns, and what else they are called
    "query_id": ("query_id", "query-id", "qid"),
    "doc_id": ("doc_id", "corpus-id", "docno", "pid"),
    "rank": ("rank",),
    "score": ("score",),
}
LARGE_FILE = 2**24  # bytes: about 250 000 lines, which take about a quarter of a gigabyte as Python objects
PACKED = 4  # how much larger a .gz or parquet file is when unpacked, roughly


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
    if Path(source).is_file():
        size = Path(source).stat().st_size * (PACKED if source.endswith((".gz", ".parquet")) else 1)
        if size > LARGE_FILE:
            from distill.run_cache import open_run  # here: small runs do without pyarrow

            return open_run(source)
        rows = run_rows(source)
    else:
        rows = _ir_datasets_rows(source)
    lists: dict[str, dict[str, tuple[float, float]]] = {}
    for place, query_id, doc_id, score, rank in rows:
        scored = lists.setdefault(query_id, {})
        if doc_id in scored:
            raise InputError(f"{place}: passage {doc_id} appears twice for query {query_id}: keep one of the two lines")
        scored[doc_id] = (score, rank)
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
    rows = _qrels_rows(source) if Path(source).is_file() else _ir_datasets_qrels_rows(source)
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
    """Write a run as a TREC file, ranks from 1; scores keep enough digits to be read back unchanged."""
    with open(path, "w", encoding="utf-8") as file:
        for query_id, ranked in run.items():
            for rank, (doc_id, score) in enumerate(zip(ranked.doc_ids, ranked.scores, strict=True), start=1):
                file.write(f"{query_id} Q0 {doc_id} {rank} {float(score)!r} {tag}\n")


def open_text(path: str) -> TextIO:
    """Open a plain or gzipped UTF-8 text file for reading."""
    return gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")


def numbered_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yield ("path:number", line) for every line that is not blank; raise InputError where it is no UTF-8 text."""
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\n")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path}:{number + 1}: cannot be read ({error}): expected UTF-8 text, plain or .gz") from None


def find_line(source: str, *values: str) -> str:
    """Return "path:number" of the first line whose columns hold all values, for an error message."""
    if Path(source).is_file() and not source.endswith(".parquet"):
        for place, line in numbered_lines(source):
            if set(values) <= set(line.split()):
                return place
    return source


def ir_datasets_records(source: str, kind: str, doc_ids: list[str] | None = None) -> Iterator:
    """Yield the "docs", "queries", "qrels" or "scoreddocs" of an `ir_datasets` id; of its docs, all or these.

    Raises InputError when the source is neither a file nor such an id, when the id has no such records, and when they
    cannot be downloaded.
    """
    import ir_datasets

    try:
        dataset = ir_datasets.load(source)
    except KeyError:
        raise InputError(f"{source}: no such file, and no ir_datasets id either: check the path or id") from None
    if not getattr(dataset, f"has_{kind}")():
        raise InputError(f"{source}: this ir_datasets id has no {kind}: choose an id that has, or give a file")
    try:
        if doc_ids is None:
            yield from getattr(dataset, f"{kind}_iter")()
        else:
            yield from dataset.docs_store().get_many_iter(doc_ids)
    except (OSError, RuntimeError) as error:
        url = getattr(getattr(error, "request", None), "url", None)
        place = ir_datasets.util.home_path() / "downloads"
        raise Unavailable(
            f"{source}: ir_datasets cannot download its {kind} ({' '.join(str(error).split())[:150]}): "
            + (f"get {url} and put it at {place / _md5_of(url)}" if url else f"see its messages above, and {place}")
        ) from None


def _md5_of(url: str) -> str:
    """The name that `ir_datasets` gives a downloaded file."""
    import pkgutil

    known = json.loads(pkgutil.get_data("ir_datasets", "etc/downloads.json"))
    while known:
        name, entry = known.popitem()
        if entry.get("url") == url:
            return entry.get("expected_md5", name)
        known |= {f"{name}/{key}": value for key, value in entry.items() if isinstance(value, dict)}
    return ""


def run_rows(path: str) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield (place, query_id, doc_id, score, rank) of every line of a run file; raises InputError for a bad one."""
    if is_inline_file(path):
        yield from inline_run_rows(numbered_rows(path))
    elif path.endswith(".parquet"):
        yield from _parquet_rows(path)
    else:
        yield from _trec_run_rows(path)


def _trec_run_rows(path: str) -> Iterator[tuple[str, str, str, float, float]]:
    for place, line in numbered_lines(path):
        columns = line.split()
        if len(columns) != 6:
            raise InputError(f"{place}: {len(columns)} columns instead of six: expected `{RUN_COLUMNS}`")
        query_id, _, doc_id, rank, score, _ = columns
        yield place, query_id, doc_id, read_number(score, "score", place), read_number(rank, "rank", place)


def is_inline_file(path: str) -> bool:
    """Whether a file holds training lines with inline texts, in JSONL or parquet (see distill/inline.py)."""
    if path.endswith(".parquet"):
        return "retrieved_passages" in _open_parquet(path).schema_arrow.names
    return path.endswith(JSONL)


def numbered_rows(path: str) -> Iterator[tuple[str, dict | str]]:
    """Yield ("path:number", line) of a JSONL file, or ("path:row number", row) of a parquet file."""
    if not path.endswith(".parquet"):
        yield from numbered_lines(path)
        return
    batches = _open_parquet(path).iter_batches(1000)
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, row in enumerate(rows, start=1):
        yield f"{path}:row {number}", row


def open_parquet_run(path: str) -> tuple:
    """Open a parquet file as a run, with the names that its columns query_id, doc_id, rank and score have there.

    Raises InputError where it lacks one that is needed.
    """
    file = _open_parquet(path)
    columns = file.schema_arrow.names
    spelled = {name: [other for other in others if other in columns] for name, others in PARQUET_NAMES.items()}
    found = {name: others[0] for name, others in spelled.items() if others}
    missing = {"query_id", "doc_id", "score" if "score" in found else "rank"} - set(found)
    if missing:
        raise InputError(f"{path}: lacks column {sorted(missing)}: expected query_id, doc_id, and rank or score")
    return file, found


def _open_parquet(path: str):
    import pyarrow  # here: other formats do without it
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: is no parquet file ({error}): download or write it again") from None


def _parquet_rows(path: str) -> Iterator[tuple[str, str, str, float, float]]:
    file, names = open_parquet_run(path)
    rows = 0
    for group in file.iter_batches(columns=list(names.values())):
        values = {name: group.column(column).to_pylist() for name, column in names.items()}
        for index in range(group.num_rows):
            rows += 1
            place = f"{path}:row {rows}"
            rank = read_number(values["rank"][index], "rank", place) if "rank" in values else 0.0
            score = read_number(values["score"][index], "score", place) if "score" in values else -rank
            yield place, str(values["query_id"][index]), str(values["doc_id"][index]), score, rank


def _ir_datasets_rows(source: str) -> Iterator[tuple[str, str, str, float, float]]:
    for row in ir_datasets_records(source, "scoreddocs"):
        yield source, row.query_id, row.doc_id, read_number(row.score, "score", source), 0.0


def _ir_datasets_qrels_rows(source: str) -> Iterator[tuple[str, str, str, int]]:
    seen: dict[tuple[str, str], int] = {}
    for row in ir_datasets_records(source, "qrels"):
        pair = (row.query_id, row.doc_id)
        if seen.get(pair) != row.relevance:  # published qrels repeat some judgments, which is no conflict
            seen[pair] = row.relevance
            yield source, *pair, row.relevance


def _qrels_rows(path: str) -> Iterator[tuple[str, str, str, int]]:
    if is_inline_file(path):
        yield from inline_qrels_rows(numbered_rows(path))
        return
    num_columns = None
    for place, line in numbered_lines(path):
        columns = line.split()
        if num_columns is None:
            num_columns = len(columns)
            if num_columns not in (3, 4):
                raise InputError(f"{place}: {num_columns} columns: expected `{QRELS_COLUMNS}`, or BEIR's three")
            if num_columns == 3:  # BEIR: the first line is the header "query-id corpus-id score"
                if columns[2].lstrip("-").isdigit():
                    raise InputError(f"{place}: three columns without BEIR's header line `query-id corpus-id score`")
                continue
        if len(columns) != num_columns:
            raise InputError(f"{place}: {len(columns)} columns, where the lines before have {num_columns}")
        try:
            grade = int(columns[-1])
        except ValueError:
            raise InputError(f"{place}: grade {columns[-1]!r} is no whole number") from None
        yield place, columns[0], columns[-2], grade


def read_number(text: str | float | None, column: str, place: str) -> float:
    """Return the number that a column holds; raises InputError where it is none, or not finite."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise InputError(f"{place}: {column} {text!r} is no number") from None
    if not math.isfinite(value):
        raise InputError(f"{place}: {column} {text!r} is not finite: a ranking needs ordinary numbers")
    return value
