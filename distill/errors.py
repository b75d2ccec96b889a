"""Errors that users can cause and fix, and how the entry points report them."""

import contextlib
import re
import sys
from collections.abc import Iterator

MAX_WORD = 200  # characters of one word in a message: an id can be a whole book
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")  # could break the line, or fake another


class InputError(ValueError):
    """Bad input: its message is one line with the place, the reason and the remedy.

    The message may quote anything from a file: long words are cut, and characters that a terminal does not show
    literally, such as newlines, are written as escapes.
    """

    def __init__(self, message: object):
        """Take the message."""
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """Return a text as one line, with long words cut."""
    text = HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda match: _cut(match[0]), text)


def _cut(word: str) -> str:
    return f"{word[:60]}…{word[-20:]} ({len(word)} characters)"


class Unavailable(InputError):
    """A file is not on this machine and cannot be downloaded; a suite continues without it, and says so."""


@contextlib.contextmanager
def exit_on_bad_input(*, sweep: bool) -> Iterator[None]:
    """Print an InputError as one line and exit with status 2.

    In a sweep the error is passed on: Hydra continues with the other jobs and reports this one.
    """
    from omegaconf.errors import OmegaConfBaseException  # imported here: users of the library need no configuration

    try:
        yield
    except (InputError, OmegaConfBaseException) as error:  # the latter for a value such as ${oc.env:NOT_THERE}
        if sweep:
            raise
        message = error if isinstance(error, InputError) else InputError(str(error).splitlines()[0])
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
