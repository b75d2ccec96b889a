"""Rankings of articles from those of their passages: the best passage gives the score (MaxP, Dai & Callan 2019).

article_run({"q1": passages d7#2 3.5, d9#0 2.0, d7#0 1.5})         # {"q1": d7 3.5, d9 2.0}

Articles whose best passages have the same score keep the order of these passages; a measure orders them like any other
ties, by id.
"""

import numpy as np

from distill.data.cutting import article_of, check_passage
from distill.sources.run_files import RankedList, Run


def article_run(run: Run, source: str) -> dict[str, RankedList]:
    """Return the ranking of the articles that the passages of a run were cut from.

    Raises InputError for a passage that was not cut from an article.
    """
    return {query_id: _articles(ranked, f"{source}: query {query_id}") for query_id, ranked in run.items()}


def _articles(ranked: RankedList, place: str) -> RankedList:
    best: dict[str, float] = {}
    for doc_id, score in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True):  # best first
        best.setdefault(check_passage(doc_id, place), score)
    return RankedList.in_order([*best], np.array([*best.values()], dtype=np.float64))


def is_of_passages(run: Run) -> bool:
    """Whether the first passage of a run was cut from an article."""
    return any(article_of(doc_id) is not None for ranked in run.values() for doc_id in ranked.doc_ids[:1])
