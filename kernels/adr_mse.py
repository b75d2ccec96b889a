"""ADR-MSE in one Triton launch that computes the loss and its gradient.

loss = adr_mse(scores, ranks)            # scalar float32; loss.backward() is one multiplication

L = Σ_i w_i (π̂_i − r_i)², w_i = 1 / log2(r_i + 1), with the smooth ranks π̂ of kernels/smooth_ranks.py
e_i = ∂L/∂π̂_i = 2 w_i (π̂_i − r_i)
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import check_inputs, operators, register_loss, zero_counters
from .smooth_ranks import sum_of_smooth_ranks

DISCOUNTS = ("log2", "none")


@triton.jit
def discounted_error(position, rank, total):
    difference = position - rank
    weighted = difference / tl.log2(rank + 1.0)
    return weighted * difference, 2.0 * weighted, tl.full(rank.shape, 1.0, dtype=tl.float32)


@triton.jit
def squared_error(position, rank, total):
    difference = position - rank
    return difference * difference, 2.0 * difference, tl.full(rank.shape, 1.0, dtype=tl.float32)


def launch(
    scores: Tensor, ranks: Tensor, counters: Tensor, alpha: float, log2_discount: bool, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    term = discounted_error if log2_discount else squared_error
    return sum_of_smooth_ranks(term, scores, ranks, counters, alpha, mean, zero_is_padding=True)


register_loss("adr_mse", "float alpha, bool log2_discount, bool mean", launch)


def adr_mse(
    scores: Tensor, ranks: Tensor, alpha: float = 1.0, discount: str = "log2", reduction: str = "mean"
) -> Tensor:
    """ADR-MSE: Σ_i (r_i − π̂_i)² / log2(r_i + 1) with smooth ranks π̂; the same launch computes its gradient.

    Args:
        scores: [B, K] student scores in float32, bfloat16 or float16, any strides; computed in float32.
        ranks: [B, K] teacher ranks, any real dtype, 1 = best, ties at their average rank, 0 = padding.
        alpha: steepness of the smooth ranks, above 0; as it grows, they approach the exact ranks.
        discount: "log2" as in the formula, or "none" to weigh all ranks equally.
        reduction: "mean" over all real passages of the batch, or "sum".

    Padded slots do not count. The same input gives the same bits.
    Errors: ValueError for shapes that differ, for an unknown option, for float64 scores, and for a device on which
    Triton does not run.
    Source: Rank-DistiLLM, section 3; smooth ranks: Qin et al. 2010 (Appendix B prints another fraction).
    """
    check_inputs(scores, ranks, reduction)
    if discount not in DISCOUNTS:
        raise ValueError(f"discount={discount!r} is unknown: use 'log2' or 'none'")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha}: must be above 0")
    counters = zero_counters(scores)
    flags = {"log2_discount": discount == "log2", "mean": reduction == "mean"}
    return operators.adr_mse(scores, ranks, counters, alpha, **flags)[0]
