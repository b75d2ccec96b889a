"""The page of a report: one HTML file with everything in it, which needs no network and no script.

path.write_text(to_html(report))

page.html is its template, page.css its style; tables.html writes the tables. A table with many columns is cut into
several below each other, and on a phone each row becomes a block of lines, so that no number leaves the screen.
"""

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from distill.report.comparison import KeyComparison
from distill.report.labels import Labels, shown_key
from distill.report.markup import number, seeds
from distill.report.published import read_published
from distill.report.rows import Row, varying_keys
from distill.report.table import Cell, Table, TableRow, digits

HERE = Path(__file__).parent
MAX_COLUMNS = 6  # of means with deviations, beside the rows' names, at 1280 pixels


@dataclass
class Figure:
    """A figure of the page, at two widths, as <svg> elements."""

    name: str  # of its files
    caption: str
    wide: Markup
    narrow: Markup


@dataclass
class Report:
    """What the page shows."""

    table: Table
    rows: list[Row]
    labels: Labels
    unfinished: list[Path] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)  # date, commit, command
    commands: list[str] = field(default_factory=list)  # that started the runs
    problems: list[str] = field(default_factory=list)  # why a test that was asked for is missing
    baseline: str | None = None
    correction: str = "holm"
    comparison: KeyComparison | None = None
    diagram: Path | None = None  # of critical differences, a PNG
    figures: list[Figure] = field(default_factory=list)
    published: bool = False


@dataclass
class PageCell:
    """A cell: a number with its deviation and marks, or text, which may wrap."""

    text: str
    deviation: str = ""
    place: int = 0
    mark: str = ""
    is_text: bool = False


@dataclass
class PageLine:
    """A line of a table: its name and its cells; `heading` is printed above it."""

    name: str
    cells: list[PageCell]
    kind: str = ""
    heading: str = ""


@dataclass
class PageTable:
    """A table of the page; the first head is that of the names."""

    heads: list[str]
    lines: list[PageLine]


def to_html(report: Report) -> str:
    """Return the page."""
    published, citations = read_published()
    for row in (row for table in published for row in table.rows):
        row.source = ""  # the heading names it
    return render(
        "page.html",
        report=report,
        css=style("page.css"),
        num_runs=sum(len(row.runs) for row in report.rows),
        results=results_tables(report.table),
        configurations=_configurations(report.rows, report.labels),
        tests=_tests(report.table, report.correction) if report.baseline else None,
        compared=_compared(report.comparison) if report.comparison else [],
        diagram=base64.b64encode(report.diagram.read_bytes()).decode() if report.diagram else "",
        published=[(table, results_tables(table)) for table in published],
        citations=citations,
        runs=_runs(report.rows),
    )


def render(name: str, **values: Any) -> str:
    """Return a template of this folder with its values, which are escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(name).render(**values)


def style(*names: str) -> Markup:
    """Return style sheets of this folder as one."""
    return Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in names))


def breakable(text: str) -> Markup:
    """Let a name break after its punctuation, rather than within a word."""
    return Markup(re.sub(r"([/=_](?!$))", r"\1<wbr>", str(escape(text))))


def results_tables(table: Table) -> list[PageTable]:
    """Return the table of results, as several where the columns are too many for one."""
    heads = table.headers()
    has_seeds = bool(table.kind("ours"))
    tables = []
    for part in _parts(len(heads), MAX_COLUMNS):
        lines: list[PageLine] = []
        source = ""
        for row in table.rows:
            if row.cells.keys() & {*table.columns[part]}:
                heading = f"Published: {row.source}" if row.source != source else ""
                lines.append(_result_line(table, row, table.columns[part], has_seeds, heading))
                source = row.source
        tables.append(PageTable(["", *heads[part], *["seeds"] * has_seeds], lines))
    return tables


def _parts(number: int, most: int) -> list[slice]:
    """Cut columns into as few parts as fit, all about as wide."""
    size = math.ceil(number / math.ceil(number / most))
    return [slice(first, first + size) for first in range(0, number, size)]


def _result_line(table: Table, row: TableRow, columns: Sequence[str], has_seeds: bool, heading: str) -> PageLine:
    cells = [_cell(row.cells.get(name), digits(table, name)) for name in columns]
    cells += [PageCell(seeds(row))] * has_seeds
    return PageLine(row.name, cells, row.kind, heading)


def _cell(cell: Cell | None, num_digits: int) -> PageCell:
    if cell is None:
        return PageCell("–")
    mean, sign, std = number(cell, num_digits).partition(" ± ")
    return PageCell(mean, f"{sign}{std}".strip(), cell.place, "†" * cell.significant)


def _configurations(rows: Sequence[Row], labels: Labels) -> PageTable | None:
    """Every key that differs between the rows, also those that their names leave out; None where none does."""
    keys = varying_keys([row.config for row in rows])
    lines = []
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for row in rows:
            if key in row.config:
                by_value.setdefault(labels.value(row.config[key]), []).append(row.name)
        values = "; ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())
        lines.append(PageLine(shown_key(key), [PageCell(values, is_text=True)]))
    return PageTable(["key", "values, and the rows that have them"], lines) if keys else None


def _tests(table: Table, correction: str) -> PageTable | None:
    """Every test against the baseline; None if there is none, as the notes below the results say."""
    lines = []
    for column, header in zip(table.columns, table.headers(), strict=True):
        for row in table.kind("ours"):
            cell = row.cells.get(column)
            if cell is None or cell.test is None:
                continue
            test = cell.test
            p_corrected = test.p_holm if correction == "holm" else test.p_bonferroni
            values = [f"{test.difference:+.4f}", f"{test.t:.2f}", f"{test.p:.2g}"]
            cells = [PageCell(header, is_text=True), *map(PageCell, values)]
            cells += [PageCell(f"{p_corrected:.2g}", mark="†" * cell.significant), PageCell(str(test.num_queries))]
            lines.append(PageLine(row.name, cells))
    heads = ["row", "metric", "difference", "t", "p", f"p, {correction.capitalize()}", "queries"]
    return PageTable(heads, lines) if lines else None


def _compared(comparison: KeyComparison) -> list[PageTable]:
    heads, printed = comparison.heads, comparison.printed()
    tables = []
    for part in _parts(len(heads) - 1, MAX_COLUMNS + 2):  # its numbers have no deviations
        lines = [PageLine(line[0], [*map(PageCell, line[1:][part])]) for line in printed]
        tables.append(PageTable([heads[0], *heads[1:][part]], lines))
    return tables


def _runs(rows: Sequence[Row]) -> PageTable:
    lines = []
    for row in rows:
        for run in row.runs:
            values: list[Any] = [run.results.get(f"train/{name}") for name in ("steps", "seconds")]
            cells = [PageCell(row.name, is_text=True), PageCell(str(run.config.get("seed", "")))]
            cells += [PageCell("–" if value is None else f"{value:,.0f}") for value in values]
            lines.append(PageLine(str(run.directory), cells))
    return PageTable(["directory", "row", "seed", "steps", "seconds"], lines)
