"""What a run measures on its tasks: the student before training, and the best one, once.

test = FinalTest(cfg, directory, tasks, missing, model, precision, ranks)
state.results |= test.untrained()
results |= test.results()                         # and writes the files of each task
print(test.table(results))
"""

from pathlib import Path

import torch
from omegaconf import DictConfig

from distill.distributed import Ranks
from distill.evaluation.interpolation import interpolated_row
from distill.evaluation.measures import PerQuery
from distill.evaluation.rerank import TaskReranker
from distill.evaluation.results import task_directory, write_rows
from distill.evaluation.suite import SuiteNumbers
from distill.evaluation.tasks import Task
from distill.models.cross_encoder import CrossEncoder
from distill.sources.run_files import Run
from distill.training.calibration import calibration_errors


class FinalTest:
    """Re-ranks the tasks with the model's present weights."""

    def __init__(
        self,
        cfg: DictConfig,
        directory: Path,
        tasks: list[Task],
        missing: dict[str, str],
        model: CrossEncoder,
        precision: torch.dtype,
        ranks: Ranks,
    ):
        """Tokenise the tasks' queries and passages. directory: of the run. missing: tasks that are not here -> why."""
        self.cfg, self.directory, self.tasks, self.missing = cfg, directory, tasks, missing
        self.model, self.precision, self.ranks = model, precision, ranks
        self.rerankers = [TaskReranker(task, model, ranks=ranks) for task in tasks]
        self.numbers = SuiteNumbers(cfg.task, missing)

    def untrained(self) -> dict[str, float]:
        """Return the values of the student before training."""
        numbers = SuiteNumbers(self.cfg.task, self.missing)
        for task, reranker in zip(self.tasks, self.rerankers, strict=True):
            numbers.add(task, {"untrained": self._rank(reranker)})
        return numbers.results()

    def results(self) -> dict[str, float]:
        """Return the values of all rows of the tasks, and write their rankings and values of each query."""
        errors: dict[str, float] = {}
        for task, reranker in zip(self.tasks, self.rerankers, strict=True):
            reranked = self._rank(reranker)
            rows = {**task.rows, "test": reranked, **interpolated_row(task, reranked, self.model.interpolation)}
            self.numbers.add(task, rows)
            errors |= calibration_errors(task.name, [task], [reranked], self.model.calibration)
            if self.ranks.is_first:
                place = task_directory(self.directory, self.cfg.task, task.name)
                write_rows(place, rows, self.per_query[task.name], "test", tag="student")
        return errors | self.numbers.results()

    @property
    def per_query(self) -> dict[str, dict[str, PerQuery]]:
        """The values of each query, by task and row."""
        return self.numbers.per_query

    def table(self, results: dict[str, float]) -> str:
        """Return the table that a run prints."""
        return self.numbers.table(results)

    def _rank(self, reranker: TaskReranker) -> Run:
        return reranker.rerank(self.model, self.cfg.train.max_tokens, self.precision)
