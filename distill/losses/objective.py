"""What training minimises: a loss, or a mixture of several, each with its own target, weight and number of terms.

    objective = Objective(cfg.loss)
    num_terms = objective.count_terms(targets, mask).clamp(min=1)                       # [parts], of the whole step
    losses = objective(scores, targets, mask) / num_terms                               # [parts]
    loss = objective.weigh(losses, objective.weights(step, num_steps))                  # scalar

A single loss is a mixture of one part with weight 1. If the model has an exit, a score after an inner layer, that score
is trained by the same losses: they are further parts, weighted by exit_weight.
Shapes: B lists, K passages per list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill.losses import make_loss
from distill.targets import part_targets, parts_of


@dataclass
class Part:
    """One loss: its sum over lists, and the number of its terms, 0 where the sum is not divided by them."""

    loss: Callable[..., Tensor]
    count: Callable[[Tensor, Tensor], Tensor]
    target: str  # name of what it learns from
    guide: str | None  # name of the scores that guide it
    averaged: bool  # over the terms of the step
    weights: tuple[float, float]  # at the first step, and at the last
    of_exit: bool = False  # of the score after an inner layer


class Objective:
    """The losses of a configuration, with their weights."""

    def __init__(self, loss: Mapping[str, Any], exit_weight: float | None = None):
        """Take the configuration of a loss; the names are those of a mixture's parts, [""] for any other loss.

        exit_weight: that of the losses on a second score; their names begin with "exit". None: there is no such score.
        """
        self.parts: list[Part] = []
        self.names = list(parts_of(loss))
        for name, options in parts_of(loss).items():
            function, count = make_loss(**options)
            weights = _first_and_last(loss["weights"][name]) if name else (1.0, 1.0)
            target, *guides = part_targets(loss, name)
            guide = guides[0] if guides else None
            self.parts.append(Part(function, count, target, guide, options["reduction"] == "mean", weights))
        if exit_weight is not None:
            self.names = [name or "full" for name in self.names] + [f"exit/{name}".strip("/") for name in self.names]
            self.parts += [_of_exit(part, exit_weight) for part in self.parts]

    def __call__(self, scores: Tensor, targets: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Return the losses [parts] of scores [B, K], each summed over its terms.

        scores: with an exit, [2, B, K] of the last layer and of the exit. targets: of [B, K], NaN for passages that a
        teacher lacks: what it teaches leaves them out.
        """
        losses = []
        for part in self.parts:
            guide = {} if part.guide is None else {"guide": targets[part.guide]}
            own = scores if scores.dim() == 2 else scores[int(part.of_exit)]
            losses.append(part.loss(own, *_known(targets[part.target], mask), **guide))
        return torch.stack(losses)

    def count_terms(self, targets: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Return the number of terms [parts] that each loss is divided by, 0 for a loss with reduction=sum."""
        counts = [part.count(*_known(targets[part.target], mask)) * part.averaged for part in self.parts]
        return torch.stack(counts)

    def weights(self, step: int, num_steps: int) -> list[float]:
        """Return the weights of the parts at a step, counted from 0: linear from the first step to the last."""
        share = step / max(num_steps - 1, 1)
        return [first + (last - first) * share for first, last in (part.weights for part in self.parts)]

    def weigh(self, losses: Tensor, weights: Sequence[float]) -> Tensor:
        """Return the weighted sum of losses [parts], a scalar."""
        total = losses[0] * weights[0]
        for loss, weight in zip(losses[1:], weights[1:], strict=True):
            total = total + loss * weight
        return total


def _of_exit(part: Part, weight: float) -> Part:
    first, last = part.weights
    return replace(part, weights=(weight * first, weight * last), of_exit=True)


def _first_and_last(weight: Any) -> tuple[float, float]:
    return (float(weight), float(weight)) if isinstance(weight, int | float) else (float(weight[0]), float(weight[1]))


def _known(target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return a target with 0 where there is none, and the mask of the passages that have one."""
    known = mask & ~target.isnan()
    return target.masked_fill(~known, 0.0), known
