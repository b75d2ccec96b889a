"""The table of a report: rows over metrics, with mean and deviation over seeds, best and second.

table = make_table("Report", rows, runs, choose_columns(runs, ["test/*/nDCG@10"]), labels)
"""

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.errors import InputError
from distill.evaluation.results import ROWS
from distill.evaluation.significance import PairedTest
from distill.report.labels import Labels
from distill.report.rows import Row, naming_keys, way_of
from distill.report.runs import RunRecord

REFERENCES = ("first_stage", "teacher", "fused", "ideal")  # measured beside the model, on top of the table
TESTED = ("test/", "interpolated/")  # columns that a reference has a value for, too


@dataclass
class Cell:
    """A metric's mean over seeds; its standing among the rows of the same kind."""

    mean: float
    std: float | None = None  # of the sample (n - 1); none for one seed
    num_seeds: int = 1
    decimals: int | None = None  # as printed in a paper; none: as the column
    place: int = 0  # 1: best, 2: second; 0: neither
    test: PairedTest | None = None  # against the baseline
    significant: bool = False


@dataclass
class TableRow:
    """A line of the table: of a reference, of ours, or of a paper."""

    name: str
    kind: str  # reference, ours or published
    cells: dict[str, Cell]
    num_seeds: int | None = None
    source: str = ""  # of a published row: paper and table


@dataclass
class Table:
    """Columns are names of metrics; notes are what a reader of the numbers must know."""

    title: str
    columns: list[str]
    rows: list[TableRow]
    notes: list[str] = field(default_factory=list)

    def kind(self, kind: str) -> list[TableRow]:
        """Return the rows of one kind."""
        return [row for row in self.rows if row.kind == kind]

    def headers(self) -> list[str]:
        """Return the columns' names without `test/`, where there are only tests."""
        same = all(column.startswith(TESTED) for column in self.columns)
        return [column.removeprefix("test/") if same else column for column in self.columns]


def choose_columns(runs: Sequence[RunRecord], patterns: Sequence[str] | None) -> list[str]:
    """Return the metrics that match a pattern, in order of appearance; without patterns, all that were tested.

    What was measured only of a reference counts as tested. Raises InputError where nothing matches.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.results))
    references = [f"test/{name.partition('/')[2]}" for name in known if name.partition("/")[0] in REFERENCES]
    columns = list(dict.fromkeys([name for name in known if name.startswith(TESTED)] + references))
    if patterns is not None:
        all_columns = list(dict.fromkeys([*known, *columns]))
        columns = [name for name in all_columns if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not columns:
        wanted = "null" if patterns is None else f"[{','.join(patterns)}]"
        raise InputError(f"metrics={wanted}: no such metric in these runs: known are {', '.join(known)}")
    return columns


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better: times, memory, losses and errors of calibration."""
    kind, _, rest = metric.partition("/")
    measure = rest.rpartition("/")[2]
    is_less = kind in ("latency", "memory", "calibration") or measure in ("seconds", "loss", "peak_bytes")
    return is_less or (kind == "train" and rest.startswith("loss/"))


def make_table(title: str, rows: Sequence[Row], runs: Sequence[RunRecord], columns: list[str], labels: Labels) -> Table:
    """Put mean and deviation over seeds into a table, below what was measured of first stage, teacher and so on."""
    ours = [TableRow(row.name, "ours", _cells(row, columns), len(row.seeds())) for row in rows]
    table = Table(title, columns, [*_reference_rows(runs, columns, labels), *(row for row in ours if row.cells)])
    left_out = [row.name for row in ours if not row.cells]
    if left_out and table.kind("ours"):
        table.notes.append(f"Without any of these metrics: {'; '.join(left_out)}.")
    fewer = [
        row.name for row in table.kind("ours") if any(c.num_seeds < (row.num_seeds or 0) for c in row.cells.values())
    ]
    if fewer:
        table.notes.append(f"Some metrics are there for a part of the seeds only: {'; '.join(fewer)}.")
    if any(cell.std is not None for row in table.rows for cell in row.cells.values()):
        table.notes.append("Mean ± standard deviation over seeds (n − 1).")
    for column in columns:
        _place([row.cells[column] for row in table.kind("ours") if column in row.cells], column, digits(table, column))
    return table


