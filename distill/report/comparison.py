"""One key's values compared over many cells: paired tests for two values, Friedman's and Nemenyi's for more.

key = find_key("loss", rows)                                         # "loss.name"
comparison = compare_key(key, rows, columns, labels, "holm")         # cells: the other keys that vary x metrics
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.errors import InputError
from distill.evaluation.significance import (
    MIN_CELLS,
    PairedTest,
    adjust,
    compare,
    friedman,
    nemenyi,
    subtract,
    wilcoxon,
)
from distill.report.labels import Labels, option_key, shown_key
from distill.report.markup import markdown_line
from distill.report.paired import per_query
from distill.report.rows import Row, follows, varying_keys
from distill.report.table import lower_is_better
from distill.storage import quoting


@dataclass
class KeyComparison:
    """What came out, as a sentence and as a table: each line has a name, and a number or None below each head."""

    key: str
    summary: str
    heads: list[str]
    formats: list[str]  # of the numbers, a head each, as format() takes them
    lines: list[list[Any]]
    average_ranks: np.ndarray | None = None  # [k] of Friedman's test, in the order of the lines
    p_values: np.ndarray | None = None  # [k, k] of Nemenyi's

    def printed(self) -> list[list[str]]:
        """Return the lines as a reader wants them."""
        return [[line[0], *map(_printed, line[1:], self.formats[1:])] for line in self.lines]


@dataclass
class Cell:
    """Where the values of a key are compared: a metric of otherwise equal rows."""

    name: str
    column: str
    rows: dict[str, Row]  # by value of the key

    def mean(self, treatment: str) -> float:
        """Return the metric's mean over seeds."""
        values = self.rows[treatment].by_seed(self.column)
        return sum(values.values()) / len(values)


