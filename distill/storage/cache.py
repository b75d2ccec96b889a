"""A cache of what is built once and read often: token stores, large runs, training lists, indexes, downloads.

    directory = make_once(cache_directory() / "tokens" / key, write)      # write(path) fills a directory, once

The cache is $DISTILL_CACHE, or ~/.cache/distill. Anything in it can be deleted at any time: it is rebuilt, and so is
what a disk has damaged. Warnings that were logged while something was built are repeated when it is used again.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from distill.errors import PASSING, DiskError, InputError, StoppedError
from distill.secrets import redacted
from distill.storage.checksums import damage, note_whole, write_checksums
from distill.storage.locking import locked_in_turn
from distill.storage.writing import writing

log = logging.getLogger(__name__)

PARTIAL = ".partial"  # after the name of a directory that is being written
WARNINGS = "warnings.json"  # logged while the directory was filled
REMEDY = "set DISTILL_CACHE to a directory of your own"


def cache_directory() -> Path:
    """Return the cache's directory: $DISTILL_CACHE, else $XDG_CACHE_HOME/distill, else ~/.cache/distill.

    Raises InputError where none of them is known: a user without a home.
    """
    named = os.environ.get("DISTILL_CACHE")
    try:
        if named:
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distill"
    except RuntimeError as error:
        raise InputError(f"the cache has no place ({error}): {REMEDY}") from None


def make_cache_directory(directory: Path) -> None:
    """Make a directory in the cache if it is missing; raises InputError where it cannot be made or written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: cannot be created ({error.strerror}): {REMEDY}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"{directory}: cannot be written: {REMEDY}")


def key_of(**parts) -> str:
    """Return 16 hexadecimal digits that identify these values: equal for equal values, else different."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def entry(kind: str, source: str, key: str) -> Path:
    """Return where the cache keeps what was built from a source: the beginning of its name, and a unique key."""
    return cache_directory() / kind / f"{Path(source).name[:50]}-{key}"


def file_state(path: str) -> dict:
    """Return what tells one version of a file from another without reading it: path, size and times of change.

    Two times, since a copy may keep the first: st_ctime_ns cannot be set.
    """
    status = os.stat(path)
    times = {"changed": status.st_mtime_ns, "status_changed": status.st_ctime_ns}
    return {"path": os.path.realpath(path), "size": status.st_size, **times}


def make_once(directory: Path, write: Callable[[Path], None], *, resumes: bool = False) -> Path:
    """Return the directory, filled by `write` if it is not there yet, or is damaged.

    It is written under a temporary name and renamed when complete, by one process at a time; the others wait. Checksums
    of its files are kept beside them. resumes: what a killed process has left is passed to the next `write`, which
    must notice damage itself; otherwise it begins with an empty directory. Raises InputError where the cache cannot be
    written.
    """
    if directory.is_dir() and damage(directory) is None:
        _repeat_warnings(directory)
        return directory
    make_cache_directory(directory.parent)
    with locked_in_turn(directory.with_name(directory.name + ".lock"), REMEDY):
        if directory.is_dir():
            reason = damage(directory)
            if reason is None:  # another process has made it meanwhile
                _repeat_warnings(directory)
                return directory
            log.warning("%s: %s: rebuilding it", directory, reason, extra=PASSING)
            remove(directory)
        aside = directory.with_name(directory.name + PARTIAL)
        try:
            with writing(directory):
                if not resumes:
                    shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(exist_ok=True)
                with _kept_warnings(aside):
                    write(aside)
                write_checksums(aside)
                aside.rename(directory)
        except (DiskError, StoppedError):
            raise  # what is written remains: the next one may resume from it
        except InputError:
            # A corrected source has another key: nothing would ever resume from this
            shutil.rmtree(aside, ignore_errors=True)
            raise
        note_whole(directory)
    return directory


class _Kept(logging.Handler):
    """Keeps the messages of warnings, but for those that are marked as PASSING."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "passing", False):
            self.messages.append(redacted(record.getMessage()))


@contextlib.contextmanager
def _kept_warnings(directory: Path) -> Iterator[None]:
    """Write the warnings that are logged meanwhile into a directory, if there are any."""
    handler, logger = _Kept(), logging.getLogger("distill")
    before = logger.level, logger.propagate
    if not logger.isEnabledFor(logging.WARNING):  # of ranks, only the first logs, but any may fill the directory
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
    if handler.messages:
        (directory / WARNINGS).write_text(json.dumps(handler.messages), encoding="utf-8")


def _repeat_warnings(directory: Path) -> None:
    path = directory / WARNINGS
    for message in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ():
        log.warning("%s", message)


def remove(directory: Path) -> None:
    """Delete a cached directory."""
    shutil.rmtree(directory)
