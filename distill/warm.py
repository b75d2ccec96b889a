"""A warm process: it imports torch and the rest once, and forks itself for each command that it is given.

    warm = WarmProcess()
    job = warm.start(["train.py", "seed=1"], stdout=file, stderr=file)      # python train.py seed=1
    job.send_signal(signal.SIGTERM)
    job.wait()

The imports of a command take longer than a short training. A fork has them at once and shares their memory. In all else
it is like a new process: environment, directory, output, open files, session and exit status are separate, and `ps`
shows its command. The warm process only imports, forks and waits: what does not survive a fork (CUDA, the thread pools
of OpenMP and MKL) is started by the commands.

It ends with the process that started it; commands that still run are left running. A new process is started
instead where a fork would not do: on systems other than Linux, and for an environment that imports would have read.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

IMPORTS = (  # the libraries that commands import late, so that --help is quick
    *("torch", "torch.utils.data", "torch.utils.flop_counter", "hydra._internal.hydra", "numpy", "pandas"),
    *("scipy.stats", "pyarrow.parquet", "ir_measures", "ir_measures.providers", "pytrec_eval"),
    *("transformers.modeling_utils", "transformers.generation.utils", "transformers.modeling_layers"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
    *("transformers.processing_utils", "transformers.tokenization_utils_tokenizers"),
)
READ_BY_IMPORTS = (  # prefixes of the variables that imports read
    *("PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "TORCH", "PYTORCH", "TRITON", "CUDA", "NCCL"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_", "IR_DATASETS_", "LANG", "LC_"),
)
NUMBER = struct.Struct("!i")  # the bytes of a request; a command's process id, and then its exit status
READY = b"r"
ROOM = 16384  # bytes for the command that `ps` shows
POLL_SECONDS = 0.01
UNKNOWN = 255  # the exit status of a command that ended after its warm process was killed
MAIN = "import sys; sys.path[0] = sys.argv[1]; from distill.warm import main; main(int(sys.argv[2]), sys.argv[4:])"


class WarmProcess:
    """Starts commands as forks of one process. It imports in the background; the first command waits for it."""

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        root: Path = Path(__file__).parent.parent,
        also: Sequence[str] = (),
    ):
        """Start it, with the environment that its commands will have; root: of the checkout whose code they run.

        also: modules to import, too. A sweep names none of this package: each of its jobs runs the code as it then is.
        """
        self.env = dict(os.environ if env is None else env)
        self.connection: socket.socket | None = None
        self._ready = False
        if sys.platform != "linux" or sys.flags.safe_path:
            return
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MAIN, str(root), str(theirs.fileno()), " " * ROOM, *also],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=self.env,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is for the process that started it
            )

    def is_ready(self) -> bool:
        """Return whether a command can start at once."""
        return self._ready or not self.connection or bool(select.select([self.connection], [], [], 0)[0])

    def close(self) -> None:
        """End it. Commands that still run are left running."""
        if self.connection:
            self.connection.close()
            self.connection = None
            self.process.terminate()
            self.process.wait()

    def start(
        self,
        arguments: Sequence[str],
        *,
        stdout: IO,
        stderr: IO,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
        fork: bool = True,
    ) -> "Fork | subprocess.Popen":
        """Start `python ARGUMENTS` with the options of subprocess.Popen; its standard input is empty."""
        env = dict(os.environ if env is None else env)
        if fork and _read_by_imports(env) == _read_by_imports(self.env) and self._wait_until_ready():
            request = {
                "arguments": [str(argument) for argument in arguments],
                "env": env,
                "cwd": os.path.abspath(cwd or "."),
                "start_new_session": start_new_session,
            }
            with contextlib.suppress(EOFError, OSError):  # the warm process was killed
                return self._fork(request, [stdout.fileno(), stderr.fileno(), *pass_fds])
            self.close()
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=start_new_session,
        )

    def _wait_until_ready(self) -> bool:
        if self.connection and not self._ready:
            self._ready = self.connection.recv(1) == READY
            if not self._ready:  # an import has failed, which the command itself will report
                self.close()
        return self._ready and self.connection is not None

    def _fork(self, request: dict, descriptors: list[int]) -> "Fork":
        assert self.connection is not None, "call start, which waits until it is ready"
        body = json.dumps(request).encode()  # bytes that are not UTF-8 survive as escapes
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.connection, [NUMBER.pack(len(body))], [theirs.fileno(), *descriptors])
                self.connection.sendall(body)
            return Fork(ours)
        except BaseException:
            ours.close()
            raise


def _read_by_imports(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_BY_IMPORTS)}


class Fork:
    """A command in a fork of the warm process, with what subprocess.Popen has to wait for it and to stop it."""

    def __init__(self, connection: socket.socket):
        """Wait until it has started; raises EOFError where the warm process has ended."""
        self.connection = connection  # the warm process sends the process id, and then the exit status
        self.pid = _read_number(connection)
        self.returncode: int | None = None
        self._orphaned = False

    def poll(self) -> int | None:
        """Return None while it runs, then its exit status: below zero the signal that killed it."""
        if self.returncode is None and not self._orphaned and select.select([self.connection], [], [], 0)[0]:
            try:
                self.returncode = _read_number(self.connection)
            except (EOFError, OSError):
                self._orphaned = True
            self.connection.close()
        if self._orphaned and not _is_alive(self.pid):
            self.returncode = UNKNOWN
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends and return its exit status; raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            select.select([] if self._orphaned else [self.connection], [], [], POLL_SECONDS)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except (OSError, IndexError):  # without /proc
        return True
    return state != "Z"  # a process that has ended, of which nobody has taken note


def main(connection: int, also: Sequence[str] = ()) -> None:
    """Be the warm process; in each of its forks, run the command. also: modules to import, too."""
    ending = Ending()
    atexit.register(ending.skip_the_rest)  # before all others are registered: it is called after them
    # torch.cuda.is_available(), which some imports call, then asks the driver's library without starting CUDA
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in (*IMPORTS, *also):
        with contextlib.suppress(ImportError):  # another version may lack it: the commands import what they need
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would otherwise copy the memory that is shared
    with ending:
        with socket.socket(fileno=connection) as requests:
            requests.sendall(READY)
            arguments = _serve(requests)
        if arguments:
            _run(arguments)


class Ending:
    """Ends a process without tearing down its imports: that takes a second, and copies what forks share."""

    def __init__(self):
        """Start without a status: then the process ends as usual."""
        self.status: int | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        status = error.code or 0 if isinstance(error, SystemExit) else None if error else 0
        if isinstance(status, int):
            self.status = status
        else:
            gc.unfreeze()  # or libraries would report leaks

    def skip_the_rest(self) -> None:
        """End the process, once threads have ended and all exit handlers have run."""
        if self.status is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            ctypes.CDLL(None).fflush(None)  # what C libraries have printed
            os._exit(self.status)


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request until the connection is closed; return the command in a fork, None in the warm process."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # so that select notices the end of a fork
    running: dict[int, socket.socket] = {}
    watched: list[Any] = [requests, reader]
    while True:
        readable, _, _ = select.select(watched, [], [])
        if reader in readable:
            os.read(reader, 4096)
            _report_ends(running)
        if requests not in readable:
            continue
        try:
            request, status, descriptors = _read_request(requests)
        except (EOFError, OSError):
            return None
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for opened in (requests, status, *running.values()):
                opened.close()
            os.close(reader)
            os.close(writer)
            _become(request, *descriptors[:2])
            return request["arguments"]
        for number in descriptors:  # a lock among them is the fork's to hold
            os.close(number)
        running[pid] = status
        with contextlib.suppress(OSError):
            status.sendall(NUMBER.pack(pid))


def _read_request(requests: socket.socket) -> tuple[dict, socket.socket, list[int]]:
    header, descriptors, _, _ = socket.recv_fds(requests, NUMBER.size, 64)
    if not header:
        raise EOFError
    body = _read(requests, NUMBER.unpack(header)[0])
    return json.loads(body), socket.socket(fileno=descriptors[0]), descriptors[1:]


def _report_ends(running: dict[int, socket.socket]) -> None:
    for pid in [*running]:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as connection, contextlib.suppress(OSError):  # nobody may wait for it any more
                connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _become(request: dict, stdout: int, stderr: int) -> None:
    """Give a fork what a new process has from its start."""
    if request["start_new_session"]:
        os.setsid()
    for number, handler in ((signal.SIGCHLD, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        signal.signal(number, handler)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    command = [sys.executable, *request["arguments"]]
    if sys.modules["torch"].cuda._is_in_bad_fork():  # an import has started CUDA all the same
        os.execv(command[0], command)
    _show_command(command)


def _show_command(command: list[str]) -> None:
    """Let `ps` show a command: put it over the arguments that the warm process was started with."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"\0".join(map(os.fsencode, command))[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _run(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS` does."""
    if arguments[0] == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _read_number(connection: socket.socket) -> int:
    return NUMBER.unpack(_read(connection, NUMBER.size))[0]


def _read(connection: socket.socket, size: int) -> bytes:
    """Read `size` bytes; raises EOFError where the other side has ended."""
    data = b""
    while len(data) < size:
        data += (piece := connection.recv(size - len(data)))
        if not piece:
            raise EOFError
    return data
