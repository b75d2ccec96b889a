"""The table of a report: rows over metrics, with mean, deviation, best and second, and marks of significance.

table = make_table(rows, choose_columns(runs, ["test/*/nDCG@10"]))
mark_significance(table, rows, baseline=rows[0], correction="holm", alpha=0.05)
"""

import fnmatch
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from distill.errors import InputError
from distill.evaluation.results import ROWS
from distill.evaluation.significance import Comparison, compare, read_per_query
from distill.report.rows import Row
from distill.report.runs import Run

REFERENCES = ("first_stage", "teacher")  # measured beside the model, on top of the table


@dataclass
class Cell:
    """A metric's mean over seeds; what it stands for among the rows of the same kind."""

    mean: float
    std: float | None = None  # of the sample (n - 1); none for one seed
    num_seeds: int = 1
    decimals: int | None = None  # as printed in a paper; none: as the column
    place: int = 0  # 1: best, 2: second; 0: neither
    test: Comparison | None = None  # against the baseline
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
        """Return the columns' names without `test/`, where all have it."""
        same = all(column.startswith("test/") for column in self.columns)
        return [column.removeprefix("test/") if same else column for column in self.columns]


def choose_columns(runs: Sequence[Run], patterns: Sequence[str] | None) -> list[str]:
    """Return the metrics that match a pattern, in order of appearance; without patterns, all that were tested.

    What was measured of a first stage or teacher alone counts as tested. Raises InputError where nothing matches.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.results))
    references = [f"test/{name.partition('/')[2]}" for name in known if name.partition("/")[0] in REFERENCES]
    columns = list(dict.fromkeys([name for name in known if name.startswith("test/")] + references))
    if patterns is not None:
        all_columns = list(dict.fromkeys([*known, *columns]))
        columns = [name for name in all_columns if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not columns:
        wanted = "null" if patterns is None else f"[{','.join(patterns)}]"
        raise InputError(f"metrics={wanted}: no such metric in these runs: known are {', '.join(known)}")
    return columns


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better: times and losses."""
    return any(word in metric for word in ("latency", "seconds", "loss")) and "per_second" not in metric.split("/")[-1]


def make_table(title: str, rows: Sequence[Row], runs: Sequence[Run], columns: list[str]) -> Table:
    """Put mean and deviation over seeds into a table, below what was measured of first stage and teacher."""
    ours = [TableRow(row.name, "ours", _cells(row, columns), len(row.seeds())) for row in rows]
    table = Table(title, columns, [*_reference_rows(runs, columns), *(row for row in ours if row.cells)])
    left_out = [row.name for row in ours if not row.cells]
    if left_out and table.kind("ours"):
        table.notes.append(f"Without any of these metrics: {'; '.join(left_out)}.")
    fewer = [row.name for row in table.kind("ours") if any(c.num_seeds < row.num_seeds for c in row.cells.values())]
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


def _reference_rows(runs: Sequence[Run], columns: list[str]) -> list[TableRow]:
    """First stage and teacher; several rows of one where runs give it different values (other files or depths)."""
    rows = []
    for kind in REFERENCES:
        values: dict[str, list[float]] = {}
        for column in columns:
            name = column.replace("test/", f"{kind}/", 1) if column.startswith("test/") else ""
            found = {round(run.results[name], 6): run.results[name] for run in runs if name in run.results}
            if found:
                values[column] = list(found.values())
        for number in range(max(map(len, values.values()), default=0)):
            cells = {column: Cell(ones[number]) for column, ones in values.items() if number < len(ones)}
            rows.append(TableRow(ROWS[kind] + (f" ({number + 1})" if number else ""), "reference", cells))
    return rows


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


def mark_significance(table: Table, rows: Sequence[Row], baseline: Row, correction: str, alpha: float) -> None:
    """Test each row against the baseline, column by column; the correction is for the rows of one column.

    A query's value is its mean over the row's seeds. Raises InputError where the baseline has no values per query.
    """
    by_name = {row.name: row for row in rows}
    untested: dict[str, None] = {}
    without: list[str] = []
    if not any(per_query(baseline, column) for column in table.columns):
        raise InputError(
            f"baseline={baseline.name}: no per_query.csv with these metrics in {baseline.runs[0].directory}: a paired "
            "test needs the values per query: evaluate it again"
        )
    for column in table.columns:
        reference = per_query(baseline, column)
        if not reference:  # a mean over tasks, say
            without.append(column)
            continue
        others = {}
        for line in table.kind("ours"):
            values = per_query(by_name[line.name], column)
            if line.name == baseline.name or column not in line.cells:
                continue
            if values.keys() == reference.keys():
                others[line.name] = values
            else:
                untested[line.name] = None
        for test in compare(reference, others) if others else []:
            cell = next(line.cells[column] for line in table.kind("ours") if line.name == test.name)
            cell.test = test
            cell.significant = (test.p_holm if correction == "holm" else test.p_bonferroni) < alpha
    table.notes.append(
        f"† p < {alpha:g} against {baseline.name}: paired two-sided t-test over queries (a query's values averaged "
        f"over seeds), {correction.capitalize()}'s correction for the other rows of a column."
    )
    if without:
        table.notes.append(f"Not tested, for want of the baseline's values per query: {'; '.join(without)}.")
    if untested:
        table.notes.append(
            f"Not tested in every column, for want of values on the same queries: {'; '.join(untested)}."
        )


def per_query(row: Row, column: str) -> dict[str, float]:
    """Return a metric's value for each query, averaged over the row's runs; empty where a seed has none."""
    kind, _, rest = column.partition("/")
    task, _, measure = rest.rpartition("/")
    runs = [run for run in row.runs if column in run.results]
    found = [(run, _per_query_file(run, task).get(measure, {})) for run in runs] if kind == "test" else []
    values = [one for _, one in found if one]
    seeds = {run.config.get("seed") for run, one in found if one}
    if not values or seeds != set(row.by_seed(column)) or any(one.keys() != values[0].keys() for one in values):
        return {}
    return {query_id: math.fsum(one[query_id] for one in values) / len(values) for query_id in values[0]}


def _per_query_file(run: Run, task: str) -> dict[str, dict[str, float]]:
    """Values per query of one task: in the task's own folder, or in the run's where it has one task."""
    path = run.directory / "tasks" / task / "per_query.csv"
    tasks = {name.split("/", 1)[1].rpartition("/")[0] for name in run.results if name.startswith("test/")}
    if not path.is_file() and len(tasks) == 1:
        path = run.directory / "per_query.csv"
    return _read_once(str(path)) if path.is_file() else {}


@functools.lru_cache(maxsize=512)
def _read_once(path: str) -> dict[str, dict[str, float]]:
    return read_per_query(path)
