"""Find the directories that train.py and evaluate.py leave, and read what they hold.

runs, unfinished = read_runs(["outputs/multirun/2026-11-22"])
runs[0].config["loss.name"], runs[0].results["test/sample/nDCG@10"]
runs[0].per_query("test", "sample")["nDCG@10"]["q1"]
runs = [only_queries(run, {"q1", "q7"}) for run in runs]
"""

import functools
import logging
import math
import os
import re
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config.composition import flatten
from distill.config.resumable import command_and_fault
from distill.config.resuming import RENAMED_VALUES
from distill.config.saved import read_plain
from distill.errors import InputError
from distill.evaluation.results import ROWS
from distill.evaluation.significance import read_per_query
from distill.secrets import redacted
from distill.sources.literals import with_texts
from distill.storage.files import as_text, numbered_lines, parse_object
from distill.storage.json_numbers import is_number
from distill.storage.small_files import read_numbers

log = logging.getLogger(__name__)

NOT_SEARCHED = ("wandb", "model", "checkpoints", "tasks")  # a run's own folders; W&B's hold another config.yaml
# Keys of evaluate.py that change what a model computes; its training has none of them
CHANGING = ("prompt", "passage_length", "exit_keep", "cascade.model", "cascade.prompt", "cascade.keep")
OVER_QUERIES = ("agreement", "calibration", "val")  # kinds of results that are over queries, beside those of ROWS
MEASURING = ("task", "tasks", "max_tokens", "layout", "device", "precision")  # keys of evaluate.py beside the model

ROUNDING = 1e-6  # between a mean in results.json and that of the values of each query
MAX_STAGES = 20  # of training, one after the other
STAGE = re.compile(r"stage\d+\.")  # before the keys of a stage that is not the last


@dataclass
class RunRecord:
    """A finished run: its directory, its configuration (flat: "loss.name") and what its results.json holds."""

    directory: Path
    config: dict[str, Any]
    results: dict[str, float]
    queries: Set[str] | None = None  # the queries that count; None: all

    def per_query(self, kind: str, task: str) -> dict[str, dict[str, float]]:
        """Return the values of a task's queries, {measure: {query id: value}}; nothing without a file of them.

        kind: the row, as in results.json. The file is in the task's own folder, or in the run's if it has one task.
        """
        tasks = {name.split("/", 1)[1].rpartition("/")[0] for name in self.results if name.startswith(f"{kind}/")}
        only_measured = not any(name.startswith("test/") for name in self.results)  # by evaluate.py model=null
        is_main = kind == ("first_stage" if only_measured else "test")
        name = "per_query.csv" if is_main else f"{kind}.per_query.csv"
        path = self.directory / "tasks" / task / name
        if not path.is_file() and len(tasks) == 1:
            path = self.directory / name
        values = _read_once(str(path)) if path.is_file() else {}
        if self.queries is None:
            for measure, by_query in values.items():
                mean = math.fsum(by_query.values()) / len(by_query)
                stated = self.results.get(f"{kind}/{task}/{measure}")
                if stated is not None and abs(mean - stated) > ROUNDING:
                    _warn_of_another_mean(str(path), measure, mean, stated)
            return values
        kept = {
            measure: {query_id: value for query_id, value in by_query.items() if query_id in self.queries}
            for measure, by_query in values.items()
        }
        return {measure: by_query for measure, by_query in kept.items() if by_query}


@functools.lru_cache(maxsize=512)
def _read_once(path: str) -> dict[str, dict[str, float]]:
    return read_per_query(path)


@functools.cache  # once for each file and measure
def _warn_of_another_mean(path: str, measure: str, mean: float, stated: float) -> None:
    log.warning(
        "%s: the mean of %s is %.6g, but results.json says %.6g: one of the two files has changed: evaluate the model "
        "again", path, measure, mean, stated
    )  # fmt: skip


