"""The entries of a journal, read from its file one at a time: in memory are only where they begin.

    entries = Entries(path)
    entries.catch_up()                              # read what was appended since, by this process or another
    entry = entries["5e88..."]                      # {"text": "[2] > [1]", "tokens_in": 900, ...}; KeyError if none
    for key, entry in entries.entries(): ...

A line that is no entry is left out, and so is half a line at the end, which a killed process or a write that is under
way leaves. If a key has several entries, the last one counts.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from distill.storage.json_numbers import is_finite
from distill.teachers.answer import well_formed

AT_ONCE = 2**20  # bytes of a file that are read at a time
A_LINE = 2**12  # bytes that hold most lines


def line_of(key: str, answer: dict) -> bytes:
    """Return the line that holds an answer."""
    entry = {"key": key, **answer}
    return well_formed(json.dumps(entry | {"crc32": _checksum(entry)}, ensure_ascii=False)).encode() + b"\n"


def _checksum(entry: dict) -> int:
    return zlib.crc32(well_formed(json.dumps(entry, ensure_ascii=False)).encode())


class Entries(Mapping[str, dict]):
    """The entries of an open file."""

    def __init__(self, path: Path, file: BinaryIO):
        """Keep the file, which is open for reading; nothing is read yet."""
        self.path, self.file = path, file
        self.places: dict[bytes, int] = {}  # digest of a key -> where its line begins
        self.size = 0  # bytes of the whole lines read so far
        self.num_lines = 0
        self.bad: list[int] = []  # numbers of lines that are no entries

    def catch_up(self) -> None:
        """Read the whole lines that were appended since the last time."""
        if os.fstat(self.file.fileno()).st_size <= self.size:
            return
        for place, line in self._lines(self.size):
            self.num_lines += 1
            entry = read_entry(line)
            if entry is None:
                self.bad.append(self.num_lines)
            else:
                self.places[_digest(entry["key"])] = place
            self.size = place + len(line)

    def _lines(self, start: int, at_once: int = AT_ONCE) -> Iterator[tuple[int, bytes]]:
        """Yield where each whole line begins, and the line; at_once: bytes to read."""
        rest, place = b"", start
        while chunk := os.pread(self.file.fileno(), max(at_once, len(rest)), place + len(rest)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield place, line + b"\n"
                place += len(line) + 1

    def note(self, key: str, line: bytes) -> None:
        """Note an entry that was appended to what has been read."""
        self.places[_digest(key)] = self.size
        self.size += len(line)
        self.num_lines += 1

    def __getitem__(self, key: str) -> dict:
        """Return the entry of a key; raises KeyError if there is none, also if the file has changed meanwhile."""
        _, line = next(self._lines(self.places[_digest(key)], A_LINE), (0, b""))
        entry = read_entry(line)
        if entry is None or entry.pop("key") != key:
            raise KeyError(key)
        return entry

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _digest(key) in self.places

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.entries())

    def __len__(self) -> int:
        return len(self.places)

    def entries(self) -> Iterator[tuple[str, dict]]:
        """Yield key and entry, in the order of the file."""
        for place, line in self._lines(0):
            if place >= self.size:
                return
            entry = read_entry(line)
            if entry is not None:
                key = entry.pop("key")
                if self.places.get(_digest(key)) == place:
                    yield key, entry


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def read_entry(line: bytes) -> dict[str, Any] | None:
    """Return the entry in a line, with its key; None if it is none."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            return None
        checksum = entry.pop("crc32", None)
        if checksum not in (None, _checksum(entry)):  # journals of earlier versions have none
            return None
    except (ValueError, RecursionError):
        return None
    texts = (entry.get(name) for name in ("key", "text"))
    numbers = (entry.get(name) for name in ("tokens_in", "tokens_out", "seconds"))
    score = entry.setdefault("score", None)
    if not all(isinstance(text, str) for text in texts) or not all(map(_is_count, numbers)):
        return None
    if score is not None and not is_finite(score):
        return None
    if not isinstance(entry.get("finish", ""), str):
        return None
    return entry


def _is_count(value: Any) -> bool:
    return is_finite(value) and value >= 0
