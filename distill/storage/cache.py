"""A cache of what is built once and read often: token stores, large runs, training lists, indexes, downloads.

    directory = make_once(cache_directory() / "tokens" / key, write)      # write(path) fills a directory, once

The cache is $DISTILL_CACHE, or ~/.cache/distill. Anything in it can be deleted at any time: it is rebuilt.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from distill.errors import DiskError, InputError
from distill.storage.locking import locked_in_turn
from distill.storage.writing import writing


def cache_directory() -> Path:
    """Return the cache's directory: $DISTILL_CACHE, else $XDG_CACHE_HOME/distill, else ~/.cache/distill."""
    if "DISTILL_CACHE" in os.environ:
        return Path(os.environ["DISTILL_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "distill"


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


def make_once(directory: Path, write: Callable[[Path], None]) -> Path:
    """Return the directory, filled by `write` if it is not there yet.

    It is written under a temporary name and renamed when complete, by one process at a time; the others wait. What a
    killed process has left is passed to the next `write`, which may resume from it.
    """
    if directory.is_dir():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{directory.parent}: cannot be created ({error.strerror}): set DISTILL_CACHE to your own directory"
        ) from None
    with locked_in_turn(directory.with_name(directory.name + ".lock")):
        if not directory.is_dir():  # another process may have made it meanwhile
            aside = directory.with_name(directory.name + ".partial")
            aside.mkdir(exist_ok=True)
            try:
                with writing(directory):
                    write(aside)
            except DiskError:
                raise  # what is written remains: the next one may resume from it once there is room
            except InputError:
                shutil.rmtree(aside)  # a corrected source has another key: nothing would ever resume from this
                raise
            aside.rename(directory)
    return directory


def remove(directory: Path) -> None:
    """Delete a cached directory."""
    shutil.rmtree(directory)
