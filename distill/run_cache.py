"""Large runs on disk: read once into columns, looked up by query ever after.

    run = open_run("first_stage.run.gz")      # a mapping like a small run: run["q1"] is a RankedList

A cached run is a directory of flat arrays in the order of its lines, each query's lines sorted best first: `scores` and
`ranks` (the file's column) as float64, `ids` (UTF-8) with `id_offsets`, and `starts` [Q + 1], where each query's lines
begin; `queries.json` holds the query ids. TREC files go through pyarrow's CSV reader a block at a time, so memory does
not grow with the file. The lines of a query must stand together.
"""

import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from distill.cache import cache_directory, key_of, make_once, source_state
from distill.errors import InputError
from distill.tokens import FlatFile, hash_strings, offsets_of
from distill.trec import RankedList, average_ranks, is_inline_file, numbered_lines, open_parquet_run, run_rows

log = logging.getLogger(__name__)

FORMAT = 2  # of the files: a cached run of another format is made anew
BLOCK_BYTES = 2**22  # of text that is parsed at once; the reader keeps some dozens of blocks ready
BLOCK_ROWS = 500_000
COLUMNS = ["query_id", "iteration", "doc_id", "rank", "score", "tag"]
WANTED = {"query_id": pa.large_string(), "doc_id": pa.large_string(), "score": pa.float64(), "rank": pa.float64()}
ARRAYS = {"scores": np.float64, "ranks": np.float64, "ids": np.uint8, "id_offsets": np.int64, "starts": np.int64}


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

    Raises InputError, with file, line and reason, for what `read_run` refuses, and for a query whose lines do not stand
    together.
    """
    key = key_of(source=source_state(source), format=FORMAT)
    return CachedRun(
        make_once(cache_directory() / "runs" / f"{Path(source).name}-{key}", lambda path: _write(path, source))
    )


def _write(directory: Path, source: str) -> None:
    log.info("%s: is read into %s, once", source, directory.parent)
    try:
        _write_columns(directory, _blocks(source), source)
    except pa.ArrowInvalid as error:
        if source.endswith(".parquet"):
            raise InputError(f"{source}: cannot be read ({error})") from None
        # Raises what is wrong, with its line; if nothing is, the columns only stand apart by unusual white space
        _write_columns(directory, _slow_blocks(source), source)


def _write_columns(directory: Path, blocks: Iterator[pa.Table], source: str) -> None:
    """Write the arrays of a cached run, a block at a time; a query's lines are kept back until all are there."""
    query_ids, counts, num_reordered = [], [], 0
    files = {name: open(directory / name, "wb") for name in ("scores", "ranks", "ids", "id_lengths")}  # noqa: SIM115
    try:
        kept = None
        for block in blocks:
            table = block if kept is None else pa.concat_tables([kept, block])
            starts = _starts(table)
            whole = table.slice(0, starts[-1])  # all but the last query, which may go on
            kept = table.slice(starts[-1]).combine_chunks()
            num_reordered += _append(whole, starts[:-1], files, query_ids, counts, source)
        if kept is None:
            raise InputError(
                f"{source}: holds no ranking: expected lines of `query_id iteration doc_id rank score tag`"
            )
        num_reordered += _append(kept, np.zeros(1, np.int64), files, query_ids, counts, source)
    finally:
        for file in files.values():
            file.close()
    if len(set(query_ids)) < len(query_ids):
        _explain(source)
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
    if num_reordered:
        log.warning(
            "%s: the rank column contradicts the scores in %d of %d queries: the order follows the scores",
            *(source, num_reordered, len(query_ids)),
        )


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
    if same.any() or not (np.isfinite(scores).all() and np.isfinite(ranks).all()):
        _explain(source)
    order = np.lexsort((ranks, -scores, query))
    doc_ids = doc_ids.take(order)
    ranks = ranks[order]
    scores[order].tofile(files["scores"])
    ranks.tofile(files["ranks"])
    _, bounds, text = doc_ids.buffers()
    bounds = np.frombuffer(bounds, np.int64)[: len(doc_ids) + 1]
    files["ids"].write(memoryview(text)[bounds[0] : bounds[-1]])
    np.diff(bounds).astype(np.int32).tofile(files["id_lengths"])
    query_ids += table["query_id"].take(starts).to_pylist()
    counts += sizes.tolist()
    falls = np.flatnonzero((np.diff(ranks) < 0) & (np.diff(query) == 0))
    return len(np.unique(query[falls]))


def _blocks(source: str) -> Iterator[pa.Table]:
    """Yield the wanted columns of a run file, a block at a time."""
    if is_inline_file(source):
        yield from _slow_blocks(source)
        return
    if source.endswith(".parquet"):
        yield from _parquet_blocks(source)
        return
    with pa.input_stream(source) as file:  # unpacks .gz by its name
        try:
            reader = pyarrow.csv.open_csv(
                file,
                pyarrow.csv.ReadOptions(column_names=COLUMNS, block_size=BLOCK_BYTES),
                pyarrow.csv.ParseOptions(delimiter=_delimiter(source), quote_char=False),
                pyarrow.csv.ConvertOptions(column_types=WANTED, include_columns=list(WANTED), null_values=[]),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return
            raise
        for batch in reader:
            for name in ("query_id", "doc_id"):
                text = np.frombuffer(batch[name].buffers()[2] or b"", np.uint8)
                if (text <= ord(" ")).any():
                    raise pa.ArrowInvalid("white space beside the delimiter")
            yield pa.Table.from_batches([batch])


def _delimiter(source: str) -> str:
    for _, line in numbered_lines(source):
        return "\t" if "\t" in line else " "
    return " "


def _parquet_blocks(source: str) -> Iterator[pa.Table]:
    file, names = open_parquet_run(source)
    for batch in file.iter_batches(BLOCK_ROWS, columns=list(names.values())):
        columns = {name: batch[column].cast(WANTED[name]) for name, column in names.items()}
        rank = columns.get("rank", pa.array(np.zeros(len(batch))))
        columns = {"score": pc.negate(rank), **columns, "rank": rank}
        yield pa.table({name: columns[name] for name in WANTED})


def _slow_blocks(source: str) -> Iterator[pa.Table]:
    """Yield the same as `_blocks`, line by line: any white space, and errors with their line."""
    rows = []
    for _, query_id, doc_id, score, rank in run_rows(source):
        rows.append((query_id, doc_id, score, rank))
        if len(rows) == BLOCK_ROWS:
            yield _table(rows)
            rows = []
    if rows:
        yield _table(rows)


def _table(rows: list[tuple]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({name: pa.array(values, WANTED[name]) for name, values in zip(WANTED, columns, strict=True)})


def _explain(source: str) -> None:
    """Raise InputError for the first bad line: one that is no number, stands twice, or comes back to a query."""
    current, seen, finished = None, set(), set()
    for place, query_id, doc_id, _, _ in run_rows(source):
        if query_id != current:
            finished.add(current)
            current, seen = query_id, set()
        if query_id in finished:
            raise InputError(
                f"{place}: query {query_id} comes back after others: sort a run of this size by query, as with "
                f"`LC_ALL=C sort -s -k1,1`"
            )
        if doc_id in seen:
            raise InputError(f"{place}: passage {doc_id} appears twice for query {query_id}: keep one of the two lines")
        seen.add(doc_id)
    raise AssertionError(f"{source}: nothing is wrong line by line")
