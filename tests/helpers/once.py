"""What is made once for all workers of a test session: once(tmp_path_factory, "trained", make)."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Any:
    """Return what `make` returns, as JSON has it; the first worker makes it, and the others wait for that.

    make: gets a directory that lasts as long as the session.
    """
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    made = session / f"{name}.json"
    with open(session / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_file():
            (session / name).mkdir(exist_ok=True)  # a worker may have failed before
            made.write_text(json.dumps(make(session / name)))
    return json.loads(made.read_text())
