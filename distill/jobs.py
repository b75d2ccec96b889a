"""Run a command in its output directory, which holds exactly one run: a stopped run is resumed, any other refused.

run_job(cfg, describe, check_train, train)                  # once, or as a job of a sweep; returns the objective
run_command(cfg, describe, check_export, export)            # for a command that writes one file or directory
with open_run(cfg, directory, ranks) as directory: ...      # locks it during the run, and writes config.yaml
state_of(cfg, directory)                # "new", "stopped" or "finished": a sweep runs only what is missing

It does not import torch: a sweep looks through its directories before it starts anything.
"""

import contextlib
import logging
import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill.config.composition import INSTALLED, command_overrides, is_sweep, run_directory
from distill.config.overrides import as_override
from distill.config.resumable import check_command, command_of, read_saved
from distill.config.resuming import changes, describe, refused, resumed_config
from distill.config.saved import saved_text
from distill.errors import DiskError, InputError, exit_on_bad_input
from distill.interrupt import hint_on_stop
from distill.progress import duration
from distill.secrets import redacted
from distill.sources.literals import as_literal
from distill.storage.locking import locked
from distill.storage.small_files import read_numbers
from distill.storage.writing import aside_of, write_text, write_whole, writing

log = logging.getLogger(__name__)

RESULTS = "results.json"  # only a finished run has it
RUN_FILES = (  # of a run, besides config.yaml: a directory without any of them is free
    *(RESULTS, "metrics.jsonl", "checkpoints/*.pt", "model", "run.txt", "per_query.csv"),
    *("tasks/*/run.txt", "tasks/*/per_query.csv", "journal.jsonl", "teacher.run", "teacher.parquet", "card.md"),
)


def run_job(
    cfg: DictConfig,
    describe: Callable[[DictConfig], str],
    check: Callable[[DictConfig], None],
    run: Callable[[DictConfig, Path], dict[str, float]],
) -> float | None:
    """Check a configuration and run it in its directory, unless it is already finished; return the objective.

    describe: returns the first line of output. Bad input ends with a one-line message and exit status 2.
    """
    sweep = is_sweep()  # for a launcher that runs its jobs through Hydra, such as the one for Slurm
    with exit_on_bad_input(sweep=sweep):
        directory = directory_of_job() if sweep else run_directory()
    redact_hydra_files(directory)
    if sweep:  # whose launcher may be none of ours
        redact_hydra_files(Path(HydraConfig.get().sweep.dir))
    with exit_on_bad_input(sweep=sweep), removed_if_refused(directory):
        if sweep:
            check_copies(HydraConfig.get().launcher)
        results = take_up(cfg, directory) if sweep else None
        if results is None:
            if cfg.resume is not None and not sweep:
                cfg = resumed_config(cfg)
            check(cfg)
            what = f"resuming, {describe(cfg)}" if cfg.resume else describe(cfg)
            with timed(what, shown_path(cfg.resume or directory)):
                results = run(cfg, Path(cfg.resume or directory).absolute())
    return objective(results)


def redact_hydra_files(directory: Path) -> None:
    """Take secrets out of what Hydra writes of the command line into a directory, unresolved."""
    subdirectory = (HydraConfig.get().output_subdir if HydraConfig.initialized() else None) or ".hydra"
    for path in (directory / "multirun.yaml", *(directory / subdirectory).glob("*.yaml")):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if redacted(text) != text:
            write_text(path, redacted(text))


def directory_of_job() -> Path:
    """Go where the command of a sweep was started, and return the job's directory there.

    Ray starts its jobs where the cluster was started: names of files would mean other ones there. Raises InputError
    where this machine does not have that directory.
    """
    made, sweep, home = run_directory(), HydraConfig.get().sweep, Path(HydraConfig.get().runtime.cwd)
    if Path.cwd() == home:
        return made
    if not home.is_dir():
        raise InputError(
            f"{home}: no such directory on {socket.gethostname()}: start the sweep in a file system that all machines "
            "share"
        )
    os.chdir(home)
    directory = Path(os.path.abspath(Path(sweep.dir) / sweep.subdir))
    if directory != made:
        with contextlib.suppress(OSError):
            made.rmdir()  # by Hydra, of the same name in another place
    return directory


