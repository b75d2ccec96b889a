"""From a score to the probability that a passage is relevant, as the model's files say.

    probabilities = calibration.probabilities(scores)

The order of the scores stays: no probability is higher than that of a higher score. Isotonic ones may be equal.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import InputError
from distill.storage.json_numbers import is_finite


@dataclass(frozen=True)
class Platt:
    """σ(s / temperature + offset) of a score s (Platt, 1999)."""

    temperature: float  # above 0
    offset: float
    min_grade: int  # lowest grade that counted as relevant
    num_passages: int  # that it was fitted on

    def probabilities(self, scores: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the probabilities of scores."""
        return sigmoid(np.asarray(scores, np.float64) / self.temperature + self.offset)

    def as_json(self) -> dict[str, Any]:
        """Return what distill.json holds."""
        return {"method": "platt", **asdict(self)}

    def describe(self) -> str:
        """Return the formula."""
        return f"σ(score / {self.temperature:.4g} {'-' if self.offset < 0 else '+'} {abs(self.offset):.4g})"


@dataclass(frozen=True)
class Isotonic:
    """A curve that never falls, linear between some scores and constant beyond them (Zadrozny and Elkan, 2002)."""

    scores: tuple[float, ...]  # ascending
    values: tuple[float, ...]  # the probability of each, never lower than the one before
    min_grade: int
    num_passages: int

    def probabilities(self, scores: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the probabilities of scores."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.values)

    def as_json(self) -> dict[str, Any]:
        """Return what distill.json holds."""
        return {"method": "isotonic", **asdict(self), "scores": [*self.scores], "values": [*self.values]}

    def describe(self) -> str:
        """Return it in words."""
        return f"an isotonic curve through {len(self.scores)} scores, in distill.json"


Calibration = Platt | Isotonic


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return σ of float64 logits, exact for large ones of either sign."""
    return np.exp(-np.logaddexp(0.0, -logits))


def read_calibration(settings: dict, file: Path) -> Calibration | None:
    """Return the calibration in the contents of a distill.json, None if it holds none.

    Raises InputError for one that no training has written.
    """
    found = settings.get("calibration")
    if found is None:
        return None
    values: dict[str, Any] = found if isinstance(found, dict) else {}
    min_grade, num_passages = values.get("min_grade"), values.get("num_passages")
    if type(min_grade) is int and type(num_passages) is int:
        if values.get("method") == "platt" and all(map(is_finite, (values.get("temperature"), values.get("offset")))):
            if values["temperature"] > 0:
                return Platt(values["temperature"], values["offset"], min_grade, num_passages)
        elif values.get("method") == "isotonic" and _is_curve(values.get("scores"), values.get("values")):
            return Isotonic(tuple(values["scores"]), tuple(values["values"]), min_grade, num_passages)
    raise InputError(
        f"{file}: calibration={json.dumps(found)[:80]}: must hold the method platt with a temperature above 0 and an "
        "offset, or isotonic with scores and values that rise: copy the file again from where the model was saved"
    )


def _is_curve(scores: Any, values: Any) -> bool:
    if not (isinstance(scores, list) and isinstance(values, list) and len(scores) == len(values) > 0):
        return False
    if not all(map(is_finite, scores + values)) or min(values) < 0 or max(values) > 1:
        return False
    return bool((np.diff(scores) > 0).all() and (np.diff(values) >= 0).all())
