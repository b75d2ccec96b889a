"""What an output directory holds, and tells about the run that wrote it, so that a sweep runs only what is missing.

run_job(cfg, check_train, train)    # what an entry point does: once, or as a job of a sweep; returns the objective
write_config(cfg, directory)        # at the start of a run
state_of(cfg, directory)            # "new", "stopped" or "finished"
write_whole(path, write)            # a file is whole or absent

It imports no torch: a sweep looks through its directories before it starts anything.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from distill.config import changed_keys
from distill.errors import InputError, exit_on_bad_input

log = logging.getLogger(__name__)

FINISHED = ("results.json",)
STOPPED = ("checkpoints/last.pt", "per_query.csv", "tasks/*/per_query.csv")  # what `resume` goes on from


def run_job(
    cfg: DictConfig, check: Callable[[DictConfig], None], run: Callable[[DictConfig, Path], dict[str, float]]
) -> float | None:
    """Check a configuration and run it in its directory, unless that is finished; return the objective.

    Bad input is answered with one line and exit status 2.
    """
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN  # a launcher that runs its jobs through Hydra, as Slurm's does
    directory = Path(HydraConfig.get().runtime.output_dir)
    with exit_on_bad_input(sweep):
        results = take_up(cfg, directory) if sweep else None
        if results is None:
            check(cfg)
            results = run(cfg, Path(cfg.resume or directory).absolute())
    return objective(results)


def state_of(cfg: DictConfig, directory: Path) -> str:
    """Return whether the run of a directory is finished, was stopped on its way, or is new.

    A run that has left neither results nor anything to go on from is new, whatever its configuration was. Raises
    InputError where there is something of another configuration.
    """
    if not _present(directory, FINISHED + STOPPED):
        return "new"
    config = directory / "config.yaml"
    if not config.is_file():
        raise InputError(f"{directory}: holds a run without its config.yaml: move it away, or take another directory")
    changed = changed_keys(OmegaConf.load(config), cfg)
    if changed:
        raise InputError(
            f"{directory}: belongs to another configuration ({'; '.join(changed)}): repeat the overrides that it was "
            "started with, or take another directory"
        )
    return "finished" if _present(directory, FINISHED) else "stopped"


def take_up(cfg: DictConfig, directory: Path) -> dict[str, float] | None:
    """Return the results of a sweep's job if it is finished; set cfg.resume if it was stopped.

    Raises InputError like `state_of`, and for a sweep that is told to resume a single run.
    """
    check_sweep(cfg)
    state = state_of(cfg, directory)
    if state == "finished":
        log.info("finished before: %s", directory)
        return read_results(directory)
    if state == "stopped":
        cfg.resume = str(directory)
    return None


def check_sweep(cfg: DictConfig) -> None:
    """Check what holds for the configuration of a sweep's job; raises InputError."""
    if cfg.resume:
        raise InputError(
            f"resume={cfg.resume}: goes on with one run, not with a sweep: leave out -m, or go on with a sweep by "
            "hydra.sweep.dir=ITS_DIRECTORY"
        )


def write_config(cfg: DictConfig, directory: Path) -> list[str]:
    """Write the composed configuration of a new run; of a resumed one, return what differs from what it began with."""
    path = directory / "config.yaml"
    if cfg.resume:
        return changed_keys(OmegaConf.load(path), cfg)
    for leftover in _present(directory, FINISHED + STOPPED):  # in a used directory: it would look finished or stopped
        leftover.unlink()
    OmegaConf.save(cfg, path)
    return []


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file aside, and then give it its name: killed halfway, it leaves the old one."""
    aside = path.with_name(f".{path.name}.new")
    write(aside)
    os.replace(aside, path)


def read_results(directory: Path) -> dict[str, float]:
    """Read results.json."""
    return json.loads((directory / "results.json").read_text(encoding="utf-8"))


def objective(results: dict[str, float]) -> float | None:
    """Return the validation's number, else the test's first one; None where neither was measured."""
    for row in ("val/", "test/"):
        for name, value in results.items():
            if name.startswith(row):
                return value
    return None


def _present(directory: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in directory.glob(pattern)]
