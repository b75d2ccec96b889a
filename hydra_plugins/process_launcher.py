"""Hydra's launcher for sweeps on this machine: every job is a separate process, so that none can end the others.

    python train.py -m loss=ranknet,adrmse seed=0,1,2                       one job after the other
    python train.py -m hydra/launcher=processes hydra.launcher.n_jobs=2 seed=0,1,2
    python train.py -m ... hydra.sweep.dir=THE_SAME_DIRECTORY               again: only what is missing

A job is the same script in a single run, forked from a process that has imported torch and the rest once
(distill/warm.py). What it prints is in job.log in its directory, and on the terminal too where jobs run one by one.
SIGTERM and Ctrl-C are passed on, so that jobs save before they end. The jobs that failed are named at the end, with
exit status 1; to a search they are the worst value. Hydra finds this file by its folder's name.
"""

import atexit
import contextlib
import copy
import inspect
import logging
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from distill.config.overrides import as_override
from distill.cores import rank_variable
from distill.errors import InputError, exit_on_bad_input
from distill.jobs import RESULTS, check_sweep, invocation, objective, read_results, redact_hydra_files, state_of
from distill.progress import duration
from distill.storage.locking import locked
from distill.storage.writing import write_whole
from distill.warm import UNKNOWN, Fork, WarmProcess

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05


@dataclass
class Job:
    """One job of a sweep; `reason` is why it failed."""

    number: int
    overrides: list[str]
    cfg: DictConfig
    hydra_cfg: DictConfig
    directory: Path
    state: str
    process: Fork | subprocess.Popen | None = None
    bytes_before: int = 0  # in job.log, from processes before
    bytes_shown: int = 0
    started: float = 0.0  # of the clock, in seconds
    reason: str | None = None

    @property
    def log(self) -> Path:
        """The file of what the job prints."""
        return self.directory / "job.log"

    def __str__(self) -> str:
        return f"job {self.number} in {self.directory}: {' '.join(self.overrides)}"


