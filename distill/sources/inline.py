"""Training lines with their texts inline: a query and its passages in one row, in the shapes that others write.

    {"query": "how do bees find home", "pos": ["Bees steer ..."], "neg": ["Trains ..."],
     "pos_scores": [9.1], "neg_scores": [0.3]}                                    FlagEmbedding; scores are optional
    {"query": ..., "retrieved_passages": [{"text": "Bees steer ..."}, ...]}       RankGPT and TWOLAR, in ranked order
    {"query_id": "7", "query": ..., "positive_passages": [{"docid": "3", "title": ..., "text": ...}],
     "negative_passages": [...]}                                                  Tevatron
    {"query": {"text": ..., "qid": 7}, "candidates": [{"docid": "3", "score": 9.1, "doc": {"contents": ...}}, ...]}
                                                                                  rank_llm, in ranked order
    {"query": ..., "docs": ["Bees steer ...", "Trains ..."], "labels": [1, 0]}    sentence-transformers, lists
    {"anchor": ..., "positive": ..., "negative": ..., "negative_2": ...}          sentence-transformers, tuples

Rows come from JSONL, CSV (tuples) or parquet. Wherever queries, passages, qrels (what is labelled as relevant) or a run
are read, such a file can be named. Tevatron's and rank_llm's ids are kept, and so is a `query_id` or `qid` (except
RankGPT's and TWOLAR's, which come more than once). Otherwise line n is query "n"; its passages are "n+1", "n+2", …
(relevant), "n-1", "n-2", … (not relevant), and "n.1", "n.2", … (without labels).
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distill.errors import InputError
from distill.sources.fields import ID_NAMES, checked_id, checked_text, json_number, read_grade

Rows = Iterator[tuple[str, dict]]  # ("path:number", a row)

NEGATIVE = re.compile(r"negative(_\d+)?")
ANCHORS = ("anchor", "query", "question")
POSITIVES = ("positive", "answer", "pos")
PASSAGE_IDS = [name for name in ID_NAMES if not name.startswith("q")]
TUPLE_SCORES = ("scores", "score", "labels", "label")
CONTENTS = ("text", "segment", "contents", "content", "body", "passage")  # of a rank_llm document, in its own order


@dataclass
class InlineList:
    """One row: a query and its passages, the relevant or higher ranked ones first; K passages."""

    place: str  # path:number
    query_id: str
    query: str
    passages: dict[str, str]  # id -> text, K
    scores: list[float]  # K: the teacher's; for ranked passages without scores the negated rank, else 0
    grades: list[float]  # K: 0 for passages not labelled as relevant; fractions are a teacher's scores, not grades
    ranks: list[float]  # K: the rank column of a run, which breaks ties in the score; 0 where the order means nothing
    has_own_ids: bool = False  # the passages' ids come from the file: several rows may then hold the same passage


def inline_shape(row: dict) -> str | None:
    """Return the name of a row's shape, or None where it has none of these shapes."""
    if "_id" in row and "text" in row:
        return None  # a text with an id, whatever else it has
    if "retrieved_passages" in row:
        return "ranked"
    if "positive_passages" in row:
        return "tevatron"
    if isinstance(row.get("candidates"), list) and "query" in row:
        return "rank_llm"
    if isinstance(row.get("docs"), list) and "labels" in row and "query" in row:
        return "docs"
    if isinstance(row.get("pos"), list) or ("pos" in row and "neg" in row):
        return "labelled"
    if any(name in row for name in ANCHORS) and any(name in row for name in POSITIVES):
        return None if any(name in row for name in PASSAGE_IDS) else "tuple"  # a question and its answer are one text
    return None


def inline_run_rows(rows: Rows) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield (place, query_id, doc_id, score, rank column); without scores or an order all passages of a list tie."""
    for line in inline_lists(rows):
        for doc_id, score, rank in zip(line.passages, line.scores, line.ranks, strict=True):
            yield line.place, line.query_id, doc_id, score, rank


def inline_qrels_rows(rows: Rows) -> Iterator[tuple[str, str, str, int]]:
    """Yield (place, query_id, doc_id, grade) of the relevant passages; lists whose labels are fractions have none.

    Raises InputError where some lines have whole numbers as labels and others have fractions.
    """
    whole = None  # whether the earlier lines have whole numbers
    for line in inline_lists(rows):
        is_whole = all(grade == int(grade) for grade in line.grades)
        if whole is not None and whole != is_whole:
            raise InputError(
                f"{line.place}: its labels are {'whole numbers' if is_whole else 'fractions'}, those of earlier "
                "lines are not: scores are not grades: use whole numbers everywhere to learn from labels"
            )
        whole = is_whole
        for doc_id, grade in zip(line.passages, line.grades, strict=True):
            if is_whole and grade > 0:
                yield line.place, line.query_id, doc_id, read_grade(int(grade), line.place)


def inline_queries(rows: Rows) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the queries."""
    for line in inline_lists(rows):
        yield line.place, line.query_id, line.query


