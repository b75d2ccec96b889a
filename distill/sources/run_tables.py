"""The lines of a run as tables, a block at a time, so that memory does not grow with the file.

A block of a TREC file is read by pyarrow if it is plain enough that both readers must agree, else line by line.
"""

import collections
import io
import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from distill.errors import InputError
from distill.sources.fields import MAX_ID, NOT_IN_ID, checked_id, read_number
from distill.sources.inline import inline_run_rows
from distill.sources.opening import Source
from distill.sources.run_files import RUN_COLUMNS, RunRow, parse_run_line
from distill.storage.files import (
    BYTE_ORDER_MARK,
    DAMAGE,
    MAX_LINE,
    open_bytes,
    too_long,
    unreadable,
)
from distill.storage.parquet import open_parquet, parquet_batches

BLOCK_BYTES = 2**19  # of text that is parsed at once: larger blocks take memory, and are no faster
CSV_BYTES = 2**19  # of a block that one thread parses
BLOCK_ROWS = 500_000
COLUMNS = RUN_COLUMNS.split()
WANTED = {"query_id": pa.large_string(), "doc_id": pa.large_string(), "score": pa.float64(), "rank": pa.float64()}
PARQUET_NAMES = {  # of columns, and what else they are called
    "query_id": ("query_id", "query-id", "qid"),
    "doc_id": ("doc_id", "corpus-id", "docno", "pid", "docid"),
    "rank": ("rank",),
    "score": ("score",),
}
PLAIN = (
    bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)) + b"\n"
)  # the bytes of a plain block, besides its delimiter


def run_blocks(source: Source) -> Iterator[pa.Table]:
    """Yield the wanted columns of a run file, a block at a time; raises InputError for a bad line."""
    if source.is_inline:
        rows = (row[1:] for row in inline_run_rows(source.rows()))
        while chunk := list(itertools.islice(rows, BLOCK_ROWS)):
            yield _table(chunk)
    elif source.form == "parquet":
        yield from (table for _, table in _parquet_tables(source.name))
    else:
        for number, block, table in _read_ahead(_byte_blocks(source.name)):
            yield _table(_parsed_lines(source.name, number, block)) if table is None else table


def _table(rows: list[tuple]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(WANTED)
    return pa.table({name: pa.array(values, WANTED[name]) for name, values in zip(WANTED, columns, strict=True)})


def _read_ahead(blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, pa.Table | None]]:
    """Yield blocks with their plain tables, which a thread parses while the block before is written."""
    with ThreadPoolExecutor(1) as thread:
        waiting: collections.deque[tuple[int, bytes, Future[pa.Table | None]]] = collections.deque()
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
                if len(rest) > MAX_LINE:
                    raise too_long(f"{source}:{number + lines.count(end) + 1 if end else number}")
                if end:
                    yield number, lines + end
                    number += lines.count(b"\n") + 1
            if rest:
                yield number, rest
    except DAMAGE as error:
        raise unreadable(f"{source}:{number}", error) from None


def _plain_table(block: bytes) -> pa.Table | None:
    """Parse a block with pyarrow's CSV reader; None where it might read columns or numbers differently from ours."""
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
        bad: list[tuple[int, str, object]] = []  # refused rows, with their column and value
        for name, column in names.items():
            read = _ids if name.endswith("_id") else _numbers
            columns[name], row = read(batch.column(column), f"{source}: column {column}")
            bad += [(row, name, batch.column(column)[row].as_py())] if row >= 0 else []
        if bad:
            row, name, value = min(bad, key=lambda refused: refused[:2])
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
    """Return a column of ids as large strings, and the first row that is not an id, or -1."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kinds = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer
    if not any(is_kind(column.type) for is_kind in kinds):
        raise InputError(f"{place} holds {column.type}: ids must be text or whole numbers: convert the column")
    column = column.cast(pa.large_string())
    return column, _first_bad_id(column)


def _numbers(column: pa.Array, place: str) -> tuple[pa.Array, int]:
    """Return a column of numbers as float64, and the first row that is null or not finite, or -1."""
    kinds = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
    if not any(is_kind(column.type) for is_kind in kinds):
        raise InputError(f"{place} holds {column.type}: expected numbers: convert the column")
    column = column.cast(pa.float64(), safe=False)
    return column, _first(pc.invert(pc.fill_null(pc.is_finite(column), False)))


def _first_bad_id(column: pa.Array | pa.ChunkedArray) -> int:
    lengths = pc.utf8_length(column)
    bad = pc.or_(pc.equal(lengths, 0), pc.greater(lengths, MAX_ID))
    bad = pc.or_(bad, pc.match_substring_regex(column, NOT_IN_ID))
    return _first(pc.fill_null(bad, True))


def _first(flags: pa.Array | pa.ChunkedArray) -> int:
    """Return the first row with a flag, or -1."""
    return pc.index(flags, True).as_py()
