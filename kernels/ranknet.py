"""RankNet in one Triton launch that computes the loss and its gradient.

    loss = ranknet(scores, ranks)            # scalar float32; loss.backward() is one multiplication

    L = Σ_{(i,j): r_i < r_j} softplus(s_j − s_i)
    ∂L/∂s_i = Σ_{j: r_j < r_i} σ(s_i − s_j) − Σ_{j: r_i < r_j} σ(s_j − s_i)

Let t_ij = sign(r_j − r_i) and d_ij = t_ij (s_j − s_i), the lead of the worse passage. Then both are sums over all j:
L = ½ Σ_ij |t_ij| softplus(d_ij) and ∂L/∂s_i = −Σ_j t_ij σ(d_ij). Plain PyTorch needs several [B, K, K] tensors for the
same result.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import LOG2_E, check_inputs, operators, register_loss, zero_counters
from .pairs import sigmoid, sum_pairs


@triton.jit
def ranknet_pairs(s_i, s_j, r_i, r_j, rows, columns, num_passages, table, option):
    t = (r_i < r_j).to(tl.float32) - (r_i > r_j).to(tl.float32)
    d = t * (s_j - s_i)
    sigma = sigmoid(d, LOG2_E)
    # softplus(d) = max(d, 0) − log σ(|d|) with σ(|d|) = max(σ, 1 − σ) >= ½, and ½ where there is no pair
    return tl.maximum(d, 0.0), tl.maximum(sigma, 1.0 - sigma), -t * sigma, tl.abs(t)


def launch(scores: Tensor, ranks: Tensor, counters: Tensor, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    return sum_pairs(ranknet_pairs, scores, ranks, counters, mean, zero_is_padding=True, idle_bits=1)


register_loss("ranknet", "bool mean", launch)


def ranknet(scores: Tensor, ranks: Tensor, reduction: str = "mean") -> Tensor:
    """RankNet: Σ_{(i,j): r_i < r_j} softplus(s_j − s_i); the same launch computes its gradient.

    Args:
        scores: [B, K] student scores in float32, bfloat16 or float16, any strides; computed in float32.
        ranks: [B, K] teacher ranks, any real dtype, 1 = best, ties at their average rank, 0 = padding.
        reduction: "mean" over all real pairs of the batch, or "sum".

    Pairs of tied ranks and pairs with a padded slot contribute nothing. The same input gives the same bits.
    Errors: ValueError for shapes that differ, for float64 scores, and for a device on which Triton does not run.
    Source: Burges et al. 2005; Rank-DistiLLM, section 3 (whose formula prints the opposite sign).
    """
    check_inputs(scores, ranks, reduction)
    return operators.ranknet(scores, ranks, zero_counters(scores), mean=reduction == "mean")[0]
