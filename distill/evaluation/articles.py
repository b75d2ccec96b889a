"""Rankings of articles from those of their passages: the best passage gives the score (MaxP, Dai & Callan 2019).

article_run({"q1": passages d7#2 3.5, d9#0 2.0, d7#0 1.5})         # {"q1": d7 3.5, d9 2.0}

Articles keep the order of their best passages, and tie where these tie; a measure orders equal scores by id.
"""

import numpy as np

from distill.data.cutting import article_of, check_passage
from distill.sources.run_files import RankedList, Run, average_ranks


def article_run(run: Run, source: str) -> dict[str, RankedList]:
    """Return the ranking of the articles that the passages of a run were cut from.

    Raises InputError for a passage that was not cut from an article.
    """
    return {query_id: _articles(ranked, f"{source}: query {query_id}") for query_id, ranked in run.items()}


def _articles(ranked: RankedList, place: str) -> RankedList:
    best: dict[str, int] = {}  # article -> the place of its best passage
    for index, doc_id in enumerate(ranked.doc_ids):  # best first
        best.setdefault(check_passage(doc_id, place), index)
    kept = np.array([*best.values()], dtype=np.int64)
    scores = ranked.scores[kept]
    return RankedList([*best], scores, average_ranks(scores, ranked.ranks[kept]))


def is_of_passages(run: Run) -> bool:
    """Whether the first passage of a run was cut from an article."""
    return any(article_of(doc_id) is not None for ranked in run.values() for doc_id in ranked.doc_ids[:1])
