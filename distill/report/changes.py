"""What changes from one ranking of a query to another: its measure, its relevant passages, its order.

    changes = compare(two.before, two.after, two.qrels, measure)     # a Change for each query
    chosen = choose(changes, "harmed", num_queries=20)

A passage's place is the one that trec_eval sees, as in every measure here.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.cutting import article_of, passage_id
from distill.evaluation.articles import article_run
from distill.evaluation.measures import measure, trec_order, try_measures
from distill.evaluation.significance import require
from distill.evaluation.worth import SAME
from distill.sources.qrels import Qrels
from distill.sources.run_files import RankedList, Run


@dataclass
class Ranking:
    """One ranking of a query."""

    doc_ids: list[str]  # best first
    scores: dict[str, float]
    places: dict[str, int]  # 1 = best

    @classmethod
    def of(cls, ranked: RankedList) -> "Ranking":
        """Take a list of a run."""
        doc_ids = trec_order(ranked)
        scores = dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True))
        return cls(doc_ids, scores, {doc_id: place for place, doc_id in enumerate(doc_ids, start=1)})

    def first(self, doc_ids: set[str]) -> str | None:
        """Return the best ranked of some passages; None where it has none of them."""
        return next((doc_id for doc_id in self.doc_ids if doc_id in doc_ids), None)


@dataclass
class Change:
    """A query before and after."""

    query_id: str
    before: Ranking
    after: Ranking
    grades: dict[str, int] | None  # None for a query without judgments
    relevant: set[str]
    values: tuple[float, float] | None  # of the measure, before and after; None without judgments
    tau: float | None  # Kendall's, over the passages of both lists; None where they share fewer than two, or all tie

    @property
    def difference(self) -> float:
        """How much the measure has grown; of judged queries."""
        assert self.values is not None
        difference = self.values[1] - self.values[0]
        return 0.0 if abs(difference) < SAME else difference

    @property
    def is_hopeless(self) -> bool:
        """Whether the list after holds no relevant passage, so that no order of it can be good; of judged queries."""
        return not self.relevant & self.after.places.keys()

    def first_place(self, ranking: Ranking) -> int | None:
        """Return the place of the first relevant passage; None where there is none."""
        first = ranking.first(self.relevant)
        return None if first is None else ranking.places[first]

    def missed(self, depth: int) -> str | None:
        """Return the best relevant passage that is not among the first ones after: by grade, then by place."""
        missed = self.relevant - set(self.after.doc_ids[:depth])
        grades, last = self.grades or {}, len(self.after.doc_ids) + 1
        return min(missed, key=lambda one: (-grades[one], self.after.places.get(one, last), one), default=None)


def compare(before: Run, after: Run, qrels: Qrels, judged_by, *, max_passage: bool = False) -> list[Change]:
    """Return the changes of all queries of two runs, in the order of `after`; judged_by: one of `ir_measures`.

    max_passage: whether the qrels judge articles, which are measured, and the runs' passages were cut from them. Raises
    InputError for a measure that cannot be computed, and for a passage that was not cut from an article.
    """
    values: list[dict[str, float]] = []
    if qrels:
        try_measures([judged_by], qrels)
        for key, run in {"baseline": before, "run": after}.items():
            run = article_run(run, key) if max_passage else run
            _, per_query = measure(run, qrels, [judged_by])
            values.append({query_id: one[str(judged_by)] for query_id, one in per_query.items()})
    least = judged_by.params.get("rel", 1)
    changes = []
    for query_id in after:
        grades = qrels.get(query_id)
        if grades is not None and max_passage:
            grades = _of_passages(grades, [*before[query_id].doc_ids, *after[query_id].doc_ids])
        relevant = {doc_id for doc_id, grade in (grades or {}).items() if grade >= least}
        pair = None if grades is None else (values[0][query_id], values[1][query_id])
        rankings = Ranking.of(before[query_id]), Ranking.of(after[query_id])
        changes.append(Change(query_id, *rankings, grades, relevant, pair, tau(before[query_id], after[query_id])))
    return changes


def _of_passages(grades: dict[str, int], doc_ids: Iterable[str]) -> dict[str, int]:
    """Return the grades of passages, which are those of their articles; of an article that is in no list, its first."""
    articles = {doc_id: article_of(doc_id) for doc_id in doc_ids}
    others = grades.keys() - articles.values()
    inside = {doc_id: grades[article] for doc_id, article in articles.items() if article in grades}
    return inside | {passage_id(article, 0): grades[article] for article in others}


def tau(before: RankedList, after: RankedList) -> float | None:
    """Return Kendall's tau-b between the orders of the passages that both lists have; None where it is undefined.

    Either list may tie, and neither is a target, unlike in kendall_tau of distill/evaluation/agreement.py.
    """
    ranks = dict(zip(before.doc_ids, before.ranks.tolist(), strict=True))
    pairs = [(ranks[one], rank) for one, rank in zip(after.doc_ids, after.ranks.tolist(), strict=True) if one in ranks]
    if len(pairs) < 2 or any(np.ptp(column) == 0 for column in np.array(pairs).T):
        return None
    return float(require("scipy.stats").kendalltau(*zip(*pairs, strict=True)).statistic)


@dataclass(frozen=True)
class Section:
    """Which queries a section of the page shows, and in which order."""

    title: str
    holds: Callable[[Change], bool]
    key: Callable[[Change], tuple]


def _is_measured(change: Change) -> bool:
    return change.values is not None


SECTIONS = {
    "worst": Section(
        "Ranked worst: a relevant passage is in the list, and {measure} is lowest",
        lambda one: _is_measured(one) and not one.is_hopeless,
        lambda one: (one.values[1], -(one.first_place(one.after) or 0), one.difference),  # type: ignore[index]
    ),
    "harmed": Section(
        "Harmed most: {measure} fell furthest",
        lambda one: _is_measured(one) and one.difference < 0,
        lambda one: (one.difference,),
    ),
    "helped": Section(
        "Helped most: {measure} rose furthest",
        lambda one: _is_measured(one) and one.difference > 0,
        lambda one: (-one.difference,),
    ),
    "missing": Section(
        "No relevant passage in the list: what is ranked first instead may answer the query without being marked",
        lambda one: _is_measured(one) and bool(one.relevant) and one.is_hopeless,
        lambda one: (),
    ),
    "sample": Section(
        "A sample: queries drawn at random, the same in every page",
        lambda one: True,
        lambda one: (hashlib.sha256(one.query_id.encode("utf-8", "replace")).digest(),),
    ),
    "moved": Section(
        "Moved most: Kendall's tau between the two orders is lowest",
        lambda one: one.tau is not None,
        lambda one: (one.tau,),
    ),
}


def choose(changes: Sequence[Change], section: str, num_queries: int) -> tuple[list[Change], int]:
    """Return the first queries of a section, and how many belong to it; equal ones stay in the run's order."""
    chosen = [one for one in changes if SECTIONS[section].holds(one)]
    return sorted(chosen, key=SECTIONS[section].key)[:num_queries], len(chosen)
