"""Runs that differ only in their seed form one row; a row is named by the keys that tell it from the others.

rows = make_rows(runs)
name_rows(rows, labels)
rows[0].name, rows[0].by_seed("test/sample/nDCG@10")     # "loss=ranknet, data.depth=50", {0: 0.71, 1: 0.72}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.errors import InputError
from distill.report.labels import Labels
from distill.report.runs import STAGE, RunRecord, is_measuring

IMPLIED = ("loss.", "backbone.", "teacher.", "teachers.", "validation.", "task.", "data.passages", "data.queries")
MEASURED = ("test/", "latency/", "interpolated/")  # metrics that depend on how a task was measured
PARTS = "task.tasks."  # before the keys of a suite's tasks
FALLBACK = ("directory", "model", "backbone.name", "loss.name")  # what names the only row


@dataclass
class Row:
    """Runs of one configuration, over seeds."""

    name: str
    config: dict[str, Any]  # without what may differ within the row
    runs: list[RunRecord]
    reference: str = ""  # first_stage, say, for what was measured beside all runs

    def seeds(self) -> list[Any]:
        """Return the seeds of its runs, each once."""
        return list(dict.fromkeys(run.config.get("seed") for run in self.runs))

    def by_seed(self, metric: str) -> dict[Any, float]:
        """Return a metric's value for each seed; a command that was run twice counts once, with its mean."""
        values: dict[Any, list[float]] = {}
        for run in self.runs:
            if metric in run.results:
                values.setdefault(run.config.get("seed"), []).append(run.results[metric])
        return {seed: sum(ones) / len(ones) for seed, ones in values.items()}


def make_rows(runs: Sequence[RunRecord]) -> list[Row]:
    """Gather runs into rows, which have no names yet, in the order of the runs' directories.

    The task only says what was measured, so that a model's evaluations on several tasks share one row; where they
    give one metric twice (at two depths, say), each way of measuring has a separate row.
    """
    rows = []
    for group in _gather(_with_parts(runs), _is_identity):
        parts = _gather(group, lambda key: not _is_free(key)) if _is_measured_in_two_ways(group) else [group]
        for part in parts:
            rows.append(Row("", _shared_config(part), part))
    return rows


