"""Commands as a user starts them, in processes of their own.

    done = run("train.py", "seed=1", cwd=tmp_path)              # python train.py seed=1
    started = start("-m", "distill", "annotate", ...)

The processes are forks of one that has imported torch and the rest (distill/warm.py), as the jobs of a sweep are. A
test of the start itself (its imports, a stop during them) takes subprocess instead.
"""

import atexit
import functools
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from distill.warm import WarmProcess
from tests.helpers.paths import ROOT

SET_BY_LIBRARIES = (  # while they are imported or used here: a command as a user starts it has none of them
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
)
SCRIPTS = ("train.py", "evaluate.py")  # named as in the checkout, wherever the command is started
PATCHED = """
import os, runpy, sys, time
sys.path.insert(0, {root!r})
sys.argv[0] = {script!r}
{patch}
runpy.run_path({script!r}, run_name="__main__")
"""


class Started:
    """A command that runs; what it prints is read once it has ended."""

    def __init__(
        self, arguments: list[str], env: Mapping[str, str] | None, cwd, start_new_session: bool, root: Path = ROOT
    ):
        """Start it."""
        self.arguments = arguments
        self._files = output, errors = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = warm_process(root).start(
            arguments, stdout=output, stderr=errors, env=env, cwd=cwd, start_new_session=start_new_session
        )
        self.pid, self.poll, self.wait = self.process.pid, self.process.poll, self.process.wait
        self.send_signal, self.terminate, self.kill = (
            self.process.send_signal,
            self.process.terminate,
            self.process.kill,
        )

    @property
    def returncode(self) -> int | None:
        """The exit status, once it has been waited for."""
        return self.process.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for its end, and return what it has printed to standard output and standard error."""
        self.wait()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
        return texts[0], texts[1]


def start(
    *arguments, env: Mapping[str, str] | None = None, cwd=None, start_new_session: bool = False, root: Path = ROOT
) -> Started:
    """Start `python ARGUMENTS`; root: another checkout, whose code it runs."""
    first = str(root / arguments[0]) if arguments[0] in SCRIPTS else str(arguments[0])
    return Started([first, *map(str, arguments[1:])], as_user(env), cwd, start_new_session, root)


def as_user(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment, or the tests' own, without what libraries have added to it since the tests began."""
    env = os.environ if env is None else env
    return {name: value for name, value in env.items() if name not in SET_BY_LIBRARIES}


def start_ranks(size: int, *arguments) -> list[Started]:
    """Start `python ARGUMENTS` as so many ranks, each with the environment that torchrun would give it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [start(*arguments, env=common | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))) for rank in range(size)]


def run(
    *arguments, env: Mapping[str, str] | None = None, cwd=None, check: bool = False, root: Path = ROOT
) -> subprocess.CompletedProcess:
    """Run `python ARGUMENTS`; check: raise an AssertionError with what it has printed where it fails."""
    started = start(*arguments, env=env, cwd=cwd, root=root)
    try:
        output, errors = started.communicate()
    finally:
        started.kill()
    assert not check or started.returncode == 0, output + errors
    return subprocess.CompletedProcess([sys.executable, *started.arguments], started.returncode, output, errors)


def run_evaluate(directory, *overrides) -> subprocess.CompletedProcess:
    """Run evaluate.py with an output directory."""
    return run("evaluate.py", *overrides, f"hydra.run.dir={directory}")


def run_annotate(directory, *overrides) -> subprocess.CompletedProcess:
    """Run `distill annotate` with an output directory."""
    return run("-m", "distill", "annotate", *overrides, f"hydra.run.dir={directory}")


def run_patched(place: Path, patch: str, script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run an entry point after a patch, which sends it a signal at a chosen place."""
    (place / "patched.py").write_text(PATCHED.format(root=str(ROOT), script=str(ROOT / script), patch=patch))
    return run(place / "patched.py", *arguments)


def warm_process(root: Path = ROOT) -> WarmProcess:
    """Return the process that the commands of this test session are forks of, one for each checkout."""
    return _warm_process(root)


@functools.cache
def _warm_process(root: Path) -> WarmProcess:
    warm = WarmProcess(as_user() | {"PYTHONPATH": str(root)}, root, also=["tests.helpers.imported"])
    atexit.register(warm.close)
    return warm


def without_wandb(home: Path) -> dict[str, str]:
    """Return the environment of a user who has no account at Weights & Biases."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return environment | {"HOME": str(home), "NETRC": str(home / "netrc")}
