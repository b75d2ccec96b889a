"""Calls in a child with limits: on memory beyond what it starts with, seconds of a core, and seconds in all.

outcome = in_child(lambda: score(directory))        # what the call returns, or in a word how the child ended
outcome = fault(error)                              # None for an error that is one line, as a command ends with
"""

import contextlib
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from distill.errors import InputError

MAX_SECONDS, MAX_WALL, MAX_MEMORY = 10, 60, 2**30  # the second for a machine that others use, too
MEMORY = ("MemoryError", "not enough memory", "alloc", "Cannot allocate")
LONGEST = 3000  # characters of one line


def fault(error: BaseException) -> str | None:
    """Return what is wrong with the way a call has ended, None for one line about bad input."""
    if isinstance(error, InputError):
        message = str(error)
        if any(word in message for word in MEMORY):
            return f"needs more than {MAX_MEMORY} bytes: {message}"
        return None if "\n" not in message and len(message) < LONGEST else f"many lines: {message}"
    return "".join(traceback.format_exception(error))


def in_child(call: Callable[[], Any]) -> Any:
    """Return what a call returns in a fork with limits, as JSON holds it, or a text that says how the fork ended.

    An exception that escapes the call, whatever its class, is a traceback in the text: it never leaves the fork. What
    the fork has started is killed with it.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            os.setsid()
            _limit()
            said = json.dumps(call())
        except BaseException:
            said = json.dumps(traceback.format_exc())
        try:
            with open(write, "w") as file:
                file.write(said)
        finally:
            os._exit(0)
    os.close(write)
    said = _read(read, time.monotonic() + MAX_WALL)
    if said is None:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever it has left behind
    if said is None:
        return f"no end after {MAX_WALL} s"
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"ended by {name}" + (f": more than {MAX_SECONDS} s of a core" if name == "SIGXCPU" else "")
    return json.loads(said) if said else f"ended without a word, status {os.waitstatus_to_exitcode(status)}"


def _limit() -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(silent, number)
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + MAX_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS + 1))


def _read(read: int, end: float) -> bytes | None:
    """Return all that a pipe says, None if it is still open at the end."""
    content = b""
    with open(read, "rb", buffering=0) as file:
        while select.select([file], [], [], max(end - time.monotonic(), 0))[0]:
            block = file.read(2**16)
            if not block:
                return content
            content += block
    return None
