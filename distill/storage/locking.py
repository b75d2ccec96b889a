"""Locks on files, released when the process that holds them ends, however that happens.

    with locked(directory / "run.lock", "wait for it, or use another directory"):        # refuses a second process
        ...
    with locked_in_turn(directory / "store.lock", "set DISTILL_CACHE to another one"):     # lets it wait
        ...

The file stays behind: removing it would let two processes lock two files of one name.

The filelock library cannot replace this. A sweep's jobs inherit its lock as a file descriptor, so that it holds until
the last of them ends; filelock keeps the descriptor to itself and unlocks it, for the jobs too, when the sweep's own
process exits (tested with 4.3.1).
"""

import contextlib
import fcntl
import functools
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from distill.errors import PASSING, InputError
from distill.storage.writing import writing

log = logging.getLogger(__name__)

_held: list[TextIO] = []


@contextlib.contextmanager
def locked(path: Path, remedy: str) -> Iterator[TextIO]:
    """Hold the lock of a file, which says who holds it; yields the open file.

    Raises InputError where another process holds it, or where nothing can be written; warns where the file system has
    no locks.
    """
    with _opened(path, "use another directory") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{path.parent}: {holder} still works there: {remedy}") from None
        except OSError as error:
            log.warning(
                "%s cannot be locked (%s): start nothing else there",
                path.parent,
                error.strerror,
                extra=PASSING,
            )
        with writing(path):
            os.truncate(path, 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _close_in_forked_processes()
        _held.append(file)
        try:
            yield file
        finally:
            _held.remove(file)


@functools.cache
def _close_in_forked_processes() -> None:
    """Let no loader worker keep the lock of a training process that was killed."""
    os.register_at_fork(after_in_child=lambda: [file.close() for file in _held])


@contextlib.contextmanager
def locked_in_turn(path: Path, remedy: str) -> Iterator[None]:
    """Hold the lock of a file; wait while another process holds it.

    Raises InputError where nothing can be written; warns where the file system has no locks.
    """
    with _opened(path, remedy) as file:
        try:
            _lock_in_turn(file, path)
        except OSError as error:
            log.warning(
                "%s cannot be locked (%s): start nothing else that needs it",
                path,
                error.strerror,
                extra=PASSING,
            )
        yield


def _opened(path: Path, remedy: str) -> TextIO:
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): {remedy}") from None


def _lock_in_turn(file: TextIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("%s: another process is writing it: waiting", path.with_suffix(""))
        fcntl.flock(file, fcntl.LOCK_EX)
