"""Passages and queries, from files and from `ir_datasets`.

    queries = read_queries("queries.tsv")                  # {"q1": "what is ..."}
    passages = read_passages("passages.jsonl.gz", ids)     # only the passages asked for
    read_passages("articles.csv", ids, Fields("sku", ("title", "body")))

Files are TSV (`id<TAB>text`, or with a header of names), JSONL, CSV or parquet with named fields (BEIR's `_id`,
`title`, `text`, or others of a usual name, or those that are named), or training lines with their texts inline
(distill/sources/inline.py), plain or .gz; anything else is an id. Runs of white space become one blank, so that all
sources of a collection give the same text.
"""

import itertools
import logging
import os
import re
from collections.abc import Iterator

from distill.errors import InputError
from distill.sources.fields import ID_NAMES, TEXT_NAMES, Fields, checked_id, usual_name
from distill.sources.inline import inline_passages, inline_queries, inline_shape, is_inline_file
from distill.sources.locate import ir_datasets_records
from distill.sources.run_files import Run
from distill.storage.files import find_line, form_of, numbered_rows, text_lines

log = logging.getLogger(__name__)

Texts = dict[str, str]  # id -> text
USUAL = Fields()


def read_queries(source: str, fields: Fields = USUAL) -> Texts:
    """Read all queries of a file or an `ir_datasets` id; queries without a text are left out and counted.

    Raises InputError for a missing source, a bad line, a duplicate id, and where no query is left.
    """
    queries = _read_texts(source, "queries", None, fields)
    kept = {query_id: text for query_id, text in queries.items() if text}
    if not kept:
        raise InputError(f"{source}: holds no query with a text: expected lines of `id<TAB>text`")
    log_left_out(
        source, "queries have no text", [query_id for query_id in queries if not queries[query_id]], len(queries)
    )
    return kept


def read_passages(source: str, doc_ids: set[str], fields: Fields = USUAL) -> Texts:
    """Read the passages with these ids; a passage the source lacks is absent from the result, an empty one is "".

    Raises InputError for a missing source, a bad line, a duplicate id and an empty file.
    """
    return _read_texts(source, "passages", doc_ids, fields)


def iterate_texts(source: str, kind: str, fields: Fields = USUAL) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of all "queries" or "passages" in the order of the source, whatever its size.

    Raises InputError for a missing source and a bad line; whether an id comes twice is the caller's to find out, by
    `refuse_twice`.
    """
    for _, text_id, text in _rows(source, kind, fields):
        yield text_id, _join_blanks(text)


def refuse_twice(source: str, kind: str, fields: Fields = USUAL) -> None:
    """Raise InputError for the first bad line of a source, or the second one with the same id."""
    for _ in _unique_rows(source, kind, fields):
        pass


def log_left_out(source: str, what: str, ids: list[str], total: int) -> None:
    """Log how many of all are left out and why, with the first one; nothing where there are none."""
    if ids:
        log.warning("%s: %d of %d %s: left out (first: %s)", source, len(ids), total, what, ids[0])


def known_queries(run: Run, run_source: str, queries: Texts, queries_source: str) -> list[str]:
    """Return the queries of a run that have a text; the others are left out and counted.

    Raises InputError, with the first line of the run, where none has.
    """
    known = [query_id for query_id in run if query_id in queries]
    if not known:
        query_id = next(iter(run))
        raise InputError(
            f"{find_line(run_source, query_id)}: query {query_id} is not in {queries_source}, nor is any other of the "
            f"{len(run)} queries of this run: use the query file that belongs to the run"
        )
    unknown = [query_id for query_id in run if query_id not in queries]
    log_left_out(run_source, f"queries have no text in {queries_source}", unknown, len(run))
    return known


def check_passages(run: Run, run_source: str, passages: Texts, passages_source: str) -> None:
    """Raise InputError, with the first line of the run that is concerned, where the passages lack one of the run's."""
    for query_id, ranked in run.items():
        for doc_id in ranked.doc_ids:
            if doc_id not in passages:
                place = find_line(run_source, query_id, doc_id)
                raise InputError(
                    f"{place}: passage {doc_id} is not in {passages_source}: use the collection of the run"
                )


def drop_empty(run: Run, passages: Texts, name: str) -> Run:
    """Return the run without empty passages, and log how many there were."""
    kept = {q: ranked.keep([bool(passages[doc_id]) for doc_id in ranked.doc_ids]) for q, ranked in run.items()}
    empty = [doc_id for ranked in run.values() for doc_id in ranked.doc_ids if not passages[doc_id]]
    if empty:
        log.warning("%s: %d empty passages left out of the run (first: %s)", name, len(empty), empty[0])
    return kept


