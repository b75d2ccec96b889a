"""Large runs on disk: read once into columns, looked up by query ever after.

    run = open_run("first_stage.run.gz")      # a mapping like a small run: run["q1"] is a RankedList

A cached run is a directory of flat arrays, the queries in the order in which they begin, each query's lines sorted best
first: `scores` and `ranks` (the file's column) as float64, `ids` (UTF-8) with `id_offsets`, and `starts` [Q + 1],
where each query's lines begin; `queries.json` holds the query ids.

TREC files are read a block at a time, so memory does not grow with the file: by pyarrow where a block is so plain that
its reader and ours cannot differ, else line by line. Lines of a query that do not stand together are brought together
in a second pass over the columns.
"""

import collections
import io
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from distill.errors import InputError
from distill.sources.fields import MAX_ID, NOT_IN_ID, checked_id, read_number
from distill.sources.locate import source_state
from distill.sources.run_files import (
    RUN_COLUMNS,
    RankedList,
    RunRow,
    average_ranks,
    is_inline_file,
    parse_run_line,
    run_rows,
    unique_rows,
)
from distill.storage.arrays import FlatFile, hash_strings, offsets_of
from distill.storage.cache import entry, key_of, make_once
from distill.storage.files import (
    BYTE_ORDER_MARK,
    DAMAGE,
    form_of,
    open_bytes,
    open_parquet,
    parquet_batches,
    unreadable,
)

log = logging.getLogger(__name__)

FORMAT = 3  # of the files: a cached run of another format is made anew
BLOCK_BYTES = 2**24  # of text that is parsed at once
CSV_BYTES = 2**22  # of a block that one thread parses
BLOCK_ROWS = 500_000
COLUMNS = RUN_COLUMNS.split()
WANTED = {"query_id": pa.large_string(), "doc_id": pa.large_string(), "score": pa.float64(), "rank": pa.float64()}
ARRAYS = {"scores": np.float64, "ranks": np.float64, "ids": np.uint8, "id_offsets": np.int64, "starts": np.int64}
PARQUET_NAMES = {  # of columns, and what else they are called
    "query_id": ("query_id", "query-id", "qid"),
    "doc_id": ("doc_id", "corpus-id", "docno", "pid", "docid"),
    "rank": ("rank",),
    "score": ("score",),
}
PLAIN = bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)) + b"\n"  # what a plain block holds beside its delimiter


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
        query_ids, num_reordered = _write_columns(directory, _blocks(source), source)
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


def _blocks(source: str) -> Iterator[pa.Table]:
    """Yield the wanted columns of a run file, a block at a time; raises InputError for a bad line."""
    form = form_of(source)
    if form == "parquet" and not is_inline_file(source):
        yield from (table for _, table in _parquet_tables(source))
    elif form == "lines":
        for number, block, table in _read_ahead(_byte_blocks(source)):
            yield _table(_parsed_lines(source, number, block)) if table is None else table
    else:
        rows = (row[1:] for row in run_rows(source))
        while chunk := list(itertools.islice(rows, BLOCK_ROWS)):
            yield _table(chunk)


def _read_ahead(blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, pa.Table | None]]:
    """Yield blocks with their plain tables, which a thread parses while the block before is written."""
    with ThreadPoolExecutor(1) as thread:
        waiting = collections.deque()
        for number, block in blocks:
            waiting.append((number, block, thread.submit(_plain_table, block)))
            if len(waiting) > 1:
                number, block, table = waiting.popleft()
                yield number, block, table.result()
        for number, block, table in waiting:
            yield number, block, table.result()


