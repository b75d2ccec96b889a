"""The figures of a report, each a matplotlib Figure: effectiveness over a number, curves over steps, over latency.

figures = {"data.depth": draw_over("data.depth", rows, columns), ...}     # None where there is nothing to draw
save(figures["data.depth"], directory / "depth")                          # depth.png, depth.svg
"""

import io
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import InputError
from distill.report.rows import Row, describe, naming_keys
from distill.report.runs import read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 12
INK, PAPER = "#333333", "#ffffff"  # in the page they become the colours of its text and ground
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's, without yellow, black
MARKERS, DASHES = "osD^vP", ("-", "--", ":", "-.")
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "distill",  # the same figure gives the same file
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

Points = list[tuple[float, float, float]]  # x, mean and standard deviation over seeds


def draw_over(key: str, rows: Sequence[Row], columns: Sequence[str]) -> "Figure | None":
    """Draw each metric over a key that holds numbers, a line for each set of the other keys."""
    rows = [row for row in rows if isinstance(row.config.get(key), int | float)]
    if len({row.config[key] for row in rows}) < 2:
        return None
    others = [name for name in naming_keys([row.config for row in rows]) if name != key]
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(describe(row.config, others), []).append(row)
    panels: dict[str, dict[str, Points]] = {}
    for column in columns:
        lines = {name: _points(key, members, column) for name, members in series.items()}
        panels[_axis_label(column)] = {name: points for name, points in lines.items() if points}
    x_values = sorted({row.config[key] for row in rows})
    return _draw_panels(
        panels, key, _draw_marked, log=x_values[0] > 0 and x_values[-1] >= 10 * x_values[0], ticks=x_values
    )


def _points(key: str, rows: Sequence[Row], column: str) -> Points:
    points = []
    for row in rows:
        values = list(row.by_seed(column).values())
        if values:
            points.append((row.config[key], statistics.fmean(values), _deviation(values)))
    return sorted(points)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _axis_label(column: str) -> str:
    return column.removeprefix("test/")


def draw_curves(rows: Sequence[Row]) -> "Figure | None":
    """Draw validation and training loss over steps, mean and band over seeds; each loss has a panel of its own."""
    losses = list(dict.fromkeys(row.config.get("loss.name") for row in rows))
    panels: dict[str, dict[str, Points]] = {}
    histories = {id(run): read_history(run) for row in rows for run in row.runs}
    metrics = list(dict.fromkeys(name for lines in histories.values() for line in lines for name in line))
    for metric in [*(name for name in metrics if name.startswith("val/")), *(m for m in metrics if m == "train/loss")]:
        for loss in losses:
            members = [row for row in rows if row.config.get("loss.name") == loss]
            keys = naming_keys([row.config for row in members])
            lines = {}
            for row in members:
                points = _curve([histories[id(run)] for run in row.runs], metric)
                if len(points) > 1:
                    lines[describe(row.config, keys)] = points
            title = metric if loss is None or len(losses) == 1 else f"{metric}, {loss}"
            panels[title] = lines
    num_columns = len(losses) if 1 < len(losses) <= 4 else None
    figure = _draw_panels(panels, "step", _draw_band, num_columns=num_columns)
    if figure:
        _share_limits([axes for axes in figure.axes if axes.get_title(loc="left").startswith("val/")])
    return figure


def _share_limits(panels: "Sequence[Axes]") -> None:
    """Give panels of one measure one scale, so that losses can be compared by eye."""
    for axes in panels:
        measure = axes.get_title(loc="left").partition(", ")[0]
        alike = [other for other in panels if other.get_title(loc="left").partition(", ")[0] == measure]
        axes.set_ylim(min(other.get_ylim()[0] for other in alike), max(other.get_ylim()[1] for other in alike))


def _curve(histories: Sequence[Sequence[dict[str, float]]], metric: str) -> Points:
    """Mean and deviation at each step that all of the runs have reached, so that no seed leaves the mean halfway."""
    by_step: dict[int, list[float]] = {}
    histories = [lines for lines in histories if any(metric in line for line in lines)]
    for lines in histories:
        for line in lines:
            if isinstance(line.get(metric), int | float) and math.isfinite(line[metric]):
                by_step.setdefault(line["step"], []).append(line[metric])
    return sorted(
        (step, statistics.fmean(values), _deviation(values))
        for step, values in by_step.items()
        if len(values) == len(histories)
    )


def draw_latency(rows: Sequence[Row], columns: Sequence[str]) -> "Figure | None":
    """Draw each metric against the latency measured on its task: a point for each row."""
    panels: dict[str, dict[str, Points]] = {}
    for column in columns:
        task = column.removeprefix("test/").rpartition("/")[0]
        points = {}
        for row in rows:
            seconds = list(row.by_seed(f"latency/{task}/seconds_per_query").values())
            values = list(row.by_seed(column).values())
            if seconds and values and column.startswith("test/"):
                points[row.name] = [(statistics.fmean(seconds), statistics.fmean(values), _deviation(values))]
        panels[_axis_label(column)] = points
    return _draw_panels(panels, "seconds per query", _draw_scattered, log=True)


