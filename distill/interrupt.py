"""Handle SIGTERM and Ctrl-C: end a command with one line, or let a loop finish its step and save first.

answer_stops()                          # first thing in an entry point, before the slow imports
with hint_on_stop(lambda: "; resume with: ..."):
    with StopRequest() as stop:
        while not stop.signal:
            ...
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

# Slurm and torchrun signal both the parent process and its children, and the parent forwards the signal as well: a
# signal repeated within this time is the same request
REPEAT_SECONDS = 1.0
NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

_hints: list[Callable[[], str]] = []  # what to add to the line "stopped by ..."; the last one is used


def answer_stops() -> None:
    """Make SIGTERM and Ctrl-C end this process with one line and exit status 128 + signal, without a traceback.

    Context managers still close what is open. A second request, more than REPEAT_SECONDS later, ends the process at
    once.
    """
    speaker = os.getpid() if os.environ.get("RANK", "0") == "0" else None  # not the forked workers
    since: list[float] = []

    def answer(number: int, frame) -> None:
        if since:
            if time.monotonic() - since[0] > REPEAT_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        since.append(time.monotonic())
        logging.disable(logging.INFO)  # libraries, such as PyTorch's caches, would log as they end
        if os.getpid() == speaker:
            hint = _hints[-1]() if _hints else ""
            # Not print: the signal may have interrupted one, and print cannot be entered twice
            os.write(2, f"stopped by {NAMES[number]}{hint}\n".encode())
        if _is_importing(frame):
            os._exit(128 + number)  # an exception would go through half-initialised C++ libraries, which may abort
        raise SystemExit(128 + number)

    for number in NAMES:
        signal.signal(number, answer)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, belongs to Python's import system."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def hint_on_stop(hint: Callable[[], str]) -> Iterator[None]:
    """Inside the `with` block, a stopped command's line ends with what `hint` returns, such as how to resume it."""
    _hints.append(hint)
    try:
        yield
    finally:
        _hints.remove(hint)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Hide Ctrl-C from processes started inside the `with` block: a terminal sends it to them too.

    This process handles it, at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it; here, the signal waits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Inside the `with` block, the first SIGTERM or SIGINT sets `signal`; a later one ends the process at once."""

    def __init__(self):
        """Start with no request."""
        self.signal: int | None = None
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in NAMES:
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception) -> None:
        self._restore()

    def _request(self, number: int, frame) -> None:
        if self.signal is not None:
            if time.monotonic() - self._since > REPEAT_SECONDS:
                self._restore()
                os.kill(os.getpid(), number)
            return
        self.signal, self._since = number, time.monotonic()
        log.info("%s: finishing this step, then saving; repeat to stop at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
