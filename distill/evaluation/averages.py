"""Values of single queries averaged: over a task, over a suite's corpora.

    results, per_query = measure_rows(task, {"first_stage": task.run, "test": reranked})
    results |= suite_results(cfg.task, {task.name: per_query})

A suite's means are taken over corpora; within a corpus, over all queries of all its tasks (the micro-average of TIREx).
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
    """Return the means under `results.json`'s names, `<row>/<task>/<measure>`, and each row's values by query."""
    results: dict[str, float] = {}
    per_query: dict[str, PerQuery] = {}
    for row, run in rows.items():
        values, per_query[row] = measure(run, task.qrels, task.measures)
        results |= {f"{row}/{task.name}/{name}": value for name, value in values.items()}
    return results, per_query


def suite_results(cfg: DictConfig, measured: dict[str, dict[str, PerQuery]]) -> dict[str, float]:
    """Return the averages of a suite for all rows of its tasks {task: {row: values}}; none of what is no suite."""
    results: dict[str, float] = {}
    for row in dict.fromkeys(row for rows in measured.values() for row in rows) if cfg.tasks else ():
        results |= suite_metrics(row, cfg, {name: rows[row] for name, rows in measured.items() if row in rows})
    return results


def suite_metrics(prefix: str, cfg: DictConfig, measured: dict[str, PerQuery]) -> dict[str, float]:
    """Return a suite's averages under `results.json`'s names, from the values of each task's queries.

    `<prefix>/<suite>-<corpus>/<measure>` for every corpus that tasks name, and for the suite's means over all corpora
    `<prefix>/<suite>-arithmetic-mean/<measure>`. A corpus that lacks a task is left out; where corpora are left out,
    the name says of how many the mean is: `<suite>-arithmetic-mean-of-3`.
    """
    corpora: dict[str, list[str]] = {}  # corpus -> its tasks
    parts = split_suite(cfg)
    for part in parts:
        corpora.setdefault(part.corpus or part.name, []).append(part.name)
    whole = {corpus: names for corpus, names in corpora.items() if all(name in measured for name in names)}
    named = {part.corpus for part in parts}
    results: dict[str, float] = {}
    for name in map(str, parse_measures(cfg.measures)):
        values = {}
        for corpus, names in whole.items():
            found: list[Any] = [query.get(name) for task in names for query in measured[task].values()]
            if None not in found:
                values[corpus] = _mean("arithmetic", found)
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
    """Return the arithmetic means over the tasks' corpora, by measure: what a suite is validated by."""
    corpora: dict[str, list[dict[str, float]]] = {}
    for task, run in zip(tasks, runs, strict=True):
        _, per_query = measure(run, task.qrels, task.measures)
        corpora.setdefault(task.corpus, []).extend(per_query.values())
    return {
        name: _mean("arithmetic", [_mean("arithmetic", [q[name] for q in queries]) for queries in corpora.values()])
        for name in map(str, tasks[0].measures)
    }
