"""The student's scores interpolated with the first stage's: w·z(student) + (1 − w)·z(first stage).

    order, scores = interpolate(student_scores, first_stage_scores, weight=0.65)

z-scores are taken over the list of one query. K passages of a list.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import InputError
from distill.models.given_texts import is_sequence
from distill.retrieval.fusion import z_scores


@dataclass(frozen=True)
class Interpolation:
    """The weight that a model's files hold, and what it was chosen by."""

    weight: float  # the student's share, from 0 to 1
    first_stages: tuple[str, ...]  # names of the runs that it was chosen with
    measure: str
    num_queries: int

    def as_json(self) -> dict[str, Any]:
        """Return what distill.json holds."""
        return dataclasses.asdict(self) | {"first_stages": list(self.first_stages)}


def interpolate(student: np.ndarray, first_stage: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the passages' places [K] from best to worst, and their interpolated scores in that order.

    Of passages with equal interpolated scores, the one with the higher score of the student comes first; at weight 0,
    where the student has no say, that of the first stage. So weight 1 gives the student's order, and 0 the first
    stage's. Passages equal in this score, too, keep their order.
    """
    scores = weight * z_scores(student) + (1 - weight) * z_scores(first_stage)
    order = np.lexsort((-(student if weight > 0 else first_stage), -scores))
    return order, scores[order]


def is_weight(value: object) -> bool:
    """Whether a value is a number from 0 to 1."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1


def check_weight(weight: float | None, own: Interpolation | None) -> float:
    """Return the weight to interpolate with, the model's own if none is given; raises InputError without a good one."""
    if weight is None and own is not None:
        return own.weight
    if weight is None:
        raise InputError(
            "this model's files hold no weight to interpolate with: give one, as in rank(query, passages, "
            "first_stage_scores=scores, weight=0.5)"
        )
    if not is_weight(weight):
        raise InputError(f"weight={weight!r}: must be a number from 0 (the first stage's order) to 1 (the model's)")
    return weight


def check_scores(scores: Iterable[float] | None, num_passages: int) -> np.ndarray:
    """Return first-stage scores as float64; raises InputError if there are none, not one a passage, or not finite."""
    if scores is None:
        raise InputError("weight without first_stage_scores: give the first stage's score of each passage, too")
    values = _as_numbers(scores)
    if values is None:
        raise InputError(f"first_stage_scores={str(scores)[:60]}: must be a list of numbers")
    if values.shape != (num_passages,):
        raise InputError(
            f"first_stage_scores holds {values.size} scores for {num_passages} passages: give one for each, in their "
            "order"
        )
    for index in np.flatnonzero(~np.isfinite(values)).tolist():
        raise InputError(f"first_stage_scores: passage {index} has the score {values[index]}: must be finite")
    return values


def _as_numbers(values: Iterable[float]) -> np.ndarray | None:
    """Return a list of numbers as float64; None for anything else, such as texts, which NumPy would read as numbers."""
    if not is_sequence(values):
        return None
    listed = [*values]
    if any(isinstance(value, str | bytes) for value in listed):
        return None
    try:
        numbers = np.asarray(listed, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 else None


def read_interpolation(settings: dict, file: Path) -> Interpolation | None:
    """Return the interpolation in the contents of a distill.json, None if it holds none.

    Raises InputError for one that no training has written.
    """
    found = settings.get("interpolation")
    if found is None:
        return None
    values: dict[str, Any] = found if isinstance(found, dict) else {}
    weight, first_stages = values.get("weight"), values.get("first_stages")
    measure, num_queries = values.get("measure"), values.get("num_queries")
    are_names = isinstance(first_stages, list) and all(isinstance(name, str) for name in first_stages)
    if not (is_weight(weight) and are_names and isinstance(measure, str) and type(num_queries) is int):
        raise InputError(
            f"{file}: interpolation={json.dumps(found)[:80]}: must hold a weight from 0 to 1, "
            "first_stages, measure and num_queries: copy the file again from where the model was saved"
        )
    return Interpolation(values["weight"], tuple(values["first_stages"]), measure, num_queries)
