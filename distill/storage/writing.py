"""Files that are written whole or not at all, and one line where a disk takes no more.

write_whole(path, lambda aside: write_run(run, aside, tag))         # a temporary file, then renamed
write_whole(path, write, is_new=True)                               # the same, but never over another command's result
write_text(path, text)
write_whole_directory(directory, write, size)                       # a temporary directory, then renamed
append(file, data)                                                  # all of it, or none
with writing(path): ...                                             # around any other writer

Each raises DiskError where a disk is full, read-only or broken. What was there before is still whole then.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from distill.errors import FULL, DiskError, InputError, disk_error


@contextlib.contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn what a disk answers inside the `with` block into a DiskError that names the path.

    size: bytes that the block writes, if known.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # libraries have exceptions of many kinds for it
        number = disk_error(error)
        if number is None:
            raise
        raise DiskError(_message(_place(error, path), number, path, size)) from error


def _place(error: Exception, path: Path) -> str:
    """Return the path that is to blame: another one if the error names a file elsewhere, such as one that was read."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(path)
    named = Path(os.fsdecode(error.filename)).absolute()
    return str(path if named.is_relative_to(path.parent.absolute()) else named)


def _message(place: str, number: int, path: Path, size: int | None) -> str:
    reason = os.strerror(number)
    if number not in FULL:
        return f"{place}: cannot be written ({reason}): check the disk, and your rights there"
    parent = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    free, needed = _in_units(shutil.disk_usage(parent).free), "more" if size is None else _in_units(size)
    return f"{place}: cannot be written ({reason}): {free} are free there, and it needs {needed}: make room"


def _in_units(size: int) -> str:
    return next(f"{size / unit:.1f} {name}" for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
                if size >= unit or unit == 1)  # fmt: skip


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    *,
    size: int | None = None,
    aside: Path | None = None,
    is_new: bool = False,
) -> None:
    """Let `write` fill a temporary file, flush it to disk, then rename it.

    An interruption or a full disk leaves the old file intact. size: its bytes, if known. aside: the temporary file, if
    only one process at a time can write this one. is_new: nothing may be replaced, also not what another process has
    written meanwhile: then the temporary file is kept. Raises DiskError, and InputError where something is there.
    """
    aside = aside or aside_of(path)
    with writing(path, size):
        try:
            write(aside)
            _flush(aside)
            if not is_new:
                os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        if is_new:
            _rename_new(aside, path)
        _flush(path.parent)


def _rename_new(aside: Path, path: Path) -> None:
    """Rename a file where none is; raises InputError where one is."""
    try:
        os.link(aside, path)  # unlike a rename, it replaces nothing
    except OSError:
        if path.exists():
            raise _is_there(path, aside) from None
        os.replace(aside, path)  # a file system without hard links, or a link that leads nowhere
    else:
        aside.unlink()


def _is_there(path: Path, kept: Path) -> InputError:
    return InputError(
        f"{path}: already exists, unlike when this command began: what it has written is kept as {kept}: rename that, "
        "or remove it"
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all; raises DiskError."""
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"), size=len(text.encode()))


def write_whole_directory(
    directory: Path,
    write: Callable[[Path], object],
    size: int | None = None,
    kept: re.Pattern[str] | None = None,
    *,
    is_new: bool = False,
) -> None:
    """Let `write` fill a temporary directory, then rename it; an old directory stays until the new one is complete.

    Its files get the modes that the user's umask gives. A link to a directory stays one. size: of all files, if known.
    kept: names of files in the old directory that the new one gets, unless `write` writes them. is_new: as of a file.
    Raises DiskError, and InputError where another process is writing it.
    """
    place = Path(os.path.realpath(directory))
    new, old = (place.with_name(f".{place.name}.{suffix}") for suffix in ("new", "old"))
    with writing(directory, size), _held(new, directory):
        if old.is_dir() and not old.is_symlink() and not place.exists():  # stopped between the two renames
            os.rename(old, place)
        for leftover in (*new.iterdir(), old):
            _remove(leftover)
        try:
            write(new)
            if kept is not None and place.is_dir():
                _keep(kept, place, new)
            mode = new.stat().st_mode & 0o666  # some libraries let only the owner read what they write
            for path in new.rglob("*"):
                if path.is_file():
                    path.chmod(mode)
                _flush(path)
            _flush(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if place.exists():
            if is_new:
                raise _is_there(directory, new.rename(aside_of(place)))
            os.rename(place, old)
        os.rename(new, place)
        _flush(place.parent)
        shutil.rmtree(old, ignore_errors=True)


def _keep(names: re.Pattern[str], old: Path, new: Path) -> None:
    """Copy the files of such names from the old directory into the new one, unless it has its own."""
    for path in old.iterdir():
        if path.is_file() and names.fullmatch(path.name) and not (new / path.name).exists():
            shutil.copyfile(path, new / path.name)


def _remove(path: Path) -> None:
    """Remove a file, a link or a directory, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _held(new: Path, directory: Path) -> Iterator[None]:
    """Make a temporary directory, or take over what a killed process has left, and lock it: no file is left behind.

    Raises InputError where another process holds it. Some network file systems have no locks of directories.
    """
    if new.is_symlink():
        new.unlink()
    new.mkdir(parents=True, exist_ok=True)
    opened = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            is_ours = True
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.path.samestat(os.fstat(opened), os.stat(new))  # else it has been renamed meanwhile
            except (BlockingIOError, FileNotFoundError):
                is_ours = False
            if not is_ours:
                raise InputError(f"{directory}: another process is writing it: wait for it, or use another directory")
        yield
    finally:
        os.close(opened)


def _flush(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk, so that a rename cannot come before its content."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a directory
            raise
    finally:
        os.close(opened)


def append(file: BinaryIO, data: bytes) -> None:
    """Append to an unbuffered file, all of the data or none; raises DiskError."""
    end = os.fstat(file.fileno()).st_size
    with writing(Path(file.name), len(data)):
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
        except BaseException:
            os.ftruncate(file.fileno(), end)
            raise


def aside_of(path: Path) -> Path:
    """The temporary name of a file, one for each process and thread, so that two writers do not mix."""
    thread = "" if threading.current_thread() is threading.main_thread() else f".{threading.get_native_id()}"
    return path.with_name(f".{path.name}.{os.getpid()}{thread}.new")
