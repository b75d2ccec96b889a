"""How figures are drawn: small multiples with one legend below, for the page at two widths, and as files.

figure = draw(Panels({"sample/nDCG@10": {"loss=ranknet": [(10, 0.61, 0.02), (50, 0.64, 0.01)]}}, "data.depth", mark))
save(figure, directory / "depth")                # depth.png, depth.svg
svg = to_inline_svg(draw(panels, narrow=True), "depth-narrow")
"""

import functools
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from distill.evaluation.significance import require
from distill.storage.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 12
NARROW = 4.2  # inches: a phone's screen, with text of the page's size
NAME = 24  # characters of a row's name in a line of the axis
INK, PAPER = "#333333", "#ffffff"  # in the page they become the colours of its text and ground
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's, without yellow, black
MARKERS, DASHES = "osD^vP", ("-", "--", ":", "-.")
STYLE = {
    "text.parse_math": False,  # a name may have a $
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

Points = list[tuple[float, float, float]]  # x, mean and standard deviation


@dataclass
class Panels:
    """Lines or points by panel and name; `draw` puts one of them on the axes."""

    points: dict[str, dict[str, Points]]
    x_label: str
    draw: "Callable[[Axes, Points, dict[str, Any], str], None]"
    log: bool = False
    ticks: Sequence[float] = ()


@dataclass
class Dot:
    """A row of a dot chart: its value with an interval, and the values of its seeds."""

    name: str
    value: float
    low: float
    high: float
    seeds: list[float]
    is_reference: bool = False


@dataclass
class DotPanels:
    """Rows by panel, each from top to bottom."""

    dots: dict[str, list[Dot]]


def draw(panels: Panels | DotPanels, *, narrow: bool = False) -> "Figure":
    """Draw a figure for a screen or paper, or a narrow one, with a single panel in a line, for a phone."""
    with _matplotlib().rc_context(STYLE):
        return (
            _draw_dots(panels, narrow=narrow) if isinstance(panels, DotPanels) else _draw_lines(panels, narrow=narrow)
        )


def _matplotlib():
    for name in ("matplotlib.figure", "matplotlib.ticker"):
        require(name)
    return require("matplotlib")


def _draw_lines(panels: Panels, *, narrow: bool) -> "Figure":
    shown = list(panels.points.items())[:MAX_PANELS]
    num_columns = 1 if narrow else num_columns_of(len(shown))
    num_rows = math.ceil(len(shown) / num_columns)
    names = list(dict.fromkeys(name for _, lines in shown for name in lines))
    width = NARROW if narrow else {1: 6.0, 2: 7.6}.get(num_columns, 3.2 * num_columns)
    legend = {name: wrap(name, 44 if narrow else 80) for name in names if name} if len(names) > 1 else {}
    longest = max((len(line) for text in legend.values() for line in text.split("\n")), default=1)
    legend_columns = max(1, min(len(legend), int(width / (0.075 * longest + 0.6))))
    legend_lines = sum(text.count("\n") + 1 for text in legend.values()) / legend_columns
    size = (width, 2.6 * num_rows + (0.6 if num_rows == 1 else 0.3) + 0.2 * math.ceil(legend_lines))
    figure = _matplotlib().figure.Figure(figsize=size, layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes, (title, lines) in zip(grid.flat, shown, strict=False):
        for name, points in lines.items():
            panels.draw(axes, points, line_style(names.index(name)), legend.get(name, name))
        _finish_axes(axes, title, panels)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    if legend:
        handles: dict[str, Any] = {}
        for axes in grid.flat[: len(shown)]:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=legend_columns)
    _say_what_is_left_out(figure, panels.points)
    return figure


def num_columns_of(num_panels: int) -> int:
    """Return how many panels are side by side: three, unless two leave no gap."""
    return 2 if num_panels == 4 else min(num_panels, 3)


def _finish_axes(axes: "Axes", title: str, panels: Panels) -> None:
    axes.set_title(title, loc="left", color=INK)
    axes.set_xlabel(panels.x_label)
    if panels.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_matplotlib().ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(_matplotlib().ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    if 0 < len(panels.ticks) <= 8:
        axes.set_xticks(panels.ticks, [f"{tick:g}" for tick in panels.ticks])
        axes.minorticks_off()


def _say_what_is_left_out(figure: "Figure", panels: dict) -> None:
    if len(panels) > MAX_PANELS:
        figure.suptitle(f"{MAX_PANELS} of {len(panels)} panels; choose others with metrics=[...]", fontsize=8)


def _draw_dots(panels: DotPanels, *, narrow: bool) -> "Figure":
    shown = list(panels.dots.items())[:MAX_PANELS]
    num_columns = 1 if narrow else num_columns_of(len(shown))
    num_rows = math.ceil(len(shown) / num_columns)
    names = list(dict.fromkeys(dot.name for _, dots in shown for dot in dots))
    labels = [wrap(name, NAME) for name in names]
    lines = sum(max(1.5, label.count("\n") + 1.3) for label in labels)
    width = NARROW if narrow else {1: 6.0, 2: 8.0}.get(num_columns, 3.2 * num_columns)
    size = (width, (0.16 * lines + 0.8) * num_rows)
    figure = _matplotlib().figure.Figure(figsize=size, layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
    for axes, (title, dots) in zip(grid.flat, shown, strict=False):
        for dot in dots:
            _draw_dot(axes, dot, names.index(dot.name))
        axes.set_title(title, loc="left", color=INK)
        axes.set_yticks(range(len(names)), labels)
        axes.xaxis.set_major_locator(_matplotlib().ticker.MaxNLocator(5))
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        axes.tick_params(axis="y", length=0)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    _say_what_is_left_out(figure, panels.dots)
    return figure


def _draw_dot(axes: "Axes", dot: Dot, y: int) -> None:
    colour = INK if dot.is_reference else COLOURS[0]
    if dot.low < dot.high:
        axes.plot([dot.low, dot.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    if len(dot.seeds) > 1:
        axes.plot(dot.seeds, [y] * len(dot.seeds), linestyle="none", marker="|", color=colour, markersize=7)
    filled = "none" if dot.is_reference else colour
    axes.plot([dot.value], [y], linestyle="none", marker="o", color=colour, markerfacecolor=filled, markersize=6)


def wrap(name: str, width: int) -> str:
    """Break a name into lines of about that width, after spaces, slashes, equals signs and underscores."""
    lines = [""]
    for part in re.findall(r"[^ /=_]+[ /=_]*", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def line_style(index: int) -> dict[str, Any]:
    """Return colour, marker and dashes, told apart for 24 lines and in grey up to 6."""
    turn = index // len(COLOURS) % len(DASHES)
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": DASHES[turn]}


def draw_marked(axes: "Axes", points: Points, style: dict[str, Any], name: str) -> None:
    """Draw a line through points, with the deviation as a bar."""
    x, mean, std = zip(*points, strict=True)
    bars = std if any(std) else None
    axes.errorbar(x, mean, yerr=bars, label=name, capsize=2, elinewidth=0.9, markersize=4, linewidth=1.4, **style)


def draw_band(axes: "Axes", points: Points, style: dict[str, Any], name: str) -> None:
    """Draw a line over steps, with the deviation as a band."""
    x, mean, std = zip(*points, strict=True)
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)  # there is no half step
    axes.plot(x, mean, label=name, linewidth=1.4, **{**style, "marker": None})
    if any(std):
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def draw_scattered(axes: "Axes", points: Points, style: dict[str, Any], name: str) -> None:
    """Draw points that no line joins, with the deviation as a bar."""
    x, mean, std = zip(*points, strict=True)
    bars = std if any(std) else None
    filled = "none" if style["linestyle"] != "-" else style["color"]
    style = {**style, "linestyle": "none", "markerfacecolor": filled}
    axes.errorbar(x, mean, yerr=bars, label=name, capsize=2, elinewidth=0.9, markersize=6, **style)


def save(figure: "Figure", path: Path) -> None:
    """Write PATH.png and PATH.svg."""
    with _matplotlib().rc_context(STYLE):
        write = functools.partial(figure.savefig, facecolor=PAPER)
        write_whole(path.with_name(f"{path.name}.png"), functools.partial(write, format="png", dpi=200))
        write_whole(path.with_name(f"{path.name}.svg"), functools.partial(write, format="svg", metadata=METADATA))


def to_inline_svg(figure: "Figure", prefix: str) -> Markup:
    """Return a figure as an <svg> element that takes its ink from the page; the prefix keeps its ids its own."""
    file = io.StringIO()
    with _matplotlib().rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata=METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="max-width:\2pt"', text, count=1)
    return Markup(text.replace(INK, "currentColor").strip())
