"""Pairwise hinge in one Triton launch that computes the loss and its gradient.

    loss = hinge(scores, labels)            # scalar float32; loss.backward() is one multiplication

    L = Σ_{(i,j): y_i > y_j} max(0, m − (s_i − s_j))

With t_ij = sign(y_i − y_j) and d_ij = t_ij (s_j − s_i), the lead of the worse passage, a pair with t ≠ 0 adds
max(0, m + d), and −t to ∂L/∂s_i where m + d > 0. kernels/pairs.py adds them up without storing a pair.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import check_inputs, operators, register_loss, zero_counters
from .pairs import sign, sum_pairs


@triton.jit
def hinge_pairs(s_i, s_j, y_i, y_j, rows, columns, num_passages, table, margin):
    t = sign(y_i - y_j)
    violation = tl.where(t == 0.0, 0.0, t * (s_j - s_i) + margin)
    met = violation <= 0.0  # not so for NaN, which must show in the loss
    return tl.where(met, 0.0, violation), 1.0, tl.where(met, 0.0, -t), tl.abs(t)


def launch(
    scores: Tensor, labels: Tensor, counters: Tensor, margin: float, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    return sum_pairs(hinge_pairs, scores, labels, counters, mean, option=margin)


register_loss("hinge", "float margin, bool mean", launch)


def hinge(scores: Tensor, labels: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """Pairwise hinge: Σ_{(i,j): y_i > y_j} max(0, margin − (s_i − s_j)); the same launch computes its gradient.

    Args:
        scores: [B, K] student scores in float32, bfloat16 or float16, any strides; computed in float32.
        labels: [B, K] graded labels, any real dtype, NaN = padding.
        margin: by how much the better passage should lead, in units of the score.
        reduction: "mean" over all pairs of different labels of the batch, or "sum".

    Pairs of equal labels and pairs with a padded slot contribute nothing. The same input gives the same bits.
    Errors: ValueError for shapes that differ, for float64 scores, and for a device on which Triton does not run.
    Source: Herbrich et al. 2000; Morand et al. 2026, section 3.
    """
    check_inputs(scores, labels, reduction, "labels")
    return operators.hinge(scores, labels, zero_counters(scores), margin, mean=reduction == "mean")[0]
