"""Average the values of queries over a task, and over a suite's corpora.

    results, per_query = measure_rows(task, {"first_stage": task.run, "test": reranked})
    results |= suite_results(cfg.task, {task.name: per_query})

A suite's mean is taken over corpora, and each corpus's value is the mean over all queries of all its tasks (the
micro-average of TIREx).
"""

import math
from typing import Any

from omegaconf import DictConfig

from distill.config.measures import parse_measures
from distill.config.suites import split_suite
from distill.evaluation.measures import PerQuery, measure
from distill.evaluation.tasks import Task
from distill.sources.run_files import Run


def measure_rows(task: Task, rows: dict[str, Run]) -> tuple[dict[str, float], dict[str, PerQuery]]:
    """Return the means, named `<row>/<task>/<measure>` as in results.json, and each row's values by query."""
    results: dict[str, float] = {}
    per_query: dict[str, PerQuery] = {}
    for row, run in rows.items():
        values, per_query[row] = measure(task.judged(run), task.qrels, task.measures)
        results |= {f"{row}/{task.name}/{name}": value for name, value in values.items()}
    return results, per_query


def suite_results(cfg: DictConfig, measured: dict[str, dict[str, PerQuery]]) -> dict[str, float]:
    """Return the averages of a suite for all rows of its tasks {task: {row: values}}; nothing for a single task."""
    results: dict[str, float] = {}
    for row in dict.fromkeys(row for rows in measured.values() for row in rows) if cfg.tasks else ():
        results |= suite_metrics(row, cfg, {name: rows[row] for name, rows in measured.items() if row in rows})
    return results


def suite_metrics(prefix: str, cfg: DictConfig, measured: dict[str, PerQuery]) -> dict[str, float]:
    """Return a suite's averages under their names in results.json, from the values of each task's queries.

    Each corpus that tasks name gets `<prefix>/<suite>-<corpus>/<measure>`, and the means over all corpora are
    `<prefix>/<suite>-arithmetic-mean/<measure>`. A corpus that lacks a task is left out; the name of the mean then says
    how many corpora it covers: `<suite>-arithmetic-mean-of-3`.
    """
    corpora: dict[str, list[str]] = {}  # corpus -> its tasks
    task_cfgs = split_suite(cfg)
    for task in task_cfgs:
        corpora.setdefault(task.corpus or task.name, []).append(task.name)
    complete = {corpus: names for corpus, names in corpora.items() if all(name in measured for name in names)}
    named = {task.corpus for task in task_cfgs}
    results: dict[str, float] = {}
    for name in map(str, parse_measures(cfg.measures)):
        values = {}
        for corpus, names in complete.items():
            query_values: list[Any] = [query.get(name) for task in names for query in measured[task].values()]
            if None not in query_values:
                values[corpus] = _mean("arithmetic", query_values)
        results |= {f"{prefix}/{cfg.name}-{corpus}/{name}": values[corpus] for corpus in values if corpus in named}
        suffix = "" if len(values) == len(corpora) else f"-of-{len(values)}"
        for kind in cfg.means if values else ():
            results[f"{prefix}/{cfg.name}-{kind}-mean{suffix}/{name}"] = _mean(kind, [*values.values()])
    return results


def _mean(kind: str, values: list[float]) -> float:
    if kind == "arithmetic":
        return math.fsum(values) / len(values)
    if kind == "quadratic":
        return math.sqrt(math.fsum(value**2 for value in values) / len(values))
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0


def measure_together(tasks: list[Task], runs: list[Run]) -> dict[str, float]:
    """Return the arithmetic means over the tasks' corpora, by measure; validation on a suite uses them."""
    corpora: dict[str, list[dict[str, float]]] = {}
    for task, run in zip(tasks, runs, strict=True):
        _, per_query = measure(task.judged(run), task.qrels, task.measures)
        corpora.setdefault(task.corpus, []).extend(per_query.values())
    means = {}
    for name in map(str, tasks[0].measures):
        of_corpora = [_mean("arithmetic", [values[name] for values in queries]) for queries in corpora.values()]
        means[name] = _mean("arithmetic", of_corpora)
    return means
