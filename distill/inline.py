"""Training lines with their texts inline, one JSON object a line, in two shapes.

    {"query": "how do bees find home", "pos": ["Bees steer ..."], "neg": ["Trains ..."],
     "pos_scores": [9.1], "neg_scores": [0.3]}                              # the scores of a teacher, if there are any
    {"query": "how do bees find home", "retrieved_passages": [{"text": "Bees steer ..."}, {"text": "Trains ..."}]}

The first is what FlagEmbedding and Tevatron users have; the second, in ranked order, is how RankGPT's and TWOLAR's
data come (also as parquet). Such a file stands for queries, passages, qrels (the first shape's `pos`, grade 1) and run
at once, wherever one of these is read. Line n is query "n"; its passages are "n+1", "n+2", … (`pos`), "n-1", "n-2", …
(`neg`), and "n.1", "n.2", … (`retrieved_passages`).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from distill.errors import InputError

EXPECTED = (
    'expected {"query": …, "pos": […], "neg": […]}, with or without "pos_scores" and "neg_scores", or {"query": …, '
    '"retrieved_passages": [{"text": …}, …]}'
)

Rows = Iterator[tuple[str, dict | str]]  # ("path:number", a JSON object or a line that shall hold one)


@dataclass
class InlineList:
    """One line: a query and its passages, the relevant or higher ranked ones first."""

    place: str  # path:number
    query_id: str
    query: str
    passages: dict[str, str]  # id -> text
    scores: list[float]  # one a passage: the teacher's; 0 without one; for ranked passages the negated rank
    num_relevant: int  # of the first passages; 0 for ranked ones, which have no labels


def is_inline(first_line: str) -> bool:
    """Whether a file with this first line is one of these."""
    try:
        row = json.loads(first_line)
    except json.JSONDecodeError:
        return False
    return isinstance(row, dict) and "query" in row and ("pos" in row or "retrieved_passages" in row)


def inline_lists(rows: Rows) -> Iterator[InlineList]:
    """Parse numbered rows; raises InputError with file, line and reason for a bad one."""
    for place, row in rows:
        if isinstance(row, str):
            try:
                row = json.loads(row)
            except json.JSONDecodeError as error:
                raise InputError(f"{place}: is no JSON object ({error.msg}): {EXPECTED}") from None
        if not isinstance(row, dict) or not isinstance(row.get("query"), str) or not row["query"].strip():
            raise InputError(f"{place}: lacks a `query`: {EXPECTED}")
        number = place.rpartition(":")[2].removeprefix("row ")
        yield (_ranked_list if "retrieved_passages" in row else _labelled_list)(row, place, number)


def _labelled_list(row: dict, place: str, number: str) -> InlineList:
    passages = {}
    for key, sign in (("pos", "+"), ("neg", "-")):
        texts = row.get(key)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{place}: `{key}` is no list of texts: {EXPECTED}")
        passages |= {f"{number}{sign}{index}": text for index, text in enumerate(texts, start=1)}
    if not row["pos"]:
        raise InputError(f"{place}: `pos` is empty: a list needs a relevant passage")
    scores = _scores(row, place) or [0.0] * len(passages)
    return InlineList(place, number, row["query"], passages, scores, len(row["pos"]))


def _ranked_list(row: dict, place: str, number: str) -> InlineList:
    ranked = row["retrieved_passages"]
    if not isinstance(ranked, list) or not ranked:
        raise InputError(f"{place}: `retrieved_passages` is no list of passages: {EXPECTED}")
    passages = {}
    for index, passage in enumerate(ranked, start=1):
        if not isinstance(passage, dict) or not isinstance(passage.get("text"), str):
            raise InputError(f"{place}: passage {index} of `retrieved_passages` lacks a `text`: {EXPECTED}")
        title = passage.get("title")
        passages[f"{number}.{index}"] = f"{title} {passage['text']}" if title else passage["text"]
    return InlineList(place, number, row["query"], passages, [-float(n) for n in range(1, len(ranked) + 1)], 0)


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


def inline_run_rows(rows: Rows) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield (place, query_id, doc_id, score, rank column); without scores all passages of a list tie."""
    for one in inline_lists(rows):
        for doc_id, score in zip(one.passages, one.scores, strict=True):
            yield one.place, one.query_id, doc_id, score, 0.0


def inline_qrels_rows(rows: Rows) -> Iterator[tuple[str, str, str, int]]:
    """Yield (place, query_id, doc_id, grade) of the relevant passages."""
    for one in inline_lists(rows):
        for doc_id in list(one.passages)[: one.num_relevant]:
            yield one.place, one.query_id, doc_id, 1


def inline_queries(rows: Rows) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the queries."""
    for one in inline_lists(rows):
        yield one.place, one.query_id, one.query


def inline_passages(rows: Rows) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the passages."""
    for one in inline_lists(rows):
        for doc_id, text in one.passages.items():
            yield one.place, doc_id, text
