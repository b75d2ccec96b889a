"""Parquet files as batches and as numbered rows, with limits on what they unpack to.

    for first, batch in parquet_batches("bm25.parquet", ["query_id", "doc_id"]): ...
    for place, row in parquet_rows("lines.parquet"): ...          # ("lines.parquet:row 7", {"query": ...})

A column may name each of its values once, in a dictionary, and then refer to it: a small file can hold a long text a
million times. The dictionaries are read first, which takes a moment, and say how many rows are safe to read at once.
"""

import os
from collections.abc import Iterator
from typing import Any

from distill.errors import InputError
from distill.storage.files import unique_names
from distill.storage.unpacking import check_unpacked

TEXTS = ("NONE", "STRING", "ENUM", "JSON", "BSON")  # the types of byte arrays that may have a dictionary in memory
BATCH_BYTES = 2**28  # of a batch in memory, if each of its values were the longest of its dictionary


def open_parquet(path: str, **options):
    """Open a parquet file; raises InputError if it is not one, or has two columns of one name."""
    import pyarrow  # imported here: other formats need no pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, **options)
        names = file.schema_arrow.names
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a parquet file ({error}): download or write it again") from None
    unique_names(names, path)
    return file


def parquet_batches(path: str, columns: list[str] | None = None, size: int = 1000) -> Iterator[tuple[int, Any]]:
    """Yield (number of the first row, record batch) of a parquet file.

    Raises InputError for damage, and for a file that unpacks to too much.
    """
    import pyarrow

    first, unpacked, packed = 1, 0, os.path.getsize(path)
    try:
        file = open_parquet(path)
        for rows, groups in _sizes(path, columns, size):
            for batch in file.iter_batches(rows, row_groups=groups, columns=columns):
                unpacked += batch.nbytes
                check_unpacked(path, packed, unpacked)
                batch.validate(full=True)  # text of a damaged file may not be UTF-8
                yield first, batch
                first += len(batch)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read from row {first} ({error}): download or write it again") from None


def _sizes(path: str, columns: list[str] | None, size: int) -> list[tuple[int, list[int]]]:
    """Return how many rows to read at once, and of which row groups, in order; raises InputError for too long a value.

    Row groups that follow each other are read together where their batches have the same size.
    """
    metadata = open_parquet(path).metadata
    leaves = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in TEXTS]
    file = open_parquet(path, read_dictionary=texts)
    sizes: list[tuple[int, list[int]]] = []
    for group in range(metadata.num_row_groups):
        num_rows = metadata.row_group(group).num_rows
        row_bytes = 0.0
        for batch in file.iter_batches(1, row_groups=[group], columns=columns) if num_rows else ():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                row_bytes += _longest(column) * _items(name, metadata.row_group(group), num_rows)
            break
        if row_bytes > BATCH_BYTES:
            raise InputError(f"{path}: has rows of {row_bytes / 1e6:.0f} MB: a row may have {BATCH_BYTES // 10**6} MB")
        rows = min(size, int(BATCH_BYTES // max(row_bytes, 1)))
        if sizes and sizes[-1][0] == rows:
            sizes[-1][1].append(group)
        else:
            sizes.append((rows, [group]))
    return sizes


def _longest(column: Any) -> int:
    """Return the bytes of the longest value in the dictionaries of a column; of a struct, of its fields together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        values = column.dictionary
        has_length = pa.types.is_string(values.type) or pa.types.is_binary(values.type)
        return (pc.max(pc.binary_length(values)).as_py() or 0) if has_length and len(values) else 0
    if pa.types.is_struct(column.type):
        return sum(_longest(column.field(place)) for place in range(column.type.num_fields))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _longest(column.values)
    return 0


def _items(column: str, group: Any, num_rows: int) -> float:
    """Return how many values a row of a column has, on average."""
    chunks = (group.column(place) for place in range(group.num_columns))
    counts = [chunk.num_values for chunk in chunks if chunk.path_in_schema.partition(".")[0] == column]
    return max(counts, default=0) / num_rows


def parquet_rows(path: str) -> Iterator[tuple[str, dict]]:
    """Yield (place, row) of every row of a parquet file; raises InputError for a row that cannot be read."""
    import pyarrow

    for first, batch in parquet_batches(path):
        try:
            rows = batch.to_pylist()
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # dates beyond Python's, for one
            raise InputError(
                f"{path}:row {first}: holds a value that cannot be read ({error}): write it as text"
            ) from None
        for number, row in enumerate(rows, start=first):
            yield f"{path}:row {number}", row
