"""Losses over whole lists: ADR-MSE and localized contrastive estimation (LCE).

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.implementation import takes_triton
from distill.losses.terms import count_passages, count_relevant, prepare, reduce_terms, smooth_ranks_of


def adr_mse(
    scores: Tensor,
    ranks: Tensor,
    mask: Tensor,
    alpha: float = 1.0,
    discount: str = "log2",
    reduction: str = "mean",
    implementation: str = "auto",
) -> Tensor:
    """ADR-MSE: Σ_i (r_i − π̂_i)² / log2(r_i + 1) with the smooth rank π̂_i = 1 + Σ_{j≠i} σ(α(s_j − s_i)).

    Args:
        scores: [B, K] student scores.
        ranks: [B, K] teacher ranks, 1 = best, ties at their average rank, 0 = padding.
        mask: [B, K] bool, True for real passages.
        alpha: steepness, above 0; as it grows, the smooth rank approaches the exact rank.
        discount: "log2" as in the formula, or "none" to weigh all ranks equally.
        reduction: "mean" over all real passages of the batch, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the faster one.

    Source: Rank-DistiLLM, section 3; smooth ranks: Qin et al. 2010 (Appendix B prints another fraction).
    """
    if takes_triton(scores, ranks, mask, implementation):
        from distill.losses.fused import adr_mse as kernel

        return kernel.adr_mse(scores, ranks.masked_fill(~mask, 0), alpha, discount, reduction)
    scores = prepare(scores, ranks, mask)
    smooth_ranks = smooth_ranks_of(scores, mask, alpha)  # [B, K]
    errors = (ranks.to(scores.dtype) - smooth_ranks) ** 2
    if discount == "log2":
        # A padded slot has rank 0, whose discount would divide by zero
        errors = errors / torch.log2(ranks.to(scores.dtype).masked_fill(~mask, 1.0) + 1.0)
    elif discount != "none":
        raise ValueError(f"discount={discount!r} is unknown: use 'log2' or 'none'")
    return reduce_terms(errors * mask, count_passages(ranks, mask), reduction)


def lce(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor,
    reduction: str = "mean",
    guide: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Localized contrastive estimation (InfoNCE): Σ_+ −log( exp s_+ / (exp s_+ + Σ_{negatives} exp s_−) ).

    Args:
        scores: [B, K] student scores.
        labels: [B, K] graded labels; a label above 0 is relevant, any other is a negative.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all relevant passages of the batch, or "sum".
        guide: [B, K] teacher scores, NaN where there is none: a negative that scores above a relevant passage may be
            relevant, too, and does not compete with that one; None: all negatives compete.
        label_smoothing: ε from 0 to below 1, the share of the target that goes evenly to the relevant passage and all
            that compete with it: each term grows by ε · (s_+ − their mean score).

    Each relevant passage competes only with the negatives of its list, never with another relevant passage.
    Source: Gao et al. 2021; Rank-DistiLLM, section 3. Guided: Solatorio 2024, "GISTEmbed".
    """
    scores = prepare(scores, labels, mask)
    relevant = (labels > 0) & mask
    # The lowest finite number instead of -inf: a list without negatives has loss 0 and gradient 0, not NaN
    lowest = torch.finfo(scores.dtype).min
    competes = mask & ~relevant
    others = scores.masked_fill(~competes, lowest)  # [B, K]
    if guide is None:
        negatives = torch.logsumexp(others, dim=1, keepdim=True)  # [B, 1]
    else:
        negatives = _sums_not_above(others, guide, torch.Tensor.logcumsumexp, lowest)  # [B, K]
    terms = F.softplus(negatives - scores)
    if label_smoothing > 0:
        terms = terms + label_smoothing * (scores - _mean_of_competitors(scores, competes, guide))
    return reduce_terms(terms * relevant, count_relevant(labels, mask), reduction)


def _mean_of_competitors(scores: Tensor, competes: Tensor, guide: Tensor | None) -> Tensor:
    """Return [B, K]: the mean score of each passage and the negatives that compete with it."""
    summed, counted = scores * competes, competes.to(scores.dtype)
    if guide is None:
        totals, numbers = (values.sum(dim=1, keepdim=True) for values in (summed, counted))
    else:
        totals, numbers = (_sums_not_above(values, guide, torch.Tensor.cumsum, 0.0) for values in (summed, counted))
    return (scores + totals) / (1 + numbers)


def _sums_not_above(values: Tensor, guide: Tensor, cumulate: Callable[..., Tensor], nothing: float) -> Tensor:
    """Return [B, K]: of each passage, the sum of the values of all that its guide's score does not put above it.

    cumulate: cumsum, or logcumsumexp for log Σ exp; nothing: the sum of no value. Where one of two passages has no
    score, neither is above the other.
    """
    keys, order = guide.double().nan_to_num(nan=-torch.inf).sort(dim=1, stable=True)
    # [B, K + 1]: the sum up to each place; nothing is before the first
    sums = F.pad(cumulate(values.gather(1, order), dim=1), (1, 0), value=nothing)
    num_not_above = torch.searchsorted(keys, guide.double().nan_to_num(nan=torch.inf), right=True)
    return sums.gather(1, num_not_above)
