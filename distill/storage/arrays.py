"""Flat arrays: slices read from a file, offsets into a flat column, and ids looked up by their hash.

array = FlatFile(path, np.dtype(np.int32))        # array[first:last] reads that slice
offsets = offsets_of(lengths)                     # row n is flat[offsets[n] : offsets[n + 1]]
hashes, rows = look_up_table(ids, id_offsets, source, kind)
"""

import os
from pathlib import Path

import numpy as np

from distill.errors import InputError

HASHED_AT_ONCE = 1_000_000  # ids: bounds the memory that hashing takes


class FlatFile:
    """A flat array in a file, read in slices: what was read does not remain in this process's memory."""

    def __init__(self, path: Path, dtype: np.dtype):
        """Open the file; other processes open it themselves."""
        self.path, self.dtype = path, dtype
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115
        self.length = path.stat().st_size // dtype.itemsize

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, values: slice) -> np.ndarray:
        """Return the values from values.start to values.stop."""
        size = self.dtype.itemsize
        start, stop = int(values.start), int(values.stop)
        return np.frombuffer(os.pread(self.file.fileno(), (stop - start) * size, start * size), self.dtype)

    def read(self) -> np.ndarray:
        """Return all values."""
        return np.fromfile(self.path, self.dtype)

    def __reduce__(self) -> tuple:
        return FlatFile, (self.path, self.dtype)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return where each of n stretches of a flat array begins, and where the last one ends, [n + 1] int64."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def text_at(data: np.ndarray, offsets: np.ndarray, row: int) -> str:
    """Return the text of a row in a flat column of UTF-8."""
    return bytes(data[offsets[row] : offsets[row + 1]]).decode()


def hash_strings(strings) -> np.ndarray:
    """Return 64-bit FNV-1a hashes, [n] uint64, of a pyarrow array of large strings.

    One vector operation for each byte of the longest string.
    """
    if strings.offset:
        import pyarrow as pa

        strings = pa.concat_arrays([strings])  # a slice shares the buffers of the whole
    _, offsets, data = strings.buffers()
    offsets = np.frombuffer(offsets, np.int64)[: len(strings) + 1] if len(strings) else np.zeros(1, np.int64)
    return _hash(np.frombuffer(data or b"", np.uint8), offsets)


def _hash(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashes = np.full(len(starts), 0xCBF29CE484222325, np.uint64)
    for place in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        hashes[longer] = (hashes[longer] ^ data[starts[longer] + place]) * np.uint64(0x100000001B3)
    return hashes


def look_up_table(ids: np.ndarray, id_offsets: np.ndarray, source: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all ids, sorted, and their rows as int32.

    Raises InputError for a duplicate id among the source's "queries" or "passages".
    """
    hashes = np.concatenate(
        [np.zeros(0, np.uint64)]
        + [
            _hash(ids, id_offsets[first : first + HASHED_AT_ONCE + 1])
            for first in range(0, len(id_offsets) - 1, HASHED_AT_ONCE)
        ]
    )
    rows = np.argsort(hashes, kind="stable").astype(np.int32)
    hashes = hashes[rows]
    for place in np.flatnonzero(hashes[1:] == hashes[:-1]):
        first, second = (text_at(ids, id_offsets, row) for row in rows[place : place + 2])
        if first == second:
            raise InputError(f"{source}: id {first} appears twice: ids must be unique")
        raise InputError(f"{source}: ids {first} and {second} have the same 64-bit hash: rename one of them")
    return hashes, rows
