"""Measures of `ir_measures`, tried before they are needed, then computed for a run.

    measures = parse_measures(["nDCG@10", "RR(rel=2)@10"])
    try_measures(measures, qrels)                       # raises InputError if one cannot be computed here
    means, per_query = measure(run, qrels, measures)

Every measure sees a ranking in trec_eval's order: by score as float32, ties by passage id, both descending. Otherwise
each program behind `ir_measures` would break ties in its own way.
"""

import json
import math
import subprocess
import sys

import numpy as np

from distill.errors import InputError
from distill.sources.qrels import Qrels
from distill.sources.run_files import RankedList, Run

PerQuery = dict[str, dict[str, float]]  # query id -> measure -> value

TRIED = 3  # judged passages of each query that a measure is tried on
# In a separate process: some programs behind `ir_measures` end the process, or write to its standard error
TRIAL = """
import json, subprocess, sys
import ir_measures
given = json.load(sys.stdin)
measure = ir_measures.parse_measure(given["measure"])
if ir_measures.pyndeval.supports(measure):  # whether it is installed or not
    sys.exit("it needs judgments of subtopics, which are not read")
try:
    found = ir_measures.calc([measure], given["qrels"], given["run"]).per_query
except subprocess.CalledProcessError as error:
    sys.exit(f"{error.cmd[0]} ends with status {error.returncode}: query ids must be numbers, grades 4 at most")
except (ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
    sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
values = {one.query_id: one.value for one in found}
lacking = [query_id for query_id in given["qrels"] if not abs(values.get(query_id, float("nan"))) < float("inf")]
if lacking:
    sys.exit(f"it has no value for some queries, as for {lacking[0]} without a relevant passage in its ranking")
"""


def try_measures(measures: list, qrels: Qrels) -> None:
    """Compute each measure once, on small rankings made from the judgments, with their real ids and grades.

    If there are several queries, one has no ranking, and another only an unjudged passage. Raises InputError for a
    measure that cannot be computed here, has no value for such a query, or ends the process.
    """
    some = {query_id: _some_of(grades) for query_id, grades in _without_negatives(qrels).items()}
    ranked = {query_id: [*grades, "unjudged"] for query_id, grades in some.items()}
    if len(some) > 2:
        missing, unjudged, *_ = some
        ranked[unjudged] = ["unjudged"]
        del ranked[missing]
    run = {query_id: _places(doc_ids) for query_id, doc_ids in ranked.items()}
    for tried in measures:
        given = json.dumps({"measure": str(tried), "qrels": some, "run": run})
        trial = subprocess.run([sys.executable, "-P", "-c", TRIAL], input=given, capture_output=True, text=True)
        if trial.returncode:
            reason = trial.stderr.splitlines()[-1] if trial.returncode == 1 else "it ends the process"
            raise InputError(f"measure {tried}: cannot be computed here ({reason}): choose another")


def _without_negatives(qrels: Qrels) -> Qrels:
    """Return judgments with negative grades set to 0: they mean the same, but corrupt trec_eval's memory."""
    return {query_id: {doc_id: max(grade, 0) for doc_id, grade in grades.items()} for query_id, grades in qrels.items()}


def _some_of(grades: dict[str, int]) -> dict[str, int]:
    """Return a few of a query's judgments, including one of the highest grade and one of the lowest."""
    by_grade = sorted(grades, key=grades.__getitem__, reverse=True)
    return {doc_id: grades[doc_id] for doc_id in [*by_grade[: TRIED - 1], *by_grade[TRIED - 1 :][-1:]]}


def measure(run: Run, qrels: Qrels, measures: list) -> tuple[dict[str, float], PerQuery]:
    """Return the means by measure name, and the values of each judged query, in the run's order.

    trec_eval gives the same values for the file that `write_run` writes. Judged queries that the run lacks get the
    value that the measure defines, mostly 0. Raises InputError if a value is not finite.
    """
    import ir_measures
    from ir_measures.measures.base import SumAgg

    judged = [query_id for query_id in run if query_id in qrels]
    order = judged + [query_id for query_id in qrels if query_id not in run]
    ranked = {query_id: _places(trec_order(run[query_id])) for query_id in judged if len(run[query_id])}
    qrels = _without_negatives(qrels)
    means: dict[str, float] = {}
    values_of: dict[tuple[str, str], float] = {}  # (query id, measure) -> value
    for group in _groups(measures):
        aggregated, results = ir_measures.calc(group, qrels, ranked)
        means |= {str(name): value for name, value in aggregated.items()}
        values_of |= {(result.query_id, str(result.measure)): result.value for result in results}
    names = [str(name) for name in measures]  # in the order asked for
    counts = [str(measure) for measure in measures if isinstance(measure.aggregator(), SumAgg)]  # as NumRet
    per_query = {query_id: {name: values_of.get((query_id, name), math.nan) for name in names} for query_id in order}
    for query_id, values in per_query.items():
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(f"measure {name}: has no value for query {query_id} ({value}): choose another")
    # trec_eval sums counts; here, all that is told of a run is a mean over its queries
    means |= {
        name: math.fsum(values[name] for values in per_query.values()) / max(len(per_query), 1) for name in counts
    }
    return {name: means[name] for name in names}, per_query


def trec_order(ranked: RankedList) -> list[str]:
    """Return a query's passages as trec_eval orders them: by score as float32, ties by id, both descending."""
    with np.errstate(over="ignore"):
        scores = ranked.scores.astype(np.float32)
    if np.all(scores[1:] < scores[:-1]):
        return ranked.doc_ids
    by_id = sorted(range(len(ranked)), key=ranked.doc_ids.__getitem__, reverse=True)  # as strcmp does on UTF-8
    return [ranked.doc_ids[by_id[place]] for place in np.argsort(-scores[by_id], kind="stable")]


def _places(doc_ids: list[str]) -> dict[str, float]:
    """Return a score for each passage of a ranking: whole numbers without ties, which float32 holds exactly."""
    return {doc_id: float(-place) for place, doc_id in enumerate(doc_ids)}


def _groups(measures: list) -> list[list]:
    """Return the measures in groups that can be computed together.

    `ir_measures` 0.4.3 computes nDCG and NumRet with the gains and judged_only of another measure in the same call.
    """
    groups: dict[str, list] = {}
    for measure in measures:
        groups.setdefault(repr([measure.params.get(key) for key in ("gains", "judged_only")]), []).append(measure)
    return list(groups.values())
