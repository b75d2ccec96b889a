"""ADR-MSE in one Triton launch that computes the loss and its gradient.

    loss = adr_mse(scores, ranks)            # scalar float32; loss.backward() is one multiplication

    π̂_i = ½ + Σ_j σ(x_ij), x_ij = α(s_j − s_i)          (j = i adds σ(0) = ½)
    L = Σ_i w_i (π̂_i − r_i)², w_i = 1 / log2(r_i + 1)
    ∂L/∂s_k = α Σ_j σ'(x_kj)(e_j − e_k), e_i = 2 w_i (π̂_i − r_i)

A gradient needs the errors e of its whole list first. One launch does both passes over the pairs: each program draws a
ticket; the first half of the tickets computes errors, and the second half waits for all of them, then computes
gradients. A waiting program drew its ticket after all the programs that it waits for, and those wait for nothing. So
the launch ends, however few programs the device runs at a time.
"""

import torch
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

DISCOUNTS = ("log2", "none")
LOG2_E = tl.constexpr(1.4426950408889634)
MAX_EXPONENT = tl.constexpr(
    20.0
)  # of each factor, so that their product is as exact as one exponential; see `sigmoids`


@triton.jit
def range_of_list(score_row, rank_row, score_stride, rank_stride, num_passages, BLOCK: tl.constexpr):
    """Return the lowest and the highest score of a list's real passages."""
    low = tl.full((BLOCK,), float("inf"), dtype=tl.float32)
    high = tl.full((BLOCK,), -float("inf"), dtype=tl.float32)
    for start in range(0, num_passages, BLOCK):
        places = start + tl.arange(0, BLOCK)
        real = load_places(rank_row, rank_stride, places, num_passages) > 0
        values = load_places(score_row, score_stride, places, num_passages)
        low = tl.minimum(low, tl.where(real, values, float("inf")))
        high = tl.maximum(high, tl.where(real, values, -float("inf")))
    return tl.min(low, axis=0), tl.max(high, axis=0)


@triton.jit
def sigmoids(s_i, s_j, steepness, middle, moderate):
    """Return σ(α(s_j − s_i)), [ROWS, COLUMNS], with steepness = α log2(e).

    In a list of moderate range, exp(α(s_i − s_j)) is the product of one number per passage, so that the reciprocal is
    the only special function per pair. In other lists these numbers would overflow, and each pair needs an exponential.
    """
    if moderate:
        odds = tl.exp2(steepness * (s_i - middle))[:, None] * tl.exp2(steepness * (middle - s_j))[None, :]
    else:
        odds = tl.exp2(steepness * (s_i[:, None] - s_j[None, :]))
    root = tl.rsqrt(1.0 + odds)  # rsqrt(y)² takes two instructions and is 2.5e-7 off; 1 / y takes six
    return root * root


