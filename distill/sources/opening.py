"""A source, opened: one place decides whether it is a file, a folder, an address or an id, and how it is laid out.

    source = open_source("bm25.run.gz", "run")
    source.form                                  # "lines"
    for place, row in source.rows(): ...         # ("bm25.run.gz:7", b"q1 Q0 d7 1 2.5 bm25")

What a row is follows from the form:

    lines                            bytes: white-space separated columns, or `id<TAB>text`
    columns, csv, jsonl, parquet     a dict: column or key to value
    hits, bulk                       a document of a dump as a dict (dumps.py)
    folder                           a document of a folder as a dict (folders.py)
    answers                          a text of a JSON array
    records                          a record of `ir_datasets`

Reading rows raises InputError, with file, line and reason, for whatever is damaged, and for a source that is neither a
file nor an id.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distill.errors import InputError, refuse
from distill.sources.dumps import dump_of, dump_rows
from distill.sources.fields import ID_NAMES, TEXT_NAMES, USUAL, Fields, usual_name
from distill.sources.folders import folder_rows
from distill.sources.inline import inline_shape
from distill.sources.locate import file_of, ir_datasets_records
from distill.storage.files import (
    form_of,
    is_longer,
    numbered_answers,
    numbered_lines,
    numbered_rows,
)
from distill.storage.parquet import open_parquet, parquet_rows

RECORDS = {"queries": "queries", "passages": "docs", "run": "scoreddocs", "qrels": "qrels"}  # kind -> of ir_datasets
FILE_FORMS = {"triples": "lines", "permutations": "answers"}  # kinds that come from files only, in one form
LARGE_FILE = 2**24  # bytes: about 250 000 lines, which take about a quarter of a gigabyte as Python objects
PACKED = 4  # how much larger a .gz or parquet file is when unpacked, roughly
MOST_PACKED = 1032  # how much larger gzip can be at most
DUMPS = ("hits", "bulk")
ROW = 16  # bytes of a line, at least
ABBREVIATIONS = ("id", "pid", "qid")  # names of ids that a glossary could explain


@dataclass(frozen=True)
class Source:
    """A file or an `ir_datasets` id of which the form is known."""

    name: str  # path or id
    kind: str  # "queries", "passages", "run", "qrels", "triples" or "permutations"
    form: str
    is_inline: bool = False  # whether each row holds a query with its passages
    is_large: bool = False  # whether the rows would take too much memory as Python objects

    def rows(self, refused: Callable[[InputError], None] = refuse) -> Iterator[tuple[str, Any]]:
        """Yield (place, row) of every row, in order; raises InputError for a bad one.

        refused: gets the error of a bad row of named fields, and may return, to continue with the next.
        """
        if self.form == "records":
            return ((self.name, record) for record in ir_datasets_records(self.name, RECORDS[self.kind]))
        if self.form == "lines":
            return numbered_lines(self.name)
        if self.form == "answers":
            return numbered_answers(self.name)
        if self.form == "folder":
            return folder_rows(self.name, refused)
        return _rows(self.name, self.form, refused)


def _rows(path: str, form: str, refused: Callable[[InputError], None] = refuse) -> Iterator[tuple[str, dict]]:
    if form == "parquet":
        return parquet_rows(path)
    if form in DUMPS:  # of pairs of lines, none may be left out
        return dump_rows(numbered_rows(path, "jsonl", refuse if form == "bulk" else refused), form, refused)
    return numbered_rows(path, form, refused)


def open_source(name: str, kind: str, fields: Fields = USUAL) -> Source:
    """Find out what a source of a kind is: a file, an address (downloaded once) or an `ir_datasets` id, and its form.

    fields: which fields of queries or passages are named. Raises InputError for a file that cannot be read.
    """
    path = file_of(name)
    if path is None and os.path.isdir(name):
        if kind != "passages":
            raise InputError(f"{name}: is a folder: {kind} are read from a file")
        return Source(name, kind, "folder")
    if path is None:
        if kind not in RECORDS:
            raise InputError(f"{name}: no such file: {kind} are read from a file")
        return Source(name, kind, "records")
    form = FILE_FORMS.get(kind) or form_of(path)
    if form == "lines" and kind in TEXT_NAMES and (fields != USUAL or _has_header(path)):
        form = "columns"
    if form == "jsonl" and kind in TEXT_NAMES:
        form = _dump_of(path) or form
    has_names = form not in ("lines", "answers", *DUMPS) and fields == USUAL
    return Source(path, kind, form, has_names and _is_inline(path, kind, form), _is_large(path, form))


def _is_large(path: str, form: str) -> bool:
    """Whether a file's rows would take too much memory as Python objects, also where a small file unpacks to many."""
    size = os.path.getsize(path)
    if form == "parquet":
        return max(size * PACKED, open_parquet(path).metadata.num_rows * ROW) > LARGE_FILE
    if size > LARGE_FILE or (path.endswith(".gz") and size * PACKED > LARGE_FILE):
        return True
    return size * MOST_PACKED > LARGE_FILE and is_longer(path, LARGE_FILE)


def _has_header(path: str) -> bool:
    """Whether a file's first line names its columns.

    It does where an id's usual name is followed by names, or a word by nothing but usual names of texts. Names with
    spaces count behind a name that only an id has, such as doc_id; behind others, if they end like `article body`.
    """
    _, line = next(numbered_lines(path), ("", b""))
    first, *rest = line.decode("utf-8", "replace").split("\t")  # what is no UTF-8 is no name
    texts = {"title", *(name for names in TEXT_NAMES.values() for name in names)}
    if not rest or not re.fullmatch(r"#?[A-Za-z_-]+", first.strip()):
        return False
    if usual_name(first) in ID_NAMES:
        return usual_name(first) not in ABBREVIATIONS or all(_is_name(name, texts) for name in rest)
    return all(usual_name(name) in texts for name in rest)


def _is_name(cell: str, texts: set[str]) -> bool:
    """Whether a cell is a word, or up to three of which the last is a usual name of a text."""
    words = cell.split()
    are_words = 0 < len(words) < 4 and all(re.fullmatch(r"[\w-]+", word) for word in words)
    return are_words and (len(words) == 1 or usual_name(words[-1]) in texts)


def _dump_of(path: str) -> str | None:
    """Return which dump of Elasticsearch a file of JSON lines is, None if it is none."""
    return dump_of(*_first_row(path, "jsonl"))


def _first_row(path: str, form: str) -> tuple[dict, str]:
    """Return the first row that can be read, and its place; bad ones are for the reader of the rows to refuse."""
    place, row = next(_rows(path, form, lambda error: None), ("", {}))
    return row, place


def _is_inline(path: str, kind: str, form: str) -> bool:
    """Whether the rows of a file hold queries and passages together."""
    if form == "parquet":
        return inline_shape({name: [] for name in open_parquet(path).schema_arrow.names}) is not None
    if kind not in TEXT_NAMES:
        return True  # no run or qrels have named fields there
    row, _ = _first_row(path, form)
    return inline_shape(row) is not None