class ProcessLauncher(Launcher, Callback):
    """Starts the jobs and waits for them; also a callback, since Hydra tells only callbacks that a sweep has ended."""

    def __init__(self, n_jobs: int):
        """n_jobs: how many run at once."""
        self.n_jobs = n_jobs
        self.jobs: list[Job] = []
        self.seconds: list[float] = []  # how long each ended job took
        self.warm: WarmProcess | None = None
        self.lock, self.held = None, contextlib.ExitStack()  # never closed: the lock ends with the processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives every launcher."""
        self.config, self.config_loader = config, hydra_context.config_loader
        self.program = _program(Path(inspect.getfile(inspect.unwrap(task_function))).absolute())
        self.sweep_dir = Path(config.hydra.sweep.dir)
        multirun = self.sweep_dir / "multirun.yaml"  # which the sweeper overwrites before it asks for anything
        self.before = multirun.read_bytes() if multirun.is_file() else None
        atexit.register(redact_hydra_files, self.sweep_dir.absolute())  # also of a sweep that is refused
        hydra_context.callbacks.callbacks.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run what is missing of a batch of jobs; some sweepers give several batches.

        Bad input ends it with one line and exit status 2, before any job of the batch starts.
        """
        with exit_on_bad_input(sweep=False):
            self._check()
            self._lock_directory()
            jobs = [
                self._compose(initial_job_idx + place, list(overrides)) for place, overrides in enumerate(job_overrides)
            ]
            self.jobs += jobs
            if len({job.directory for job in self.jobs}) < len(self.jobs):
                raise InputError("hydra.sweep.subdir gives two jobs one directory: add ${hydra.job.num} to it")
        for job in jobs:
            if job.state == "finished":
                log.info("%s: finished before", job)
        self._run([job for job in jobs if job.state != "finished"])
        return [_job_return(job) for job in jobs]

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        """Report the jobs that failed; raises SystemExit(1) if there are any."""
        if self._report_failures():
            raise SystemExit(1)
        log.info("all %d jobs are finished: %s", len(self.jobs), self.sweep_dir)

    def _check(self) -> None:
        if type(self.n_jobs) is not int or self.n_jobs < 1:
            raise InputError(f"hydra.launcher.n_jobs={self.n_jobs}: must be a whole number of at least 1")
        if rank_variable("WORLD_SIZE", 1) > 1:
            raise InputError("-m: a sweep starts its own processes and does not run under torchrun: leave out one")

    def _lock_directory(self) -> None:
        """Lock the sweep's directory; the jobs inherit the lock, so that it holds until the last of them ends."""
        if self.lock:
            return
        self.sweep_dir.mkdir(parents=True, exist_ok=True)
        lock = locked(self.sweep_dir / "sweep.lock", "wait for that sweep, or for the jobs that a killed one has left")
        try:
            self.lock = self.held.enter_context(lock)
        except InputError:
            before = self.before
            if before is not None:  # of the sweep that holds it
                write_whole(self.sweep_dir / "multirun.yaml", lambda aside: aside.write_bytes(before))
            raise
        redact_hydra_files(self.sweep_dir)

    def _compose(self, number: int, overrides: list[str]) -> Job:
        """Compose the configuration of a job, as Hydra's own launchers do, and find out whether it has run before."""
        config = self.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
        try:
            directory = self.sweep_dir / config.hydra.sweep.subdir
        except OmegaConfBaseException as error:
            raise InputError(
                f"hydra.sweep.subdir: {str(error).splitlines()[0]}: name keys that every job has"
            ) from None
        cfg, hydra_cfg = copy.deepcopy(config), copy.deepcopy(HydraConfig.instance().cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        check_sweep(cfg)
        return Job(number, overrides, cfg, hydra_cfg, directory, state_of(cfg, directory))

    def _run(self, waiting: list[Job]) -> None:
        """Run jobs, n_jobs at once; raises SystemExit(128 + signal) when they have ended after a stop request."""
        running: list[Job] = []
        stopped_by = 0
        if waiting and not self.warm:
            self.warm = WarmProcess(_environment())
            atexit.register(self.warm.close)
        with _signals() as signals:
            try:
                while running or (waiting and not stopped_by):
                    while (
                        self.warm.is_ready() and waiting and len(running) < self.n_jobs and not (signals or stopped_by)
                    ):
                        job = waiting.pop(0)
                        self._announce(job, len(waiting), len(running))
                        self._start(job)
                        running.append(job)
                    time.sleep(POLL_SECONDS)
                    while signals:
                        stopped_by = signals.pop(0)
                        log.info("%s: passed on to the running jobs", signal.Signals(stopped_by).name)
                        for job in running:
                            job.process.send_signal(stopped_by)
                    for job in [*running]:
                        status = job.process.poll()  # before the output is read, so that none is missed
                        if self.n_jobs == 1:
                            _show_output(job)
                        if status is not None:
                            running.remove(job)
                            self.seconds.append(time.monotonic() - job.started)
                            _note_end(job, status, stopped_by)
            finally:
                for job in running:
                    job.process.terminate()
        if stopped_by:
            self._report_failures()
            log.info("stopped; resume with: %s", self._command_again())
            raise SystemExit(128 + stopped_by)

    def _announce(self, job: Job, num_waiting: int, num_running: int) -> None:
        """Log which job starts and, once a job has ended, about how long the sweep will still take."""
        left = ""
        if self.seconds:
            rounds = math.ceil((num_waiting + 1 + num_running) / self.n_jobs)
            left = f", about {duration(rounds * statistics.mean(self.seconds))} left"
        place, resumed = len(self.jobs) - num_waiting, " (resumed)" if job.state == "stopped" else ""
        overrides = " ".join(job.overrides)
        log.info("job %d of %d%s%s: %s: %s", place, len(self.jobs), left, resumed, job.directory, overrides)

    def _start(self, job: Job) -> None:
        job.started = time.monotonic()
        job.directory.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as output:
            job.bytes_before = job.bytes_shown = output.tell()
            job.process = self.warm.start(
                self._arguments(job),
                stdout=output,
                stderr=output,
                env=_environment(),
                pass_fds=[self.lock.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal reaches only the sweep, which passes it on once
                fork=not job.hydra_cfg.hydra.job.env_set,  # the job sets these before it imports torch
            )

    def _arguments(self, job: Job) -> list[str]:
        """Return what Python is given for a single run with the job's configuration."""
        options = ["--config-name", job.hydra_cfg.hydra.job.config_name]
        for source in job.hydra_cfg.hydra.runtime.config_sources:
            flag = {"main": "--config-path", "command-line": "--config-dir"}.get(source.provider)
            options += [flag, source.path] if flag else []
        # Not resolved: an override may hold ${...}, which is for the job to resolve
        given = OmegaConf.to_container(job.hydra_cfg.hydra.overrides, resolve=False)["hydra"]
        overrides = [*given, *job.overrides, as_override("hydra.run.dir", job.directory)]
        overrides += ["hydra.mode=RUN", f"hydra.job.num={job.number}", f"hydra.job.id={job.number}"]
        return [*self.program, *options, *overrides]

    def _report_failures(self) -> bool:
        """Log one line for each job that failed; return whether there are any."""
        failed = [job for job in self.jobs if job.reason]
        for job in failed:
            log.error("failed: %s: %s", job, job.reason)
        if failed:
            log.error("%d of %d jobs failed; run again: %s", len(failed), len(self.jobs), self._command_again())
        return bool(failed)

    def _command_again(self) -> str:
        """Return the command that runs what is missing."""
        start = invocation(self.program[-1]) if self.program[0] == "-m" else ["python", sys.argv[0]]
        arguments = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
        return shlex.join([*start, *arguments, as_override("hydra.sweep.dir", self.sweep_dir)])


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1"}


def _program(file: Path) -> list[str]:
    """Return how Python runs the program: a checkout's script, or a command of the package (distill/_data/)."""
    return ["-m", "distill", file.stem] if file.parent.name in ("commands", "_data") else [str(file)]


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C in a list for a while."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [
        signal.signal(number, lambda received_number, frame: received.append(received_number)) for number in numbers
    ]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _show_output(job: Job) -> None:
    """Copy what a job has printed since the last time to the terminal."""
    with open(job.log, "rb") as output:
        output.seek(job.bytes_shown)
        text = output.read()
    job.bytes_shown += len(text)
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _note_end(job: Job, status: int, stopped_by: int) -> None:
    """Note why a job failed, unless it finished or was stopped."""
    if status == UNKNOWN and (job.directory / RESULTS).is_file():  # it outlived its warm process
        status = 0
    if status == 0:
        log.info("%s: finished", job.directory)
    elif stopped_by and status in (128 + stopped_by, -stopped_by):
        log.info("%s: stopped", job.directory)
    else:
        job.reason = _reason(job, status)
        log.error("%s: failed: %s", job.directory, job.reason)


def _reason(job: Job, status: int) -> str:
    """Return why a process failed: the signal, the one line of an InputError, or else the last line of its output."""
    if status < 0:
        return f"killed by signal {-status}"
    if status == UNKNOWN:
        return "its warm process was killed, as where memory runs out: see job.log"
    if status > 128:
        return f"stopped by signal {status - 128}"
    with open(job.log, encoding="utf-8", errors="replace") as output:
        output.seek(job.bytes_before)
        lines = [line.strip() for line in output if line.strip() and "HYDRA_FULL_ERROR" not in line]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"exit status {status}"])[-1]


def _job_return(job: Job) -> JobReturn:
    """Return what a sweeper reads: the objective.

    A job that failed has the worst value: a failed result would end Hydra's own sweeper at once, and a search should
    avoid where jobs fail.
    """
    measured = (job.directory / RESULTS).is_file()  # a dry run measures nothing
    value = float("-inf") if job.reason else objective(read_results(job.directory)) if measured else None
    result = JobReturn(job.overrides, job.cfg, job.hydra_cfg, os.getcwd(), job.hydra_cfg.hydra.job.name)
    result.status, result.return_value = JobStatus.COMPLETED, value
    return result
