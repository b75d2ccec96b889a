"""What callers of a model give: passages, lists of them for several queries, and pairs; checked, and made into lists.

    as_texts("how do bees find home", series)       # [text, ...]
    as_lists(queries, lists)                        # [query, ...], [[text, ...], ...]
    as_pairs([("a query", "a passage")])            # [query, ...], [text, ...]

A list may be any sequence: tuple, pandas Series, NumPy array. A text in place of a list is refused: Python would take
its characters.
"""

from collections.abc import Iterable, Mapping, Set
from io import IOBase
from typing import Any

from distill.errors import InputError


def is_sequence(value: Any) -> bool:
    """Whether it is a list or any other sequence of values: no text, no table, no mapping."""
    is_table = isinstance(value, Mapping | Set | IOBase) or hasattr(value, "columns")  # a DataFrame has columns
    return isinstance(value, Iterable) and not isinstance(value, str | bytes) and not is_table


def as_texts(query: Any, passages: Any, where: str = "") -> list[str]:
    """Return the passages of a query as a list; where: what comes before their name in a message.

    Raises TypeError for a single text, a table, or anything that is not a text; InputError for half a surrogate pair.
    """
    if not is_sequence(passages):
        raise TypeError(
            f"{where}passages is a {type(passages).__name__}: expected a list of texts, as in rank(query, [passage])"
        )
    passages = list(passages)
    for name, text in (("query", query), *((f"passage {index}", text) for index, text in enumerate(passages))):
        if not isinstance(text, str):
            raise TypeError(f"{where}{name} is a {type(text).__name__} ({str(text)[:40]}): expected a text")
        _check_characters(text, f"{where}{name}")
    return passages


def _check_characters(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds half of a surrogate pair, {text[error.start]} at character {error.start}, which is no "
            'character: leave it out, as text.encode(errors="ignore").decode() does'
        ) from None


def as_lists(queries: Any, lists: Any) -> tuple[list[str], list[list[str]]]:
    """Return several queries, and the passages of each; raises like `as_texts`, and ValueError for other counts."""
    if not is_sequence(lists):
        raise TypeError(
            f"passages is a {type(lists).__name__}: expected a list of texts for each query, as in rank([query], "
            "[[passage]])"
        )
    queries, lists = list(queries), list(lists)
    if len(queries) != len(lists):
        raise ValueError(f"{len(queries)} queries and {len(lists)} lists of passages: give one list for each query")
    return queries, [as_texts(*one, f"list {index}: ") for index, one in enumerate(zip(queries, lists, strict=True))]


def as_pairs(pairs: Any) -> tuple[list[str], list[str]]:
    """Return the queries and the passages of pairs; raises TypeError for anything that is not a list of two texts each.

    A table is refused too: iterating over a DataFrame gives the names of its columns. Raises InputError for half a
    surrogate pair.
    """
    if not is_sequence(pairs):
        remedy = ": give its two columns, as in frame[[QUERY, PASSAGE]].to_numpy()" if hasattr(pairs, "columns") else ""
        raise TypeError(
            f"pairs is a {type(pairs).__name__}: expected a list of pairs, as in predict([(query, passage)]){remedy}"
        )
    listed = list(pairs)
    for index, pair in enumerate(listed):
        if not is_sequence(pair):
            raise TypeError(f"pair {index} is a {type(pair).__name__} ({str(pair)[:40]}): expected (query, passage)")
        texts = listed[index] = tuple(pair)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            kinds = ", ".join(type(text).__name__ for text in texts[:4])
            raise TypeError(f"pair {index} holds {len(texts)} values ({kinds}): expected two texts, (query, passage)")
        for name, text in zip(("query", "passage"), texts, strict=True):
            _check_characters(text, f"pair {index}: {name}")
    return [query for query, _ in listed], [passage for _, passage in listed]


def is_one_pair(pairs: Any) -> bool:
    """Whether it is one pair rather than a list of them: two texts."""
    return isinstance(pairs, list | tuple) and len(pairs) == 2 and all(isinstance(text, str) for text in pairs)