def _cells(row: Row, columns: list[str]) -> dict[str, Cell]:
    cells = {}
    for column in columns:
        values = list(row.by_seed(column).values())
        if values:
            mean = math.fsum(values) / len(values)
            squares = math.fsum((value - mean) ** 2 for value in values)
            cells[column] = Cell(mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None, len(values))
    return cells


@dataclass
class Found:
    """What runs found of a task's columns for a reference, and how the first of them measured it."""

    values: dict[str, float]  # by column
    way: dict[str, Any]


def _reference_rows(runs: Sequence[RunRecord], columns: list[str], labels: Labels) -> list[TableRow]:
    """The references; several rows of one where runs give it different values (other files or depths)."""
    rows = []
    for kind in REFERENCES:
        tasks: dict[str, dict[str, str]] = {}  # task -> column -> name in results.json
        for column in columns:
            tasks.setdefault(column.rpartition("/")[0], {})[column] = reference_metric(kind, column)
        of_tasks = [_different(runs, task.partition("/")[2], names) for task, names in tasks.items()]
        for number in range(max(map(len, of_tasks), default=0)):
            there = [found for found in of_tasks if number < len(found)]
            values = {name: value for found in there for name, value in found[number].values.items()}
            cells = {column: Cell(values[column]) for column in columns if column in values}
            name = _named(ROWS[kind], [_told_apart(found, labels)[number] for found in there], number)
            rows.append(TableRow(name, "reference", cells))
    return rows


def _different(runs: Sequence[RunRecord], task: str, names: dict[str, str]) -> list[Found]:
    """Return what runs found of a task's columns: each time that they differ, and what they share once."""
    different: list[Found] = []
    for run in runs:
        values = {column: run.results[name] for column, name in names.items() if name in run.results}
        for found in different:
            if all(round(value, 6) == round(found.values.get(column, value), 6) for column, value in values.items()):
                found.values |= {column: value for column, value in values.items() if column not in found.values}
                break
        else:
            if values:
                way = {key: value for key, value in way_of(run.config, task).items() if key.startswith("task.")}
                different.append(Found(values, way))
    return different


def _told_apart(different: Sequence[Found], labels: Labels) -> list[str]:
    """What tells each from the others of its task, as in "task.depth=50"; nothing where their keys do not."""
    ways = [found.way for found in different]
    told = [labels.among(ways).describe(way, naming_keys(ways)) for way in ways]
    return told if len(set(told)) == len(told) > 1 else [""] * len(told)


def _named(reference: str, told: Sequence[str], number: int) -> str:
    words = list(dict.fromkeys(filter(None, told)))
    return ", ".join([reference, *words]) if words else reference + (f" ({number + 1})" if number else "")


def reference_metric(kind: str, column: str) -> str:
    """Return the name of a reference's value for a column; nothing if no reference has one."""
    return f"{kind}/{column.partition('/')[2]}" if column.startswith(TESTED) else ""


def label_references(table: Table, rows: Sequence[Row], labels: Labels) -> None:
    """Give the references their labels; raises InputError for a label that is meant for nothing here."""
    references = table.kind("reference")
    names = [reference.name for reference in references]
    for label in labels.given:
        if label.row not in names and not any(labels.fits(row.config, label.row) for row in rows):
            known = "; ".join([*names, *(row.name for row in rows)])
            raise InputError(f"labels=[{label.row}:{label.text}]: {label.row} fits no row: choose one of: {known}")
        for reference in references:
            if reference.name == label.row:
                reference.name = label.text


def digits(table: Table, column: str) -> int:
    """Return how many decimals a column is printed with."""
    largest = max((abs(row.cells[column].mean) for row in table.rows if column in row.cells), default=0.0)
    return 4 if largest < 10 else 2 if largest < 1000 else 0


def _place(cells: list[Cell], column: str, num_digits: int) -> None:
    """Mark best and second among two or more; what is printed alike ties."""
    printed = {round(cell.mean, num_digits) for cell in cells}
    order = sorted(printed, reverse=not lower_is_better(column))
    if len(cells) < 2:
        return
    for cell in cells:
        place = order.index(round(cell.mean, num_digits)) + 1
        cell.place = place if place <= 2 else 0