def only_queries(run: RunRecord, queries: Set[str]) -> RunRecord:
    """Return the run with means over these queries; what was measured without values per query is left out."""
    results = {}
    for name, value in run.results.items():
        kind, _, rest = name.partition("/")
        task, _, measure = rest.rpartition("/")
        if kind not in ROWS:
            if kind not in OVER_QUERIES:
                results[name] = value
            continue
        by_query = run.per_query(kind, task).get(measure, {})
        chosen = [value for query_id, value in by_query.items() if query_id in queries]
        if chosen:
            results[name] = math.fsum(chosen) / len(chosen)
    return replace(run, results=results, queries=queries)


def read_runs(directories: Sequence[str]) -> tuple[list[RunRecord], list[Path]]:
    """Return the finished runs below the directories, and the directories of the unfinished ones.

    Raises InputError for a missing directory, one without a run, and a file that cannot be read.
    """
    found: dict[Path, Path] = {}  # resolved -> as it was given: one run may be below two of the directories
    for directory in directories:
        if not os.path.isdir(directory):
            raise InputError(f"runs={directory}: no such directory (it is looked up from {Path.cwd()})")
        for path in _find_runs(Path(directory)):
            found.setdefault(path.resolve(), path)
    if not found:
        raise InputError(
            f"runs={','.join(directories)}: no run directory there or below: expected config.yaml and results.json, as "
            "train.py and evaluate.py leave them"
        )
    finished = [path for path in found.values() if (path / "results.json").is_file()]
    unfinished = [path for path in found.values() if not (path / "results.json").is_file()]
    records = [RunRecord(path, read_config(path), read_numbers(path / "results.json")) for path in finished]
    for is_kept, what in KEPT:
        kept = [record for record in records if is_kept(record)]
        if len(kept) < len(records):
            left_out = f"{len(records) - len(kept)} {what}"
            if not kept:
                raise InputError(f"runs={','.join(directories)}: has only {left_out}")
            log.info("left out: %s", left_out)
        records = kept
    return records, unfinished


def _is_measured(record: RunRecord) -> bool:
    """Whether a directory is of a training or an evaluation, rather than of annotations, queries or judgments."""
    if record.results and not (record.directory / "config.yaml").is_file():  # a split's have no row or task
        return any("/" in name for name in record.results)
    return not any(key.startswith("teacher.llm.") for key in record.config) or "loss.name" in record.config


def _is_whole(record: RunRecord) -> bool:
    return record.config.get("shard") is None


KEPT = (  # which directories are reported on, and what the others are
    (_is_measured, "results of other commands than train.py and evaluate.py"),
    (_is_whole, "shards, which are measured once `distill join` has joined them"),
)


