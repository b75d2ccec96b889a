"""Averages of weights: a moving one over the steps, and a soup of the checkpoints that validated best.

average = MovingAverage(model, decay=0.999)       # decay=None: nothing is averaged
average.update(step)                              # after every step
with average.in_place(): ...                      # the model has the averaged weights
soup = Soup(directory, size=3)                    # size=None: no soup
joined = soup.offer(step, value, model)           # after every validation
soup.stir(model, ranks)                           # the model has the mean of the members' weights
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.distributed import Ranks
from distill.models.cross_encoder import CrossEncoder
from distill.training.checkpoint import read_checkpoint, save_checkpoint
from distill.training.weights import merged_weights

log = logging.getLogger(__name__)


class MovingAverage:
    """An exponential moving average of a model's trained weights: w̄ ← d·w̄ + (1 − d)·w after every step.

    In step t the decay d is at most (1 + t) / (10 + t), so that the average soon leaves the first weights behind.
    """

    def __init__(self, model: nn.Module, decay: float | None):
        """Start from the present weights; decay=None: there is no average, and nothing is copied."""
        self.decay = decay
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.weights = {} if decay is None else trained  # of the model
        self.averages = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        if self.decay is not None:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_([*self.averages.values()], [*self.weights.values()], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights inside the `with` block, and its own back at the end."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.copy_to_model()
        try:
            yield
        finally:
            self._set(own)

    def copy_to_model(self) -> None:
        """Give the model the averaged weights for good."""
        self._set(self.averages)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by the weights' names, as checkpoints contain them."""
        return self.averages

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore the averages of a checkpoint; without any, as in those of earlier versions, start from the model."""
        for name, average in self.averages.items():
            average.copy_(saved.get(name, self.weights[name].detach()))


class Soup:
    """The weights of the best validations, in files of their own, and their mean (Wortsman et al., 2022, uniform)."""

    def __init__(self, directory: Path, size: int | None):
        """Start without members; size: how many there are at most. Nothing is read or written yet."""
        self.directory, self.size = directory / "checkpoints", size or 0
        self.members: dict[int, float] = {}  # step -> value of its validation, the best first

    def offer(self, step: int, value: float, model: CrossEncoder | None) -> bool:
        """Take a validation's model if it is one of the best; return whether it is. Of equal values, the earlier stay.

        model: its weights are written to a file; None: another rank writes them. A member that leaves keeps its file
        until the next one joins, since the checkpoint before the last names it. Raises DiskError.
        """
        ranked = sorted({**self.members, step: value}.items(), key=lambda member: (-member[1], member[0]))
        members = dict(ranked[: self.size])
        if step not in members:
            return False
        if model is not None:
            for path in self.directory.glob("step-*.pt"):
                if path.stem.removeprefix("step-") not in map(str, self.members):
                    path.unlink()
            save_checkpoint(self._path(step), {"step": step, "model": merged_weights(model)})
        self.members = members
        return True

    def stir(self, model: nn.Module, ranks: Ranks) -> None:
        """Give the model the mean of the members' weights, on all ranks; the first one reads their files.

        A member whose file is missing or damaged is left out with a warning.
        """
        if ranks.is_first and (means := self._means()):
            model.load_state_dict(means)
        ranks.copy_from_first(model)

    def _means(self) -> dict[str, Tensor]:
        """Return the mean of the members' weights, in float64; of what is no floating-point number, the last one's."""
        total: dict[str, Tensor] = {}
        number = 0
        for step in sorted(self.members):
            content, damage = read_checkpoint(self._path(step))
            if damage is not None:
                log.warning("%s: left out of the soup: %s", self._path(step), damage)
                continue
            number += 1
            for name, weight in content["model"].items():
                weight = weight.double() if weight.is_floating_point() else weight
                total[name] = total[name] + weight if name in total and weight.is_floating_point() else weight
        return {name: sums / number if sums.is_floating_point() else sums for name, sums in total.items()}

    def keeps(self, value: float, best_value: float) -> bool:
        """Return whether the soup validates no worse than the best of its members, and log both."""
        kept = value >= best_value
        log.info(
            "the mean of the %d best checkpoints (steps %s) validates at %.4f, the best of them at %.4f: %s",
            *(len(self.members), ", ".join(map(str, sorted(self.members))), value, best_value),
            "the mean is kept" if kept else "the best is kept",
        )
        return kept

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step}.pt"

    def state_dict(self) -> dict[int, float]:
        """Return the members, as checkpoints contain them."""
        return self.members

    def load_state_dict(self, saved: dict[int, float]) -> None:
        """Restore the members of a checkpoint."""
        self.members = dict(saved)
