"""Fit the weights of a fusion on judged queries.

    weights = fit_weights(runs, read_qrels("qrels.txt"), "nDCG@10", "z-score")
    fused = fuse(other_runs, "z-score", weights)                    # of other queries, with the same rankers

Coordinate ascent: one run's weight at a time takes the value of a grid that is best by the measure, until no change
helps. It starts from equal weights, and only a higher measure moves it away from them.
"""

import logging
from collections.abc import Sequence
from itertools import chain

from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.measures import measure
from distill.retrieval.fusion import Given, fuse, relative
from distill.sources.qrels import Qrels
from distill.sources.run_files import Run

log = logging.getLogger(__name__)

GRID = (0.05, *(step / 10 for step in range(1, 11)))  # weights that are tried; only their ratio matters


def fit_weights(
    runs: Sequence[Run],
    qrels: Qrels,
    name: str = "nDCG@10",
    method: str = "rrf",
    k: float = 60,
    run_depth: int | None = None,
) -> list[float]:
    """Return one weight of GRID for each run, the largest 1, that makes the fusion best on the judged queries.

    name: the measure; method, k, run_depth: as in `fuse`. Judged queries that no run has are left out. Raises
    InputError if no run has a judged query.
    """
    judged = {query_id: grades for query_id, grades in qrels.items() if any(query_id in run for run in runs)}
    if not judged:
        raise InputError("the runs have none of the judged queries: check that qrels and runs are of the same queries")
    runs = [{query_id: run[query_id] for query_id in judged if query_id in run} for run in runs]
    fuse(runs, method, None, k, run_depth)  # raises its errors, and warns
    given = {query_id: Given.of(runs, query_id, method, k, run_depth) for query_id in dict.fromkeys(chain(*runs))}
    measures = parse_measures([name])
    values: dict[tuple[float, ...], float] = {}  # of the weights tried so far, relative to the largest

    def value_of(weights: list[float]) -> float:
        tried = tuple(weight / max(weights) for weight in weights)
        if tried not in values:
            shares = relative(tried, len(runs))
            fused = {query_id: one.fuse(shares) for query_id, one in given.items()}
            means, _ = measure(fused, judged, measures)
            values[tried] = round(means[str(measures[0])], 9)  # below is rounding of the mean
        return values[tried]

    weights = [1.0] * len(runs)
    equal = best = value_of(weights)
    improved = True
    while improved:
        improved = False
        for place in range(len(runs)):
            for candidate in reversed(GRID):
                tried = [*weights[:place], candidate, *weights[place + 1 :]]
                if value_of(tried) > best:
                    weights, best, improved = tried, value_of(tried), True
    weights = [round(weight / max(weights), 4) for weight in weights]
    log.info(
        "weights %s fitted on %d queries: %s %.4f there (equal weights: %.4f); measure them on other queries",
        *(weights, len(judged), name, best, equal),
    )
    return weights
