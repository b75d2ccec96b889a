"""Which values of a JSON file count as numbers: not true and false, and no whole number too large for a float."""

import math
import sys
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that a float can hold, infinite or NaN included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def is_finite(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number that a float can hold."""
    return is_number(value) and math.isfinite(value)