def run_command(
    cfg: DictConfig,
    describe: Callable[[DictConfig], str],
    check: Callable[[DictConfig], None],
    run: Callable[[DictConfig], object],
    output: str | None = None,
) -> None:
    """Check a configuration and run a command that writes one file or directory, `cfg.output`, or else to `output`.

    describe: returns the first line of output. Bad input ends with a one-line message and exit status 2.
    """
    with exit_on_bad_input(sweep=is_sweep()):
        try:
            check(cfg)
            with timed(describe(cfg), output or shown_path(cfg.output)):
                run(cfg)
        finally:
            _remove_if_empty(run_directory())


def _remove_if_empty(directory: Path) -> None:
    """Remove the directory that Hydra has made, and that of its date, where nothing was written into them."""
    if directory == Path.cwd():  # some commands need none, and give this one
        return
    with contextlib.suppress(OSError):
        directory.rmdir()
        if re.fullmatch(r"\d{4}-\d\d-\d\d", directory.parent.name):
            directory.parent.rmdir()


@contextlib.contextmanager
def timed(what: str, where: str) -> Iterator[None]:
    """Log what is done and where the output goes, before slow imports; at the end, log the time it took."""
    speaks = os.environ.get("RANK", "0") == "0"
    started = time.perf_counter()
    if speaks:
        log.info("%s; output: %s", what, where)
    yield
    if speaks:
        log.info("finished in %s", duration(time.perf_counter() - started))


def shown_path(path: str | Path) -> str:
    """Return a path as the user would type it: relative to the current directory, if it is below that."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextlib.contextmanager
def removed_if_refused(directory: Path) -> Iterator[None]:
    """If input is refused, remove the new directory that Hydra made for the run, if it is empty."""
    try:
        yield
    except InputError:
        if not any(override.startswith("hydra.run.dir=") for override in command_overrides("hydra")):
            _remove_if_empty(directory)
        raise


def state_of(cfg: DictConfig, directory: Path) -> str:
    """Return whether the run in a directory is "finished", "stopped" or "new".

    A run that left only its config.yaml is new, whatever that file says, and so is one that left nothing to resume
    from. Raises InputError if the directory has a run of another configuration, or of another command.
    """
    if not _has_any(directory, RUN_FILES):
        return "new"
    command, saved = command_of(cfg), read_saved(directory)
    check_command(saved, command, directory)
    changed = refused(changes(saved, cfg), command, resumed=False)
    if changed:
        raise InputError(
            f"{directory}: belongs to another configuration ({describe(changed)}): use another directory, or repeat "
            "the overrides that it was started with"
        )
    if _has_any(directory, (RESULTS,)):
        return "finished"
    return "stopped" if _has_any(directory, command.stopped) else "new"


def take_up(cfg: DictConfig, directory: Path) -> dict[str, float] | None:
    """Return the results of a sweep's job if it is finished; set cfg.resume if it was stopped.

    Raises InputError like `state_of`, and for a sweep with resume set, which is for a single run.
    """
    check_sweep(cfg)
    state = state_of(cfg, directory)
    if state == "finished":
        log.info("finished before: %s", directory)
        return read_results(directory)
    if state == "stopped":
        cfg.resume = as_literal(directory)
    return None


def check_sweep(cfg: DictConfig) -> None:
    """Raise InputError for a configuration that cannot be a sweep's job."""
    if cfg.resume:
        raise InputError(
            f"resume={cfg.resume}: resumes one run, not a sweep: leave out -m, or resume a sweep with "
            "hydra.sweep.dir=ITS_DIRECTORY"
        )


