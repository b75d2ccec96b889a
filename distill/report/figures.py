"""Which figures a report has: only those that say something, None otherwise.

draw_over("data.depth", rows, columns, labels)       # effectiveness over a key that was swept
draw_curves(rows, labels)                            # over steps, all losses in one panel
draw_latency(rows, columns)                          # over seconds per query
draw_dots(table, rows)                               # where nothing was swept: a dot and an interval for each row
"""

import math
import statistics
from collections.abc import Sequence

from distill.evaluation.significance import require
from distill.report.labels import Labels, shown_key
from distill.report.paired import per_query
from distill.report.panels import Dot, DotPanels, Panels, Points, draw_band, draw_marked, draw_scattered
from distill.report.rows import Row, naming_keys
from distill.report.runs import read_history
from distill.report.table import Table
from distill.storage.json_numbers import is_number

MAX_CURVES = 8  # in a panel; rows are put together until no more are left
MAX_DOTS = 60
RELATIVE = "train/loss, relative to its first value"  # losses have scales of their own


def swept_keys(rows: Sequence[Row]) -> list[str]:
    """Return the keys that tell rows apart and hold numbers."""
    keys = naming_keys([row.config for row in rows])
    return [key for key in keys if len({row.config[key] for row in rows if is_number(row.config.get(key))}) > 1]


def draw_over(key: str, rows: Sequence[Row], columns: Sequence[str], labels: Labels) -> Panels | None:
    """Draw each metric over a key, a line for each set of the other keys; None where no line has two points."""
    rows = [row for row in rows if is_number(row.config.get(key))]
    others = [name for name in naming_keys([row.config for row in rows]) if name != key]
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(labels.describe(row.config, others), []).append(row)
    panels: dict[str, dict[str, Points]] = {}
    for column in columns:
        lines = {name: _points(key, members, column) for name, members in series.items()}
        if any(len(points) > 1 for points in lines.values()):
            panels[_panel_title(column)] = {name: points for name, points in lines.items() if points}
    x_values = sorted({row.config[key] for row in rows})
    if not panels:
        return None
    log = x_values[0] > 0 and x_values[-1] >= 10 * x_values[0]
    return Panels(panels, shown_key(key), draw_marked, log=log, ticks=x_values)


def _points(key: str, rows: Sequence[Row], column: str) -> Points:
    points = []
    for row in rows:
        values = list(row.by_seed(column).values())
        if values:
            points.append((row.config[key], statistics.fmean(values), _deviation(values)))
    return sorted(points)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _panel_title(column: str) -> str:
    return column.removeprefix("test/")


def draw_curves(rows: Sequence[Row], labels: Labels) -> tuple[Panels | None, str]:
    """Draw validation and training loss over steps, and say what a line is: the mean of how many rows' runs.

    Where the rows are many, those that agree in the first keys of their names share a line.
    """
    series = _few_series(rows, labels)
    histories = {name: [read_history(run) for row in members for run in row.runs] for name, members in series.items()}
    if len({row.config.get("loss.name") for row in rows}) > 1:
        histories = {name: [_relative(lines) for lines in runs] for name, runs in histories.items()}
    metrics = dict.fromkeys(
        metric for runs in histories.values() for lines in runs for line in lines for metric in line
    )
    chosen = [name for name in metrics if name.startswith("val/")]
    chosen += [name for name in metrics if name in ("train/loss", RELATIVE)]
    panels: dict[str, dict[str, Points]] = {}
    for metric in chosen:
        lines = {name: _curve(runs, metric) for name, runs in histories.items()}
        panels[metric] = {name: points for name, points in lines.items() if len(points) > 1}
    panels = {title: lines for title, lines in panels.items() if lines}
    over = "seeds" if len(series) == len(rows) else "all runs of the rows that share a line"
    caption = f"Validation and training loss over steps; mean and standard deviation over {over}."
    return Panels(panels, "step", draw_band) if panels else None, caption


