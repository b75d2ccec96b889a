"""Large runs on disk: read once into columns, looked up by query ever after.

    run = open_run("first_stage.run.gz")      # a mapping like a small run: run["q1"] is a RankedList

A cached run is a directory of flat arrays, the queries in the order in which they begin, each query's lines sorted best
first: `scores` and `ranks` (the file's column) as float64, `ids` (UTF-8) with `id_offsets`, and `starts` [Q + 1],
where each query's lines begin; `queries.json` holds the query ids.

TREC files are read a block at a time, so memory does not grow with the file: by pyarrow where a block is so plain that
its reader and ours cannot differ, else line by line. Lines of a query that do not stand together are brought together
in a second pass over the columns.
"""

import itertools
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from distill.errors import InputError
from distill.sources.fields import checked_id, read_number
from distill.sources.inline import inline_run_rows, is_inline_file
from distill.sources.locate import ir_datasets_records, source_state
from distill.sources.run_files import RUN_COLUMNS, RankedList, Run, RunRow, average_ranks, parse_run_line, unique_rows
from distill.sources.run_tables import BLOCK_ROWS, WANTED, run_blocks
from distill.storage.arrays import FlatFile, hash_strings, offsets_of
from distill.storage.cache import entry, key_of, make_once
from distill.storage.files import (
    form_of,
    numbered_lines,
    numbered_rows,
)

log = logging.getLogger(__name__)

FORMAT = 3  # of the files: a cached run of another format is made anew
ARRAYS = {"scores": np.float64, "ranks": np.float64, "ids": np.uint8, "id_offsets": np.int64, "starts": np.int64}
LARGE_FILE = 2**24  # bytes: about 250 000 lines, which take about a quarter of a gigabyte as Python objects
PACKED = 4  # how much larger a .gz or parquet file is when unpacked, roughly


class CachedRun(Mapping[str, RankedList]):
    """A run of Q queries in columns on disk, of which slices are read."""

    def __init__(self, directory: Path):
        """Open what `open_run` has made."""
        columns = {name: FlatFile(directory / name, np.dtype(ARRAYS[name])) for name in ARRAYS}
        self.scores, self.ranks, self.ids, self.id_offsets = (
            columns[name] for name in ("scores", "ranks", "ids", "id_offsets")
        )
        self.starts = columns["starts"].read()  # [Q + 1]
        query_ids = json.loads((directory / "queries.json").read_text())
        self.places = {query_id: place for place, query_id in enumerate(query_ids)}

    def __getitem__(self, query_id: str) -> RankedList:
        """Return the ranked passages of a query; KeyError where the run lacks it."""
        place = self.places[query_id]
        rows = slice(self.starts[place], self.starts[place + 1])
        bounds = self.id_offsets[rows.start : rows.stop + 1]
        text = self.ids[bounds[0] : bounds[-1]].tobytes()
        bounds = (bounds - bounds[0]).tolist()
        doc_ids = [text[first:last].decode() for first, last in itertools.pairwise(bounds)]
        scores = np.array(self.scores[rows])
        return RankedList(doc_ids, scores, average_ranks(scores, self.ranks[rows]))

    def __iter__(self) -> Iterator[str]:
        """Yield the query ids in the order of the file."""
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self.places


def open_run(source: str) -> CachedRun:
    """Open a run file through the cache; read it into the cache where it is not there yet.

    Raises InputError, with file, line and reason, for what `read_run` refuses.
    """
    key = key_of(source=source_state(source), format=FORMAT)
    return CachedRun(make_once(entry("runs", source, key), lambda path: _write(path, source)))


def _write(directory: Path, source: str) -> None:
    log.info("%s: is read into %s, once", source, directory.parent)
    try:
        query_ids, num_reordered = _write_columns(directory, run_blocks(source), source)
        if len(set(query_ids)) < len(query_ids):
            apart = directory / "apart"
            shutil.rmtree(apart, ignore_errors=True)
            apart.mkdir()
            for path in [path for path in directory.iterdir() if path != apart]:
                path.rename(apart / path.name)
            query_ids, num_reordered = _write_columns(directory, _regrouped(apart, query_ids), source)
            shutil.rmtree(apart)
    except InputError:
        # The first bad line of the file, as a small file's reader finds it; what follows may have failed before
        for _ in unique_rows(run_rows(source)):
            pass
        raise
    if num_reordered:
        log.warning(
            "%s: the rank column contradicts the scores in %d of %d queries: the order follows the scores",
            *(source, num_reordered, len(query_ids)),
        )