def _find_runs(directory: Path) -> list[Path]:
    runs = []
    for place, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_SEARCHED]
        folders.sort(key=_natural)
        if "config.yaml" in files or "results.json" in files:
            runs.append(Path(place))
    return runs


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts job 2 of a sweep before job 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def read_config(directory: Path, later: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a run's configuration, flat: config.yaml, or Hydra's own copy; without either, its directory tells it apart.

    A model that another run trained is a path, which would keep seeds apart. While that run is still there, its keys
    stand in for the path: as they are for an evaluation, below `stage1.` and so on for the stages before a training.
    later: the runs that this one's model was used by. Raises InputError for a damaged file.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        path = directory / ".hydra" / "config.yaml"
    if not path.is_file():
        return {"directory": str(directory)}
    config = _read_flat(path)
    later = (*later, directory.resolve())
    trained = _trained_by(config.get("model"), directory, later)
    if trained:
        trained = {key: value for key, value in trained.items() if not is_measuring(key)}
        kept = {key: value for key, value in config.items() if is_measuring(key) or key in CHANGING}
        return trained | kept | ({"shard": config["shard"]} if config.get("shard") is not None else {})
    if "loss.name" not in config:  # an evaluation of a model that no run of ours has trained
        return config
    before = _trained_by(config.get("backbone.name"), directory, later)
    unchanged = dict.fromkeys(CHANGING)
    if not before:
        return {"stages": 1} | unchanged | config
    config["backbone.name"] = before.get("backbone.name")
    return {"stages": before["stages"] + 1} | unchanged | config | _as_stages(before)


def _read_flat(path: Path) -> dict[str, Any]:
    plain = read_plain(path)
    _, fault = command_and_fault(plain)
    if fault is not None:
        raise InputError(f"{path}: {fault}: restore the file, or remove the run")
    plain = with_texts(plain, redacted)  # earlier versions wrote secrets
    config = {key: value for key, value in flatten(plain).items() if key not in ("stages", "directory")}
    if "loss.name" in config:
        config["loss.name"] = loss_name(config["loss.name"])
    return config


def loss_name(name: Any) -> str:
    """Return a loss's name as it is configured today: adr_mse and margin_mse of older runs are adrmse and marginmse."""
    return RENAMED_VALUES["loss.name"].get(name, name) if isinstance(name, str) else name


def _as_stages(config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a run below the number of its stage; those of the stages before it have theirs already."""
    kept = {
        key: value for key, value in config.items() if not key.startswith(("task.", "logger.")) and key not in CHANGING
    }
    own = f"stage{kept.pop('stages')}."
    return {
        key if STAGE.match(key) else own + key: value for key, value in kept.items() if key not in ("seed", "resume")
    }


def _trained_by(model: Any, directory: Path, later: tuple[Path, ...]) -> dict[str, Any]:
    """Return the configuration of the training that left the model of a run's directory; nothing if it is unknown."""
    if not isinstance(model, str) or Path(model).name != "model" or len(later) > MAX_STAGES:
        return {}
    models = places_of(model, directory)
    for source in (path.parent for path in models):
        if os.path.isfile(source / "config.yaml") and source.resolve() not in later:  # some runs name each other
            config = read_config(source, later)
            if "stages" in config:
                return config
    if not Path(model).is_absolute() and not any(map(os.path.isdir, models)):
        _warn_of_a_missing_model(model)
    return {}


def places_of(model: str, directory: Path) -> list[Path]:
    """Return where the model that a run names may be, likeliest first; directory: the run's.

    A relative path begins where the run was started: in a directory above its own, or else in the current one.
    """
    return list(dict.fromkeys(place / model for place in (*directory.absolute().parents, Path.cwd())))


@functools.cache  # once for each model
def _warn_of_a_missing_model(model: str) -> None:
    log.warning(
        "%s: found neither in %s nor in a directory above the run that names it, so that its seeds have rows of their "
        "own: call report where that run was started", model, Path.cwd()
    )  # fmt: skip


def is_measuring(key: str) -> bool:
    """Whether a key says how a model was measured, and not which one it is."""
    return key.split(".")[0] in MEASURING


def read_history(run: RunRecord) -> list[dict[str, float]]:
    """Read the lines of a run's metrics.jsonl; none where it has no such file.

    Half a line at the end, which a killed process leaves, is passed over; any other bad line raises InputError.
    """
    path = run.directory / "metrics.jsonl"
    if not path.is_file():
        return []
    history = []
    for place, line in numbered_lines(str(path), raw=True):
        if not line.endswith(b"\n"):
            continue
        try:
            metrics = parse_object(as_text(line, place), place)
        except InputError as error:
            raise InputError(f"{error}: remove the line") from None
        if not isinstance(metrics.get("step"), int) or abs(metrics["step"]) > sys.float_info.max:
            raise InputError(f"{place}: has no step: expected an object with step and metrics: remove the line")
        wrong = next((name for name, value in metrics.items() if not is_number(value)), None)
        if wrong is not None:
            raise InputError(f"{place}: {wrong} is {metrics[wrong]!r}: expected a number: remove the line")
        history.append(metrics)
    return history
