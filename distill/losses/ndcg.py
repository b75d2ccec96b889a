"""Losses that approximate nDCG: LambdaLoss weighs pairs by what swapping them costs, ApproxNDCG smooths the ranks.

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.implementation import takes_triton
from distill.losses.terms import (
    count_labelled_pairs,
    count_relevant_lists,
    differences,
    ordered_pairs,
    prepare,
    reduce_terms,
    smooth_ranks_of,
    without_padding,
)
from distill.losses.tiles import sum_pairs

WEIGHTINGS = ("ndcg-loss2++", "ndcg-loss2", "lambdarank")
GAINS = ("exponential", "linear")


def lambda_loss(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor,
    weighting: str = "ndcg-loss2++",
    mu: float = 10.0,
    cutoff: int | None = None,
    gain: str = "exponential",
    reduction: str = "mean",
    implementation: str = "auto",
) -> Tensor:
    """LambdaLoss: Σ_{(i,j): y_i > y_j} w_ij · softplus(s_j − s_i).

    With the gains G of the labels as shares of the best DCG, the discounts D(p) = log2(1 + p), and the places p of the
    passages by the student's own scores (equal scores in the order of the list), the weights are

        lambdarank:     ρ_ij = |G_i − G_j| · |1 / D(p_i) − 1 / D(p_j)|
        ndcg-loss2:     δ_ij = |G_i − G_j| · |1 / D(|p_i − p_j|) − 1 / D(|p_i − p_j| + 1)|
        ndcg-loss2++:   ρ_ij + mu · δ_ij

    No gradient passes through the weights.

    Args:
        scores: [B, K] student scores.
        labels: [B, K] graded labels y; those below 0 gain as little as 0.
        mask: [B, K] bool, True for real passages.
        weighting: one of WEIGHTINGS.
        mu: weight of δ in ndcg-loss2++, at least 0.
        cutoff: k of nDCG@k: pairs count of which one passage is in the student's top k; None: all pairs.
        gain: "exponential", 2^y − 1, or "linear", y.
        reduction: "mean" over all pairs of different labels of the batch, with a cutoff too, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the faster one.

    Source: Wang et al. 2018, "The LambdaLoss framework for ranking metric optimization", with natural logarithms.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r} is unknown: use one of {', '.join(map(repr, WEIGHTINGS))}")
    if takes_triton(scores, labels, mask, implementation):
        from distill.losses.fused import lambda_loss as kernel

        shares = without_padding(_shares(labels.float(), mask, gain, cutoff), mask)
        total = kernel.lambda_loss(scores, shares, weighting, mu, cutoff, "sum")
        return reduce_terms(total, count_labelled_pairs(labels, mask), reduction)
    scores = prepare(scores, labels, mask)
    grades = labels.to(scores.dtype)  # unsigned labels have no negatives
    shares = _shares(grades, mask, gain, cutoff)  # [B, K]
    places = _places(scores.detach(), mask).to(scores.dtype)  # [B, K]
    within = mask if cutoff is None else places <= cutoff  # [B, K]

    def punished(scores: Tensor, rows: slice) -> Tensor:  # [B, R, K]: w_ij softplus(s_j - s_i)
        weights = _pair_weights(places, rows, weighting, mu) * differences(shares, rows).abs()
        counted = ordered_pairs(-grades, mask, rows) & (within[:, rows, None] | within[:, None, :])
        return F.softplus(differences(scores, rows)) * weights * counted

    return reduce_terms(sum_pairs(punished, scores), count_labelled_pairs(labels, mask), reduction)