def _few_series(rows: Sequence[Row], labels: Labels) -> dict[str, list[Row]]:
    if len(rows) <= MAX_CURVES:
        return {row.name: [row] for row in rows}
    keys = naming_keys([row.config for row in rows])
    for size in range(len(keys), -1, -1):
        series: dict[str, list[Row]] = {}
        for row in rows:
            series.setdefault(labels.describe(row.config, keys[:size]), []).append(row)
        if len(series) <= MAX_CURVES:
            break
    return series


def _relative(lines: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The lines of a run, with its loss as a share of the first one that was logged."""
    first = next((line["train/loss"] for line in lines if line.get("train/loss")), math.nan)
    relative = []
    for line in lines:
        kept = {name: value for name, value in line.items() if name != "train/loss"}
        relative.append(kept | ({RELATIVE: line["train/loss"] / first} if "train/loss" in line else {}))
    return relative


def _curve(histories: Sequence[Sequence[dict[str, float]]], metric: str) -> Points:
    """Mean and deviation at each step that all of the runs have reached, so that no run leaves the mean halfway."""
    by_step: dict[float, list[float]] = {}
    histories = [lines for lines in histories if any(metric in line for line in lines)]
    for lines in histories:
        for line in lines:
            if is_number(line.get(metric)) and math.isfinite(line[metric]):
                by_step.setdefault(line["step"], []).append(line[metric])
    return sorted(
        (step, statistics.fmean(values), _deviation(values))
        for step, values in by_step.items()
        if len(values) == len(histories)
    )


def draw_latency(rows: Sequence[Row], columns: Sequence[str]) -> Panels | None:
    """Draw each metric against the latency measured on its task, a point for each row; None for a single point."""
    panels: dict[str, dict[str, Points]] = {}
    for column in columns:
        task = column.removeprefix("test/").rpartition("/")[0]
        points = {}
        for row in rows:
            seconds = list(row.by_seed(f"latency/{task}/seconds_per_query").values())
            values = list(row.by_seed(column).values())
            if seconds and values and column.startswith("test/"):
                points[row.name] = [(statistics.fmean(seconds), statistics.fmean(values), _deviation(values))]
        if len(points) > 1:
            panels[_panel_title(column)] = points
    return Panels(panels, "seconds per query", draw_scattered, log=True) if panels else None


def draw_dots(table: Table, rows: Sequence[Row]) -> tuple[DotPanels | None, str]:
    """Draw each row's value with an interval, first stage and teacher on top, and say what the interval is.

    It is the standard deviation over seeds where a row has several, else the 95 % interval over queries.
    """
    by_name = {row.name: row for row in rows}
    over_seeds = any(cell.std is not None for line in table.kind("ours") for cell in line.cells.values())
    panels: dict[str, list[Dot]] = {}
    for column in table.columns:
        dots = []
        for line in [*table.kind("reference"), *table.kind("ours")]:
            if column in line.cells:
                mean, row = line.cells[column].mean, by_name.get(line.name) if line.kind == "ours" else None
                width = (line.cells[column].std or 0.0) if over_seeds else _half_interval(row, column)
                seeds = list(row.by_seed(column).values()) if row else []
                dots.append(Dot(line.name, mean, mean - width, mean + width, seeds, line.kind == "reference"))
        if len(dots) > 1:
            panels[_panel_title(column)] = dots
    caption = "Each row's mean; the bar is the 95 % interval over queries."
    if over_seeds:
        caption = "Each row's mean; ticks are its seeds, the bar is their standard deviation on either side."
    return DotPanels(panels) if panels and len(table.rows) <= MAX_DOTS else None, caption


def _half_interval(row: Row | None, column: str) -> float:
    """Half of the interval that holds the mean over queries with 95 %, by Student's t; 0 where there are no values."""
    values = list(per_query(row, column).values()) if row else []
    if len(values) < 2:
        return 0.0
    t = require("scipy.stats").t.ppf(0.975, len(values) - 1)
    return float(t * statistics.stdev(values) / math.sqrt(len(values)))
