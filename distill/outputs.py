"""What an output directory tells about the run that wrote it, so that a sweep runs only what is missing.

state_of(cfg, directory)        # "new", "stopped" or "finished"
take_up(cfg, directory)         # at the start of a sweep's job: its results if it is finished, else None
objective(results)              # the number that a search maximises

It imports no torch: a sweep looks through its directories before it starts anything.
"""

import json
import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distill.config import changed_keys
from distill.errors import InputError

log = logging.getLogger(__name__)

FINISHED = ("results.json",)
STOPPED = ("checkpoints/last.pt", "per_query.csv", "tasks/*/per_query.csv")  # what `resume` goes on from


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


def clear_state(directory: Path) -> None:
    """Remove what would make a new run in a used directory look finished or stopped."""
    for path in _present(directory, FINISHED + STOPPED):
        path.unlink()


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
