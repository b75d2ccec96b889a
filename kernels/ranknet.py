"""RankNet in one Triton launch that computes the loss and its gradient.

    loss = ranknet(scores, ranks)            # scalar float32; loss.backward() is one multiplication

    L = Σ_{(i,j): r_i < r_j} softplus(s_j − s_i)
    ∂L/∂s_i = Σ_{j: r_j < r_i} σ(s_i − s_j) − Σ_{j: r_i < r_j} σ(s_j − s_i)

Let t_ij = sign(r_j − r_i) and d_ij = t_ij (s_j − s_i), the lead of the worse passage. Then both are sums over all j:
L = ½ Σ_ij |t_ij| softplus(d_ij) and ∂L/∂s_i = −Σ_j t_ij σ(d_ij). One program owns a few rows i and loops over the
columns j; no pair leaves its registers. Plain PyTorch needs several [B, K, K] tensors for the same result.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import (
    OPTIONS,
    ROWS,
    TOTAL_BLOCK,
    begin,
    check_inputs,
    load_places,
    num_columns,
    operators,
    register_loss,
    write_total,
    zero_counters,
)

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
MAX_FACTORS = 64  # each is at least ½, so their product stays far above the smallest float32


@triton.jit(do_not_specialize=["num_passages", "score_list_stride", "score_stride", "rank_list_stride", "rank_stride"])
def ranknet_kernel(
    scores,  # [B, K]
    ranks,  # [B, K]
    gradient,  # [B, K] float32, of the sum
    partials,  # [2, N] float32
    counters,  # [3] int32
    loss,  # scalar
    num_terms,  # scalar
    num_passages,
    score_list_stride,
    score_stride,
    rank_list_stride,
    rank_stride,
    MEAN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MAX_FACTORS: tl.constexpr,
    TOTAL_BLOCK: tl.constexpr,
):
    part, num_parts = tl.program_id(0), tl.num_programs(0)
    parts_per_list = tl.cdiv(num_passages, ROWS)
    list_index = (part // parts_per_list).to(tl.int64)
    rows = part % parts_per_list * ROWS + tl.arange(0, ROWS)
    score_row = scores + list_index * score_list_stride
    rank_row = ranks + list_index * rank_list_stride

    # NaN is neither below nor above any rank, so a padded slot forms no pair
    r_i = load_places(rank_row, rank_stride, rows, num_passages)  # [ROWS]
    real = r_i > 0
    r_i = tl.where(real, r_i, float("nan"))
    s_i = tl.where(real, load_places(score_row, score_stride, rows, num_passages), 0.0)
    slopes = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    leads = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    logs = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    pairs = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, num_passages, MAX_FACTORS * COLUMNS):
        product = tl.full((ROWS, COLUMNS), 1.0, dtype=tl.float32)
        for start in range(first, min(first + MAX_FACTORS * COLUMNS, num_passages), COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            r_j = load_places(rank_row, rank_stride, columns, num_passages)  # [COLUMNS]
            s_j = tl.where(r_j > 0, load_places(score_row, score_stride, columns, num_passages), 0.0)
            r_j = tl.where(r_j > 0, r_j, float("nan"))
            t = (r_i[:, None] < r_j[None, :]).to(tl.float32) - (r_i[:, None] > r_j[None, :]).to(tl.float32)
            d = t * (s_j[None, :] - s_i[:, None])
            # σ(d) = 1 / (1 + exp(−d)); rsqrt(y)² takes two instructions and is 2.5e-7 off; 1 / y takes six
            root = tl.rsqrt(1.0 + tl.exp2(d * -LOG2_E))
            sigma = root * root
            slopes += t * sigma
            # softplus(d) = max(d, 0) − log σ(|d|); one logarithm covers many factors σ(|d|) = max(σ, 1 − σ) >= ½
            leads += tl.maximum(d, 0.0)
            product *= tl.maximum(sigma, 1.0 - sigma)
            pairs += tl.abs(t)
        logs += tl.log2(product)
    pairs = tl.sum(pairs, axis=1)  # [ROWS]
    # Entries that are not pairs have d = 0 and contributed a factor of ½: exactly 1 bit each
    num_tiles = tl.cdiv(num_passages, COLUMNS)
    bits = tl.sum(logs, axis=1) + (num_tiles * COLUMNS - pairs)
    losses = tl.where(real, tl.sum(leads, axis=1) - bits * LN_2, 0.0)
    inside = rows < num_passages
    tl.store(gradient + list_index * num_passages + rows, -tl.sum(slopes, axis=1), mask=inside)
    # Each pair was counted from both sides
    tl.store(partials + part, 0.5 * tl.sum(losses, axis=0))
    tl.store(partials + num_parts + part, 0.5 * tl.sum(pairs, axis=0))

    tl.debug_barrier()  # all threads must have written before the counter rises
    if tl.atomic_add(counters, 1, sem="acq_rel") == num_parts - 1:
        write_total(partials, num_parts, loss, num_terms, MEAN, TOTAL_BLOCK)
        tl.store(counters, 0)


def launch(scores: Tensor, ranks: Tensor, counters: Tensor, mean: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    outputs, num_parts = begin(scores)
    if num_parts == 0:
        return outputs
    loss, gradient, num_terms = outputs
    num_passages = scores.shape[1]
    partials = gradient.new_empty((2, num_parts))
    ranknet_kernel[(num_parts,)](
        *(scores, ranks, gradient, partials, counters, loss, num_terms),
        *(num_passages, *scores.stride(), *ranks.stride()),
        MEAN=mean,
        ROWS=ROWS,
        COLUMNS=num_columns(num_passages),
        MAX_FACTORS=MAX_FACTORS,
        TOTAL_BLOCK=TOTAL_BLOCK,
        **OPTIONS,
    )
    return outputs


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
