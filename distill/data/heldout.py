"""Queries held out of training, so that none of them, nor a passage or a wording of theirs, was trained on.

groups = together(queries, 0.7, origins)                # of queries that stay on one side
heldout = hold_out(groups, number_of(len(queries), share=0.1, least=20), seed=0)
"""

import hashlib
from collections.abc import Hashable, Mapping

from distill.data.cutting import article_of
from distill.data.near_duplicates import Groups, join_near_duplicates, members, words
from distill.errors import InputError
from distill.sources.qrels import Qrels
from distill.sources.texts import Texts

MOST = 3  # at most one in so many queries is held out for the sake of the least number: training keeps the others


def number_of(num_queries: int, share: float, least: int) -> int:
    """Return how many queries to hold out: the share, or the least number that means something, up to a third."""
    return max(round(share * num_queries), min(least, num_queries // MOST), 1)


def together(
    queries: Texts, similarity: float, origins: Qrels | None = None, passages: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Return the ids of queries in groups: near-duplicates, and those with the same passage or article of origin.

    origins: the passages that queries were written for. passages: their texts, to treat those that are nearly the same
    as one; None: only the ids count.
    """
    groups = Groups()
    join_near_duplicates(groups, queries, similarity)
    texts: dict[Hashable, str] = {}
    for query_id in queries:
        for doc_id, grade in (origins or {}).get(query_id, {}).items():
            if grade > 0:
                passage = ("passage", doc_id)  # else the id of a query could be that of a passage
                groups.join(query_id, passage)
                groups.join(passage, ("article", article_of(doc_id) or doc_id))
                if passages is not None:
                    texts[passage] = passages[doc_id]
    join_near_duplicates(groups, texts, similarity, features_of=words)
    return members(groups, queries)


def hold_out(groups: list[list[str]], number: int, seed: int) -> set[str]:
    """Return about so many queries, and no more: whole groups, drawn by the seed and the ids in them.

    So the order of the queries does not matter, and of a larger set mostly the same ones are drawn. Raises InputError
    where every group is larger, or nothing is left.
    """
    heldout: set[str] = set()
    for group in sorted(groups, key=lambda group: _draw(seed, min(group))):
        if len(heldout) + len(group) <= number:
            heldout.update(group)
    num_queries = sum(map(len, groups))
    if not heldout or len(heldout) == num_queries:
        raise InputError(
            f"{num_queries} queries are {len(groups)} groups that cannot be parted, the largest with "
            f"{max(map(len, groups))}: {number} cannot be held out so that others are left: raise similarity, so that "
            "fewer count as near-duplicates, or give more queries"
        )
    return heldout


def _draw(seed: int, query_id: str) -> bytes:
    return hashlib.sha256(f"{seed} {query_id}".encode("utf-8", "replace")).digest()
