"""Runs, read: small files into memory, large ones into a cache on disk, once.

    run = read_run("bm25.run.gz")             # {"q1": RankedList(doc_ids=[...], scores=[...], ranks=[...])}

A run comes from a TREC file, a parquet file, training lines with inline texts (inline.py) or the scoreddocs of an
`ir_datasets` id. Its order follows the scores, descending; the rank column only breaks ties.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.sources.fields import checked_id, read_number
from distill.sources.inline import inline_run_rows
from distill.sources.large_runs import FORMAT, CachedRun
from distill.sources.locate import source_state
from distill.sources.opening import PACKED, Source, open_source
from distill.sources.run_files import (
    RUN_COLUMNS,
    RankedList,
    Run,
    RunRow,
    appears_twice,
    average_ranks,
    parse_run_line,
    warn_of_reordered,
)
from distill.storage.cache import entry, key_of, make_once

log = logging.getLogger(__name__)

SMALL_FILE = 2**20  # bytes: about 20 000 lines


def read_run(name: str) -> Run:
    """Read a run from a TREC file (plain or .gz), a parquet file, training lines or an `ir_datasets` id.

    Raises InputError for a missing source, a bad line, a duplicate (query, passage) pair and an empty file.
    """
    source = open_source(name, "run")
    if source.is_large:
        return _open_cached(source)
    lists: dict[str, dict[str, tuple[float, float]]] = {}
    for place, query_id, doc_id, score, rank in run_rows(source):
        scored = lists.setdefault(query_id, {})
        if doc_id in scored:
            raise appears_twice(place, query_id, doc_id)
        scored[doc_id] = (score, rank)
    if not lists:
        raise InputError(f"{name}: holds no ranking: expected lines of `{RUN_COLUMNS}`")
    run, num_reordered = {}, 0
    for query_id, scored in lists.items():
        run[query_id], follows_rank_column = _sorted(scored)
        num_reordered += not follows_rank_column
    if num_reordered:
        warn_of_reordered(name, num_reordered, len(run))
    return run


def run_rows(source: Source) -> Iterator[RunRow]:
    """Yield (place, query_id, doc_id, score, rank column) of every row of a run; raises InputError for a bad one."""
    if source.is_inline:
        yield from inline_run_rows(source.rows())
    elif source.form == "parquet":
        from distill.sources.run_tables import parquet_run_rows  # imported here: other small runs need no pyarrow

        yield from parquet_run_rows(source.name)
    elif source.form == "lines":
        for place, line in source.rows():
            yield (place, *parse_run_line(line, place))
    else:
        for place, record in source.rows():
            query_id, doc_id = (checked_id(value, place) for value in (record.query_id, record.doc_id))
            yield place, query_id, doc_id, read_number(record.score, "score", place), 0.0


def find_line(name: str, query_id: str, doc_id: str | None = None) -> str:
    """Return the place of the first row that names a query, and a passage, for an error message; else the name."""
    try:
        for place, its_query, its_passages in _named(open_source(name, "run")):
            if its_query == query_id and (doc_id is None or doc_id in its_passages):
                return place
    except InputError:  # of another form, such as an array of answers
        pass
    return name


def _named(source: Source) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the place, the query and the passages of each row of a run, or of triples."""
    if source.form == "lines":
        for place, line in source.rows():
            columns = [column.decode() for column in line.split()]
            if len(columns) == 5:  # triples: two scores, a query and two passages
                yield place, columns[2], columns[3:]
            elif len(columns) == 6:
                yield place, columns[0], columns[2:3]
    elif source.form != "records":
        for place, query_id, doc_id, _, _ in run_rows(source):
            yield place, query_id, [doc_id]


def _sorted(scored: dict[str, tuple[float, float]]) -> tuple[RankedList, bool]:
    """Rank passages by (score, rank column), and say whether their order is that of the rank column."""
    doc_ids = sorted(scored, key=lambda doc_id: (-scored[doc_id][0], scored[doc_id][1]))
    scores = np.array([scored[doc_id][0] for doc_id in doc_ids])
    column = np.array([scored[doc_id][1] for doc_id in doc_ids])  # ranks as the file gives them
    return RankedList(doc_ids, scores, average_ranks(scores, column)), bool(np.all(np.diff(column) >= 0))


def stored_run(name: str) -> Run:
    """Read a run like `read_run`, of which only a small file stays in memory; records of `ir_datasets` do, too."""
    source = open_source(name, "run")
    is_small = source.form == "records" or os.path.getsize(source.name) * _packed(source) <= SMALL_FILE
    return read_run(name) if is_small else _open_cached(source)


def _packed(source: Source) -> int:
    return PACKED if source.form == "parquet" or source.name.endswith(".gz") else 1


def cached_run(name: str) -> CachedRun:
    """Open a run file of any size through the cache; read it into the cache if it is not there yet.

    Raises InputError, with file, line and reason, wherever `read_run` does.
    """
    return _open_cached(open_source(name, "run"))


def _open_cached(source: Source) -> CachedRun:
    key = key_of(source=source_state(source.name), format=FORMAT)
    return CachedRun(make_once(entry("runs", source.name, key), lambda directory: _write(directory, source)))


def _write(directory: Path, source: Source) -> None:
    from distill.sources.run_columns import write_columns  # here: it needs pyarrow

    log.info("%s: reading it into %s, once", source.name, directory.parent)
    try:
        write_columns(directory, source)
    except InputError:
        _refuse_first_bad_row(source)  # the error may be the consequence of an earlier row
        raise


def _refuse_first_bad_row(source: Source) -> None:
    """Raise InputError for the first bad row, as `read_run` finds it."""
    seen: dict[str, set[str]] = {}
    for place, query_id, doc_id, _, _ in run_rows(source):
        doc_ids = seen.setdefault(query_id, set())
        if doc_id in doc_ids:
            raise appears_twice(place, query_id, doc_id)
        doc_ids.add(doc_id)
