"""Passages and queries, from files and from `ir_datasets`.

    queries = read_queries("queries.tsv")                  # {"q1": "what is ..."}
    passages = read_passages("passages.jsonl.gz", ids)     # only the passages asked for
    read_passages("articles.csv", ids, Fields("sku", ("title", "body")))

A file is TSV (`id<TAB>text`, or with a header of names), JSONL, CSV or parquet with named fields (BEIR's `_id`,
`title`, `text`, other common names, or the fields that you name), a dump of Elasticsearch (dumps.py), or training lines
with their texts inline (inline.py), plain or .gz. Passages may also be a folder of documents (folders.py). Anything
else is an id. White space becomes single spaces, so that all sources of a collection give the same text.
"""

import logging
from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np

from distill.errors import InputError, refuse
from distill.sources.dumps import flattened
from distill.sources.fields import USUAL, Fields, checked_id
from distill.sources.inline import inline_passages, inline_queries
from distill.sources.locate import ir_datasets_records
from distill.sources.opening import Source, open_source
from distill.sources.run_files import Run
from distill.sources.runs import find_line
from distill.storage.arrays import look_up_table
from distill.storage.files import as_text

log = logging.getLogger(__name__)

MAX_UNKNOWN = 0.05  # of the tokens of texts

Texts = dict[str, str]  # id -> text
TextRow = tuple[str, str, str]  # place, id, text
PartsRow = tuple[str, str, dict[str, str]]  # place, id, field -> text


def read_queries(name: str, fields: Fields = USUAL) -> Texts:
    """Read all queries of a file or an `ir_datasets` id; queries without a text are left out and counted.

    Raises InputError for a missing source, a bad line, a duplicate id, and where no query is left.
    """
    queries = _read(open_source(name, "queries", fields), fields)
    kept = {query_id: text for query_id, text in queries.items() if text}
    if not kept:
        raise InputError(f"{name}: holds no query with a text: expected lines of `id<TAB>text`")
    if len(kept) < len(queries):
        empty = [query_id for query_id in queries if query_id not in kept]
        log_left_out(name, "queries have no text", empty, len(queries))
    return kept


def read_passages(name: str, doc_ids: set[str], fields: Fields = USUAL) -> Texts:
    """Read the passages with these ids; a passage the source lacks is absent from the result, an empty one is "".

    Raises InputError for a missing source, a bad line, a duplicate id and an empty file.
    """
    source = open_source(name, "passages", fields)
    if source.form == "records":  # which are looked up
        records = ir_datasets_records(name, "docs", sorted(doc_ids))
        return {record.doc_id: " ".join(passage_text(record).split()) for record in records}
    return _read(source, fields, doc_ids)


def _read(source: Source, fields: Fields, wanted: set[str] | None = None) -> Texts:
    """Read the texts with these ids, or all; raises InputError for a duplicate id and an empty source."""
    texts: Texts = {}
    for _, text_id, text in _unique_rows(source, fields):
        if wanted is None or text_id in wanted:
            texts[text_id] = " ".join(text.split())
    return texts


def _unique_rows(source: Source, fields: Fields) -> Iterator[TextRow]:
    """Yield what `text_rows` yields; raises InputError for a duplicate id and an empty source."""
    seen: set[str] = set()
    for place, text_id, text in text_rows(source, fields):
        if text_id in seen:
            raise InputError(f"{place}: id {text_id} appears twice: ids must be unique")
        seen.add(text_id)
        yield place, text_id, text
    if not seen:
        raise InputError(f"{source.name}: is empty: expected lines of `id<TAB>text` or JSON objects")


def text_rows(source: Source, fields: Fields) -> Iterator[TextRow]:
    """Yield (place, id, text) of all queries or passages, with the white space of the source."""
    is_query = source.kind == "queries"
    if source.is_inline:
        return (inline_queries if is_query else inline_passages)(source.rows())
    if source.form == "lines":
        return _tsv_rows(source)
    if source.form != "records":
        return ((place, text_id, " ".join(parts.values())) for place, text_id, parts in _named_rows(source, fields))
    if is_query:
        return ((place, checked_id(record.query_id, place), record.default_text()) for place, record in source.rows())
    return ((place, checked_id(record.doc_id, place), passage_text(record)) for place, record in source.rows())


def _tsv_rows(source: Source, refused: Callable[[InputError], None] = refuse) -> Iterator[TextRow]:
    for place, line in source.rows():
        try:
            row = place, *_tsv_row(line, place)
        except InputError as error:
            refused(error)
            continue
        yield row


def _tsv_row(line: bytes, place: str) -> tuple[str, str]:
    cells = as_text(line, place).split("\t")
    if len(cells) == 1:
        remedy = "; of CSV, let the name end with .csv" if b"," in line else ""
        raise InputError(f"{place}: one column instead of two: expected `id<TAB>text`{remedy}")
    if len(cells) > 2:
        raise InputError(
            f"{place}: {len(cells)} columns instead of two: expected `id<TAB>text`: put a header line above and "
            "name the columns by id_field=NAME text_fields=[NAME,NAME], or replace the tabs within texts by spaces"
        )
    return checked_id(cells[0], place), cells[1]


