"""A lock that lives as long as the process that holds it, however that ends.

    with locked(directory / "run.lock", "wait for it, or take another directory"):
        ...

The file stays behind: to remove it would let two processes lock two files of one name.
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

from distill.errors import InputError

log = logging.getLogger(__name__)

_held: list[TextIO] = []


@contextlib.contextmanager
def locked(path: Path, remedy: str) -> Iterator[TextIO]:
    """Hold the lock of a file, which says who holds it; yields the open file.

    Raises InputError where another process holds it, or where nothing can be written. A file system without locks is
    warned of.
    """
    try:
        opened = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): take another directory") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{path.parent}: {holder} still works there: {remedy}") from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): start nothing else there", path.parent, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
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
