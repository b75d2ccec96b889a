"""One key's values compared over many cells: Friedman's test, Nemenyi's, and the critical-difference diagram.

comparison = compare_key("loss.name", rows, columns)     # cells: the other keys that vary x metrics
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.errors import InputError
from distill.evaluation.significance import friedman, nemenyi
from distill.report.markup import markdown_line
from distill.report.rows import Row, describe, follows, option_key, varying_keys
from distill.report.table import lower_is_better


@dataclass
class KeyComparison:
    """N complete cells, k values of the key (the treatments), best average rank first."""

    key: str
    treatments: list[str]
    cells: list[str]
    values: np.ndarray  # [N, k] means over seeds; larger is better
    num_incomplete: int
    average_ranks: np.ndarray  # [k]
    statistic: float
    p: float
    p_values: np.ndarray  # [k, k] of Nemenyi's test


def compare_key(key: str, rows: Sequence[Row], columns: Sequence[str]) -> KeyComparison:
    """Compare a key's values; a cell that lacks one of them is left out and counted.

    Raises InputError for a key that does not vary, and for fewer than three values or two complete cells.
    """
    rows = [row for row in rows if any(row.by_seed(column) for column in columns)]
    configs = [row.config for row in rows]
    varying = varying_keys(configs)
    given, key = key, next((option_key(key, config) for config in configs if option_key(key, config) in config), key)
    if key not in varying:
        known = f"those that do: {', '.join(varying)}" if varying else "none does"
        raise InputError(f"compare={given}: no key that varies between these runs; {known}")
    rows = [row for row in rows if key in row.config]
    cells = _cells(key, rows, columns, varying)
    treatments = list(dict.fromkeys(describe(row.config, [key]).partition("=")[2] for row in rows))
    complete = {cell: values for cell, values in cells.items() if len(values) == len(treatments)}
    if len(treatments) < 3 or len(complete) < 2:
        raise InputError(
            f"compare={given}: {len(treatments)} values ({', '.join(treatments)}) over {len(complete)} complete cells "
            f"of {len(cells)}: Friedman's test needs three values and two cells that have them all"
        )
    values = np.array([[by_value[treatment] for treatment in treatments] for by_value in complete.values()])  # [N, k]
    statistic, p, average_ranks = friedman(values)
    order = np.argsort(average_ranks, kind="stable")
    values, average_ranks = values[:, order], np.asarray(average_ranks)[order]
    treatments = [treatments[index] for index in order]
    num_incomplete = len(cells) - len(complete)
    p_values = nemenyi(values)
    return KeyComparison(key, treatments, list(complete), values, num_incomplete, average_ranks, statistic, p, p_values)


def _cells(
    key: str, rows: Sequence[Row], columns: Sequence[str], varying: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Means by cell and value of the key.

    A cell is told by the keys that do not follow from the compared one (a loss has its own teacher, say) and from
    those before them.
    """
    kept = [key]
    for other in varying:
        if other != key and not follows(other, kept, [row.config for row in rows]):
            kept.append(other)
    cells: dict[str, dict[str, float]] = {}
    for row in rows:
        place, treatment = describe(row.config, kept[1:]), describe(row.config, [key]).partition("=")[2]
        for column in columns:
            values = row.by_seed(column)
            if values:
                mean = sum(values.values()) / len(values)
                cell = ", ".join(filter(None, [place, column]))
                cells.setdefault(cell, {})[treatment] = -mean if lower_is_better(column) else mean
    return cells


def to_markdown(comparison: KeyComparison) -> str:
    """Return the section in Markdown: what was tested, average ranks, Nemenyi's p-values."""
    lines = [f"## {comparison.key} compared", "", summary(comparison), ""]
    lines += [markdown_line([comparison.key, "average rank", *comparison.treatments])]
    lines += ["| --- |" + " ---: |" * (1 + len(comparison.treatments))]
    for index, name in enumerate(comparison.treatments):
        p_values = ["–" if other == index else f"{p:.3g}" for other, p in enumerate(comparison.p_values[index])]
        lines.append(markdown_line([name, f"{comparison.average_ranks[index]:.2f}", *p_values]))
    return "\n".join(lines) + "\n"


def summary(comparison: KeyComparison) -> str:
    """Return what was tested and what came out, in a line."""
    num_cells, num_values = comparison.values.shape
    left_out = f"; {comparison.num_incomplete} incomplete cells left out" if comparison.num_incomplete else ""
    return (
        f"Friedman over {num_cells} cells and {num_values} values{left_out}: χ² = {comparison.statistic:.2f}, "
        f"p = {comparison.p:.3g}. Rank 1 is best; the p-values between two values are Nemenyi's."
    )


def to_csv(comparison: KeyComparison) -> str:
    """Return average ranks and Nemenyi's p-values with every digit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([comparison.key, "average_rank", *comparison.treatments])
    for name, rank, p_values in zip(comparison.treatments, comparison.average_ranks, comparison.p_values, strict=True):
        writer.writerow([name, float(rank), *map(float, p_values)])
    return file.getvalue()