def _named_rows(source: Source, fields: Fields, refused: Callable[[InputError], None] = refuse) -> Iterator[PartsRow]:
    """Yield the rows of a source with named fields; raises InputError for a named field that occurs in no row."""
    named = {*(fields.texts or ()), *([fields.id] if fields.id else [])}
    absent = set(fields.texts or ())
    row: dict | None = None
    for place, row in source.rows(refused):
        if any("." in name and name not in row for name in named):
            row = flattened(row)
        absent.difference_update(row)
        try:
            text_id, parts = fields.parts(row, place, source.kind)
        except InputError as error:
            refused(error)
            continue
        yield place, text_id, parts
    if absent and row is not None:  # else it is empty, or no row can be read
        key = "query_text_fields" if source.kind == "queries" else "text_fields"
        name, known = sorted(absent)[0], ", ".join(row) or "none"
        raise InputError(f"{source.name}: no row has a field {name!r}: its fields are {known}: check {key}")


def passage_text(doc) -> str:
    """Title and text like the BEIR files; other record types by `ir_datasets`' own choice of fields."""
    if hasattr(doc, "title") and hasattr(doc, "text"):
        return f"{doc.title} {doc.text}" if doc.title else doc.text
    return doc.default_text()


def iterate_texts(name: str, kind: str, fields: Fields = USUAL, *, unique: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of all "queries" or "passages" in the order of the source, whatever its size.

    Raises InputError for a missing source and a bad line. unique: also for a duplicate id, which takes a set of all
    ids, and for an empty source; else, duplicates are for the caller to notice and for `refuse_duplicates` to report.
    """
    for _, text_id, text in (_unique_rows if unique else text_rows)(open_source(name, kind, fields), fields):
        yield text_id, " ".join(text.split())


def passage_parts(name: str, fields: Fields, refused: Callable[[InputError], None]) -> Iterator[PartsRow]:
    """Yield (place, id, texts by the names of their fields) of all passages, as they are, white space included.

    A text without a field of its own is `text`. refused: gets the error of a row that cannot be used, and may return,
    to continue with the next. Raises InputError like `iterate_texts`.
    """
    source = open_source(name, "passages", fields)
    if source.form == "records":
        for place, record in source.rows():
            titled = hasattr(record, "title") and hasattr(record, "text")
            parts = {"title": record.title, "text": record.text} if titled else {"text": record.default_text()}
            yield place, checked_id(record.doc_id, place), {name: text for name, text in parts.items() if text}
    elif source.form == "lines" or source.is_inline:
        rows = text_rows(source, fields) if source.is_inline else _tsv_rows(source, refused)
        yield from ((place, text_id, {"text": text} if text else {}) for place, text_id, text in rows)
    else:
        yield from _named_rows(source, fields, refused)


def refuse_duplicates(name: str, kind: str, fields: Fields = USUAL) -> None:
    """Raise InputError for the first bad line of a source, its first duplicate id, and an empty source."""
    _read(open_source(name, kind, fields), fields, wanted=set())


def refuse_duplicate_ids(ids: np.ndarray, id_offsets: np.ndarray, source: str, fields: Fields) -> None:
    """Raise InputError, with its line, for the first passage of a source that has the id of another.

    ids, id_offsets: the bytes of all ids, and where each of them starts.
    """
    try:
        look_up_table(ids, id_offsets, source, "passages")
    except InputError:
        refuse_duplicates(source, "passages", fields)
        raise


def log_left_out(source: str, what: str, ids: list[str], total: int) -> None:
    """Log how many items were left out, why, and the first of them; log nothing if there are none."""
    if ids:
        log.warning("%s: %d of %d %s: left out (first: %s)", source, len(ids), total, what, ids[0])


def warn_of_unknown(share: float, what: str) -> None:
    """Warn where more than a twentieth of the tokens of texts are unknown to a model; what: "passages of p.tsv"."""
    if share > MAX_UNKNOWN:
        log.warning(
            "%s: %.0f%% of their tokens are unknown to the model, which cannot read them: use one that knows the "
            "language, such as mmBERT",
            *(what, 100 * share),
        )


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


def check_passages(run: Run, run_source: str, passages: Container[str], passages_source: str) -> None:
    """Raise InputError, with the line, for the first passage of the run that the collection lacks."""
    for query_id, ranked in run.items():
        for doc_id in ranked.doc_ids:
            if doc_id not in passages:
                place = find_line(run_source, query_id, doc_id)
                raise InputError(
                    f"{place}: passage {doc_id} is not in {passages_source}: use the collection of the run"
                )


def drop_empty(run: Run, passages: Iterable[tuple[str, str]], name: str) -> Run:
    """Return the run without empty passages, and log how many there were; passages: ids and texts."""
    without = {doc_id for doc_id, text in passages if not text}
    kept = {q: ranked.keep([doc_id not in without for doc_id in ranked.doc_ids]) for q, ranked in run.items()}
    empty = [doc_id for ranked in run.values() for doc_id in ranked.doc_ids if doc_id in without]
    log_empty(name, len(empty), empty)
    return kept


def log_empty(name: str, number: int, doc_ids: Iterable[str]) -> None:
    """Log how many empty passages were left out of a run, and the first of them; log nothing if there are none."""
    if number:
        log.warning("%s: %d empty passages left out of the run (first: %s)", name, number, next(iter(doc_ids)))