def check_copies(launcher: Mapping) -> None:
    """Raise InputError if a launcher, such as Slurm's, would run a job several times at once, in the same directory."""
    for key in ("nodes", "tasks_per_node"):
        if (launcher.get(key) or 1) > 1:
            raise InputError(
                f"hydra.launcher.{key}={launcher[key]}: would run as many copies of each job: set it to 1; for one "
                "training on several machines or GPUs, see docs/clusters.md"
            )


@contextlib.contextmanager
def open_run(cfg: DictConfig, directory: Path, ranks=None) -> Iterator[Path]:
    """Lock the directory of a run while it runs, and yield it; with several ranks, it is the first rank's.

    Sets cfg.resume if the directory has a stopped run of this configuration, and writes config.yaml. Raises InputError
    if another process has locked the directory, or if it has any other run; it then changes nothing.
    """
    if ranks is not None:
        directory = ranks.gather(directory)[0]
    with contextlib.ExitStack() as stack:
        if ranks is None or ranks.is_first:
            if cfg.resume is None:
                state_of(cfg, directory)  # raises before anything is written there, even the lock
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_saying_how_to_resume(cfg, directory))
            stack.enter_context(locked(directory / "run.lock", "wait for it, or use another directory"))
            stack.enter_context(_given_back_if_refused(cfg, directory))
            _take_over(cfg, directory)
            stack.enter_context(hint_on_stop(lambda: _resume_hint(cfg, directory)))
        if ranks is not None:
            resume = ranks.gather(cfg.resume)[0]
            cfg.resume = None if resume is None else as_literal(resume)
        yield directory


@contextlib.contextmanager
def _saying_how_to_resume(cfg: DictConfig, directory: Path) -> Iterator[None]:
    """Let the line about a full or broken disk end with the command that resumes the run."""
    try:
        yield
    except DiskError as error:
        raise DiskError(f"{error}{_resume_hint(cfg, directory)}") from error


@contextlib.contextmanager
def _given_back_if_refused(cfg: DictConfig, directory: Path) -> Iterator[None]:
    """Leave a directory as it was if bad input ends its run before it has saved anything."""
    config, needed = directory / "config.yaml", directory / command_of(cfg).needs
    if not config.is_file():
        try:
            yield
        except InputError:
            if not _has_any(directory, RUN_FILES):
                for path in (
                    config,
                    directory / "run.lock",
                    directory / "journal.jsonl",
                    *directory.glob("false_negatives*.tsv"),
                ):
                    path.unlink(missing_ok=True)
            raise
        return
    before, results = config.read_bytes(), set(directory.glob("results-*.json"))
    saved = needed.stat() if needed.is_file() and needed != config else None
    try:
        yield
    except InputError:
        if saved is None or (needed.is_file() and needed.stat().st_mtime_ns == saved.st_mtime_ns):
            for moved in set(directory.glob("results-*.json")) - results:
                os.replace(moved, directory / RESULTS)
            if config.read_bytes() != before:
                write_whole(config, lambda aside: aside.write_bytes(before))
        raise


def _take_over(cfg: DictConfig, directory: Path) -> None:
    """Check that the directory is new or belongs to this run, and write its config.yaml."""
    command = command_of(cfg)
    if cfg.resume is not None:
        _check_resumed(cfg, directory)
    else:
        state = state_of(cfg, directory)
        if state == "finished":
            raise InputError(
                f"{directory}: holds the finished {command.noun} of this configuration: use another directory, or "
                f"measure it again with {as_override('resume', directory)}"
            )
        if state == "stopped":
            log.info("%s: resuming the stopped %s of this configuration", directory, command.noun)
            cfg.resume = as_literal(directory)
    write_config(cfg, directory)


