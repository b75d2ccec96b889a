"""Fusion of runs, against values worked by hand."""

import numpy as np
import pytest

from distill.retrieval.fusion import z_scores


def test_z_scores_are_those_worked_by_hand():
    # mean 5, deviations -3 -1 -1 -1 0 0 2 4, squares add up to 32 over 8: the standard deviation is 2
    assert z_scores(np.array([2.0, 4, 4, 4, 5, 5, 7, 9])).tolist() == pytest.approx(
        [-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2], abs=1e-15
    )


@pytest.mark.parametrize("scores", [[], [3.0], [0.1, 0.1, 0.1], [1e300, 1e300]])
def test_z_scores_of_equal_scores_are_zero(scores):
    z = z_scores(np.array(scores, np.float32 if len(scores) != 2 else np.float64))
    assert z.dtype == np.float64
    assert z.tolist() == [0.0] * len(scores)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200, 5e307])
def test_z_scores_do_not_depend_on_the_scale(scale):
    assert z_scores(np.array([1.0, 3.0]) * scale).tolist() == pytest.approx([-1, 1])