def inline_passages(rows: Rows) -> Iterator[tuple[str, str, str]]:
    """Yield (place, id, text) of the passages, each id once.

    Raises InputError where two lines give one id different texts.
    """
    seen: dict[str, int] = {}  # id -> checksum of its text
    for line in inline_lists(rows):
        for doc_id, text in line.passages.items():
            # Ids made from line numbers are unique; white space is normalised later
            checksum = zlib.crc32(" ".join(text.split()).encode()) if line.has_own_ids else None
            if checksum is None or doc_id not in seen:
                yield line.place, doc_id, text
                if checksum is not None:
                    seen[doc_id] = checksum
            elif seen[doc_id] != checksum:
                raise InputError(
                    f"{line.place}: passage {doc_id} has a different text in an earlier line: ids must be unique"
                )


def inline_lists(rows: Rows) -> Iterator[InlineList]:
    """Parse rows; raises InputError with file, line and reason for a bad one."""
    readers = {"labelled": _labelled, "ranked": _ranked, "tevatron": _tevatron}
    readers |= {"rank_llm": _rank_llm, "docs": _docs, "tuple": _tuple}
    for place, row in rows:
        shape = inline_shape(row)
        if shape is None:
            listed = ", ".join(map(str, row)) or "none"
            raise InputError(
                f"{place}: is not a training line: its fields are {listed}: expected `query` with `pos` and "
                "`neg`, or one of the other shapes in docs/formats.md; a run or qrels file has columns instead"
            )
        number = place.rpartition(":")[2].removeprefix("row ")
        yield readers[shape](row, place, number)


def _labelled(row: dict, place: str, number: str) -> InlineList:
    texts: dict[str, list] = {}
    for key in ("pos", "neg"):
        given = row.get(key)
        if not isinstance(given, list):
            raise InputError(
                f'{place}: `{key}` is not a list of texts: expected {{"query": …, "pos": […], "neg": […]}}'
            )
        texts[key] = given
    if not texts["pos"]:
        raise InputError(f"{place}: `pos` is empty: a list needs a relevant passage")
    passages = {
        f"{number}{sign}{index}": checked_text(text, place, key)
        for key, sign in (("pos", "+"), ("neg", "-"))
        for index, text in enumerate(texts[key], start=1)
    }
    scores: list[float] = []
    if row.get("pos_scores") is not None or row.get("neg_scores") is not None:
        for key, given in texts.items():
            if given or row.get(f"{key}_scores") is not None:  # an empty `neg` needs none
                scores += _numbers(row.get(f"{key}_scores"), f"{key}_scores", len(given), f"`{key}`", place)
    grades = [1] * len(texts["pos"]) + [0] * len(texts["neg"])
    return _list(row, place, number, passages, scores, grades)


def _ranked(row: dict, place: str, number: str) -> InlineList:
    ranked = _objects(row, "retrieved_passages", place)
    if not ranked:
        raise InputError(f"{place}: `retrieved_passages` is not a list of passages, or it is empty")
    passages = {
        f"{number}.{index}": _titled(passage, "text", f"passage {index} of `retrieved_passages`", place)
        for index, passage in enumerate(ranked, start=1)
    }
    return _list({"query": row.get("query")}, place, number, passages, None, None)


def _tevatron(row: dict, place: str, number: str) -> InlineList:
    sides = {key: _objects(row, key, place) for key in ("positive_passages", "negative_passages")}
    if not sides["positive_passages"]:
        raise InputError(f"{place}: `positive_passages` is empty: a list needs a relevant passage")
    passages: dict[str, str] = {}
    grades = []
    for (key, objects), sign, grade in zip(sides.items(), "+-", (1, 0), strict=True):
        for index, passage in enumerate(objects, start=1):
            doc_id = passage.get("docid")
            doc_id = f"{number}{sign}{index}" if doc_id is None else checked_id(doc_id, place, "docid")
            _add(passages, doc_id, _titled(passage, "text", f"passage {index} of `{key}`", place), place)
            grades.append(grade)
    return _list(row, place, number, passages, [], grades, has_own_ids=True)


