"""The tile skeleton of losses of smooth ranks: one Triton launch computes the loss and its gradient.

    outputs = sum_of_smooth_ranks(adr_mse_term, scores, ranks, counters, alpha, mean, zero_is_padding=True)

    π̂_i = ½ + Σ_j σ(x_ij), x_ij = α(s_j − s_i)          (j = i adds σ(0) = ½)
    L = Σ_i f(π̂_i, t_i)
    ∂L/∂s_k = α Σ_j σ'(x_kj)(e_j − e_k), e_i = ∂f/∂π̂_i

A loss is one function over some passages [ROWS]: term, error, counted = f(position, target, total). position is π̂_i;
target is not padded; total is the sum of the list's targets; counted is what the passage adds to the number of terms.

A gradient needs the errors e of its whole list first. One launch does both passes over the pairs: each program draws a
ticket; the first half of the tickets computes errors, and the second half waits for all of them, then computes
gradients. A waiting program drew its ticket after all the programs that it waits for, and those wait for nothing. So
the launch ends, however few programs the device runs at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import LOG2_E, OPTIONS, ROWS, TOTAL_BLOCK, begin, load_passages, num_columns, write_total

# Of each factor, so that their product is as exact as one exponential; see `sigmoids`
MAX_EXPONENT = tl.constexpr(20.0)


@triton.jit
def survey(
    score_row,
    target_row,
    score_stride,
    target_stride,
    num_passages,
    ZERO_IS_PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the lowest and the highest score of a list's real passages, and the sum of their targets."""
    low = tl.full((BLOCK,), float("inf"), dtype=tl.float32)
    high = tl.full((BLOCK,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, num_passages, BLOCK):
        places = start + tl.arange(0, BLOCK)
        targets, values = load_passages(
            score_row, target_row, score_stride, target_stride, places, num_passages, 0.0, ZERO_IS_PADDING
        )
        real = targets == targets
        low = tl.minimum(low, tl.where(real, values, float("inf")))
        high = tl.maximum(high, tl.where(real, values, -float("inf")))
        total += tl.where(real, targets, 0.0)
    return tl.min(low, axis=0), tl.max(high, axis=0), tl.sum(total, axis=0)


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
        "target_list_stride",
        "target_stride",
    ]
)
def smooth_ranks_kernel(
    scores,  # [B, K]
    targets,  # [B, K]
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
    target_list_stride,
    target_stride,
    TERM: tl.constexpr,
    ZERO_IS_PADDING: tl.constexpr,
    MEAN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SURVEY_BLOCK: tl.constexpr,
    TOTAL_BLOCK: tl.constexpr,
):
    ticket = tl.atomic_add(counters, 1, sem="relaxed")
    part = ticket % num_parts
    parts_per_list = tl.cdiv(num_passages, ROWS)
    list_index = (part // parts_per_list).to(tl.int64)
    rows = part % parts_per_list * ROWS + tl.arange(0, ROWS)
    inside = rows < num_passages
    score_row = scores + list_index * score_list_stride
    target_row = targets + list_index * target_list_stride
    error_row = errors + list_index * num_passages

    steepness = alpha * LOG2_E
    low, high, total = survey(
        score_row, target_row, score_stride, target_stride, num_passages, ZERO_IS_PADDING, SURVEY_BLOCK
    )
    middle = 0.5 * low + 0.5 * high
    moderate = steepness * (high - low) < 2 * MAX_EXPONENT
    t_i, s_i = load_passages(
        score_row, target_row, score_stride, target_stride, rows, num_passages, middle, ZERO_IS_PADDING
    )  # [ROWS]
    real = t_i == t_i
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    # A padded slot scores -inf: its sigmoid and the sigmoid's derivative are 0
    if ticket < num_parts:
        for start in range(0, num_passages, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            _, s_j = load_passages(
                score_row,
                target_row,
                score_stride,
                target_stride,
                columns,
                num_passages,
                -float("inf"),
                ZERO_IS_PADDING,
            )  # [COLUMNS]
            sums += sigmoids(s_i, s_j, steepness, middle, moderate)
        term, error, counted = TERM(0.5 + tl.sum(sums, axis=1), tl.where(real, t_i, 1.0), total)  # [ROWS]
        tl.store(error_row + rows, tl.where(real, error, 0.0), mask=inside)
        tl.store(partials + part, tl.sum(tl.where(real, term, 0.0), axis=0))
        tl.store(partials + num_parts + part, tl.sum(tl.where(real, counted, 0.0), axis=0))
        tl.debug_barrier()  # all threads must have written before the counter rises
        if tl.atomic_add(counters + 1, 1, sem="acq_rel") == num_parts - 1:
            write_total(partials, num_parts, loss, num_terms, MEAN, TOTAL_BLOCK)
    else:
        while tl.atomic_add(counters + 1, 0, sem="acquire") < num_parts:
            pass
        e_i = tl.load(error_row + rows, mask=inside, other=0.0, cache_modifier=".cg")  # [ROWS]
        for start in range(0, num_passages, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            _, s_j = load_passages(
                score_row,
                target_row,
                score_stride,
                target_stride,
                columns,
                num_passages,
                -float("inf"),
                ZERO_IS_PADDING,
            )  # [COLUMNS]
            e_j = tl.load(error_row + columns, mask=columns < num_passages, other=0.0, cache_modifier=".cg")
            sigma = sigmoids(s_i, s_j, steepness, middle, moderate)
            sums += (sigma - sigma * sigma) * (e_j[None, :] - e_i[:, None])
        slopes = tl.where(real, alpha * tl.sum(sums, axis=1), 0.0)  # [ROWS]
        tl.store(gradient + list_index * num_passages + rows, slopes, mask=inside)
        if tl.atomic_add(counters + 2, 1, sem="acq_rel") == num_parts - 1:
            for counter in tl.static_range(3):
                tl.store(counters + counter, 0)


def sum_of_smooth_ranks(
    term: triton.JITFunction,
    scores: Tensor,
    targets: Tensor,
    counters: Tensor,
    alpha: float,
    mean: bool,
    zero_is_padding: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum.

    Args:
        term: the loss, as described at the top of this file.
        targets: [B, K] of any real dtype; padding is NaN, or every number that is not above 0 if zero_is_padding.
    """
    outputs, num_parts = begin(scores)
    if num_parts == 0:
        return outputs
    loss, gradient, num_terms = outputs
    num_passages = scores.shape[1]
    errors, partials = torch.empty_like(gradient), gradient.new_empty((2, num_parts))
    smooth_ranks_kernel[(2 * num_parts,)](
        *(scores, targets, errors, gradient, partials, counters, loss, num_terms),
        *(alpha, num_passages, num_parts, *scores.stride(), *targets.stride()),
        TERM=term,
        ZERO_IS_PADDING=zero_is_padding,
        MEAN=mean,
        ROWS=ROWS,
        COLUMNS=num_columns(num_passages),
        SURVEY_BLOCK=min(triton.next_power_of_2(num_passages), 1024),
        TOTAL_BLOCK=TOTAL_BLOCK,
        **OPTIONS,
    )
    return outputs
