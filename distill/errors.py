"""What a user can cause and mend, and how the entry points answer it."""

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Bad input: its message is one line with the place, the reason and the remedy."""


class Unavailable(InputError):
    """What is not on this machine and cannot be downloaded; a suite goes on without it, and says so."""


@contextlib.contextmanager
def exit_on_bad_input(sweep: bool) -> Iterator[None]:
    """Answer an InputError with its one line and exit status 2.

    In a sweep it is passed on: Hydra goes on with the other jobs and reports this one.
    """
    try:
        yield
    except InputError as error:
        if sweep:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
