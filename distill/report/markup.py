"""A table as Markdown, LaTeX and CSV.

path.write_text(to_markdown(table))
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from distill.report.table import Cell, Table, TableRow, digits
from distill.storage import quoting
from distill.storage.quoting import to_cell

LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "†": r"$^{\dagger}$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
}


def number(cell: Cell, num_digits: int) -> str:
    """Return mean ± deviation as printed in every format."""
    num_digits = num_digits if cell.decimals is None else cell.decimals
    mean = f"{cell.mean:.{num_digits}f}"
    return mean if cell.std is None else f"{mean} ± {cell.std:.{num_digits}f}"


def seeds(row: TableRow) -> str:
    """Return the number of seeds, of rows that have them."""
    return "" if row.num_seeds is None else str(row.num_seeds)


def to_markdown(table: Table) -> str:
    """Return the table in Markdown: best bold, second underlined, † significant."""
    lines = [f"# {quoting.to_markdown(table.title)}", "", markdown_line(["", *table.headers(), "seeds"])]
    lines.append("| --- |" + " ---: |" * (len(table.columns) + 1))
    for row in table.rows:
        cells = [_markdown_cell(row.cells.get(name), digits(table, name)) for name in table.columns]
        name = f"{row.name} (published, {row.source})" if row.source else row.name
        lines.append(markdown_line([name, *cells, seeds(row)], of_numbers=True))
    lines += ["", *(f"- {quoting.to_markdown(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


def markdown_line(cells: Sequence[str], of_numbers: bool = False) -> str:
    """Return one line of a Markdown table; of_numbers: only the first cell is text, the others are marked up."""
    shown = [cell if of_numbers and place else quoting.to_markdown(cell) for place, cell in enumerate(cells)]
    return "| " + " | ".join(shown) + " |"


def _markdown_cell(cell: Cell | None, num_digits: int) -> str:
    if cell is None:
        return "–"
    before, after = {1: ("**", "**"), 2: ("<u>", "</u>"), 0: ("", "")}[cell.place]
    return before + number(cell, num_digits) + after + "†" * cell.significant


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints verbatim."""
    return "".join(LATEX.get(character, character) for character in quoting.one_line(text))


def to_latex(table: Table) -> str:
    """Return the table in LaTeX, for the package booktabs; kinds of rows are parted by rules."""
    lines = []
    last = None
    for row in table.rows:
        cells = [_latex_cell(row.cells.get(name), digits(table, name)) for name in table.columns]
        is_first = (row.kind, row.source) != last
        last = (row.kind, row.source)
        lines.append(
            {"name": row.name, "cells": cells, "seeds": seeds(row), "is_first": is_first, "source": row.source}
        )
    # Markup is the mark of what is LaTeX already
    template = quoting.plain_template(Path(__file__).with_name("table.tex"), _escape_value)
    return template.render(table=table, lines=lines)


def _escape_value(value: Any) -> str:
    return value if isinstance(value, Markup) else escape_latex(str(value))


def _latex_cell(cell: Cell | None, num_digits: int) -> Markup:
    if cell is None:
        return Markup("--")
    text = escape_latex(number(cell, num_digits))
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}", 0: text}[cell.place]
    return Markup(text + r"$^{\dagger}$" * cell.significant)


def to_csv(table: Table) -> str:
    """Return the table as CSV with every digit: a metric has a column each for mean, std, seeds and p-values."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    parts = ("", " std", " seeds", " p", " p_holm", " p_bonferroni")
    writer.writerow(["row", "kind", "source", *(to_cell(f"{name}{part}") for name in table.columns for part in parts)])
    for row in table.rows:
        values = [value for name in table.columns for value in _csv_values(row.cells.get(name), row)]
        writer.writerow(
            [to_cell(row.name), row.kind, to_cell(row.source), *("" if value is None else value for value in values)]
        )
    return file.getvalue()


def _csv_values(cell: Cell | None, row: TableRow) -> list[float | int | None]:
    if cell is None:
        return [None] * 6
    p_values = [cell.test.p, cell.test.p_holm, cell.test.p_bonferroni] if cell.test else [None] * 3
    return [cell.mean, cell.std, cell.num_seeds if row.kind == "ours" else None, *p_values]
