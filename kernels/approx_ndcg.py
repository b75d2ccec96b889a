"""ApproxNDCG in one Triton launch that computes the loss and its gradient.

    loss = approx_ndcg(scores, gains)            # scalar float32; loss.backward() is one multiplication

    L = Σ_lists 1 − Σ_i G_i / log2(1 + π̂_i), with the smooth ranks π̂ of kernels/smooth_ranks.py
    e_i = ∂L/∂π̂_i = G_i / (ln 2 · (1 + π̂_i) · log2(1 + π̂_i)²)

The 1 of a list is shared out among its passages as G_i / Σ_j G_j, which is also what each counts as a part of a list.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import LOG2_E, check_inputs, operators, register_loss, zero_counters
from .smooth_ranks import sum_of_smooth_ranks


@triton.jit
def lost_gain(position, gain, total):
    discount = 1.0 / tl.log2(1.0 + position)
    share = gain / tl.where(total > 0.0, total, 1.0)
    return share - gain * discount, gain * discount * discount * LOG2_E / (1.0 + position), share


def launch(scores: Tensor, gains: Tensor, counters: Tensor, alpha: float, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    return sum_of_smooth_ranks(lost_gain, scores, gains, counters, alpha, mean)


register_loss("approx_ndcg", "float alpha, bool mean", launch)


def approx_ndcg(scores: Tensor, gains: Tensor, alpha: float = 1.0, reduction: str = "mean") -> Tensor:
    """ApproxNDCG: Σ_lists 1 − Σ_i G_i / log2(1 + π̂_i) with smooth ranks π̂; the same launch computes its gradient.

    Args:
        scores: [B, K] student scores in float32, bfloat16 or float16, any strides; computed in float32.
        gains: [B, K] gains of the passages as shares of the best DCG, at least 0; any real dtype, NaN = padding.
        alpha: steepness of the smooth ranks, above 0; as it grows, they approach the exact ranks.
        reduction: "mean" over all lists of the batch with a gain above 0, or "sum".

    Padded slots and lists without a gain do not count. The same input gives the same bits.
    Errors: ValueError for shapes that differ, for an alpha that is not above 0, for float64 scores, and for a device on
    which Triton does not run.
    Source: Qin et al. 2010, "A general approximation framework for direct optimization of IR measures".
    """
    check_inputs(scores, gains, reduction, "gains")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha}: must be above 0")
    return operators.approx_ndcg(scores, gains, zero_counters(scores), alpha, mean=reduction == "mean")[0]
