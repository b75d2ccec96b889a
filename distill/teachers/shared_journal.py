"""The answers of a model to a prompt, shared by all annotations: next month's pays for the new queries only.

    shared = SharedJournal(shared_path(cfg, prompt))        # in the cache, one for each model, address and prompt
    entry = shared.find(key)
    shared.add_missing(journal.answers)

An annotation writes its own journal first, which alone is sure to be on disk. Several may read and write a shared one
at a time: it is locked only while lines are written.
"""

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig

from distill.errors import InputError
from distill.secrets import without_password
from distill.storage.cache import cache_directory, key_of
from distill.storage.writing import append
from distill.teachers.journal import line_of, read_entries
from distill.teachers.prompt import Prompt

log = logging.getLogger(__name__)

NONE = "none"  # journal=none: no other annotation's answers, and none for others
FOLDER = "journals"


def shared_path(cfg: DictConfig, prompt: Prompt) -> Path | None:
    """Return the journal that this annotation shares; None: it shares none.

    By default only answers that may have cost something are shared, those of an endpoint.
    """
    llm = cfg.teacher.llm
    if cfg.journal is not None:
        return None if cfg.journal == NONE else Path(cfg.journal)
    if llm.engine != "http":
        return None
    key = key_of(model=llm.model, address=without_password(llm.base_url), prompt=prompt.digest)
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in llm.model)[-50:].lstrip(".")
    return cache_directory() / FOLDER / f"{name}-{key}.jsonl"


class SharedJournal:
    """The answers in a file, as they were when it was opened, and those added since."""

    def __init__(self, path: Path):
        """Read the file, if there is one; raises InputError if it cannot be read or written."""
        self.path = path
        with self._locked() as file:
            self.answers, size, bad = _read(path)
            file.truncate(size)  # half a line of a killed process
        if bad:
            log.warning("%s: %d lines are no journal entries, the first of them line %d", path, len(bad), bad[0])

    @contextmanager
    def _locked(self) -> Iterator:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except InputError:
            raise
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}): set journal=none, or give another file"
            ) from None

    def find(self, key: str) -> dict | None:
        """Return the answer to a request, without what it cost; None if there is none."""
        return self.answers.get(key)

    def add_missing(self, answers: Mapping[str, dict]) -> None:
        """Write those answers that it does not have."""
        new = {key: entry for key, entry in list(answers.items()) if key not in self.answers}
        if not new:
            return
        with self._locked() as file:
            append(file, b"".join(line_of(key, entry) for key, entry in new.items()))
        self.answers |= new


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
        answers, _, bad = _read(path)
        changed = datetime.fromtimestamp(path.stat().st_mtime)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    tokens = [sum(entry[name] for entry in answers.values()) for name in ("tokens_in", "tokens_out")]
    return Contents(len(answers), tokens[0], tokens[1], changed, len(bad))


def _read(path: Path) -> tuple[dict[str, dict], int, list[int]]:
    with open(path, "rb") as file:
        return read_entries(file)
