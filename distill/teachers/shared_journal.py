"""The answers of a model to a prompt, shared by all annotations: next month's pays for the new queries only.

    shared = SharedJournal(shared_path(cfg, prompt))        # in the cache, one for each model, address and prompt
    entry = shared.find(key)
    shared.add(key, entry)

An annotation writes each answer to its own journal, which alone is flushed to disk, and to this one right after.
Several annotations may read and write it at a time: it is locked only while a line is written.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig

from distill.errors import InputError
from distill.secrets import without_password
from distill.storage.cache import cache_directory, key_of
from distill.storage.writing import append
from distill.teachers.entries import A_LINE, Entries, line_of

log = logging.getLogger(__name__)

NONE = "none"  # journal=none: no other annotation's answers, and none for others
FOLDER = "journals"
START = b'{"key": '  # of a line


def shared_path(cfg: DictConfig, prompt: str) -> Path | None:
    """Return the journal that this annotation shares; None: it shares none. prompt: its digest.

    By default only answers that may have cost something are shared, those of an endpoint.
    """
    llm = cfg.teacher.llm
    if cfg.journal is not None:
        return None if cfg.journal == NONE else Path(cfg.journal)
    if llm.engine != "http":
        return None
    key = key_of(model=llm.model, address=without_password(llm.base_url), prompt=prompt)
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in llm.model)[-50:].lstrip(".")
    return cache_directory() / FOLDER / f"{name}-{key}.jsonl"


class SharedJournal:
    """The answers in a file, to which other processes add at the same time; several threads may use it."""

    def __init__(self, path: Path):
        """Read the file, if there is one.

        Raises InputError if it cannot be read or written, for the journal of one run, and for what is no journal.
        """
        if path.name == "journal.jsonl" and (path.parent / "config.yaml").is_file():
            raise InputError(f"journal={path}: belongs to one run, which holds it: give another file, or a copy of it")
        self.path, self.lock, self.is_broken = path, threading.Lock(), False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open until close
        except OSError as error:
            raise self._unusable(error) from None
        self.answers = Entries(path, self.file)
        with self._held():
            self.answers.catch_up()
            is_journal = self._is_journal()
            if is_journal:
                self.file.truncate(self.answers.size)  # half a line of a killed process
        if not is_journal:
            self.file.close()
            raise InputError(f"journal={path}: is no journal: give another file")
        if self.answers.bad:
            log.warning(
                "%s: %d lines are no journal entries, the first of them line %d",
                *(path, len(self.answers.bad), self.answers.bad[0]),
            )

    def _is_journal(self) -> bool:
        """Whether the file has an entry, if it has whole lines, and what follows them begins as an entry does."""
        rest = os.pread(self.file.fileno(), A_LINE, self.answers.size)
        if self.answers:
            rest = rest.lstrip(b"\0")  # which a power cut may leave
        has_entry = bool(self.answers) or not self.answers.num_lines
        return has_entry and rest[: len(START)] == START[: len(rest)]

    def _unusable(self, error: OSError) -> InputError:
        return InputError(f"{self.path}: cannot be written ({error.strerror}): set journal=none, or give another file")

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other threads and processes from writing."""
        try:
            with self.lock:
                fcntl.flock(self.file, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    fcntl.flock(self.file, fcntl.LOCK_UN)
        except OSError as error:
            raise self._unusable(error) from None

    def find(self, key: str) -> dict | None:
        """Return the answer to a request, also one that another process has added meanwhile; None if there is none."""
        with self.lock:
            self.answers.catch_up()
            return self.answers.get(key)

    def add(self, key: str, entry: dict) -> None:
        """Write an answer, unless it has one. If that fails, it is logged, and no more are written."""
        if self.is_broken:
            return
        try:
            with self._held():
                self.answers.catch_up()
                if key not in self.answers:
                    line = line_of(key, entry)
                    append(self.file, line)
                    self.answers.note(key, line)
        except InputError as error:  # the annotation has them in its own journal
            self.is_broken = True
            log.warning("answers are not shared: %s", error)

    def add_missing(self, journal: Entries) -> None:
        """Write the answers of a directory's journal that it lacks, such as those of an older version."""
        for key, entry in journal.entries():
            if key not in self.answers:
                self.add(key, {name: value for name, value in entry.items() if name != "is_shared"})

    def close(self) -> None:
        """Close the file."""
        self.file.close()


@dataclass
class Contents:
    """What a journal holds."""

    answers: int
    tokens_in: int
    tokens_out: int
    changed: datetime
    num_bad: int  # lines that are no entries


def journals(given: str | None) -> list[Path]:
    """Return the journals to show: the given file, or those in the cache."""
    return [Path(given)] if given is not None else sorted((cache_directory() / FOLDER).glob("*.jsonl"))


def summarise(path: Path) -> Contents:
    """Return what a journal holds, without writing to it; raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            answers = Entries(path, file)
            answers.catch_up()
            counts = [0, 0]
            for _, entry in answers.entries():
                if entry.get("is_shared"):  # another run has paid for it
                    continue
                counts[0] += entry["tokens_in"]
                counts[1] += entry["tokens_out"]
        changed = datetime.fromtimestamp(path.stat().st_mtime)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    return Contents(len(answers), counts[0], counts[1], changed, len(answers.bad))
