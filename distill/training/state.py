"""The state of a training run: its step, its best validation, and the loss since the last log line.

state = TrainingState(device, objective.names)
state.note(loss, losses, grad_norm)               # after every step; nothing is read from the device
state.check_finite(loader)                        # when a line is logged, before anything is saved
improved = state.improves(value)
"""

import time
from typing import Any

import torch
from torch import Tensor

from distill.data.loader import BatchLoader
from distill.data.mixing import MixedLoader
from distill.distributed import Ranks
from distill.errors import InputError


class TrainingState:
    """The state that changes from step to step, apart from weights and optimiser; checkpoints contain it."""

    def __init__(self, device: torch.device, parts: list[str], *, started: float | None = None, may_skip: bool = False):
        """Start at step 0, with nothing validated; parts: the names of a mixture's losses, [""] for any other loss.

        started: when the process began to work, by time.perf_counter; None: now. may_skip: a step whose gradient is not
        finite is skipped, and no fault.
        """
        self.may_skip = may_skip
        self.started = time.perf_counter() if started is None else started
        self.seconds_before, self.steps_before = 0.0, 0  # of the stopped run that this one resumes
        self.step, self.best_step, self.best_value = 0, 0, float("-inf")
        self.longer_from = 0  # the step from which a finished run is trained further
        self.results: dict[str, float] = {}  # for results.json, so far
        # On the device: reading them at every step would wait for the device
        self.parts = parts if parts != [""] else []
        # Since the last log line: loss of this rank's lists, the losses of a mixture's parts, and steps
        self.sums = torch.zeros(2 + len(self.parts), device=device)
        self.first_bad = torch.full((), -1, device=device)  # first step with a loss or gradient that is not finite

    def note(self, loss: Tensor, losses: Tensor, grad_norm: Tensor) -> None:
        """Record a step's loss, those of its parts and its gradient norm; check_finite tells if they were finite."""
        bad = ~torch.isfinite(loss if self.may_skip else loss + grad_norm)
        self.first_bad = torch.where((self.first_bad < 0) & bad, self.step, self.first_bad)
        self.sums += torch.cat([loss[None], losses[: len(self.parts)], torch.ones_like(loss)[None]])
        self.step += 1

    def check_finite(self, loader: BatchLoader | MixedLoader) -> None:
        """Raise InputError, naming the step's queries, if the loss or gradient of any step was not finite."""
        bad = int(self.first_bad)
        if bad >= 0:
            raise InputError(
                f"step {bad + 1}: the loss or its gradient is not finite (queries {' '.join(loader.query_ids(bad))}): "
                "the last checkpoint is from before; try a lower optimizer.lr, a longer optimizer.warmup, a smaller "
                "optimizer.max_grad_norm or train.precision=float32"
            )

    def take_mean_loss(self, ranks: Ranks) -> dict[str, float]:
        """Return the mean loss over the steps since the last call and over all ranks, and that of each part."""
        losses, num_steps = ranks.sum(*self.sums[:-1]), self.sums[-1].item()
        names = ["train/loss", *(f"train/loss/{part}" for part in self.parts)]
        self.sums.zero_()
        return {name: loss / num_steps for name, loss in zip(names, losses, strict=True)}

    def improves(self, value: float) -> bool:
        """Record a validation's value; return whether it is the best so far."""
        if not value > self.best_value:
            return False
        self.best_step, self.best_value = self.step, value
        return True

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether `patience` steps have passed without a better validation; never, if it is None.

        They count from where a run that is trained for longer than before was resumed, if that is later.
        """
        return patience is not None and self.step - max(self.best_step, self.longer_from) >= patience

    def seconds(self) -> float:
        """Return the seconds of training, also before it was stopped; measuring a finished run again adds none."""
        is_measuring = self.steps_before and self.step == self.steps_before
        return self.seconds_before + (0.0 if is_measuring else time.perf_counter() - self.started)

    def saved(self, ranks: Ranks) -> dict[str, Any]:
        """Return the state as checkpoints contain it, the same on every rank."""
        return {
            "step": self.step,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "longer_from": self.longer_from,
            "results": self.results,
            "seconds": self.seconds(),
            "sums": torch.cat([ranks.sum_on_device(self.sums[:-1]), self.sums[-1:]]).cpu(),
        }

    def restore(self, saved: dict[str, Any], ranks: Ranks) -> None:
        """Restore the state from a checkpoint; the first rank takes the loss of all ranks so far."""
        self.step, self.results = saved["step"], saved["results"]
        self.steps_before, self.seconds_before = saved["step"], saved.get("seconds", 0.0)  # before 2026-11-30: unknown
        self.best_step, self.best_value = saved["best_step"], saved["best_value"]
        self.longer_from = saved.get("longer_from", 0)
        self.sums = saved["sums"].to(self.sums.device)
        if not ranks.is_first:
            self.sums[:-1] = 0
