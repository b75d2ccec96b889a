"""A journal of an LLM's answers, so that no request is paid for twice.

    with Journal(directory / "journal.jsonl") as journal:
        answer = journal.find(key)                  # None if it was never requested
        journal.add(key, {"text": "[2] > [1]", "tokens_in": 900, "tokens_out": 12, "seconds": 1.4, "score": None})

Each answer is one line of JSON, which is on disk before the answer is used. A line that a killed process left
half-written is dropped, and a line that is no entry is left out: its request is sent again. Only one process at a time
can open a journal.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.storage.writing import append, writing
from distill.teachers.answer import well_formed

log = logging.getLogger(__name__)


def key_of_request(model: str, options: dict, prompt: str, query: str, passages: list[str], attempt: int) -> str:
    """Return a hash of everything that a request's answer may depend on."""
    parts = json.dumps([model, options, prompt, query, passages, attempt], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def line_of(key: str, answer: dict) -> bytes:
    """Return the line that holds an answer."""
    entry = {"key": key, **answer}
    return well_formed(json.dumps(entry | {"crc32": _checksum(entry)}, ensure_ascii=False)).encode() + b"\n"


def _checksum(entry: dict) -> int:
    return zlib.crc32(well_formed(json.dumps(entry, ensure_ascii=False)).encode())


class Journal:
    """The answers in a file, and those added to it; several threads may add."""

    def __init__(self, path: Path):
        """Read the file; raises InputError if it is open in another process."""
        self.path, self.lock = path, threading.Lock()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open until close
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise InputError(f"{path}: another process is writing it: wait for it, or use another directory") from None
        self.answers = self._read()

    def _read(self) -> dict[str, dict]:
        with open(self.path, "rb") as file:  # with a buffer
            answers, size, bad = read_entries(file)
        self.file.truncate(size)
        if bad:
            log.warning(
                "%s: %d lines are no journal entries, the first of them line %d: their requests are sent again",
                *(self.path, len(bad), bad[0]),
            )
        return answers

    def find(self, key: str) -> dict | None:
        """Return the answer to a request, None if there is none yet."""
        return self.answers.get(key)

    def add(self, key: str, answer: dict) -> None:
        """Write an answer; it is on disk when this returns."""
        with self.lock:
            append(self.file, line_of(key, answer))
        with writing(self.path):
            os.fsync(self.file.fileno())  # threads that wait here share one disk write
        self.answers[key] = answer

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        self.file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def read_entries(file: Iterable[bytes]) -> tuple[dict[str, dict], int, list[int]]:
    """Return the entries of a journal by key, the bytes of its complete lines, and which lines are no entries."""
    answers, size, bad = {}, 0, []
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            break  # a killed process left half a line
        entry = read_entry(line)
        if entry is None:
            bad.append(number)
        else:
            answers[entry.pop("key")] = entry
        size += len(line)
    return answers, size, bad


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
    if score is not None and not _is_number(score):
        return None
    if not isinstance(entry.get("finish", ""), str):
        return None
    return entry


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0
