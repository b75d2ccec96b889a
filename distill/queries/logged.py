"""Queries from a log, cleaned: empty ones and repetitions are left out and counted, typos stay.

logged = read_logged("log.tsv")
logged.queries                      # {"q1": "opening hours", ...}
logged.repeated                     # {"q7": "q1"}: it differs in case, width, marks or white space at most
"""

import logging
from dataclasses import dataclass, field

from distill.errors import InputError
from distill.queries.answers import plain
from distill.sources.fields import USUAL, Fields
from distill.sources.texts import Texts, iterate_texts, log_left_out, refuse_duplicates

log = logging.getLogger(__name__)


@dataclass
class Logged:
    """The queries of a log that are used, and those that are not."""

    queries: Texts = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)  # ids of queries without a letter or digit
    repeated: dict[str, str] = field(default_factory=dict)  # by id, the earlier query that each repeats


def read_logged(source: str, fields: Fields = USUAL) -> Logged:
    """Read a log; raises InputError for a bad line, a duplicate id, and where no query is left."""
    logged, first_with, seen = Logged(), dict[str, str](), set[str]()
    for query_id, text in iterate_texts(source, "queries", fields):
        if query_id in seen:
            refuse_duplicates(source, "queries", fields)  # with the line
        seen.add(query_id)
        known = plain(text)
        if not known:
            logged.empty.append(query_id)
        elif known in first_with:
            logged.repeated[query_id] = first_with[known]
        else:
            first_with[known] = query_id
            logged.queries[query_id] = text
    if not logged.queries:
        raise InputError(f"{source}: holds no query with a text: expected lines of `id<TAB>text`")
    log_left_out(source, "queries have no letter or digit", logged.empty, len(seen))
    if logged.repeated:
        query_id, first = next(iter(logged.repeated.items()))
        log.warning(
            "%s: %d of %d queries repeat an earlier one: left out (first: %s repeats %s)",
            *(source, len(logged.repeated), len(seen), query_id, first),
        )
    return logged
