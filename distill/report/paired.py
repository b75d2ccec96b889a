"""Paired tests of rows over queries, and whether seeds vary more than rows differ.

mark_significance(table, rows, baseline=rows[0], correction="holm", alpha=0.05)
table.notes += note_seeds(table, baseline="loss=ranknet")
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distill.errors import InputError
from distill.evaluation.results import ROWS
from distill.evaluation.significance import ROUNDING, compare
from distill.report.labels import Labels
from distill.report.rows import Row, find_row
from distill.report.table import REFERENCES, Table, TableRow, digits, lower_is_better, reference_metric

MAX_NAMED = 4  # rows that a note names


def find_baseline(wanted: str, rows: Sequence[Row], labels: Labels) -> Row:
    """Return what rows are tested against: a reference, as in first_stage, or the row that is meant.

    Raises InputError like `find_row`.
    """
    for kind in REFERENCES:
        if wanted in (kind, ROWS[kind]):
            return Row(ROWS[kind], {}, [run for row in rows for run in row.runs], kind)
    return find_row(rows, wanted, "baseline", labels)


def mark_significance(table: Table, rows: Sequence[Row], baseline: Row, correction: str, alpha: float) -> None:
    """Test each row against the baseline, column by column; the correction is for the rows of one column.

    A query's value is its mean over the row's seeds. Raises InputError where the baseline has no values per query.
    """
    by_name = {row.name: row for row in rows}
    untested: dict[str, None] = {}
    without: list[str] = []
    if not baseline.runs:
        raise InputError(f"baseline={baseline.name}: there is no row to test: these runs measured only references")
    if not any(per_query(baseline, column) for column in table.columns):
        each = (per_query(replace(baseline, runs=[run]), column) for run in baseline.runs for column in table.columns)
        if any(each):
            raise InputError(
                f"baseline={baseline.name}: the runs have different ones: report on runs of one first stage and depth, "
                "or test against a row of the table"
            )
        raise InputError(
            f"baseline={baseline.name}: no per_query.csv with these metrics in {baseline.runs[0].directory}: a paired "
            "test needs the values per query: evaluate it again"
        )
    for column in table.columns:
        reference = per_query(baseline, column)
        if len(reference) < 2:  # a mean over tasks, say, or a task with one query
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
        table.notes.append(f"Not tested, for want of the baseline's values for two queries: {'; '.join(without)}.")
    if untested:
        table.notes.append(
            f"Not tested in every column, for want of values on the same queries: {'; '.join(untested)}."
        )


def per_query(row: Row, column: str) -> dict[str, float]:
    """Return a metric's value for each query, averaged over the row's runs; empty where a seed has none.

    A reference has one value for each query; empty where runs have other ones.
    """
    if row.reference:
        column = reference_metric(row.reference, column)
    kind, _, rest = column.partition("/")
    task, _, measure = rest.rpartition("/")
    runs = [run for run in row.runs if column in run.results]
    has_files = kind in ROWS
    measured = [(run, run.per_query(kind, task).get(measure, {})) for run in runs] if has_files else []
    measured = [(run, scores) for run, scores in measured if scores]
    values = [scores for _, scores in measured]
    if row.reference:
        return values[0] if values and all(scores == values[0] for scores in values) else {}
    seeds: dict[Any, list[dict[str, float]]] = {}  # a command that was run twice counts once
    for run, scores in measured:
        seeds.setdefault(run.config.get("seed"), []).append(scores)
    if not values or set(seeds) != set(row.by_seed(column)) or any(one.keys() != values[0].keys() for one in values):
        return {}
    return _mean([_mean(ones) for ones in seeds.values()])


def _mean(values: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean value of each query, which all have."""
    return {query_id: math.fsum(one[query_id] for one in values) / len(values) for query_id in values[0]}


def note_seeds(table: Table, baseline: str | None) -> list[str]:
    """Return a note that names the rows which differ from the baseline, or from the best row, by less than seeds vary.

    Seeds vary more where the larger of the two rows' standard deviations exceeds the difference of their means.
    """
    close: dict[tuple[str, str], list[str]] = {}  # row and the one beside it -> columns
    for column, header in zip(table.columns, table.headers(), strict=True):
        rows = [row for row in table.kind("ours") if column in row.cells]
        compared = next((row for row in rows if row.name == baseline), None) if baseline else _best(rows, column)
        if compared is None:
            continue
        for row in rows:
            difference = row.cells[column].mean - compared.cells[column].mean
            deviation = max(each.cells[column].std or 0.0 for each in (row, compared))
            varies = deviation > ROUNDING * abs(compared.cells[column].mean)  # a mean of equal values may be another
            if row is not compared and varies and abs(difference) < deviation:
                form = f".{digits(table, column)}f"
                detail = f"{header}: difference {difference:+{form}}, standard deviation {deviation:{form}}"
                close.setdefault((row.name, compared.name), []).append(detail)
    if not close:
        return []
    pairs = [f"{row} and {other} ({_first(columns)})" for (row, other), columns in close.items()]
    more = f"; and {len(pairs) - MAX_NAMED} more pairs" if len(pairs) > MAX_NAMED else ""
    named = "; ".join(pairs[:MAX_NAMED])
    return [f"Seeds vary more than these rows differ, so take more seeds before you rank them: {named}{more}."]


def _first(details: list[str]) -> str:
    return details[0] + (f"; and in {len(details) - 1} more columns" if len(details) > 1 else "")


def _best(rows: Sequence[TableRow], column: str) -> TableRow | None:
    choose = min if lower_is_better(column) else max
    return choose(rows, key=lambda row: row.cells[column].mean, default=None)