def _read_texts(source: str, kind: str, ids: set[str] | None, fields: Fields) -> Texts:
    if ids is not None and not os.path.isfile(source):
        docs = ir_datasets_records(source, "docs", sorted(ids))
        return {doc.doc_id: _join_blanks(_passage_text(doc)) for doc in docs}
    texts: Texts = {}
    is_empty = True
    for _, text_id, text in _unique_rows(source, kind, fields):
        is_empty = False
        if ids is None or text_id in ids:
            texts[text_id] = _join_blanks(text)
    if is_empty:
        raise InputError(f"{source}: is empty: expected lines of `id<TAB>text` or JSON objects")
    return texts


def _unique_rows(source: str, kind: str, fields: Fields) -> Iterator[tuple[str, str, str]]:
    seen = set()
    for place, text_id, text in _rows(source, kind, fields):
        if text_id in seen:
            raise InputError(f"{place}: id {text_id} appears twice: ids must be unique")
        seen.add(text_id)
        yield place, text_id, text


def _rows(source: str, kind: str, fields: Fields) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the "queries" or "passages" of a file or an `ir_datasets` id."""
    if os.path.isfile(source):
        return _file_rows(source, kind, fields)
    if kind == "queries":
        records = ir_datasets_records(source, "queries")
        return ((source, checked_id(one.query_id, source), one.default_text()) for one in records)
    records = ir_datasets_records(source, "docs")
    return ((source, checked_id(one.doc_id, source), _passage_text(one)) for one in records)


def _file_rows(path: str, kind: str, fields: Fields) -> Iterator[tuple[str, str, str]]:
    form = form_of(path)
    if form == "lines" and (fields != USUAL or _has_header(path)):
        form = "columns"  # of tab-separated cells below a header with their names
    if form == "lines":
        return _tsv_rows(path)
    if fields == USUAL and _is_inline(path, form):
        return (inline_queries if kind == "queries" else inline_passages)(numbered_rows(path, form))
    return _named_rows(path, form, kind, fields)


def _is_inline(path: str, form: str) -> bool:
    """Whether rows hold queries and passages together."""
    if form == "parquet":
        return is_inline_file(path)
    return any(inline_shape(row) for _, row in itertools.islice(numbered_rows(path, form), 1))


def _has_header(path: str) -> bool:
    """Whether a file's first line names its columns.

    It does where an id's usual name is followed by single words, or a word by usual names of texts alone.
    """
    first, *rest = next(text_lines(path), ("", ""))[1].split("\t")
    texts = {"title", *(name for names in TEXT_NAMES.values() for name in names)}
    if not rest or not re.fullmatch(r"#?[A-Za-z_-]+", first.strip()):
        return False
    words = all(re.fullmatch(r"[A-Za-z_]+", name.strip()) for name in rest)
    return (usual_name(first) in ID_NAMES and words) or all(usual_name(name) in texts for name in rest)


def _tsv_rows(path: str) -> Iterator[tuple[str, str, str]]:
    for place, line in text_lines(path):
        cells = line.split("\t")
        if len(cells) == 1:
            remedy = "; of CSV, let the name end with .csv" if line.count(",") else ""
            raise InputError(f"{place}: one column instead of two: expected `id<TAB>text`{remedy}")
        if len(cells) > 2:
            raise InputError(
                f"{place}: {len(cells)} columns instead of two: expected `id<TAB>text`: put a header line above and "
                "name the columns by id_field=NAME text_fields=[NAME,NAME], or replace the tabs within texts by blanks"
            )
        yield place, checked_id(cells[0], place), cells[1]


def _named_rows(path: str, form: str, kind: str, fields: Fields) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of a file with named fields; raises InputError where one that was named occurs in no row."""
    absent, row = set(fields.texts or ()), {}
    for place, row in numbered_rows(path, form):
        text_id, text = fields.read(row, place, kind)
        absent.difference_update(row)
        yield place, text_id, text
    if absent:
        key = "query_text_fields" if kind == "queries" else "text_fields"
        raise InputError(
            f"{path}: no row has a field {sorted(absent)[0]!r}: its fields are {', '.join(row)}: check {key}"
        )


def _passage_text(doc) -> str:
    """Title and text like the BEIR files; other record types by `ir_datasets`' own choice of fields."""
    if hasattr(doc, "title") and hasattr(doc, "text"):
        return f"{doc.title} {doc.text}" if doc.title else doc.text
    return doc.default_text()


def _join_blanks(text: str) -> str:
    return " ".join(text.split())
