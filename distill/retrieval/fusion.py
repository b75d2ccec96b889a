"""Fusion of runs of the same queries: one ranking per query from those of several rankers.

    z = z_scores(scores)

P passages of a list.
"""

import numpy as np


def z_scores(scores: np.ndarray) -> np.ndarray:
    """Return a list's scores [P] in standard deviations above their mean, float64.

    The standard deviation is the population's. Scores that are all equal, or only one, give zeros.
    """
    scores = np.asarray(scores, np.float64)
    if not len(scores) or scores.min() == scores.max():
        return np.zeros(len(scores))
    _, exponent = np.frexp(np.abs(scores).max())
    scores = np.ldexp(scores, -exponent)  # exact, and no sum or square overflows or vanishes
    deviations = scores - scores.mean()
    return deviations / np.sqrt((deviations**2).mean())
