"""The best model of a run, chosen by its validation: every so many steps, and once training has ended.

selection = Selection(cfg, directory, validation, model, precision, ranks)
if selection.is_due(state.step, num_steps):
    runs, values = selection.rank()
    validated = selection.keep_if_better(state, runs, values)
results |= selection.load_best(state, checkpoints)
"""

import logging
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig

from distill.distributed import Ranks
from distill.evaluation.averages import measure_together
from distill.evaluation.interpolation import choose_weight
from distill.evaluation.rerank import TaskReranker
from distill.evaluation.tasks import Task
from distill.models.cross_encoder import CrossEncoder
from distill.models.saved import write_settings
from distill.sources.run_files import Run
from distill.training.averaging import Soup
from distill.training.calibration import calibration_errors, fit_calibration
from distill.training.checkpoint import Checkpoints
from distill.training.state import TrainingState

log = logging.getLogger(__name__)


class Validated(NamedTuple):
    """The outcome of one validation."""

    values: dict[str, float]  # measure -> mean over the queries; the first one decides
    improved: bool  # it is the best so far
    joined: bool  # its weights are among the soup's

    def describe(self, step: int) -> str:
        """Return the line that the progress bar prints."""
        name, value = next(iter(self.values.items()))
        return f"step {step}: val/{name} {value:.4f}{' (best so far)' if self.improved else ''}"


NOT_DUE = Validated({}, improved=False, joined=False)  # of a step without a validation


class Selection:
    """Ranks the queries of the validation tasks, and keeps the model that ranks them best in model/."""

    def __init__(
        self,
        cfg: DictConfig,
        directory: Path,
        tasks: list[Task],
        model: CrossEncoder,
        precision: torch.dtype,
        ranks: Ranks,
    ):
        """Tokenise the tasks' queries and passages; without tasks, is_due is never true. directory: of the run."""
        self.cfg, self.tasks, self.model, self.ranks, self.precision = cfg, tasks, model, ranks, precision
        self.model_directory = directory / "model"
        self.rerankers = [TaskReranker(task, model, judged_only=True, ranks=ranks) for task in tasks]
        self.soup = Soup(directory, cfg.train.soup)
        self.best_runs: list[Run] = []  # the student's, at the best validation of this process

    def checksums(self) -> dict[str, int]:
        """Return a checksum of each task: of its judgments, and of the lists that are ranked, as the model reads them.

        Neither the order of the queries nor the texts' places in their files count.
        """
        sums = {}
        for task, reranker in zip(self.tasks, self.rerankers, strict=True):
            judgments = [(query_id, *sorted(grades.items())) for query_id, grades in sorted(task.qrels.items())]
            own = sum(_checksum_of_list(reranker, self.model, query_id) for query_id in reranker.run)  # of this rank
            sums[task.name] = zlib.crc32(repr(judgments).encode()) + sum(self.ranks.gather(own))
        return sums

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to validate after a step: each `train.validate_every` steps, and after the last one."""
        return bool(self.tasks) and (step % self.cfg.train.validate_every == 0 or step == num_steps)

    def rank(self) -> tuple[list[Run], dict[str, float]]:
        """Return the ranking of each task by the model's present weights, and their means by measure."""
        max_tokens = self.cfg.train.max_tokens
        runs = [reranker.rerank(self.model, max_tokens, self.precision) for reranker in self.rerankers]
        return runs, measure_together(self.tasks, runs)

    def keep_if_better(self, state: TrainingState, runs: list[Run], values: dict[str, float]) -> Validated:
        """Record a validation, and save the model's present weights in model/ if it is the best so far."""
        value = next(iter(values.values()))
        improved = state.improves(value)
        joined = self.soup.offer(state.step, value, self.model if self.ranks.is_first else None)
        if improved:
            self.best_runs = runs
            if self.ranks.is_first:
                self.model.write(self.model_directory)
        return Validated(values, improved, joined)

    def load_best(self, state: TrainingState, checkpoints: Checkpoints) -> dict[str, float]:
        """Give the model the best weights: those of the best validation, or the soup if it validates no worse.

        Chooses its weight for interpolation and fits its calibration, both on the validation queries. Returns what
        results.json says of it. Where tasks of a finished run are gone, all of that stays as it is.
        """
        checkpoints.load_best()
        if checkpoints.gone:
            return checkpoints.chosen_before()
        # No runs: the best validation was before this run was resumed
        runs, value = self.best_runs or self.rank()[0], state.best_value
        if self.soup.members:
            self.soup.stir(self.model, self.ranks)
            soup_runs, values = self.rank()
            soup_value = next(iter(values.values()))
            if self.soup.keeps(soup_value, value):
                runs, value = soup_runs, soup_value
                if self.ranks.is_first:
                    self.model.write(self.model_directory)
            else:
                checkpoints.load_best()
        self.model.interpolation = choose_weight(self.tasks, runs)
        self.model.calibration = fit_calibration(self.cfg.calibration, self.tasks, runs)
        if self.ranks.is_first:
            write_settings(self.model, self.model_directory)
        log.info("training ended after step %d, best model at step %d", state.step, state.best_step)
        errors = calibration_errors("validation", self.tasks, runs, self.model.calibration)
        return errors | {f"val/{self.tasks[0].measures[0]}": value}


def _checksum_of_list(reranker: TaskReranker, model: CrossEncoder, query_id: str) -> int:
    """Return the CRC-32 of a query's list: ids, tokens, and the first stage's scores if the model reads them."""
    ranked = reranker.run[query_id]
    ids = repr((query_id, ranked.doc_ids, model.template.numbers(ranked.scores)))
    tokens = [*reranker.queries.of_ids([query_id]), *reranker.passages.of_ids(ranked.doc_ids)]
    return zlib.crc32(np.concatenate(tokens).tobytes(), zlib.crc32(ids.encode()))
