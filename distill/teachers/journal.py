"""A journal of an LLM's answers, so that no request is paid for twice.

    with Journal(directory / "journal.jsonl") as journal:
        answer = journal.find(key)                  # None if it was never requested
        journal.add(key, {"text": "[2] > [1]", "tokens_in": 900, "tokens_out": 12, "seconds": 1.4, "score": None})

Each answer is one line of JSON, which is written before the answer is used, so that a killed process loses none. The
disk follows in the background: a power cut can lose the answers of the last moment. A line that a killed process left
half-written is dropped, and a line that is no entry is left out: its request is sent again. Only one process at a time
can open a journal.
"""

import fcntl
import hashlib
import json
import logging
import os
import threading
from pathlib import Path

from distill.errors import PASSING, DiskError, InputError
from distill.storage.writing import append, writing
from distill.teachers.entries import Entries, line_of

log = logging.getLogger(__name__)


def key_of_request(model: str, options: dict, prompt: str, query: str, passages: list[str], attempt: int) -> str:
    """Return a hash of everything that a request's answer may depend on."""
    parts = json.dumps([model, options, prompt, query, passages, attempt], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def answered_before(directory: Path) -> str:
    """Return what to add to an estimate of requests: how many answers a directory's journal has already, if any."""
    path = directory / "journal.jsonl"
    number = len(path.read_bytes().splitlines()) if path.is_file() else 0
    return f"; {path.name} has {number:,} answers already" if number else ""


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
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): start nothing else there", path, error.strerror, extra=PASSING)
        self.answers = Entries(path, self.file)
        self.answers.catch_up()
        self.file.truncate(self.answers.size)  # half a line of a killed process
        if self.answers.bad:
            log.warning(
                "%s: %d lines are no journal entries, the first of them line %d: their requests are sent again",
                *(self.path, len(self.answers.bad), self.answers.bad[0]),
            )
        self.flusher: Flusher | None = None

    def find(self, key: str) -> dict | None:
        """Return the answer to a request, None if there is none yet."""
        return self.answers.get(key)

    def add(self, key: str, answer: dict) -> None:
        """Write an answer; when this returns, no end of the process can lose it. Raises DiskError."""
        line = line_of(key, answer)
        with self.lock:
            if self.flusher is None:
                self.flusher = Flusher(self.path, self.file.fileno())
            append(self.file, line)
            self.answers.note(key, line)
        self.flusher.flush()

    def close(self) -> None:
        """Close the file, so that another process may open it. Raises DiskError."""
        try:
            if self.flusher is not None:
                self.flusher.close()
        finally:
            self.file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


class Flusher:
    """Flushes a file to disk in the background, again and again while something is written."""

    def __init__(self, path: Path, number: int):
        """Start the thread; number: the file's descriptor."""
        self.path, self.number = path, number
        self.waiting, self.is_closed = threading.Event(), False
        self.failed: DiskError | None = None
        self.thread = threading.Thread(target=self._run, daemon=True, name="flusher")
        self.thread.start()

    def flush(self) -> None:
        """Flush soon; raises DiskError if that has failed."""
        self.waiting.set()
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        while not self.is_closed:
            self.waiting.wait()
            self.waiting.clear()
            try:
                with writing(self.path):
                    os.fsync(self.number)
            except DiskError as error:
                self.failed = error
                return

    def close(self) -> None:
        """Wait until everything is on disk; raises DiskError if that has failed."""
        self.is_closed = True
        self.flush()
        self.thread.join()
        if self.failed is None:
            with writing(self.path):
                os.fsync(self.number)  # of what was written during the last flush
        self.flush()
