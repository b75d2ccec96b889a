"""The page of a report: one HTML file with everything in it, which needs no network and no script.

path.write_text(to_html(report))
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from distill.report.comparison import KeyComparison, summary
from distill.report.markup import number, seeds
from distill.report.published import read_published
from distill.report.rows import Row, describe, varying_keys
from distill.report.table import Cell, Table, digits

CSS = Path(__file__).with_name("page.css")


@dataclass
class Report:
    """What the page shows; figures are (caption, <svg> element)."""

    table: Table
    rows: list[Row]
    unfinished: list[Path]
    baseline: str | None = None
    correction: str = "holm"
    comparison: KeyComparison | None = None
    diagram: Path | None = None  # of critical differences, a PNG
    figures: list[tuple[str, str]] = field(default_factory=list)
    published: bool = False


def to_html(report: Report) -> str:
    """Return the page."""
    num_runs = sum(len(row.runs) for row in report.rows)
    unfinished = f", {len(report.unfinished)} unfinished left out" if report.unfinished else ""
    sections = [
        f"<h1>{escape(report.table.title)}</h1>",
        f'<p class="faint">{num_runs} runs in {len(report.rows)} rows{unfinished}</p>',
        "<h2>Results</h2>",
        _table(report.table),
        _configurations(report.rows),
        _tests(report.table, report.baseline, report.correction) if report.baseline else "",
        _comparison(report.comparison, report.diagram) if report.comparison else "",
        "<h2>Figures</h2>" if report.figures else "",
        *(f"<figure>{svg}<figcaption>{escape(text)}</figcaption></figure>" for text, svg in report.figures),
        _published() if report.published else "",
        _runs(report.rows),
        _unfinished(report.unfinished) if report.unfinished else "",
    ]
    title, css = escape(report.table.title), CSS.read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join(filter(None, sections))
    head = f'<html lang="en"><head>{head}\n<style>\n{css}</style></head>'
    return f"<!DOCTYPE html>\n{head}\n<body>\n{body}\n</body></html>\n"


def _table(table: Table) -> str:
    bodies = []
    for kind in ("reference", "ours", "published"):
        lines, source = [], ""
        for row in table.kind(kind):
            if row.source != source:
                source = row.source
                lines.append(f'<tr><th colspan="{len(table.columns) + 2}">Published: {escape(source)}</th></tr>')
            cells = [_cell(row.cells.get(name), digits(table, name)) for name in table.columns]
            lines.append(_line([*cells, seeds(row)], escape(row.name)))
        if lines:
            bodies.append(f'<tbody class="kind {kind}">{"".join(lines)}</tbody>')
    heads = ["", *map(escape, table.headers()), "seeds"]
    if not table.kind("ours"):
        heads, bodies = heads[:-1], [body.replace("<td></td></tr>", "</tr>") for body in bodies]
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return _wide(heads, "".join(bodies)) + (f'\n<ul class="notes">{notes}</ul>' if notes else "")


def _cell(cell: Cell | None, num_digits: int) -> str:
    if cell is None:
        return "–"
    mean, sign, std = number(cell, num_digits).partition(" ± ")
    before, after = {1: ("<strong>", "</strong>"), 2: ("<u>", "</u>"), 0: ("", "")}[cell.place]
    deviation = f' <span class="std">± {std}</span>' if sign else ""
    return f"{before}{mean}{after}{'†' * cell.significant}{deviation}"


def _line(cells: Sequence[str], head: str) -> str:
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _wide(heads: Sequence[str], body: str, kind: str = "plain") -> str:
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{columns}</tr></thead>{body}</table></div>'


def _body(lines: Sequence[str]) -> str:
    return f"<tbody>{''.join(lines)}</tbody>"


def _configurations(rows: Sequence[Row]) -> str:
    """Every key that differs between the rows, also those that their names leave out."""
    keys = varying_keys([row.config for row in rows])
    if not keys:
        return ""
    lines = [
        _line([escape(describe(row.config, [key]).partition("=")[2]) or "–" for row in rows], escape(key))
        for key in keys
    ]
    table = _wide(["", *(escape(row.name) for row in rows)], _body(lines))
    return f"<details><summary>All {len(keys)} keys that differ between the rows</summary>{table}</details>"


def _tests(table: Table, baseline: str, correction: str) -> str:
    lines = []
    for column, header in zip(table.columns, table.headers(), strict=True):
        for row in table.kind("ours"):
            cell = row.cells.get(column)
            if cell is None or cell.test is None:
                continue
            test = cell.test
            p_corrected = test.p_holm if correction == "holm" else test.p_bonferroni
            values = [f"{test.difference:+.4f}", f"{test.t:.2f}", f"{test.p:.2g}", f"{p_corrected:.2g}"]
            mark = "†" if cell.significant else ""
            lines.append(_line([escape(header), *values, mark, str(test.num_queries)], escape(row.name)))
    if not lines:  # the notes below the results say why
        return ""
    heads = ["", "metric", "difference", "t", "p", f"p, {correction.capitalize()}", "", "queries"]
    text = f'<h2>Significance</h2>\n<p class="faint">Against {escape(baseline)}.</p>'
    return f"{text}\n{_wide(heads, _body(lines), 'two-names')}"


def _comparison(comparison: KeyComparison, diagram: Path | None) -> str:
    lines = []
    for index, name in enumerate(comparison.treatments):
        p_values = ["–" if other == index else f"{p:.3g}" for other, p in enumerate(comparison.p_values[index])]
        lines.append(_line([f"{comparison.average_ranks[index]:.2f}", *p_values], escape(name)))
    heads = [escape(comparison.key), "average rank", *map(escape, comparison.treatments)]
    figure = ""
    if diagram:
        image = base64.b64encode(diagram.read_bytes()).decode()
        text = "Critical-difference diagram: bars join what is not significantly apart (Nemenyi, 0.05)."
        figure = f'<figure><img alt="critical-difference diagram" src="data:image/png;base64,{image}">'
        figure += f"<figcaption>{text}</figcaption></figure>"
    head = f"<h2>{escape(comparison.key)} compared</h2><p>{escape(summary(comparison))}</p>"
    return f"{head}\n{_wide(heads, _body(lines))}\n{figure}"


def _published() -> str:
    """Every published table, folded away: those that share a metric with ours stand in the results as well."""
    tables, citations = read_published()
    listed = "".join(f"<li>{escape(short)}: {escape(citation)}.</li>" for short, citation in citations.items())
    blocks = []
    for table in tables:
        for row in table.rows:
            row.source = ""  # the heading names it
        blocks.append(f"<h3>{escape(table.title)}</h3>\n{_table(table)}")
    tables_html = "\n".join(blocks)
    text = f'<h2>Published figures</h2>\n<ul class="notes">{listed}</ul>'
    return f"{text}\n<details><summary>All {len(tables)} tables</summary>\n{tables_html}\n</details>"


def _runs(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        for run in row.runs:
            seed = "" if run.config.get("seed") is None else str(run.config["seed"])
            steps, seconds = (run.results.get(f"train/{name}") for name in ("steps", "seconds"))
            values = ["–" if value is None else f"{value:,.0f}" for value in (steps, seconds)]
            lines.append(_line([escape(row.name), seed, *values], escape(str(run.directory))))
    heads = ["directory", "row", "seed", "steps", "seconds"]
    return f"<h2>Runs</h2>\n{_wide(heads, _body(lines), 'two-names')}"


def _unfinished(directories: Sequence[Path]) -> str:
    items = "".join(f"<li>{escape(str(directory))}</li>" for directory in directories)
    return f'<h2>Unfinished runs</h2>\n<p class="faint">Without results.json, left out above.</p>\n<ul>{items}</ul>'
