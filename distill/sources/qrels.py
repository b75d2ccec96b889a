"""Relevance judgments (qrels), read.

qrels = read_qrels("qrels.txt")                   # {"q1": {"d7": 2}}
"""

from collections.abc import Iterator

from distill.errors import InputError
from distill.sources.fields import checked_id, read_grade, usual_name
from distill.sources.inline import inline_qrels_rows
from distill.sources.opening import Source, open_source
from distill.storage.files import as_text

QRELS_COLUMNS = "query_id iteration doc_id grade"
QRELS_HEADER = (  # BEIR's `query-id corpus-id score`, and how others spell it
    ("query_id", "qid", "topic_id"),
    ("corpus_id", "doc_id", "docid", "docno", "pid", "passage_id"),
    ("score", "relevance", "rel", "label", "grade"),
)
Qrels = dict[str, dict[str, int]]  # query_id -> doc_id -> grade; a grade below 1 means not relevant


def read_qrels(name: str) -> Qrels:
    """Read qrels from a TREC file (four columns), a BEIR file (three, with a header), training lines or an id.

    Raises InputError for a missing source, a bad line, a duplicate (query, passage) pair and an empty file.
    """
    qrels: Qrels = {}
    for place, query_id, doc_id, grade in _qrels_rows(open_source(name, "qrels")):
        grades = qrels.setdefault(query_id, {})
        if doc_id in grades:
            raise InputError(f"{place}: passage {doc_id} is judged twice for query {query_id}: keep one of the two")
        grades[doc_id] = grade
    if not qrels:
        raise InputError(f"{name}: holds no judgment: expected lines of `{QRELS_COLUMNS}`")
    return qrels


def _qrels_rows(source: Source) -> Iterator[tuple[str, str, str, int]]:
    """Yield (place, query_id, doc_id, grade) of every judgment."""
    if source.is_inline:
        return inline_qrels_rows(source.rows())
    if source.form == "lines":
        return _column_rows(source)
    if source.form == "records":
        return _record_rows(source)
    raise InputError(
        f"{source.name}: is {source.form}, not qrels: expected lines of `{QRELS_COLUMNS}`, or BEIR's three"
    )


def _column_rows(source: Source) -> Iterator[tuple[str, str, str, int]]:
    num_columns = None
    for place, line in source.rows():
        text = as_text(line, place)
        columns = [column.decode() for column in line.split()]
        if num_columns is None:
            num_columns = len(columns)
            if num_columns not in (3, 4):
                raise InputError(f"{place}: {num_columns} columns: expected `{QRELS_COLUMNS}`, or BEIR's three")
            if num_columns == 3:  # BEIR: the first line is the header "query-id corpus-id score"
                if not all(usual_name(name) in names for name, names in zip(columns, QRELS_HEADER, strict=True)):
                    raise InputError(f"{place}: three columns without BEIR's header line `query-id corpus-id score`")
                continue
        if len(columns) != num_columns:
            raise InputError(
                f"{place}: {len(columns)} columns, but earlier lines have {num_columns}: correct the line {text!r}"
            )
        query_id, doc_id = checked_id(columns[0], place, "query id"), checked_id(columns[-2], place, "passage id")
        yield place, query_id, doc_id, read_grade(columns[-1], place)


def _record_rows(source: Source) -> Iterator[tuple[str, str, str, int]]:
    seen: dict[tuple[str, str], int] = {}
    for place, record in source.rows():
        pair = (checked_id(record.query_id, place), checked_id(record.doc_id, place))
        if seen.get(pair) != record.relevance:  # published qrels repeat some judgments, which is no conflict
            seen[pair] = record.relevance
            yield place, *pair, read_grade(record.relevance, place)