def _with_parts(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Give the tasks of each run the keys that a suite of another one sets for them, so that rows are told by these."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key.startswith(PARTS))
    with_parts = []
    for run in runs:
        config = dict(run.config)
        for task in _tasks(run):
            part = f"{PARTS}{task}."
            named = {key: f"task.{key.removeprefix(part)}" for key in keys if key.startswith(part)}
            way = way_of(run.config, task) if named else {}
            config |= {key: way[own] for key, own in named.items() if own in way}
        with_parts.append(replace(run, config=config))
    return with_parts


def _tasks(run: RunRecord) -> set[str]:
    return {_task_of(metric) for metric in run.results if _is_measured(metric)}


def _is_measured(metric: str) -> bool:
    return metric.startswith(MEASURED)


def _task_of(metric: str) -> str:
    return metric.partition("/")[2].rpartition("/")[0]


def way_of(config: dict[str, Any], task: str) -> dict[str, Any]:
    """Return how a task was measured, by key.

    What a suite does not set for its task is the suite's, as in `split_suite`.
    """
    part = f"{PARTS}{task}."
    way = {key: value for key, value in config.items() if is_measuring(key) and not key.startswith(PARTS)}
    way |= {f"task.{key.removeprefix(part)}": value for key, value in config.items() if key.startswith(part)}
    if isinstance(runs := way.pop("task.runs", None), str):
        way["task.run"] = runs.replace("{task}", task)
    return {key: value for key, value in way.items() if not _is_free(key)}


def _averaged(run: RunRecord, task: str) -> dict[str, Any]:
    """Which tasks a mean is over, if a suite's is meant."""
    is_suite = task == run.config.get("task.name") and any(key.startswith(PARTS) for key in run.config)
    return {"task.tasks": sorted(_tasks(run) - {task})} if is_suite else {}


def _gather(runs: Sequence[RunRecord], keep: Callable[[str], bool]) -> list[list[RunRecord]]:
    """Runs with the same values of the keys to keep; a key that a run's version did not know yet counts as null."""
    groups: dict[tuple, list[RunRecord]] = {}
    for run in runs:
        kept = tuple(sorted((key, repr(value)) for key, value in run.config.items() if keep(key) and value is not None))
        groups.setdefault(kept, []).append(run)
    return list(groups.values())


def _is_identity(key: str) -> bool:
    return not _is_free(key) and not is_measuring(key)


def _is_free(key: str) -> bool:
    """Whether runs of one row may differ in this key."""
    without_effect: tuple[str, ...] = ("task.name", "task.measures", "task.untrained", "task.teacher", "max_tokens")
    without_effect += ("task.fused", "task.ideal", "resume", "train.num_workers", "latency_queries")
    return key == "seed" or key in without_effect or key.startswith("logger.")


def _is_measured_in_two_ways(runs: list[RunRecord]) -> bool:
    """Whether two of the runs give one metric and differ in a key that both have and that says how it is measured."""
    ways: dict[str, dict[str, Any]] = {}
    for run in runs:
        of_tasks = {task: way_of(run.config, task) | _averaged(run, task) for task in _tasks(run)}
        for metric in filter(_is_measured, run.results):
            way = of_tasks[_task_of(metric)]
            other = ways.setdefault(metric, way)
            keys = way.keys() & other.keys()
            if not metric.startswith("interpolated/"):
                keys.discard("task.interpolate")
            if any(way[key] != other[key] for key in keys):
                return True
    return False


def _shared_config(runs: list[RunRecord]) -> dict[str, Any]:
    first, *others = (run.config for run in runs)
    return {
        key: value
        for key, value in first.items()
        if not _is_free(key) and all(key in other and other[key] == value for other in others)
    }


def name_rows(rows: Sequence[Row], labels: Labels) -> None:
    """Name each row by the keys that differ between these rows, or by the label meant only for it.

    Raises InputError where two rows get the same label.
    """
    keys = naming_keys([row.config for row in rows])
    for row in rows:
        own = [key for key in keys if key in row.config] or [key for key in FALLBACK if key in row.config]
        row.name = labels.describe(row.config, own) or labels.value(str(row.runs[0].directory))
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            row.name = f"{row.name} [{row.runs[0].directory}]"
    for label in labels.given:
        meant = _rows_of(rows, label.row, labels)
        if len(meant) == 1:
            meant[0].name = label.text
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"labels: {names.count(name)} rows are called {name}: give each its own label")


def varying_keys(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys with two values or more among the configurations that have them: names first, then in order.

    The names of earlier stages come after those of the last one.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    varying = [key for key in keys if len({repr(config[key]) for config in configs if key in config}) > 1]
    return sorted(varying, key=lambda key: (not key.endswith(".name"), bool(STAGE.match(key))))  # a stable sort


def naming_keys(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the varying keys, without those that an option's name or an equal key already tells."""
    kept: list[str] = []
    for key in varying_keys(configs):
        implied = (STAGE.match(key) or key.startswith(IMPLIED)) and follows(key, kept, configs)
        by_backbone = key == "optimizer.lr" and follows(key, ["backbone.lr"], configs)
        if not implied and not (by_backbone and all(c.get(key) == c.get("backbone.lr") for c in configs if key in c)):
            kept.append(key)
    return kept


def follows(key: str, given: Sequence[str], configs: Sequence[dict[str, Any]]) -> bool:
    """Whether a key's value follows from those of the given keys, in all of the configurations."""
    values: dict[tuple, str] = {}
    for config in configs:
        place = tuple(repr(config.get(name)) for name in given)
        if values.setdefault(place, repr(config.get(key))) != repr(config.get(key)):
            return False
    return True


def find_row(rows: Sequence[Row], wanted: str, option: str, labels: Labels) -> Row:
    """Return the row of that name, or the one with such values: "loss=ranknet, data.depth=50".

    Raises InputError where none or several are meant.
    """
    matching = _rows_of(rows, wanted, labels)
    if len(matching) == 1:
        return matching[0]
    known = "; ".join(row.name for row in (matching or rows))
    reason = "means several rows: add what tells them apart" if matching else "matches no row: choose one"
    raise InputError(f"{option}={wanted}: {reason}: {known}")


def _rows_of(rows: Sequence[Row], wanted: str, labels: Labels) -> list[Row]:
    """The row of that name, else those with such values."""
    return [row for row in rows if row.name == wanted] or [row for row in rows if labels.fits(row.config, wanted)]
