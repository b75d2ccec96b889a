"""Forks of the warm process: like new processes in all that a command can see, and independent of each other."""

import fcntl
import importlib.util
import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from distill.warm import IMPORTS, UNKNOWN, Fork, WarmProcess
from tests.helpers.commands import as_user, warm_process

REPORT = """
import json, os, signal, sys, time
import torch
handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
session = os.getsid(0) == os.getpid()
print(json.dumps([sys.argv, sys.path[0], __name__, os.getcwd(), dict(os.environ), handlers, session, sys.stdin.read()]))
print("printed to standard error", file=sys.stderr)
"""
ENDINGS = {
    "pass": 0,
    "sys.exit()": 0,
    "sys.exit(3)": 3,
    "sys.exit('why')": 1,
    "os._exit(4)": 4,
    "raise ValueError('why')": 1,
    "os.kill(os.getpid(), signal.SIGTERM)": -signal.SIGTERM,
    "os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
    "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)": -signal.SIGINT,
    "import atexit; atexit.register(print, 'at the end'); sys.exit(5)": 5,
    "import threading; threading.Timer(0.1, print, ['from a thread']).start()": 0,
}


@pytest.fixture
def warm() -> WarmProcess:
    """The tests' warm process."""
    return warm_process()


def written(tmp_path, text: str) -> str:
    (tmp_path / "script.py").write_text(text)
    return str(tmp_path / "script.py")


def run(warm, tmp_path, *arguments: str, **options) -> SimpleNamespace:
    """Run a command to its end; returns its process, output and errors."""
    options.setdefault("env", as_user())
    paths = [tmp_path / "output", tmp_path / "errors"]
    with open(paths[0], "w") as output, open(paths[1], "w") as errors:
        process = warm.start(arguments, stdout=output, stderr=errors, **options)
    process.wait()
    return SimpleNamespace(process=process, output=paths[0].read_text(), errors=paths[1].read_text())


@pytest.mark.parametrize("name", IMPORTS)
def test_what_is_imported_before_it_is_needed_exists(name):
    assert importlib.util.find_spec(name) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_command_sees_what_it_would_see_in_a_new_process(tmp_path, warm):
    script = written(tmp_path, REPORT)
    (tmp_path / "there").mkdir()
    environment = as_user() | {"SEEN": "ä\udc80"}
    for arguments in ([script, "a b", "é"], ["-m", "tests.helpers.paths"], ["-m", "distill"]):
        options = {"cwd": tmp_path / "there", "env": environment, "start_new_session": True}
        fork, new = (run(warm, tmp_path, *arguments, **options, fork=fork) for fork in (True, False))
        assert isinstance(fork.process, Fork) and isinstance(new.process, subprocess.Popen)
        assert fork.output == new.output and fork.errors == new.errors
        assert fork.process.returncode == new.process.returncode == 0
    assert json.loads(run(warm, tmp_path, script, start_new_session=False).output)[6] is False


def test_every_way_to_end_is_that_of_a_new_process(tmp_path, warm):
    for ending, status in ENDINGS.items():
        script = written(tmp_path, f"import os, signal, sys, time\nprint('begun')\n{ending}\n")
        fork, new = (run(warm, tmp_path, script, fork=fork) for fork in (True, False))
        assert fork.process.returncode == new.process.returncode == status, ending
        assert fork.output == new.output and fork.errors.splitlines()[-1:] == new.errors.splitlines()[-1:], ending


def test_a_fork_is_killed_alone_and_holds_the_lock_that_it_was_given_until_then(tmp_path, warm):
    script, jobs = written(tmp_path, "import time\nprint('begun', flush=True)\ntime.sleep(60)\n"), []
    with open(tmp_path / "output", "w") as output, open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for given in ([lock.fileno()], []):
            jobs.append(warm.start([script], stdout=output, stderr=output, env=as_user(), pass_fds=given))
    with open(tmp_path / "lock") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        jobs[0].kill()
        assert jobs[0].wait() == -signal.SIGKILL and jobs[1].poll() is None
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    listing = subprocess.check_output(["ps", "-ww", "-o", "args=", "-p", str(jobs[1].pid)], text=True)
    assert listing.split() == [sys.executable, script]
    jobs[1].terminate()
    assert jobs[1].wait() == -signal.SIGTERM


THREADS = """
import sys, time, torch
torch.set_num_threads(2)
assert not torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork()
print(torch.ones(10**6).sum().item(), (torch.ones(300, 300) @ torch.ones(300, 300)).sum().item(), flush=True)
time.sleep(60 if sys.argv[1:] else 0)
"""


def test_forks_start_threads_and_outlive_the_warm_process_whose_end_is_noticed(tmp_path):
    warm = WarmProcess(as_user() | {"OMP_NUM_THREADS": "2"})
    script = written(tmp_path, THREADS)
    environment = as_user() | {"OMP_NUM_THREADS": "2"}
    for _ in range(2):
        done = run(warm, tmp_path, script, env=environment)
        assert isinstance(done.process, Fork) and done.output == "1000000.0 27000000.0\n", done.errors
    other = run(warm, tmp_path, script, env=environment | {"OMP_NUM_THREADS": "1"})  # which torch reads as it starts
    assert isinstance(other.process, subprocess.Popen) and other.output == done.output
    with open(tmp_path / "output", "w") as output:
        job = warm.start([script, "wait"], stdout=output, stderr=output, env=environment)
        while not (tmp_path / "output").read_text():
            time.sleep(0.01)
        warm.process.kill()
        warm.process.wait()
        assert job.poll() is None
        another = warm.start([script], stdout=output, stderr=output, env=environment)
        assert isinstance(another, subprocess.Popen) and another.wait() == 0 and warm.is_ready()
    job.kill()
    assert job.wait() == UNKNOWN