def _check_resumed(cfg: DictConfig, directory: Path) -> None:
    command, saved = command_of(cfg), read_saved(directory)
    check_command(saved, command, directory)
    changed = changes(saved, cfg)
    not_allowed = refused(changed, command, resumed=True)
    if not_allowed:
        instead = ""
        if command.noun == "training":
            instead = f", or start a new training from its model with backbone=hf backbone.name={directory / 'model'}"
        raise InputError(
            f"resume={cfg.resume}: the configuration differs from that of the stopped {command.noun} "
            f"({describe(not_allowed)}): leave that out{instead}"
        )
    if changed:
        log.info("resumed with another %s", describe(changed, most=len(changed)))
    longer = [key for key in changed if key in command.steps]
    results = directory / RESULTS
    if longer and results.is_file():  # of a finished run, which now continues
        os.replace(results, directory / f"results-{longer[0].split('_')[1]}-{changed[longer[0]][0]}.json")


def _resume_hint(cfg: DictConfig, directory: Path) -> str:
    can_resume = _has_any(directory, command_of(cfg).stopped)
    return f"; resume with: {resume_command(cfg, directory)}" if can_resume else ""


def resume_command(cfg: DictConfig, directory: Path) -> str:
    """Return the command that resumes a run."""
    return command_line(command_of(cfg).name, as_override("resume", directory))


def command_line(name: str, *overrides: str) -> str:
    """Return a command as the user types it."""
    return shlex.join([*invocation(name), *overrides])


def own_command_line(name: str, overrides: list[str]) -> str | None:
    """Return the command of a run, None if it was started from Python."""
    return command_line(name, *overrides) if HydraConfig.initialized() else None


def invocation(name: str) -> list[str]:
    """Return the words that a command begins with: `distill NAME` once installed, those of a checkout otherwise."""
    if INSTALLED:
        return ["distill", name]
    return ["python", f"{name}.py"] if name in ("train", "evaluate") else ["python", "-m", "distill", name]


def write_config(cfg: DictConfig, directory: Path) -> None:
    """Write the whole composed configuration, resolved, without secrets, with resume=null and dry_run=false."""
    changes = {"resume": None} | ({"dry_run": False} if "dry_run" in cfg else {})
    write_text(directory / "config.yaml", saved_text(OmegaConf.merge(cfg, changes)))


def check_output(path: Path, *inputs: str | None, written: str = "a TREC run") -> None:
    """Create the folder of an output file; raises InputError if it cannot be written, is there, or is an input.

    written: what the file will hold; a name that readers take for something else is refused, too.
    """
    others = (".gz", ".parquet", ".csv", *(() if written == "JSON lines" else (".jsonl", ".ndjson", ".json")))
    if path.name.endswith(others):
        raise InputError(
            f"output={path}: is written as {written}, plain, but whoever reads it goes by {path.suffix}: choose a name "
            "without that ending"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"output={path}: is a directory: name a file in it, as in output=first.run")
        files = [source for source in inputs if source is not None and os.path.exists(source)]
        if path.exists() and any(os.path.samefile(source, path) for source in files):
            raise InputError(f"output={path}: is one of the inputs, which would be lost: choose another name")
        if path.exists():
            raise InputError(f"output={path}: already exists: choose another name, or remove it")
        aside = aside_of(path)
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror}): choose another place or name") from None


def read_results(directory: Path) -> dict[str, float]:
    """Read results.json; raises InputError if it is damaged."""
    return read_numbers(directory / RESULTS)


def objective(results: dict[str, float]) -> float | None:
    """Return the first validation result, else the first test result; None if neither was measured."""
    for row in ("val/", "test/"):
        for name, value in results.items():
            if name.startswith(row):
                return value
    return None


def _has_any(directory: Path, patterns: tuple[str, ...]) -> bool:
    """Whether any path matches; empty files, which a run has opened but not written, do not count."""
    paths = (path for pattern in patterns for path in directory.glob(pattern))
    return any(path.is_dir() or path.stat().st_size for path in paths)
