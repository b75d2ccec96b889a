"""Stop requests: SIGTERM and Ctrl-C ask a loop to finish its step, so that it can save before it goes.

with StopRequest() as stop:
    while not stop.signal:
        ...
"""

import logging
import os
import signal
import time

log = logging.getLogger(__name__)

REPEAT_SECONDS = 1.0  # Slurm and torchrun signal the starting process and its children, and the former passes it on


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT sets `signal`; a later one ends the process at once."""

    def __init__(self):
        """Start with no request."""
        self.signal: int | None = None
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
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
        log.info("%s: finishing this step, then saving; once more to stop at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
