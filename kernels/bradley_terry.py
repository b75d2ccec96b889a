"""RankNet with soft targets in one Triton launch that computes the loss and its gradient.

    loss = bradley_terry(scores, teacher_scores)            # scalar float32; loss.backward() is one multiplication

    L = Σ_{i<j} P_ij softplus(s_j − s_i) + (1 − P_ij) softplus(s_i − s_j),   P_ij = σ((t_i − t_j) / τ)

With d = s_j − s_i and q = 1 − P_ij = σ((t_j − t_i) / τ), a pair adds softplus(d) − q d, since softplus(−d) is
softplus(d) − d, and q − σ(d) to ∂L/∂s_i. kernels/pairs.py adds them up without storing a pair.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import LOG2_E, check_inputs, operators, register_loss, zero_counters
from .pairs import sigmoid, sum_pairs


@triton.jit
def bradley_terry_pairs(s_i, s_j, t_i, t_j, rows, columns, num_passages, table, steepness):
    gap = t_j - t_i
    counted = (gap == gap) & (rows != columns)  # NaN is padding
    d = tl.where(counted, s_j - s_i, 0.0)
    sigma, q = sigmoid(d, LOG2_E), sigmoid(tl.where(counted, gap, 0.0), steepness)
    # softplus(d) = max(d, 0) − log σ(|d|) with σ(|d|) = max(σ, 1 − σ) >= ½, and ½ where there is no pair
    return tl.maximum(d, 0.0) - q * d, tl.maximum(sigma, 1.0 - sigma), q - sigma, tl.where(counted, 1.0, 0.0)


def launch(
    scores: Tensor, teacher_scores: Tensor, counters: Tensor, temperature: float, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    steepness = LOG2_E.value / temperature
    return sum_pairs(bradley_terry_pairs, scores, teacher_scores, counters, mean, option=steepness, idle_bits=1)


register_loss("bradley_terry", "float temperature, bool mean", launch)


def bradley_terry(scores: Tensor, teacher_scores: Tensor, temperature: float = 1.0, reduction: str = "mean") -> Tensor:
    """RankNet with soft targets: Σ_{i<j} P_ij softplus(s_j − s_i) + (1 − P_ij) softplus(s_i − s_j).

    Args:
        scores: [B, K] student scores in float32, bfloat16 or float16, any strides; computed in float32.
        teacher_scores: [B, K] teacher scores t, any real dtype, NaN = padding.
        temperature: τ of P_ij = σ((t_i − t_j) / τ), above 0.
        reduction: "mean" over all pairs of the batch, or "sum".

    Pairs with a padded slot contribute nothing. The same input gives the same bits.
    Errors: ValueError for shapes that differ, for a temperature that is not above 0, for float64 scores, and for a
    device on which Triton does not run.
    Source: Burges et al. 2005, section 3, whose target probabilities may be any; Bradley and Terry 1952.
    """
    check_inputs(scores, teacher_scores, reduction, "teacher scores")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    counters = zero_counters(scores)
    return operators.bradley_terry(scores, teacher_scores, counters, temperature, mean=reduction == "mean")[0]