def approx_ndcg(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor,
    alpha: float = 1.0,
    gain: str = "exponential",
    reduction: str = "mean",
    implementation: str = "auto",
) -> Tensor:
    """ApproxNDCG: 1 − Σ_i G_i / log2(1 + π̂_i) of each list, with the smooth rank π̂_i = 1 + Σ_{j≠i} σ(α(s_j − s_i)).

    G are the gains of the labels as shares of the best DCG, so that a perfect order has loss 0 as alpha grows.

    Args:
        scores: [B, K] student scores.
        labels: [B, K] graded labels y; those below 0 gain as little as 0.
        mask: [B, K] bool, True for real passages.
        alpha: steepness, above 0; as it grows, the smooth rank approaches the exact rank.
        gain: "exponential", 2^y − 1, or "linear", y.
        reduction: "mean" over all lists of the batch with a relevant passage, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the faster one.

    Source: Qin et al. 2010, "A general approximation framework for direct optimization of IR measures".
    """
    if takes_triton(scores, labels, mask, implementation):
        from distill.losses.fused import approx_ndcg as kernel

        shares = without_padding(_shares(labels.float(), mask, gain, None), mask)
        total = kernel.approx_ndcg(scores, shares, alpha, "sum")
        return reduce_terms(total, count_relevant_lists(labels, mask), reduction)
    scores = prepare(scores, labels, mask)
    smooth_ranks = smooth_ranks_of(scores, mask, alpha)  # [B, K]
    gains = _gains(labels.to(scores.dtype), mask, gain)
    best = _best_dcg(gains, None)[:, 0]  # [B]
    ndcg = (gains / torch.log2(1 + smooth_ranks)).sum(dim=1) / torch.where(best > 0, best, 1.0)
    return reduce_terms((1 - ndcg) * (best > 0), count_relevant_lists(labels, mask), reduction)


def _places(scores: Tensor, mask: Tensor) -> Tensor:
    """Return int64 [B, K]: the place of each passage by its score, from 1; padding comes last."""
    order = torch.argsort(scores.masked_fill(~mask, -torch.inf), dim=1, descending=True, stable=True)
    return torch.argsort(order, dim=1) + 1


def _shares(labels: Tensor, mask: Tensor, gain: str, cutoff: int | None) -> Tensor:
    """Return [B, K] the gains of labels as shares of the best DCG, 0 for padding."""
    gains = _gains(labels, mask, gain)
    best = _best_dcg(gains, cutoff)  # [B, 1]
    return torch.where(best > 0, gains / best, 0.0)


def _gains(labels: Tensor, mask: Tensor, gain: str) -> Tensor:
    """Return [B, K] the gains of labels, 0 for padding; up to a factor for each list, which cancels in shares."""
    if gain not in GAINS:
        raise ValueError(f"gain={gain!r} is unknown: use 'exponential' or 'linear'")
    labels = labels.clamp(min=0).masked_fill(~mask, 0.0)
    if gain == "linear":
        return labels
    highest = F.pad(labels, (0, 1)).amax(dim=1, keepdim=True).floor()  # 2^128 is too large for float32; K may be 0
    return torch.exp2(labels - highest) - torch.exp2(-highest)


def _best_dcg(gains: Tensor, cutoff: int | None) -> Tensor:
    """Return [B, 1] the DCG of the best order, of its first `cutoff` passages."""
    places = torch.arange(1, gains.shape[1] + 1, device=gains.device, dtype=gains.dtype)
    best = gains.sort(dim=1, descending=True).values / torch.log2(1 + places)
    return best[:, :cutoff].sum(dim=1, keepdim=True)


def _pair_weights(places: Tensor, rows: slice, weighting: str, mu: float) -> Tensor:
    """Return rows [B, R, K] of the part of the weights that depends on the places."""
    weights = torch.zeros((), dtype=places.dtype, device=places.device)
    if weighting != "ndcg-loss2":
        weights = weights + differences(1 / torch.log2(1 + places), rows).abs()
    if weighting != "lambdarank":
        gaps = differences(places, rows).abs()
        narrow = 1 / torch.log2(1 + gaps.clamp(min=1)) - 1 / torch.log2(2 + gaps)  # unused where i = j
        weights = weights + (mu if weighting == "ndcg-loss2++" else 1.0) * narrow
    return weights
