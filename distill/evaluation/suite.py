"""Collect the results of a task, or of a suite task by task.

numbers = SuiteNumbers(cfg.task, missing={})
numbers.add(task, {"first_stage": task.run, "test": reranked})
results |= numbers.results()                      # with the suite's averages
print(numbers.table(results))
"""

from omegaconf import DictConfig

from distill.config.measures import parse_measures
from distill.evaluation.averages import measure_rows, suite_results
from distill.evaluation.measures import PerQuery
from distill.evaluation.results import format_results
from distill.evaluation.tasks import Task
from distill.sources.run_files import Run


class SuiteNumbers:
    """The results of each task, and the tasks that could not be measured."""

    def __init__(self, cfg: DictConfig, missing: dict[str, str]):
        """Start with no results; cfg: the task or suite in the configuration. missing: filled by `read_tasks`."""
        self.cfg = cfg
        self.means: dict[str, float] = {}  # under their names in results.json
        self.per_query: dict[str, dict[str, PerQuery]] = {}  # task -> row -> values of each query
        self.missing = missing  # task -> why

    def add(self, task: Task, rows: dict[str, Run]) -> dict[str, float]:
        """Measure the rankings of a task, by row, and return their means under their names in results.json.

        A task without judgments has none.
        """
        means, self.per_query[task.name] = measure_rows(task, rows) if task.qrels else ({}, {})
        self.means |= means
        return means

    def results(self) -> dict[str, float]:
        """Return all means, with the averages of a suite."""
        return self.means | suite_results(self.cfg, self.per_query)

    def table(self, results: dict[str, float]) -> str:
        """Return the table of the results that a command prints; nothing where no task has judgments."""
        num_queries = {name: len(next(iter(rows.values()))) for name, rows in self.per_query.items() if rows}
        measures = parse_measures(self.cfg.measures)
        return format_results(results, self.cfg.name, num_queries, measures, self.missing) if num_queries else ""
