"""Where a training run is: its step, its best validation, and the loss since the last log line.

state = TrainingState(device)
state.note(loss, grad_norm)                       # after every step; nothing is read from the device
state.check_finite(loader)                        # where a line is logged, before anything is saved
improved = state.improves(value)
"""

from typing import Any

import torch
from torch import Tensor

from distill.data.loader import BatchLoader
from distill.distributed import Ranks
from distill.errors import InputError


class TrainingState:
    """What changes from step to step beside weights and optimiser; a checkpoint holds it."""

    def __init__(self, device: torch.device):
        """Start at step 0, with nothing validated."""
        self.step, self.best_step, self.best_value = 0, 0, float("-inf")
        self.results: dict[str, float] = {}  # of results.json, so far
        # On the device: reading them at every step would wait for it
        self.sums = torch.zeros(2, device=device)  # loss of this rank's lists, and steps, since the last log line
        self.first_bad = torch.full((), -1, device=device)  # first step with a loss or gradient that is not finite

    def note(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Count a step with its loss and gradient norm; whether they are finite is read later."""
        bad = ~torch.isfinite(loss + grad_norm)
        self.first_bad = torch.where((self.first_bad < 0) & bad, self.step, self.first_bad)
        self.sums += torch.stack([loss, torch.ones_like(loss)])
        self.step += 1

    def check_finite(self, loader: BatchLoader) -> None:
        """Raise InputError where the loss or gradient of a step so far was not finite; names its queries."""
        bad = int(self.first_bad)
        if bad >= 0:
            raise InputError(
                f"step {bad + 1}: the loss or its gradient is not finite (queries {' '.join(loader.query_ids(bad))}): "
                "the last checkpoint is from before; try a lower optimizer.lr, a longer optimizer.warmup, a smaller "
                "optimizer.max_grad_norm or train.precision=float32"
            )

    def take_mean_loss(self, ranks: Ranks) -> float:
        """Return the mean loss of the steps since the last call, over all ranks."""
        [loss_sum] = ranks.sum(self.sums[0])
        mean = loss_sum / self.sums[1].item()
        self.sums.zero_()
        return mean

    def improves(self, value: float) -> bool:
        """Note a validation's value; return whether it is the best so far."""
        if not value > self.best_value:
            return False
        self.best_step, self.best_value = self.step, value
        return True

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether so many steps have passed without a better validation; None: never."""
        return patience is not None and self.step - self.best_step >= patience

    def saved(self, ranks: Ranks) -> dict[str, Any]:
        """Return what a checkpoint holds of it, the same on every rank."""
        return {
            "step": self.step,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "results": self.results,
            "sums": torch.stack([ranks.sum_on_device(self.sums[0]), self.sums[1]]).cpu(),
        }

    def restore(self, saved: dict[str, Any], ranks: Ranks) -> None:
        """Go back to what a checkpoint holds; the loss of all ranks so far counts with the first one."""
        self.step, self.results = saved["step"], saved["results"]
        self.best_step, self.best_value = saved["best_step"], saved["best_value"]
        self.sums = saved["sums"].to(self.sums.device)
        if not ranks.is_first:
            self.sums[0] = 0