def _write_columns(directory: Path, blocks: Iterator[pa.Table], source: str) -> tuple[list[str], int]:
    """Write the arrays of a cached run, a block at a time; a query's lines are kept back until all are there.

    Return the query ids, one as often as its lines begin anew, and how many contradict their rank column.
    """
    query_ids, counts, num_reordered = [], [], 0
    files = {name: open(directory / name, "wb") for name in ("scores", "ranks", "ids", "id_lengths")}  # noqa: SIM115
    try:
        kept = None
        for block in filter(len, blocks):
            table = block if kept is None else pa.concat_tables([kept, block])
            starts = _starts(table)
            whole = table.slice(0, starts[-1])  # all but the last query, which may go on
            kept = table.slice(starts[-1]).combine_chunks()
            num_reordered += _append(whole, starts[:-1], files, query_ids, counts, source)
        if kept is None:
            raise InputError(f"{source}: holds no ranking: expected lines of `{RUN_COLUMNS}`")
        num_reordered += _append(kept, np.zeros(1, np.int64), files, query_ids, counts, source)
    finally:
        for file in files.values():
            file.close()
    with open(directory / "id_lengths", "rb") as lengths, open(directory / "id_offsets", "wb") as offsets:
        end = np.zeros(1, np.int64)
        end.tofile(offsets)
        while len(block := np.fromfile(lengths, np.int32, BLOCK_ROWS)):
            ends = end + np.cumsum(block, dtype=np.int64)
            ends.tofile(offsets)
            end = ends[-1:]
    (directory / "id_lengths").unlink()
    offsets_of(np.array(counts)).tofile(directory / "starts")
    (directory / "queries.json").write_text(json.dumps(query_ids))
    return query_ids, num_reordered


def _regrouped(directory: Path, query_ids: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of written columns anew, those of one query together, in the order that the queries begin in."""
    scores, ranks = (np.memmap(directory / name, np.float64, "r") for name in ("scores", "ranks"))
    offsets, text = (pa.py_buffer(np.memmap(directory / name, ARRAYS[name], "r")) for name in ("id_offsets", "ids"))
    doc_ids = pa.LargeStringArray.from_buffers(len(scores), offsets, text)
    numbers = {query_id: number for number, query_id in enumerate(dict.fromkeys(query_ids))}
    parts = np.array([numbers[query_id] for query_id in query_ids], np.int32)  # the query of each part of the file
    sizes = np.diff(np.fromfile(directory / "starts", np.int64))
    queries = np.repeat(parts, sizes)  # [N]
    order = np.argsort(queries, kind="stable")
    names = pa.array(numbers, pa.large_string())
    for first in range(0, len(order), BLOCK_ROWS):
        rows = order[first : first + BLOCK_ROWS]
        columns = [names.take(pa.array(queries[rows])), doc_ids.take(pa.array(rows)), scores[rows], ranks[rows]]
        yield pa.table(dict(zip(WANTED, columns, strict=True)))


def _starts(table: pa.Table) -> np.ndarray:
    """Row numbers where another query begins."""
    queries = table["query_id"].combine_chunks()
    changes = pc.not_equal(queries.slice(1), queries.slice(0, len(queries) - 1))
    return np.concatenate([[0], np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1])


def _append(table: pa.Table, starts: np.ndarray, files: dict, query_ids: list, counts: list, source: str) -> int:
    """Write the lines of whole queries, each query's sorted; return how many contradict their rank column."""
    if not len(table):
        return 0
    sizes = np.diff(np.r_[starts, len(table)])
    query = np.repeat(np.arange(len(starts)), sizes)
    scores, ranks = (table[name].to_numpy() for name in ("score", "rank"))
    doc_ids = table["doc_id"].combine_chunks()
    hashes = hash_strings(doc_ids)
    order = np.lexsort((hashes, query))
    same = (hashes[order][1:] == hashes[order][:-1]) & (query[order][1:] == query[order][:-1])
    if same.any():
        raise InputError(f"{source}: a passage appears twice for a query")  # the caller finds its line
    order = np.lexsort((ranks, -scores, query))
    doc_ids = doc_ids.take(order)
    ranks = ranks[order]
    scores[order].tofile(files["scores"])
    ranks.tofile(files["ranks"])
    _, bounds, text = doc_ids.buffers()
    bounds = np.frombuffer(bounds, np.int64)[: len(doc_ids) + 1]
    files["ids"].write(memoryview(text)[bounds[0] : bounds[-1]])
    np.diff(bounds).astype(np.int32).tofile(files["id_lengths"])
    query_ids += map(sys.intern, table["query_id"].take(starts).to_pylist())  # a query may begin often
    counts += sizes.tolist()
    falls = np.flatnonzero((np.diff(ranks) < 0) & (np.diff(query) == 0))
    return len(np.unique(query[falls]))


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


def _sort(scored: dict[str, tuple[float, float]]) -> tuple[RankedList, bool]:
    keys = sorted(scored, key=lambda doc_id: (-scored[doc_id][0], scored[doc_id][1]))
    scores = np.array([scored[doc_id][0] for doc_id in keys])
    column = np.array([scored[doc_id][1] for doc_id in keys])  # ranks as the file gives them
    return RankedList(keys, scores, average_ranks(scores, column)), bool(np.all(np.diff(column) >= 0))


def run_rows(path: str) -> Iterator[RunRow]:
    """Yield (place, query_id, doc_id, score, rank) of every line of a run file; raises InputError for a bad one."""
    form = form_of(path)
    if form == "parquet" and not is_inline_file(path):
        from distill.sources.run_tables import parquet_run_rows  # here: other small runs do without pyarrow

        yield from parquet_run_rows(path)
    elif form == "lines":
        for place, line in numbered_lines(path):
            yield (place, *parse_run_line(line, place))
    else:
        yield from inline_run_rows(numbered_rows(path, form))


def _ir_datasets_rows(source: str) -> Iterator[RunRow]:
    for row in ir_datasets_records(source, "scoreddocs"):
        query_id, doc_id = (checked_id(value, source) for value in (row.query_id, row.doc_id))
        yield source, query_id, doc_id, read_number(row.score, "score", source), 0.0