def _draw_panels(
    panels: dict[str, dict[str, Points]],
    x_label: str,
    draw: "Callable[[Axes, Points, dict[str, Any], str], None]",
    log: bool = False,
    ticks: Sequence[float] | None = None,
    num_columns: int | None = None,
) -> "Figure | None":
    """Draw small multiples with one legend below; no more than MAX_PANELS, which the last one's title says."""
    matplotlib = import_matplotlib()
    drawn = {title: lines for title, lines in panels.items() if lines}
    shown = list(drawn.items())[:MAX_PANELS]
    if not shown:
        return None
    num_columns = num_columns or min(len(shown), 3)
    num_rows = -(-len(shown) // num_columns)
    names = list(dict.fromkeys(name for _, lines in shown for name in lines))
    width = {1: 6.0, 2: 7.6}.get(num_columns, 3.2 * num_columns)
    legend = [name for name in names if name]
    longest = max(map(len, legend), default=1)
    legend_columns = max(1, min(len(legend), int(width / (0.075 * longest + 0.6))))
    legend_rows = -(-len(legend) // legend_columns)
    with matplotlib.rc_context(STYLE):
        size = (width, 2.6 * num_rows + (0.6 if num_rows == 1 else 0.3) + 0.2 * legend_rows)
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for axes, (title, lines) in zip(grid.flat, shown, strict=False):
            for name, points in lines.items():
                draw(axes, points, line_style(names.index(name)), name)
            axes.set_title(title, loc="left", color=INK)
            axes.set_xlabel(x_label)
            if log:
                _scale_log(axes, matplotlib)
            if ticks is not None and len(ticks) <= 8:
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        if legend and (len(legend) > 1 or len(names) > 1):
            handles = {}
            for axes in grid.flat[: len(shown)]:
                handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
            figure.legend(
                [handles[name] for name in legend], legend, loc="outside lower center", ncols=legend_columns, fontsize=8
            )
        if len(drawn) > MAX_PANELS:
            figure.suptitle(f"{MAX_PANELS} of {len(drawn)} panels; choose others with metrics=[...]", fontsize=8)
    return figure


def _scale_log(axes: "Axes", matplotlib) -> None:
    """Logarithmic x with ticks at 1, 2 and 5, written as numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def import_matplotlib():
    """Return matplotlib with its Agg figures; raises InputError where it is not installed."""
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.ticker
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install -r requirements-report.txt") from None
    return matplotlib


def line_style(index: int) -> dict[str, Any]:
    """Return colour, marker and dashes, told apart for 24 lines and in grey up to 6."""
    turn = index // len(COLOURS) % len(DASHES)
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": DASHES[turn]}


def _draw_marked(axes: "Axes", points: Points, style: dict[str, Any], name: str) -> None:
    x, mean, std = zip(*points, strict=True)
    bars = std if any(std) else None
    axes.errorbar(x, mean, yerr=bars, label=name, capsize=2, elinewidth=0.9, markersize=4, linewidth=1.4, **style)


def _draw_band(axes: "Axes", points: Points, style: dict[str, Any], name: str) -> None:
    x, mean, std = zip(*points, strict=True)
    axes.xaxis.get_major_locator().set_params(integer=True)  # there is no half step
    axes.plot(x, mean, label=name, linewidth=1.4, **{**style, "marker": None})
    if any(std):
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _draw_scattered(axes: "Axes", points: Points, style: dict[str, Any], name: str) -> None:
    x, mean, std = zip(*points, strict=True)
    bars = std if any(std) else None
    filled = "none" if style["linestyle"] != "-" else style["color"]
    style = {**style, "linestyle": "none", "markerfacecolor": filled}
    axes.errorbar(x, mean, yerr=bars, label=name, capsize=2, elinewidth=0.9, markersize=6, **style)


def save(figure: "Figure", path: Path) -> None:
    """Write PATH.png and PATH.svg."""
    with import_matplotlib().rc_context(STYLE):
        figure.savefig(path.with_name(f"{path.name}.png"), dpi=200, facecolor=PAPER)
        figure.savefig(path.with_name(f"{path.name}.svg"), facecolor=PAPER, metadata=METADATA)


def to_inline_svg(figure: "Figure", prefix: str) -> str:
    """Return a figure as an <svg> element that takes its ink from the page; the prefix keeps its ids its own."""
    file = io.StringIO()
    with import_matplotlib().rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata=METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="max-width:\2pt"', text, count=1)
    return text.replace(INK, "currentColor").strip()
