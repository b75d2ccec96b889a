"""What a query's first-stage scores are used for: numbers that the model reads, or an interpolation with its scores.

use = FirstStageUse.of(model, passages, first_stage_scores, weight)
pairs = read_pairs(model, queries, passages, use.numbers)
order, ordered = use.order(scores)
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.errors import InputError
from distill.models.interpolation import check_scores, check_weight, interpolate


@dataclass(frozen=True)
class FirstStageUse:
    """How the first-stage scores of one query's K passages count; they may not."""

    numbers: Iterable[int | None] | None = None  # that the model reads in the pairs
    scores: np.ndarray | None = None  # [K] float64, to interpolate with
    weight: float = 1.0  # the model's share in that

    @classmethod
    def of(cls, model, passages: list[str], scores: Iterable[float] | None, weight: float | None) -> "FirstStageUse":
        """Return how scores and weight are used; raises InputError for those that do not suit the model."""
        reads_them = model.first_stage_score is not None
        if reads_them and scores is None:
            raise InputError(
                "this model reads the first stage's score of each passage: give first_stage_scores, those of the "
                "query's whole list"
            )
        if scores is None and weight is None:
            return cls()
        checked = check_scores(scores, len(passages))
        numbers = model.template.numbers(checked) if reads_them else None
        if reads_them and weight is None:
            return cls(numbers)
        return cls(numbers, checked, check_weight(weight, model.interpolation))

    def order(self, values: Tensor) -> tuple[list[int], list[float]]:
        """Return the places of the model's scores [K] from the highest down, and in that order the scores that decide.

        Equal ones keep their order; of equal interpolated ones, `interpolate` says which comes first.
        """
        if self.scores is None or not len(values):
            order = torch.argsort(values, descending=True, stable=True)
            return order.tolist(), values[order].tolist()
        places, mixed = interpolate(values.double().numpy(), self.scores, self.weight)
        return places.tolist(), mixed.tolist()
