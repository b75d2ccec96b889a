"""A run file of any size, written into the columns of a cached run (large_runs.py).

    write_columns(directory, open_source("first_stage.run.gz", "run"))

The file is read a block at a time, so memory does not grow with it. If the lines of a query are not contiguous, a
second pass over the columns groups them.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill.errors import InputError
from distill.sources.large_runs import ARRAYS
from distill.sources.opening import Source
from distill.sources.run_files import RUN_COLUMNS, warn_of_reordered
from distill.sources.run_tables import BLOCK_ROWS, WANTED, run_blocks
from distill.storage.arrays import hash_strings, offsets_of


def write_columns(directory: Path, source: Source) -> None:
    """Write the columns of a run into a directory; raises InputError for a bad row, not always the first one."""
    columns = _write_lists(directory, run_blocks(source), source.name)
    if len(set(columns.query_ids)) < len(columns.query_ids):
        apart = directory / "apart"
        shutil.rmtree(apart, ignore_errors=True)
        apart.mkdir()
        for path in [path for path in directory.iterdir() if path != apart]:
            path.rename(apart / path.name)
        columns = _write_lists(directory, _regrouped(apart, columns.query_ids), source.name)
        shutil.rmtree(apart)
    if columns.num_reordered:
        warn_of_reordered(source.name, columns.num_reordered, len(columns.query_ids))


def _write_lists(directory: Path, blocks: Iterator[pa.Table], source: str) -> "_Columns":
    """Write the rows of some blocks; the rows of a query are written once its last contiguous row has been read."""
    with contextlib.ExitStack() as files:
        columns, last = _Columns(directory, files), None
        for block in filter(len, blocks):
            table = block if last is None else pa.concat_tables([last, block])
            starts = _starts(table)
            last = table.slice(starts[-1]).combine_chunks()  # the last query, which may continue in the next block
            columns.append(table.slice(0, starts[-1]), starts[:-1], source)
        if last is None:
            raise InputError(f"{source}: holds no ranking: expected lines of `{RUN_COLUMNS}`")
        columns.append(last, np.zeros(1, np.int64), source)
    columns.finish()
    return columns


def _starts(table: pa.Table) -> np.ndarray:
    """Row numbers where another query begins."""
    queries = table["query_id"].combine_chunks()
    changes = pc.not_equal(queries.slice(1), queries.slice(0, len(queries) - 1))
    return np.concatenate([[0], np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1])


class _Columns:
    """The columns of a cached run while they are written."""

    def __init__(self, directory: Path, files: contextlib.ExitStack):
        """Open their files, which the stack closes."""
        self.directory = directory
        self.scores, self.ranks, self.ids, self.id_lengths = (
            files.enter_context(open(directory / name, "wb"))  # noqa: SIM115 - the stack closes them
            for name in ("scores", "ranks", "ids", "id_lengths")
        )
        self.query_ids: list[str] = []  # an id appears once for each contiguous stretch of its lines
        self.sizes: list[int] = []  # rows of each stretch
        self.num_reordered = 0  # queries whose scores contradict the rank column

    def append(self, table: pa.Table, starts: np.ndarray, source: str) -> None:
        """Write the rows of whole queries, each query's sorted; raises InputError for a duplicate passage."""
        if not len(table):
            return
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
        ranks = ranks[order]
        scores[order].tofile(self.scores)
        ranks.tofile(self.ranks)
        _, bounds, text = doc_ids.take(order).buffers()
        bounds = np.frombuffer(bounds, np.int64)[: len(doc_ids) + 1]
        self.ids.write(memoryview(text)[bounds[0] : bounds[-1]])
        np.diff(bounds).astype(np.int32).tofile(self.id_lengths)
        self.query_ids += map(sys.intern, table["query_id"].take(starts).to_pylist())  # a query may begin often
        self.sizes += sizes.tolist()
        falls = np.flatnonzero((np.diff(ranks) < 0) & (np.diff(query) == 0))
        self.num_reordered += len(np.unique(query[falls]))

    def finish(self) -> None:
        """Turn lengths into offsets and write the query ids; the files are closed by then."""
        with open(self.directory / "id_lengths", "rb") as lengths, open(self.directory / "id_offsets", "wb") as offsets:
            end = np.zeros(1, np.int64)
            end.tofile(offsets)
            while len(block := np.fromfile(lengths, np.int32, BLOCK_ROWS)):
                ends = end + np.cumsum(block, dtype=np.int64)
                ends.tofile(offsets)
                end = ends[-1:]
        (self.directory / "id_lengths").unlink()
        offsets_of(np.array(self.sizes)).tofile(self.directory / "starts")
        (self.directory / "queries.json").write_text(json.dumps(self.query_ids))


def _regrouped(directory: Path, query_ids: list[str]) -> Iterator[pa.Table]:
    """Yield the written rows again, grouped by query, in the order in which the queries first appear."""
    scores, ranks = (np.memmap(directory / name, np.float64, "r") for name in ("scores", "ranks"))
    offsets, text = (pa.py_buffer(np.memmap(directory / name, ARRAYS[name], "r")) for name in ("id_offsets", "ids"))
    doc_ids = pa.LargeStringArray.from_buffers(len(scores), offsets, text)
    numbers = {query_id: number for number, query_id in enumerate(dict.fromkeys(query_ids))}
    stretches = np.array([numbers[query_id] for query_id in query_ids], np.int32)  # the query of each stretch of rows
    lengths: Any = np.diff(np.fromfile(directory / "starts", np.int64))
    queries = np.repeat(stretches, lengths)  # [N]
    order = np.argsort(queries, kind="stable")
    names = pa.array(numbers, pa.large_string())
    for first in range(0, len(order), BLOCK_ROWS):
        rows = order[first : first + BLOCK_ROWS]
        columns = [names.take(pa.array(queries[rows])), doc_ids.take(pa.array(rows)), scores[rows], ranks[rows]]
        yield pa.table(dict(zip(WANTED, columns, strict=True)))
