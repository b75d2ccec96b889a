"""Interpolate a student's ranking with its first stage, and choose the weight on judged queries.

    model.interpolation = choose_weight(validation, runs)           # the best weight on the validation queries
    rows |= interpolated_row(task, rows["test"], model.interpolation)

The formula is in distill/models/interpolation.py.
"""

import logging
from dataclasses import replace

import numpy as np
from omegaconf import DictConfig

from distill.config.suites import split_suite
from distill.errors import InputError
from distill.evaluation.averages import measure_together
from distill.evaluation.tasks import Task
from distill.models.interpolation import Interpolation, interpolate
from distill.sources.run_files import RankedList, Run

log = logging.getLogger(__name__)

GRID = [step / 20 for step in range(21)]  # weights that are tried


def choose_weight(tasks: list[Task], runs: list[Run]) -> Interpolation:
    """Return the student's weight that is best on the tasks' queries, by their first measure.

    runs: the student's, one for each task. Of equally good weights, it is the largest: the first stage counts no more
    than it helps.
    """
    tasks = [replace(task, measures=task.measures[:1]) for task in tasks]
    measure = str(tasks[0].measures[0])
    values = {}
    for weight in GRID:
        interpolated = [interpolate_run(run, task.run, weight) for task, run in zip(tasks, runs, strict=True)]
        values[weight] = round(measure_together(tasks, interpolated)[measure], 9)  # below is rounding of the mean
    best = max(GRID, key=lambda weight: (values[weight], weight))
    first_stages = tuple(dict.fromkeys(task.first_stage for task in tasks))
    num_queries = sum(query_id in task.qrels for task in tasks for query_id in task.run)
    log.info(
        "the student's best weight beside %s is %g: %s %.4f on %d queries (weight 1, the student: %.4f; 0, the first "
        "stage: %.4f)",
        *(" and ".join(first_stages), best, measure, values[best], num_queries, values[1.0], values[0.0]),
    )
    return Interpolation(best, first_stages, measure, num_queries)


def interpolate_run(student: Run, first_stage: Run, weight: float) -> Run:
    """Return the student's run with scores and order interpolated with those of the first stage."""
    interpolated = {}
    for query_id, ranked in student.items():
        first = first_stage[query_id]
        score_of = dict(zip(ranked.doc_ids, ranked.scores, strict=True))
        scores = np.array([score_of[doc_id] for doc_id in first.doc_ids])  # [K], in the first stage's order
        order, scores = interpolate(scores, first.scores, weight)
        interpolated[query_id] = RankedList.in_order([first.doc_ids[place] for place in order], scores)
    return interpolated


def interpolated_row(task: Task, student: Run, own: Interpolation | None) -> dict[str, Run]:
    """Return the row `interpolated` of a task, if it was asked for.

    own: what the model's files hold, for task.interpolate=auto. With task.interpolate=fit, the best weight is only
    logged: on the queries that chose it, its value would mean nothing.
    """
    if task.interpolate is None:
        return {}
    flat = [query_id for query_id, one in task.run.items() if len(one) > 1 and one.scores.min() == one.scores.max()]
    if flat:
        log.warning(
            "%s: %s gives all passages the same score in %d of %d lists: there the student's score decides (first: %s)",
            *(task.name, task.first_stage, len(flat), len(task.run), flat[0]),
        )
    if task.interpolate == "fit":
        weight = choose_weight([task], [student]).weight
        log.info("%s: chosen on these queries, so use it on others: task.interpolate=%g", task.name, weight)
        return {}
    if task.interpolate != "auto":
        return {"interpolated": interpolate_run(student, task.run, task.interpolate)}
    assert own is not None, "check_weight comes first"
    if task.first_stage not in own.first_stages:
        log.warning(
            "%s: the weight %g was chosen with the first stage %s, not with %s: if these are different retrievers, "
            "choose a weight on judged queries of this one, with task.interpolate=fit",
            *(task.name, own.weight, " and ".join(own.first_stages), task.first_stage),
        )
    return {"interpolated": interpolate_run(student, task.run, own.weight)}


def check_weight(cfg: DictConfig, model: str, own: Interpolation | None) -> None:
    """Raise InputError if task.interpolate=auto asks for a weight that the model's files do not hold."""
    if own is None and any(task.interpolate == "auto" for task in split_suite(cfg)):
        raise InputError(
            f"task.interpolate=auto: {model} holds no weight, as only models trained with a validation do: give a "
            "number from 0 to 1, chosen with task.interpolate=fit on judged queries that you do not report"
        )
