"""Text from others in tables and templates: as a cell of CSV, and in Markdown.

from_cell(to_cell("=1+1")) == "=1+1"           # to_cell: '=1+1, which a spreadsheet shows and does not compute
to_markdown("<script>")                        # &lt;script>
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import HIDDEN

if TYPE_CHECKING:
    from jinja2 import Template

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet computes, or what is quoted already
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def to_cell(text: str) -> str:
    """Return text as a cell of CSV: an apostrophe before what a spreadsheet would compute, unless it is a number."""
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """Return what `to_cell` was given."""
    return cell[1:] if cell[:1] == "'" and FORMULA.match(cell) else cell


def one_line(text: str) -> str:
    """Return text with newlines and other characters that cannot be seen as escapes."""
    return HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def to_markdown(text: str, *, with_code: bool = False) -> str:
    """Return text for one line of Markdown: no HTML, link or column begins in it, nor code unless it is meant."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line(text)).replace("](", r"]\(")
    text = text if with_code else text.replace("`", r"\`")
    return re.sub(r"(?<!\\)\|", r"\|", text)


def plain_template(file: Path, finalize: Callable[[Any], object]) -> "Template":
    """Return a template of what is not HTML, such as Markdown: `<< value >>` is passed through finalize, which quotes.

    What Jinja itself escapes is HTML, and braces mean something elsewhere, so blocks are written `<% %>`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(file.parent),
        undefined=StrictUndefined,
        finalize=finalize,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(file.name)
