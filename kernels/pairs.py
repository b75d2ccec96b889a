"""The tile skeleton of losses that are sums over pairs: one Triton launch computes the loss and its gradient.

    outputs = sum_pairs(ranknet_pairs, scores, ranks, counters, mean, zero_is_padding=True, idle_bits=1)

A loss is one function over a tile of pairs [ROWS, COLUMNS]. Let i be a row and j a column, both passages of one list:

    lead, factor, slope, counted = pair(s_i, s_j, t_i, t_j, rows, columns, num_passages, table, option)

    loss of the pair     lead − ln(factor), the same for (i, j) and (j, i); factors multiply, so that one logarithm
                         serves many pairs: each must be at least ½; 1.0 if the loss needs none
    slope                its derivative by s_i
    counted              1 for a term of the mean, else 0

One program owns a few rows i and loops over the columns j; no pair leaves its registers. Padded targets are NaN, which
is neither below nor above any other; padded scores are 0.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import OPTIONS, ROWS, TOTAL_BLOCK, begin, load_passages, num_columns, write_total

LN_2 = tl.constexpr(0.6931471805599453)
MAX_FACTORS = 64  # each is at least ½, so their product stays far above the smallest float32


@triton.jit
def sigmoid(x, steepness):
    """Return σ(x · steepness / log2(e)): one exponential and one reciprocal."""
    # rsqrt(y)² takes two instructions and is 2.5e-7 off; 1 / y takes six
    root = tl.rsqrt(1.0 + tl.exp2(x * -steepness))
    return root * root


@triton.jit
def sign(difference):
    """Return 1, 0 or −1, and 0 for NaN."""
    return (difference > 0).to(tl.float32) - (difference < 0).to(tl.float32)


@triton.jit(
    do_not_specialize=[
        "num_passages",
        "score_list_stride",
        "score_stride",
        "target_list_stride",
        "target_stride",
    ]
)
def pairs_kernel(
    scores,  # [B, K]
    targets,  # [B, K]
    table,  # any numbers that the loss needs
    gradient,  # [B, K] float32, of the sum
    partials,  # [2, N] float32
    counters,  # [3] int32
    loss,  # scalar
    num_terms,  # scalar
    option,
    num_passages,
    score_list_stride,
    score_stride,
    target_list_stride,
    target_stride,
    PAIR: tl.constexpr,
    ZERO_IS_PADDING: tl.constexpr,
    IDLE_BITS: tl.constexpr,
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
    target_row = targets + list_index * target_list_stride

    t_i, s_i = load_passages(
        score_row, target_row, score_stride, target_stride, rows, num_passages, 0.0, ZERO_IS_PADDING
    )  # [ROWS]
    slopes = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    leads = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    logs = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    pairs = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, num_passages, MAX_FACTORS * COLUMNS):
        product = tl.full((ROWS, COLUMNS), 1.0, dtype=tl.float32)
        for start in range(first, min(first + MAX_FACTORS * COLUMNS, num_passages), COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            t_j, s_j = load_passages(
                score_row, target_row, score_stride, target_stride, columns, num_passages, 0.0, ZERO_IS_PADDING
            )  # [COLUMNS]
            lead, factor, slope, counted = PAIR(
                *(s_i[:, None], s_j[None, :], t_i[:, None], t_j[None, :]),
                *(rows[:, None], columns[None, :], num_passages, table, option),
            )
            slopes += slope
            leads += lead
            product *= factor
            if MEAN or IDLE_BITS != 0:
                pairs += counted
        logs += tl.log2(product)
    pairs = tl.sum(pairs, axis=1)  # [ROWS]
    # Entries that are not pairs contributed factors of 2^-IDLE_BITS
    num_tiles = tl.cdiv(num_passages, COLUMNS)
    bits = tl.sum(logs, axis=1) + IDLE_BITS * (num_tiles * COLUMNS - pairs)
    losses = tl.where(t_i == t_i, tl.sum(leads, axis=1) - bits * LN_2, 0.0)
    inside = rows < num_passages
    tl.store(gradient + list_index * num_passages + rows, tl.sum(slopes, axis=1), mask=inside)
    # Each pair was counted from both sides
    tl.store(partials + part, 0.5 * tl.sum(losses, axis=0))
    tl.store(partials + num_parts + part, 0.5 * tl.sum(pairs, axis=0))

    tl.debug_barrier()  # all threads must have written before the counter rises
    if tl.atomic_add(counters, 1, sem="acq_rel") == num_parts - 1:
        write_total(partials, num_parts, loss, num_terms, MEAN, TOTAL_BLOCK)
        tl.store(counters, 0)


def sum_pairs(
    pair: triton.JITFunction,
    scores: Tensor,
    targets: Tensor,
    counters: Tensor,
    mean: bool,
    option: float = 0.0,
    table: Tensor | None = None,
    zero_is_padding: bool = False,
    idle_bits: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum.

    Args:
        pair: the loss, as described at the top of this file; option and table are passed on to it.
        targets: [B, K] of any real dtype; padding is NaN, or every number that is not above 0 if zero_is_padding.
        idle_bits: −log2 of the factor of an entry that does not count, 0 or 1.
    """
    outputs, num_parts = begin(scores)
    if num_parts == 0:
        return outputs
    loss, gradient, num_terms = outputs
    num_passages = scores.shape[1]
    partials = gradient.new_empty((2, num_parts))
    pairs_kernel[(num_parts,)](
        *(scores, targets, partials if table is None else table, gradient, partials, counters, loss, num_terms),
        *(option, num_passages, *scores.stride(), *targets.stride()),
        PAIR=pair,
        ZERO_IS_PADDING=zero_is_padding,
        IDLE_BITS=idle_bits,
        MEAN=mean,
        ROWS=ROWS,
        COLUMNS=num_columns(num_passages),
        MAX_FACTORS=MAX_FACTORS,
        TOTAL_BLOCK=TOTAL_BLOCK,
        **OPTIONS,
    )
    return outputs
