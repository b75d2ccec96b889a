"""Passages and queries, from files and from `ir_datasets`.

    queries = read_queries("queries.tsv")                  # {"q1": "what is ..."}
    passages = read_passages("passages.jsonl.gz", ids)     # only the passages asked for

Files are TSV (`id<TAB>text`) or JSONL (BEIR's `_id`, `title`, `text`, or training lines with their texts inline, see
distill/inline.py), plain or .gz; anything else is an id.
Runs of white space become one blank, so that all three sources of a collection give the same text.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from distill.errors import InputError
from distill.inline import inline_passages, inline_queries, is_inline
from distill.trec import Run, find_line, ir_datasets_records, is_inline_file, numbered_lines, numbered_rows

log = logging.getLogger(__name__)

Texts = dict[str, str]  # id -> text


def read_queries(source: str) -> Texts:
    """Read all queries of a file or an `ir_datasets` id.

    Raises InputError for a missing source, a bad line, a duplicate id, an empty query and an empty file.
    """
    queries = _read_texts(source, "queries", None)
    if not queries:
        raise InputError(f"{source}: holds no query: expected lines of `id<TAB>text`")
    for query_id, text in queries.items():
        if not text:
            raise InputError(f"{source}: query {query_id} has no text: give it one or remove the line")
    return queries


def read_passages(source: str, doc_ids: set[str]) -> Texts:
    """Read the passages with these ids; a passage the source lacks is absent from the result, an empty one is "".

    Raises InputError for a missing source, a bad line, a duplicate id and an empty file.
    """
    return _read_texts(source, "passages", doc_ids)


def iterate_texts(source: str, kind: str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of all "queries" or "passages" in the order of the source, whatever its size.

    Raises InputError for a missing source and a bad line; ids are not compared.
    """
    if Path(source).is_file():
        rows = ((text_id, text) for _, text_id, text in _file_rows(source, kind))
    elif kind == "queries":
        rows = ((query.query_id, query.default_text()) for query in ir_datasets_records(source, "queries"))
    else:
        rows = ((doc.doc_id, _passage_text(doc)) for doc in ir_datasets_records(source, "docs"))
    for text_id, text in rows:
        yield text_id, _join_blanks(text)


def second_line(source: str, kind: str, text_id: str) -> str:
    """Return "path:number" of the second line with an id, for an error message."""
    if not Path(source).is_file():
        return source
    places = [place for place, other, _ in _file_rows(source, kind) if other == text_id]
    return places[min(1, len(places) - 1)] if places else source


def check_queries(run: Run, run_source: str, queries: Texts, queries_source: str) -> None:
    """Raise InputError, with the first line of the run that is concerned, where the queries lack one of the run's."""
    unknown = [query_id for query_id in run if query_id not in queries]
    if unknown:
        raise InputError(
            f"{find_line(run_source, unknown[0])}: query {unknown[0]} is not in {queries_source} ({len(unknown)} of "
            f"{len(run)} queries of this run are not): use the query file that belongs to the run"
        )


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
    num_empty = sum(map(len, run.values())) - sum(map(len, kept.values()))
    if num_empty:
        log.warning("%s: %d empty passages left out of the run", name, num_empty)
    return kept


def _read_texts(source: str, kind: str, ids: set[str] | None) -> Texts:
    if not Path(source).is_file():
        if ids is None:
            return dict(iterate_texts(source, kind))
        docs = ir_datasets_records(source, "docs", sorted(ids))
        return {doc.doc_id: _join_blanks(_passage_text(doc)) for doc in docs}
    texts: Texts = {}
    seen = set()
    for place, text_id, text in _file_rows(source, kind):
        if text_id in seen:
            raise InputError(f"{place}: id {text_id} appears twice: ids must be unique")
        seen.add(text_id)
        if ids is None or text_id in ids:
            texts[text_id] = _join_blanks(text)
    if not seen:
        raise InputError(f"{source}: is empty: expected lines of `id<TAB>text` or JSON objects")
    return texts


def _file_rows(path: str, kind: str) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the "queries" or "passages" that a file holds."""
    if path.endswith(".parquet") and not is_inline_file(path):
        raise InputError(
            f"{path}: holds no texts: expected TSV, JSONL, or parquet with `query` and `retrieved_passages`"
        )
    if not path.removesuffix(".gz").endswith((".jsonl", ".json", ".parquet")):
        return _tsv_rows(path)
    if path.endswith(".parquet") or is_inline(next((line for _, line in numbered_lines(path)), "")):
        return (inline_queries if kind == "queries" else inline_passages)(numbered_rows(path))
    return _jsonl_rows(path)


def _tsv_rows(path: str) -> Iterator[tuple[str, str, str]]:
    for place, line in numbered_lines(path):
        text_id, tab, text = line.partition("\t")
        if not tab:
            raise InputError(f"{place}: one column instead of two: expected `id<TAB>text`")
        yield place, text_id, text


def _jsonl_rows(path: str) -> Iterator[tuple[str, str, str]]:
    for place, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is no JSON object ({error.msg})") from None
        if not isinstance(row, dict) or "_id" not in row or not isinstance(row.get("text"), str):
            raise InputError(f"{place}: lacks `_id` or `text`: expected BEIR's keys `_id`, `title`, `text`")
        yield place, str(row["_id"]), _join_title(row.get("title"), row["text"])


def _passage_text(doc) -> str:
    """Title and text like the BEIR files; other record types by `ir_datasets`' own choice of fields."""
    if hasattr(doc, "title") and hasattr(doc, "text"):
        return _join_title(doc.title, doc.text)
    return doc.default_text()


def _join_title(title: str | None, text: str) -> str:
    return f"{title} {text}".strip() if title else text


def _join_blanks(text: str) -> str:
    return " ".join(text.split())