@triton.jit(
    do_not_specialize=[
        "num_passages",
        "num_parts",
        "score_list_stride",
        "score_stride",
        "rank_list_stride",
        "rank_stride",
    ]
)
def adr_mse_kernel(
    scores,  # [B, K]
    ranks,  # [B, K]
    errors,  # [B, K] float32: e_i, from the first half of the programs to the second
    gradient,  # [B, K] float32, of the sum
    partials,  # [2, N] float32
    counters,  # [3] int32: tickets drawn, parts with errors written, parts with gradients written
    loss,  # scalar
    num_terms,  # scalar
    alpha,
    num_passages,
    num_parts,
    score_list_stride,
    score_stride,
    rank_list_stride,
    rank_stride,
    LOG2_DISCOUNT: tl.constexpr,
    MEAN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANGE_BLOCK: tl.constexpr,
    TOTAL_BLOCK: tl.constexpr,
):
    ticket = tl.atomic_add(counters, 1, sem="relaxed")
    part = ticket % num_parts
    parts_per_list = tl.cdiv(num_passages, ROWS)
    list_index = (part // parts_per_list).to(tl.int64)
    rows = part % parts_per_list * ROWS + tl.arange(0, ROWS)
    inside = rows < num_passages
    score_row = scores + list_index * score_list_stride
    rank_row = ranks + list_index * rank_list_stride
    error_row = errors + list_index * num_passages

    steepness = alpha * LOG2_E
    low, high = range_of_list(score_row, rank_row, score_stride, rank_stride, num_passages, RANGE_BLOCK)
    middle = 0.5 * low + 0.5 * high
    moderate = steepness * (high - low) < 2 * MAX_EXPONENT
    r_i = load_places(rank_row, rank_stride, rows, num_passages)  # [ROWS]
    s_i = tl.where(r_i > 0, load_places(score_row, score_stride, rows, num_passages), middle)
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    # A padded slot scores -inf: its sigmoid and the sigmoid's derivative are 0
    if ticket < num_parts:
        for start in range(0, num_passages, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            r_j = load_places(rank_row, rank_stride, columns, num_passages)  # [COLUMNS]
            s_j = tl.where(r_j > 0, load_places(score_row, score_stride, columns, num_passages), -float("inf"))
            sums += sigmoids(s_i, s_j, steepness, middle, moderate)
        difference = tl.where(r_i > 0, 0.5 + tl.sum(sums, axis=1) - r_i, 0.0)  # [ROWS]
        weighted = difference
        if LOG2_DISCOUNT:
            weighted = difference / tl.log2(tl.where(r_i > 0, r_i, 1.0) + 1.0)
        tl.store(error_row + rows, 2.0 * weighted, mask=inside)
        tl.store(partials + part, tl.sum(weighted * difference, axis=0))
        tl.store(partials + num_parts + part, tl.sum((r_i > 0).to(tl.float32), axis=0))
        tl.debug_barrier()  # all threads must have written before the counter rises
        if tl.atomic_add(counters + 1, 1, sem="acq_rel") == num_parts - 1:
            write_total(partials, num_parts, loss, num_terms, MEAN, TOTAL_BLOCK)
    else:
        while tl.atomic_add(counters + 1, 0, sem="acquire") < num_parts:
            pass
        e_i = tl.load(error_row + rows, mask=inside, other=0.0, cache_modifier=".cg")  # [ROWS]
        for start in range(0, num_passages, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            r_j = load_places(rank_row, rank_stride, columns, num_passages)  # [COLUMNS]
            s_j = tl.where(r_j > 0, load_places(score_row, score_stride, columns, num_passages), -float("inf"))
            e_j = tl.load(error_row + columns, mask=columns < num_passages, other=0.0, cache_modifier=".cg")
            sigma = sigmoids(s_i, s_j, steepness, middle, moderate)
            sums += (sigma - sigma * sigma) * (e_j[None, :] - e_i[:, None])
        slopes = tl.where(r_i > 0, alpha * tl.sum(sums, axis=1), 0.0)  # [ROWS]
        tl.store(gradient + list_index * num_passages + rows, slopes, mask=inside)
        if tl.atomic_add(counters + 2, 1, sem="acq_rel") == num_parts - 1:
            for counter in tl.static_range(3):
                tl.store(counters + counter, 0)


def launch(
    scores: Tensor, ranks: Tensor, counters: Tensor, alpha: float, log2_discount: bool, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum."""
    outputs, num_parts = begin(scores)
    if num_parts == 0:
        return outputs
    loss, gradient, num_terms = outputs
    num_passages = scores.shape[1]
    errors, partials = torch.empty_like(gradient), gradient.new_empty((2, num_parts))
    adr_mse_kernel[(2 * num_parts,)](
        *(scores, ranks, errors, gradient, partials, counters, loss, num_terms),
        *(alpha, num_passages, num_parts, *scores.stride(), *ranks.stride()),
        LOG2_DISCOUNT=log2_discount,
        MEAN=mean,
        ROWS=ROWS,
        COLUMNS=num_columns(num_passages),
        RANGE_BLOCK=min(triton.next_power_of_2(num_passages), 1024),
        TOTAL_BLOCK=TOTAL_BLOCK,
        **OPTIONS,
    )
    return outputs


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
