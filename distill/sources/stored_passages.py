"""Passages on disk, looked up by id: in memory are only a hash and a place for each.

    passages = store_passages("passages.jsonl.gz", run)         # those that the run names
    passages["d7"]                                              # "Bees steer by ..."
    passages = passages_of("passages.jsonl.gz", run)            # on disk if they are many, else in memory

They are copied into a temporary file that has no name: it is gone with the process, however that ends. What is wrong
with a source is reported as by `read_passages`.
"""

import itertools
import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from distill.errors import InputError
from distill.sources.fields import USUAL, Fields
from distill.sources.locate import ir_datasets_records
from distill.sources.opening import open_source
from distill.sources.run_files import Run
from distill.sources.texts import passage_text, read_passages, refuse_duplicates, text_rows
from distill.storage.writing import writing

AT_ONCE = 4096  # rows whose ids are looked up together
MANY = 50_000  # pairs of a run: the texts of a larger one are on disk


class Passages(Protocol):
    """Passages by id, in memory or on disk."""

    def __getitem__(self, doc_id: str, /) -> str:
        """Return a text; raises KeyError if there is none."""

    def __contains__(self, doc_id: object, /) -> bool:
        """Whether there is a text."""

    def __len__(self) -> int:
        """How many passages there are."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return ids and texts."""


def open_unnamed() -> IO[bytes]:
    """Open a temporary file without a name, in $TMPDIR; raises DiskError."""
    with writing(Path(tempfile.gettempdir()) / "texts"):
        return tempfile.TemporaryFile(prefix="distill-", buffering=2**16)


class StoredPassages:
    """Passages in a file: the hashes of their ids, sorted, and where each text begins and how long it is."""

    def __init__(self, file: IO[bytes], hashes: array, places: array, sizes: array):
        """Take what `store_passages` has written: in the file, an id is before its text."""
        self.file, self.hashes, self.places, self.sizes = file, hashes, places, sizes

    def _row(self, doc_id: object) -> int:
        row = bisect_left(self.hashes, hash(doc_id))
        return row if row < len(self.hashes) and self.hashes[row] == hash(doc_id) and self.sizes[row] else -1

    def __contains__(self, doc_id: object) -> bool:
        return self._row(doc_id) >= 0

    def __getitem__(self, doc_id: str) -> str:
        """Return the text of a passage; raises KeyError if there is none."""
        row = self._row(doc_id)
        if row < 0:
            raise KeyError(doc_id)
        stored, text = self._read(row)
        if stored != doc_id:  # never seen: once in 10 ** 8 runs with a million passages
            raise InputError(
                f"passages {stored} and {doc_id} have the same hash: repeat the command, which draws others"
            )
        return text

    def __len__(self) -> int:
        return len(self.sizes) - self.sizes.count(0)

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield ids and texts in the order of the source."""
        for row in np.argsort(np.frombuffer(self.places, np.int64), kind="stable").tolist() if self.places else ():
            if self.sizes[row]:
                yield self._read(row)

    def _read(self, row: int) -> tuple[str, str]:
        line = os.pread(self.file.fileno(), self.sizes[row], self.places[row]).decode("utf-8", "surrogatepass")
        doc_id, _, text = line.partition("\t")
        return doc_id, text


def passages_of(name: str, run: Run, fields: Fields = USUAL) -> Passages:
    """Return the passages that a run names: in memory, or on disk if the run has more than MANY lines.

    One that the source lacks is absent, an empty one is "". Raises InputError like `store_passages`.
    """
    if sum(map(len, run.values())) > MANY:
        return store_passages(name, run, fields)
    return read_passages(name, {doc_id for ranked in run.values() for doc_id in ranked.doc_ids}, fields)


def store_passages(name: str, run: Run, fields: Fields = USUAL) -> StoredPassages:
    """Store the passages that a run names; one that the source lacks is absent, an empty one is "".

    Raises InputError for a missing source, a bad line, a duplicate id and an empty file.
    """
    source = open_source(name, "passages", fields)
    wanted = _hashes_of(run)
    if source.form == "records":  # which are looked up
        return _store(((record.doc_id, passage_text(record)) for record in _records(name, run)), wanted, array("q"))
    seen = array("q")
    try:
        passages = _store(((doc_id, text) for _, doc_id, text in text_rows(source, fields)), wanted, seen)
    except InputError:
        refuse_duplicates(name, "passages", fields)  # whose error may be about an earlier line
        raise
    ordered = np.sort(np.frombuffer(seen, np.int64)) if seen else np.zeros(0, np.int64)
    if not seen or (ordered[1:] == ordered[:-1]).any():
        refuse_duplicates(name, "passages", fields)
    return passages


def _hashes_of(run: Run) -> np.ndarray:
    """Return the hashes of the ids of all passages of a run, [N] int64, sorted, none twice."""
    hashes = array("q")
    for ranked in run.values():
        hashes.extend(map(hash, ranked.doc_ids))
    return np.unique(np.frombuffer(hashes, np.int64)) if hashes else np.zeros(0, np.int64)


def _records(name: str, run: Run) -> Iterator:
    """Yield the records of `ir_datasets` that a run names, list by list."""
    for ranked in run.values():
        yield from ir_datasets_records(name, "docs", sorted(ranked.doc_ids))


def _store(rows: Iterable[tuple[str, str]], wanted: np.ndarray, seen: array) -> StoredPassages:
    """Write the wanted rows, the first of each id; seen: gets the hashes of the ids of all rows."""
    file, end, rows = open_unnamed(), 0, iter(rows)
    places, sizes = array("q", bytes(8 * len(wanted))), array("q", bytes(8 * len(wanted)))
    while chunk := list(itertools.islice(rows, AT_ONCE)):
        hashes = np.fromiter((hash(doc_id) for doc_id, _ in chunk), np.int64, len(chunk))
        seen.frombytes(hashes.tobytes())
        found = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        for number in np.flatnonzero(wanted[found] == hashes).tolist():
            row, (doc_id, text) = int(found[number]), chunk[number]
            if sizes[row]:
                continue
            line = f"{doc_id}\t{' '.join(text.split())}".encode("utf-8", "surrogatepass")
            with writing(Path(tempfile.gettempdir()) / "texts"):
                file.write(line)
            places[row], sizes[row] = end, len(line)
            end += len(line)
    with writing(Path(tempfile.gettempdir()) / "texts"):
        file.flush()
    return StoredPassages(file, array("q", wanted.tobytes()), places, sizes)
