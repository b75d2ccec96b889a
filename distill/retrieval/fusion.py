"""Fusion: one run from several of the same queries.

    fused = fuse([read_run("bm25.run"), read_run("dense.run")])                     # reciprocal rank fusion
    fused = fuse(runs, "z-score", weights=[0.3, 0.7])

Ranks are those of the runs, where tied passages share their average rank. Fused scores are rounded to float32, and
equal ones are in trec_eval's order, by passage id, descending: the order written is the one that is measured
(distill/evaluation/measures.py), and it does not depend on the order of the runs. N runs that have a query, K passages
of a list, P passages that any of the N lists has.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.errors import InputError
from distill.progress import Progress
from distill.sources.run_files import RankedList, Run, average_ranks

log = logging.getLogger(__name__)

METHODS = ("rrf", "mean-rank", "z-score")
DEFAULT_K = 60  # as in conf/fuse.yaml


def fuse(
    runs: Sequence[Run],
    method: str = "rrf",
    weights: Sequence[float] | None = None,
    k: float = DEFAULT_K,
    run_depth: int | None = None,
    depth: int | None = None,
) -> Run:
    """Return the fusion of runs.

    rrf: the sum of weight / (k + rank), where a passage that a run lacks adds nothing (Cormack et al., SIGIR 2009).
    mean-rank: minus the weighted mean of the ranks. Passages that a run lacks tie behind its last one, and share the
    average of the places there; the order is that of Borda counts (Aslam and Montague, SIGIR 2001).
    z-score: the weighted mean of the z-scores of each list. A passage that a list lacks gets the list's lowest, the
    most that it could have been given below the list's end.

    weights: one for each run, above 0, of which the largest counts as 1; None: all 1. A query that a run lacks is fused
    from the others. run_depth: passages of each list that take part; depth: passages of each fused list; None: all.
    Raises InputError for an unknown method, wrong weights, and runs without a common query.
    """
    if method not in METHODS:
        raise InputError(f"method {method} is unknown: choose one of {', '.join(METHODS)}")
    shares = relative(weights, len(runs))
    query_ids = list(dict.fromkeys(itertools.chain(*runs)))
    if len(query_ids) == sum(map(len, runs)):
        raise InputError("the runs have no query in common: check that they are runs of the same queries")
    fused, num_common = {}, 0
    for query_id in Progress(query_ids, f"fusing {len(runs)} runs", unit=" queries"):
        given = Given.of(runs, query_id, method, k, run_depth)
        num_common += given.num_common
        fused[query_id] = given.fuse(shares).cut(depth)
    if not num_common:
        log.warning("the runs have no passage in common: check that their ids are those of one collection")
    return fused


def warn_of_lacking(names: Sequence[str], runs: Sequence[Run], fused: Run) -> None:
    """Warn of queries that a run lacks."""
    for name, run in zip(names, runs, strict=True):
        lacking = [query_id for query_id in fused if query_id not in run]
        if lacking:
            log.warning(
                "%s: lacks %d of %d queries: they are fused from the other runs (first: %s)",
                *(name, len(lacking), len(fused), lacking[0]),
            )


def relative(weights: Sequence[float] | None, num_runs: int) -> np.ndarray:
    """Return the weights of the runs as shares of the largest; raises InputError for wrong ones."""
    if num_runs < 2:
        raise InputError(f"{num_runs} run: fusion needs two or more")
    if weights is None:
        return np.ones(num_runs)
    if len(weights) != num_runs or not all(0 < weight < math.inf for weight in weights):
        raise InputError(f"weights {list(weights)}: {num_runs} runs need {num_runs} numbers above 0")
    return np.array(weights, np.float64) / max(weights)


def _ranked_anew(ranked: RankedList) -> RankedList:
    """Return a list with ranks among its own passages: a tie that the depth has cut ends at the list's end."""
    return RankedList(ranked.doc_ids, ranked.scores, average_ranks(ranked.ranks, ranked.ranks))


@dataclass
class Given:
    """What the lists of one query give each passage, whatever the weights."""

    having: list[int]  # N places of the runs that have the query
    doc_ids: list[str]  # P ids, descending
    values: np.ndarray  # [N, P]
    num_common: int  # how often a passage is in one more list
    is_mean: bool  # whether the sum is divided by that of the weights

    @classmethod
    def of(cls, runs: Sequence[Run], query_id: str, method: str, k: float, run_depth: int | None) -> "Given":
        """Take the lists of a query that at least one of the runs has."""
        having = [place for place, run in enumerate(runs) if query_id in run]
        lists = [_ranked_anew(runs[place][query_id].cut(run_depth)) for place in having]
        doc_ids = sorted({doc_id for ranked in lists for doc_id in ranked.doc_ids}, reverse=True)
        columns = {doc_id: column for column, doc_id in enumerate(doc_ids)}
        values = np.empty((len(lists), len(doc_ids)))
        for row, ranked in zip(values, lists, strict=True):
            own, lacking = _values_of(ranked, len(doc_ids) - len(ranked), method, k)
            row[:] = lacking
            row[[columns[doc_id] for doc_id in ranked.doc_ids]] = own
        return cls(having, doc_ids, values, sum(map(len, lists)) - len(doc_ids), method != "rrf")

    def fuse(self, shares: np.ndarray) -> RankedList:
        """Return the fused list; shares: the weight of each run, as `relative` returns them."""
        weights = shares[self.having]
        # Sorted: equal values have equal sums, in any order
        scores = np.sort(weights[:, None] * self.values, axis=0).sum(axis=0)
        if self.is_mean:
            scores /= weights.sum()
        return RankedList.by_score(self.doc_ids, scores.astype(np.float32).astype(np.float64))


def _values_of(ranked: RankedList, num_lacking: int, method: str, k: float) -> tuple[np.ndarray, float]:
    """Return what a list gives its passages [K], and what it gives each of the others."""
    if method == "rrf":
        return 1 / (k + ranked.ranks), 0.0
    if method == "mean-rank":
        return -ranked.ranks, -(len(ranked) + (num_lacking + 1) / 2)
    z = z_scores(ranked.scores)
    return z, z.min(initial=0.0)  # the lowest of any list is at most 0; that of an empty one is 0


def z_scores(scores: np.ndarray) -> np.ndarray:
    """Return a list's scores [K] in standard deviations above their mean, float64.

    The standard deviation is the population's. Scores that are all equal, or only one, give zeros.
    """
    scores = np.asarray(scores, np.float64)
    if not len(scores) or scores.min() == scores.max():
        return np.zeros(len(scores))
    _, exponent = np.frexp(np.abs(scores).max())
    scores = np.ldexp(scores, -exponent)  # exact, and no sum or square overflows or vanishes
    deviations = scores - scores.mean()
    return deviations / np.sqrt((deviations**2).mean())
