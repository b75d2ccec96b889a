"""What a user can cause and mend, and how the entry points answer it."""

import contextlib
import re
import sys
from collections.abc import Iterator

MAX_WORD = 200  # characters of one word in a message: an id can be a whole book
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")  # would break the line, or forge another


class InputError(ValueError):
    """Bad input: its message is one line with the place, the reason and the remedy.

    Whatever comes from a file can stand in it: long words are cut, and characters that a terminal does not show as they
    are, such as a line's end, are written as escapes.
    """

    def __init__(self, message: object):
        """Take the message."""
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """Return a text as one line of bounded words."""
    text = HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda found: _cut(found[0]), text)


def _cut(word: str) -> str:
    return f"{word[:60]}…{word[-20:]} ({len(word)} characters)"


class Unavailable(InputError):
    """What is not on this machine and cannot be downloaded; a suite goes on without it, and says so."""


@contextlib.contextmanager
def exit_on_bad_input(sweep: bool) -> Iterator[None]:
    """Answer an InputError with its one line and exit status 2.

    In a sweep it is passed on: Hydra goes on with the other jobs and reports this one.
    """
    from omegaconf.errors import OmegaConfBaseException  # here: the library's users need no configuration

    try:
        yield
    except (InputError, OmegaConfBaseException) as error:  # the latter: a value such as ${oc.env:NOT_THERE}
        if sweep:
            raise
        message = error if isinstance(error, InputError) else InputError(str(error).splitlines()[0])
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