def _byte_blocks(source: str) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines as blocks of about BLOCK_BYTES, with the number of the first line of each."""
    number = 1
    try:
        with open_bytes(source) as file:
            rest = file.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
            while read := file.read(BLOCK_BYTES):
                lines, end, rest = (rest + read).rpartition(b"\n")
                if end:
                    yield number, lines + end
                    number += lines.count(b"\n") + 1
            if rest:
                yield number, rest
    except DAMAGE as error:
        raise unreadable(f"{source}:{number}", error) from None


def _plain_table(block: bytes) -> pa.Table | None:
    """Parse a block by pyarrow's CSV reader; None where that reader could see other columns or numbers than ours."""
    delimiter = b"\t" if b"\t" in block else b" "
    if block.translate(None, PLAIN + delimiter + b"\r"):
        return None
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        return None
    # pyarrow would skip a byte order mark in the middle of a file, too
    if block.startswith((delimiter, BYTE_ORDER_MARK)) or block.endswith(delimiter):
        return None
    text = np.frombuffer(block, np.uint8)
    blanks, delimiters = text <= ord(" "), text == ord(delimiter)
    if (delimiters[1:] & blanks[:-1]).any() or (delimiters[:-1] & blanks[1:]).any():
        return None  # an empty column
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(block),
            pyarrow.csv.ReadOptions(column_names=COLUMNS, block_size=CSV_BYTES),
            pyarrow.csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False),
            pyarrow.csv.ConvertOptions(
                column_types=WANTED, include_columns=list(WANTED), null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    ids = table["query_id"], table["doc_id"]
    if block.isascii():  # then no id can hold anything odd
        well_formed = all((pc.max(pc.binary_length(column)).as_py() or 0) <= MAX_ID for column in ids)
    else:
        well_formed = _is_utf8(block) and all(_first_bad_id(column) < 0 for column in ids)
    finite = all(pc.all(pc.is_finite(table[name])).as_py() for name in ("score", "rank"))
    return table if well_formed and finite else None


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parsed_lines(source: str, number: int, block: bytes) -> list[tuple]:
    """Parse a block line by line: any white space, and errors with their line."""
    lines = enumerate(block.split(b"\n"), start=number)
    return [parse_run_line(line.removesuffix(b"\r"), f"{source}:{place}") for place, line in lines if line.strip()]


def parquet_run_rows(source: str) -> Iterator[RunRow]:
    """Yield (place, query_id, doc_id, score, rank column) of a parquet run; raises InputError for a bad row."""
    for first, table in _parquet_tables(source):
        columns = (table[name].to_pylist() for name in WANTED)
        for number, row in enumerate(zip(*columns, strict=True), start=first):
            yield (f"{source}:row {number}", *row)


def _parquet_tables(source: str) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number of the first row, wanted columns) of a parquet run; raises InputError for a bad column or value."""
    known = open_parquet(source).schema_arrow.names
    spelled = {name: [other for other in others if other in known] for name, others in PARQUET_NAMES.items()}
    for others in spelled.values():
        if len(others) > 1:
            raise InputError(f"{source}: has columns {' and '.join(others)}, which mean the same: drop one of them")
    names = {name: others[0] for name, others in spelled.items() if others}
    missing = {"query_id", "doc_id", "score" if "score" in names else "rank"} - set(names)
    if missing:
        raise InputError(f"{source}: lacks column {sorted(missing)}: expected query_id, doc_id, and rank or score")
    for first, batch in parquet_batches(source, list(names.values()), BLOCK_ROWS):
        columns = {}
        bad: list[tuple[int, str, object]] = []  # rows that are looked at one by one, with the column
        for name, column in names.items():
            read = _ids if name.endswith("_id") else _numbers
            columns[name], row = read(batch.column(column), f"{source}: column {column}")
            bad += [(row, name, batch.column(column)[row].as_py())] if row >= 0 else []
        if bad:
            row, name, value = min(bad, key=lambda one: one[:2])
            place = f"{source}:row {first + row}"
            raise _refusal(name, value, place)
        rank = columns.get("rank", pa.array(np.zeros(len(batch))))
        columns = {"score": pc.negate(rank), **columns, "rank": rank}
        yield first, pa.table({name: columns[name] for name in WANTED})


def _refusal(name: str, value: object, place: str) -> InputError:
    """Return what is wrong with a value of a parquet column."""
    try:
        if name.endswith("_id"):
            checked_id(value, place, name)
        else:
            read_number(value, name, place)
    except InputError as error:
        return error
    return InputError(f"{place}: {name} {value!r} cannot be read")


def _ids(column: pa.Array, place: str) -> tuple[pa.Array, int]:
    """Return a column of ids as large strings, and the first row that is no id; -1 for none."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kinds = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer
    if not any(is_kind(column.type) for is_kind in kinds):
        raise InputError(f"{place} holds {column.type}: ids must be text or whole numbers: write it anew")
    column = column.cast(pa.large_string())
    return column, _first_bad_id(column)


def _numbers(column: pa.Array, place: str) -> tuple[pa.Array, int]:
    """Return a column of numbers as float64, and the first row that is null or not finite; -1 for none."""
    kinds = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
    if not any(is_kind(column.type) for is_kind in kinds):
        raise InputError(f"{place} holds {column.type}: expected numbers: write it anew")
    column = column.cast(pa.float64(), safe=False)
    return column, _first(pc.invert(pc.fill_null(pc.is_finite(column), False)))


def _first_bad_id(column: pa.Array | pa.ChunkedArray) -> int:
    lengths = pc.utf8_length(column)
    bad = pc.or_(pc.equal(lengths, 0), pc.greater(lengths, MAX_ID))
    bad = pc.or_(bad, pc.match_substring_regex(column, NOT_IN_ID))
    return _first(pc.fill_null(bad, True))


def _first(flags: pa.Array | pa.ChunkedArray) -> int:
    """Return the first row with a flag, -1 for none."""
    return pc.index(flags, True).as_py()


def _table(rows: list[tuple]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(WANTED)
    return pa.table({name: pa.array(values, WANTED[name]) for name, values in zip(WANTED, columns, strict=True)})
