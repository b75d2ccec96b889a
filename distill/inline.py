"""Training lines with their texts inline, one JSON object a line, as FlagEmbedding and Tevatron users have them.

    {"query": "how do bees find home", "pos": ["Bees steer ..."], "neg": ["Trains ..."],
     "pos_scores": [9.1], "neg_scores": [0.3]}                              # the scores of a teacher, if there are any

Such a file stands for queries, passages, qrels (`pos` is relevant, grade 1) and run at once, wherever one of these is
read. Line n is query "n", and its passages are "n+1", "n+2", … (`pos`) and "n-1", "n-2", … (`neg`).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from distill.errors import InputError

EXPECTED = 'expected {"query": …, "pos": […], "neg": […]}, with or without "pos_scores" and "neg_scores"'


@dataclass
class InlineList:
    """One line: a query and its passages, the relevant ones first."""

    place: str  # path:number
    query_id: str
    query: str
    passages: dict[str, str]  # id -> text
    scores: list[float] | None  # of the teacher, one a passage
    num_relevant: int


def is_inline(first_line: str) -> bool:
    """Whether a file with this first line is one of these."""
    try:
        row = json.loads(first_line)
    except json.JSONDecodeError:
        return False
    return isinstance(row, dict) and "query" in row and "pos" in row


def inline_lists(lines: Iterator[tuple[str, str]]) -> Iterator[InlineList]:
    """Parse numbered lines ("path:number", text); raises InputError with file, line and reason for a bad one."""
    for place, line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is no JSON object ({error.msg}): {EXPECTED}") from None
        if not isinstance(row, dict) or not isinstance(row.get("query"), str) or not row["query"].strip():
            raise InputError(f"{place}: lacks a `query`: {EXPECTED}")
        number = place.rpartition(":")[2]
        passages = {}
        for key, sign in (("pos", "+"), ("neg", "-")):
            texts = row.get(key)
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise InputError(f"{place}: `{key}` is no list of texts: {EXPECTED}")
            passages |= {f"{number}{sign}{index}": text for index, text in enumerate(texts, start=1)}
        if not row["pos"]:
            raise InputError(f"{place}: `pos` is empty: a list needs a relevant passage")
        yield InlineList(place, number, row["query"], passages, _scores(row, place), len(row["pos"]))


def _scores(row: dict, place: str) -> list[float] | None:
    if row.get("pos_scores") is None and row.get("neg_scores") is None:
        return None
    scores = []
    for key in ("pos", "neg"):
        values = row.get(f"{key}_scores")
        if not isinstance(values, list) or len(values) != len(row[key]):
            found = len(values) if isinstance(values, list) else "no"
            raise InputError(f"{place}: {found} `{key}_scores` for {len(row[key])} passages in `{key}`: give one each")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{place}: `{key}_scores` holds {value!r}, which is no finite number")
            scores.append(float(value))
    return scores


def inline_run_rows(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield (place, query_id, doc_id, score, rank column); without scores all passages of a list tie."""
    for one in inline_lists(lines):
        for doc_id, score in zip(one.passages, one.scores or [0.0] * len(one.passages), strict=True):
            yield one.place, one.query_id, doc_id, score, 0.0


def inline_qrels_rows(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str, str, int]]:
    """Yield (place, query_id, doc_id, grade) of the relevant passages."""
    for one in inline_lists(lines):
        for doc_id in list(one.passages)[: one.num_relevant]:
            yield one.place, one.query_id, doc_id, 1


def inline_queries(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the queries."""
    for one in inline_lists(lines):
        yield one.place, one.query_id, one.query


def inline_passages(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the passages."""
    for one in inline_lists(lines):
        for doc_id, text in one.passages.items():
            yield one.place, doc_id, text
