"""What an LLM has answered, kept so that nothing is paid twice: a line of JSON an answer, on disk before it counts.

    with Journal(directory / "journal.jsonl") as journal:
        answer = journal.find(key)                  # None where it was never asked
        journal.add(key, {"text": "[2] > [1]", "tokens_in": 900, "tokens_out": 12, "seconds": 1.4})

A line that a killed process left half-written is dropped. One process at a time writes a journal.
"""

import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path

from distill.errors import InputError


def key_of_request(model: str, options: dict, prompt: str, query: str, passages: list[str], attempt: int) -> str:
    """Return what tells one request from another: all that its answer may depend on."""
    parts = json.dumps([model, options, prompt, query, passages, attempt], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


class Journal:
    """The answers of a file, and those that are added to it; several threads may add."""

    def __init__(self, path: Path):
        """Read the file; raises InputError where it is damaged, or written by another process."""
        self.path, self.lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "a+b")  # noqa: SIM115 - open until close
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise InputError(f"{path}: another process writes it: wait for it, or take another directory") from None
        self.answers = self._read()

    def _read(self) -> dict[str, dict]:
        self.file.seek(0)
        answers, whole = {}, 0
        for number, line in enumerate(self.file, start=1):
            if not line.endswith(b"\n"):
                break  # of a killed process
            try:
                entry = json.loads(line)
                answers[entry.pop("key")] = entry
            except (ValueError, KeyError, AttributeError):
                raise InputError(f"{self.path}:{number}: is no line of a journal: remove it") from None
            whole += len(line)
        self.file.truncate(whole)
        return answers

    def find(self, key: str) -> dict | None:
        """Return the answer to a request, None where there is none yet."""
        return self.answers.get(key)

    def add(self, key: str, answer: dict) -> None:
        """Write an answer; when this returns, it is on the disk."""
        line = json.dumps({"key": key, **answer}, ensure_ascii=False).encode() + b"\n"
        with self.lock:
            self.file.write(line)
            self.file.flush()
        os.fsync(self.file.fileno())  # threads that wait here share a write of the disk
        self.answers[key] = answer

    def close(self) -> None:
        """Close the file; another process may then write it."""
        self.file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception) -> None:
        self.close()