def _printed(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def find_key(key: str, rows: Sequence[Row]) -> str:
    """Return the configuration's name of a key; raises InputError for one that no row has."""
    names = [option_key(key, row.config) for row in rows]
    name = next((name for name, row in zip(names, rows, strict=True) if name in row.config), None)
    if name is None:
        raise InputError(f"compare={key}: no key of these runs; {_known(rows)}")
    return name


def _known(rows: Sequence[Row]) -> str:
    varying = varying_keys([row.config for row in rows])
    return f"those that vary: {', '.join(map(shown_key, varying))}" if varying else "no key varies between them"


def compare_key(
    key: str, rows: Sequence[Row], columns: Sequence[str], labels: Labels, correction: str
) -> KeyComparison:
    """Compare a key's values; a cell that lacks one of them is left out and counted.

    Raises InputError where they cannot be compared: a single value, or too few cells that have them all.
    """
    rows = [row for row in rows if key in row.config and any(row.by_seed(column) for column in columns)]
    treatments = list(dict.fromkeys(labels.treatment(row.config, key) for row in rows))
    if len(treatments) < 2:
        raise InputError(f"compare={shown_key(key)}: does not vary between these rows; {_known(rows)}")
    cells = _cells(key, rows, columns, labels)
    complete = [cell for cell in cells if len(cell.rows) == len(treatments)]
    left_out = len(cells) - len(complete)
    compare_values = _compare_two if len(treatments) == 2 else _compare_many
    return compare_values(shown_key(key), treatments, complete, left_out, correction)


def _cells(key: str, rows: Sequence[Row], columns: Sequence[str], labels: Labels) -> list[Cell]:
    """Return the cells: a metric, with each combination of the other keys that vary.

    A key that follows from the compared one, as a loss's own teacher does, or from a key before it, makes no cells.
    """
    configs = [row.config for row in rows]
    kept = [key]
    for other in varying_keys(configs):
        if other != key and not follows(other, kept, configs):
            kept.append(other)
    cells: dict[str, Cell] = {}
    for row in rows:
        place = labels.describe(row.config, kept[1:])
        for column in columns:
            if row.by_seed(column):
                name = ", ".join(filter(None, [place, column.removeprefix("test/")]))
                compared = cells.setdefault(name, Cell(name, column, {})).rows
                treatment = labels.treatment(row.config, key)
                if treatment in compared:
                    raise InputError(
                        f"compare={shown_key(key)}: {compared[treatment].name} and {row.name} differ only in keys that "
                        "one of them lacks, as runs of two versions do: report on those of one"
                    )
                compared[treatment] = row
    return list(cells.values())


def _compare_two(key: str, treatments: list[str], cells: list[Cell], left_out: int, correction: str) -> KeyComparison:
    """A paired t-test over queries in each cell; over the cells' means Wilcoxon's test, where there are enough."""
    first, second = treatments
    tests = [_test_queries(cell, first, second) for cell in cells]
    adjusted = iter(adjust([test.p for test in tests if test], correction))
    if len(cells) < MIN_CELLS and not any(tests):
        raise InputError(
            f"compare={key}: {second} against {first} in {_count(len(cells), 'complete cell')} of "
            f"{len(cells) + left_out}: a paired test needs their values per query (per_query.csv), or {MIN_CELLS} "
            "cells: evaluate them again on the same queries"
        )
    lines = []
    for cell, test in zip(cells, tests, strict=True):
        means = [cell.mean(first), cell.mean(second)]
        tested = [test.num_queries, test.t, test.p, next(adjusted)] if test else [None] * 4
        lines.append([cell.name, *means, float(subtract(means[1], means[0])), *tested])
    method = (
        "paired two-sided t-tests over queries (a query's values averaged over seeds), "
        f"{correction.capitalize()}'s correction for the cells"
    )
    where = f"{_count(len(cells), 'complete cell')}{_left_out(left_out)}"
    parts = [
        f"{_told(key, second)} less {_told(key, first)} in {where}: {method if any(tests) else 'means over seeds'}."
    ]
    # A mean over tasks has no values per query, and is no cell beside those tasks
    pairs = [line[1:3] for line, test in zip(lines, tests, strict=True) if test or not any(tests)]
    if len(pairs) >= MIN_CELLS:
        which = f"the {len(pairs)} cells with values per query" if any(tests) else "the cells"
        p = wilcoxon([after for _, after in pairs], [before for before, _ in pairs])
        parts.append(f"Wilcoxon's signed-rank test over {which}: p = {p:.3g}.")
    heads = ["cell", first, second, "difference", "queries", "t", "p", f"p, {correction.capitalize()}"]
    formats = ["", ".4f", ".4f", "+.4f", "d", ".2f", ".3g", ".3g"]
    return KeyComparison(key, " ".join(parts), heads, formats, lines)


def _told(key: str, treatment: str) -> str:
    return treatment if treatment[:1].isalpha() else f"{key}={treatment}"


def _test_queries(cell: Cell, first: str, second: str) -> PairedTest | None:
    values, others = (per_query(cell.rows[treatment], cell.column) for treatment in (first, second))
    if len(values) < 2 or values.keys() != others.keys():
        return None
    return compare(values, {second: others})[0]


def _compare_many(key: str, treatments: list[str], cells: list[Cell], left_out: int, correction: str) -> KeyComparison:
    """Friedman's test over the cells' means, and Nemenyi's, which needs no correction; the best average rank first."""
    if len(cells) < 2:
        raise InputError(
            f"compare={key}: {len(treatments)} values ({', '.join(treatments)}) in "
            f"{_count(len(cells), 'complete cell')} of {len(cells) + left_out}: Friedman's test needs two cells that "
            f"have them all: add runs or tasks, or test rows against one, as in baseline={key}={treatments[0]}"
        )
    signs = [-1 if lower_is_better(cell.column) else 1 for cell in cells]
    means = [[sign * cell.mean(name) for name in treatments] for sign, cell in zip(signs, cells, strict=True)]
    values = np.array(means)  # [N, k], larger is better
    statistic, p, average_ranks = friedman(values)
    order = np.argsort(average_ranks, kind="stable")
    ranks, p_values = average_ranks[order], nemenyi(values[:, order])
    names = [treatments[index] for index in order]
    lines: list[list[Any]] = []
    for index, name in enumerate(names):
        others = [None if other == index else float(p_values[index, other]) for other in range(len(names))]
        lines.append([name, float(ranks[index]), *others])
    summary = (
        f"Friedman's test over {_count(len(cells), 'cell')} and {len(names)} values{_left_out(left_out)}: "
        f"χ² = {statistic:.2f}, p = {p:.3g}. Rank 1 is best; the p-values between two values are Nemenyi's."
    )
    formats = ["", ".2f", *[".3g"] * len(names)]
    return KeyComparison(key, summary, [key, "average rank", *names], formats, lines, ranks, p_values)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _left_out(number: int) -> str:
    return f" ({_count(number, 'incomplete one')} left out)" if number else ""


def to_markdown(comparison: KeyComparison) -> str:
    """Return the section in Markdown: what was tested, and the table."""
    key, summary = quoting.to_markdown(comparison.key), quoting.to_markdown(comparison.summary)
    lines = [f"## {key} compared", "", summary, "", markdown_line(comparison.heads)]
    lines.append("| --- |" + " ---: |" * (len(comparison.heads) - 1))
    return "\n".join([*lines, *map(markdown_line, comparison.printed())]) + "\n"


def _cell(value: Any) -> Any:
    return quoting.to_cell(value) if isinstance(value, str) else value


def to_csv(comparison: KeyComparison) -> str:
    """Return the table with every digit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([quoting.to_cell(head.replace("average rank", "average_rank")) for head in comparison.heads])
    for line in comparison.lines:
        writer.writerow(["" if value is None else _cell(value) for value in line])
    return file.getvalue()