def _rank_llm(row: dict, place: str, number: str) -> InlineList:
    candidates = _objects(row, "candidates", place)
    query = row.get("query")
    if isinstance(query, dict):
        row = {"query": query.get("text"), "query_id": query.get("qid")}
    if not candidates:
        raise InputError(f"{place}: `candidates` is empty: a list needs passages")
    passages: dict[str, str] = {}
    scores = []
    for index, candidate in enumerate(candidates, start=1):
        doc = candidate.get("doc")
        doc = {"text": doc} if isinstance(doc, str) else doc if isinstance(doc, dict) else {}
        name = next((name for name in CONTENTS if name in doc), None)
        if name is None:
            raise InputError(f"{place}: candidate {index} has no `doc` with a text, such as `contents`")
        doc_id = candidate.get("docid")
        doc_id = f"{number}.{index}" if doc_id is None else checked_id(doc_id, place, "docid")
        _add(passages, doc_id, _titled(doc, name, f"candidate {index}", place), place)
        scores.append(candidate.get("score"))
    given = [score for score in scores if score is not None]
    if given and len(given) < len(scores):
        raise InputError(f"{place}: {len(given)} of {len(scores)} candidates have a `score`: score all of them or none")
    numbers = [json_number(score, "score", place) for score in given]
    return _list(row, place, number, passages, numbers or None, None, has_own_ids=True)


def _docs(row: dict, place: str, number: str) -> InlineList:
    texts = row["docs"]
    if not isinstance(texts, list) or not texts:
        raise InputError(f"{place}: `docs` is not a list of texts, or it is empty")
    labels = _numbers(row.get("labels"), "labels", len(texts), "`docs`", place)
    passages = {f"{number}.{index}": checked_text(text, place, "docs") for index, text in enumerate(texts, start=1)}
    return _list(row, place, number, passages, labels, labels)


def _tuple(row: dict, place: str, number: str) -> InlineList:
    positive = next(name for name in POSITIVES if name in row)
    negatives = [name for name in row if NEGATIVE.fullmatch(str(name)) and row[name] is not None]
    names = [positive, *negatives]
    passages = {f"{number}+1": checked_text(row[positive], place, positive)}
    for index, name in enumerate(negatives, start=1):
        passages[f"{number}-{index}"] = checked_text(row[name], place, name)
    key = next((name for name in TUPLE_SCORES if isinstance(row.get(name), list)), None)
    single = next((name for name in TUPLE_SCORES if row.get(name) is not None), None)
    if key is None and single is not None:
        raise InputError(
            f"{place}: `{single}` is one value, and no list with one for each of {len(names)} passages: give that, or "
            "write rows of `query`, `docs` and `labels`"
        )
    scores = _numbers(row[key], key, len(names), "the tuple", place) if key else []
    anchor = next(row[name] for name in ANCHORS if name in row)
    return _list(row | {"query": anchor}, place, number, passages, scores, [1] + [0] * len(negatives))


def _list(
    row: dict,
    place: str,
    number: str,
    passages: dict[str, str],
    scores: list[float] | None,
    grades: Sequence[float] | None,
    *,
    has_own_ids: bool = False,
) -> InlineList:
    """Complete a list.

    scores: None for passages in ranked order, empty where the row has no scores. grades: None for passages in ranked
    order.
    """
    if not isinstance(row.get("query"), str):
        raise InputError(f"{place}: lacks a `query`, or it is not text")
    key = next((key for key in ("query_id", "qid") if row.get(key) is not None), None)
    query_id = number if key is None else checked_id(row[key], place, key)
    ranks = [0.0] * len(passages) if grades is not None else [float(rank) for rank in range(1, len(passages) + 1)]
    scores = [-rank for rank in ranks] if scores is None else scores or [0.0] * len(passages)
    query = checked_text(row["query"], place, "query")
    all_grades = list(grades or [0.0] * len(passages))
    return InlineList(place, query_id, query, passages, scores, all_grades, ranks, has_own_ids)


def _add(passages: dict[str, str], doc_id: str, text: str, place: str) -> None:
    if doc_id in passages:
        raise InputError(f"{place}: passage {doc_id} appears twice: keep one of the two")
    passages[doc_id] = text


def _objects(row: dict, key: str, place: str) -> list[dict]:
    objects = row.get(key)
    if objects is None:
        objects = []
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise InputError(f"{place}: `{key}` is not a list of objects with a text each")
    return objects


def _titled(passage: dict, name: str, what: str, place: str) -> str:
    """Return title and text of a passage, joined by a space."""
    if not isinstance(passage.get(name), str):
        raise InputError(f"{place}: {what} lacks a `{name}`, or it is not text")
    title = checked_text(passage.get("title"), place, f"title of {what}")
    text = checked_text(passage[name], place, f"{name} of {what}")
    return f"{title} {text}" if title else text


def _numbers(values: object, key: str, count: int, owner: str, place: str) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        given = len(values) if isinstance(values, list) else "no"
        raise InputError(f"{place}: {given} `{key}` for {count} passages in {owner}: give one for each")
    return [json_number(value, f"`{key}`", place) for value in values]
