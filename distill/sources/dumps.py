"""Dumps of Elasticsearch and OpenSearch: a document a line, as elasticdump writes them, or in pairs of bulk requests.

    {"_index": "help", "_id": "7", "_source": {"title": "Bees", "body": "They steer by the sun."}}

    {"index": {"_index": "help", "_id": "7"}}
    {"title": "Bees", "body": "They steer by the sun."}

    dump_of(row)                                  # "hits", "bulk", or None for other rows
    flattened({"meta": {"title": "Bees"}, "tags": ["a", "b"]})          # {"meta.title": "Bees", "tags": "a b"}

A document gives a row: `_id` and the fields of its source, those inside others with a dot between the names.
"""

from collections.abc import Callable, Iterator
from typing import Any

from distill.errors import InputError, refuse

Rows = Iterator[tuple[str, dict]]

ADDS = ("index", "create")  # a bulk request's actions that are followed by a whole document
CHANGES = ("update", "delete")
BESIDE = ("sort", "fields", "highlight", "inner_hits", "matched_queries")  # of a hit, as are names that begin with _


def dump_of(row: dict, place: str) -> str | None:
    """Return which dump a file is by its first row, None if it is none.

    Raises InputError for the answer to a search, which is one object with all documents.
    """
    if isinstance(row.get("_source"), dict) and all(name[:1] == "_" or name in BESIDE for name in row):
        return "hits"
    if len(row) == 1 and isinstance(next(iter(row.values())), dict) and next(iter(row)) in ADDS + CHANGES:
        return "bulk"
    if isinstance(row.get("hits"), dict) and isinstance(row["hits"].get("hits"), list):
        raise InputError(
            f"{place}: is the answer to a search: write one document per line, as `jq -c '.hits.hits[]'` does"
        )
    return None


def dump_rows(rows: Rows, dump: str, refused: Callable[[InputError], None] = refuse) -> Rows:
    """Yield (place, row) of the documents of a dump; raises InputError for what is none.

    refused: gets a line that is no document, and may return, to continue with the next.
    """
    return _bulk_rows(rows) if dump == "bulk" else _hits_rows(rows, refused)


def _hits_rows(rows: Rows, refused: Callable[[InputError], None]) -> Rows:
    for place, hit in rows:
        if isinstance(hit.get("_source"), dict):
            yield place, _document(hit, hit["_source"])
        else:
            refused(InputError(f"{place}: has no `_source`: dump the documents with their source"))


def _bulk_rows(rows: Rows) -> Rows:
    for place, line in rows:
        action = next(iter(line), None)
        about = line.get(action)
        if action in CHANGES:
            raise InputError(
                f"{place}: `{action}` changes an earlier document: dump the documents as they are, as elasticdump does"
            )
        if action not in ADDS or len(line) > 1 or not isinstance(about, dict):
            raise InputError(f'{place}: is no bulk action: expected {{"index": {{"_id": …}}}} before each document')
        pair = next(rows, None)
        if pair is None:
            raise InputError(f"{place}: `{action}` is not followed by its document: the file is cut: write it again")
        yield pair[0], _document(about, pair[1])


def _document(about: dict, source: dict) -> dict[str, Any]:
    own_id = {} if about.get("_id") is None else {"_id": about["_id"]}  # a bulk request may leave it to the server
    return own_id | {name: value for name, value in flattened(source).items() if name not in own_id}


def flattened(document: dict) -> dict[str, Any]:
    """Return the fields of nested objects by their dotted names, and the texts and numbers of a list as one text."""
    values: dict[str, list] = {}
    todo: list[tuple[str, Any]] = [(str(name), value) for name, value in reversed(document.items())]
    while todo:  # no recursion: documents may be nested deeply
        name, value = todo.pop()
        if isinstance(value, dict) and value:
            todo += [(f"{name}.{key}", part) for key, part in reversed(value.items())]
        elif isinstance(value, list):
            values.setdefault(name, [])
            todo += [(name, part) for part in reversed(value)]
        else:
            values.setdefault(name, []).append(value or None if isinstance(value, dict) else value)
    return {name: _joined(parts) for name, parts in values.items()}


def _joined(parts: list) -> Any:
    if len(parts) == 1:
        return parts[0]
    return " ".join(str(part) for part in parts if part is not None) if parts else None
