"""Errors that users can cause and fix, and how the entry points report them."""

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from distill.secrets import redacted

MAX_WORD = 200  # characters of one word in a message: an id can be a whole book
DISK = (  # what a disk answers: full, over quota, beyond `ulimit -f`, broken, read-only, not permitted, and bad paths
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # what NumPy says in place of an error number
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")  # could break the line, or fake another

PASSING = {"passing": True}  # as `extra`, of a warning that is true only now: the cache does not repeat it


class InputError(ValueError):
    """Bad input: its message is one line with the place, the reason and the remedy.

    The message may quote anything from a file: long words are cut, and characters that a terminal does not show
    literally, such as newlines, are written as escapes. Passwords in addresses, keys and tokens are taken out.
    """

    def __init__(self, message: object):
        """Take the message."""
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """Return a text as one line, without secrets, with long words cut."""
    text = HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), redacted(text))
    return re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda match: _cut(match[0]), text)


def _cut(word: str) -> str:
    return f"{word[:60]}…{word[-20:]} ({len(word)} characters)"


def refuse(error: InputError) -> NoReturn:
    """Raise an error: what readers do with a row that cannot be used, unless their caller counts such rows."""
    raise error


class Unavailable(InputError):
    """A file is not on this machine and cannot be downloaded; a suite continues without it, and says so."""


class StoppedError(InputError):
    """Work that ended in the middle; what it has left is kept, and the same command goes on from there."""


class DiskError(InputError):
    """A file cannot be written; what was there before is whole."""


def disk_error(error: BaseException) -> int | None:
    """Return the error number of what a disk answered, None if an exception has another reason.

    Libraries often raise their own exception after it (torch.save: "unexpected pos 704 vs 598"), or quote its text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK:
            return seen.errno
        said = str(seen)
        if SHORT_WRITE.search(said):
            return errno.ENOSPC
        for number in DISK:
            if os.strerror(number) in said:
                return number
        seen = seen.__cause__ or seen.__context__
    return None


@contextlib.contextmanager
def exit_on_bad_input(*, sweep: bool) -> Iterator[None]:
    """Print an InputError, or what a disk answered, as one line and exit with status 2.

    In a sweep the error is passed on: Hydra continues with the other jobs and reports this one.
    """
    from omegaconf.errors import OmegaConfBaseException  # imported here: users of the library need no configuration

    try:
        yield
    except (InputError, OmegaConfBaseException, OSError) as error:  # the second for ${oc.env:NOT_THERE} and the like
        if sweep or (isinstance(error, OSError) and not _is_of_disk(error)):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _is_of_disk(error: OSError) -> bool:
    """Whether a disk has answered, and not code of ours that looks for a file that it should know to be missing."""
    if isinstance(error, FileNotFoundError):  # where no directory can be made, as in /proc or an automounter's
        return traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")
    return error.errno in (*DISK, errno.EEXIST)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError):  # of a writer or reader that has not said more
        place = f"{error.filename}: " if error.filename is not None else ""
        return printable(f"{place}{error.strerror}")
    return str(error) if isinstance(error, InputError) else printable(str(error).splitlines()[0])
