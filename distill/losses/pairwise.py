"""Losses over pairs of passages: RankNet, on ranks or on teacher scores, MarginMSE and hinge.

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.implementation import takes_triton
from distill.losses.terms import (
    count_labelled_pairs,
    count_pairs,
    count_ranked_pairs,
    differences,
    later,
    ordered_pairs,
    prepare,
    real_pairs,
    reduce_terms,
    squared_differences,
    without_padding,
)
from distill.losses.tiles import has_many_pairs, sum_pairs


def ranknet(
    scores: Tensor, ranks: Tensor, mask: Tensor, reduction: str = "mean", implementation: str = "auto"
) -> Tensor:
    """RankNet: Σ_{(i,j): r_i < r_j} softplus(s_j − s_i).

    Args:
        scores: [B, K] student scores.
        ranks: [B, K] teacher ranks, 1 = best, ties at their average rank, 0 = padding.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all real pairs of the batch, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the faster one.

    Pairs of tied ranks and pairs with a padded slot contribute nothing.
    Source: Burges et al. 2005; Rank-DistiLLM, section 3 (whose formula prints the opposite sign).
    """
    if takes_triton(scores, ranks, mask, implementation):
        from distill.losses.fused import ranknet as kernel

        return kernel.ranknet(scores, ranks.masked_fill(~mask, 0), reduction)
    scores = prepare(scores, ranks, mask)

    def punished(scores: Tensor, rows: slice) -> Tensor:  # [B, R, K]: softplus(s_j - s_i)
        return F.softplus(differences(scores, rows)) * ordered_pairs(ranks, mask, rows)

    return reduce_terms(sum_pairs(punished, scores), count_ranked_pairs(ranks, mask), reduction)


def bradley_terry(
    scores: Tensor,
    teacher_scores: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    reduction: str = "mean",
    implementation: str = "auto",
) -> Tensor:
    """RankNet with soft targets: Σ_{i<j} P_ij softplus(s_j − s_i) + (1 − P_ij) softplus(s_i − s_j).

    P_ij = σ((t_i − t_j) / τ) is the probability that the teacher prefers i to j, in the model of Bradley and Terry. As
    τ falls, the loss becomes RankNet on the teacher's order.

    Args:
        scores: [B, K] student scores.
        teacher_scores: [B, K] teacher scores t.
        mask: [B, K] bool, True for real passages.
        temperature: τ, above 0.
        reduction: "mean" over all pairs of the batch, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the faster one.

    Source: Burges et al. 2005, section 3, whose target probabilities may be any; Bradley and Terry 1952.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    if takes_triton(scores, teacher_scores, mask, implementation):
        from distill.losses.fused import bradley_terry as kernel

        return kernel.bradley_terry(scores, without_padding(teacher_scores, mask), temperature, reduction)
    scores = prepare(scores, teacher_scores, mask)
    taught = teacher_scores.to(scores.dtype).masked_fill(~mask, 0.0) / temperature

    def punished(scores: Tensor, rows: slice) -> Tensor:  # [B, R, K], each pair once
        gaps = differences(scores, rows)  # s_j - s_i
        preferred = torch.sigmoid(-differences(taught, rows))  # P_ij
        losses = preferred * F.softplus(gaps) + (1 - preferred) * F.softplus(-gaps)
        return losses * (later(scores, rows) & real_pairs(mask, rows))

    return reduce_terms(sum_pairs(punished, scores), count_pairs(teacher_scores, mask), reduction)


def margin_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """MarginMSE: Σ_{i<j} ((s_i − s_j) − (t_i − t_j))² over all pairs of a list.

    For a list of one relevant and one other passage, this is the published formula; which of the two is relevant does
    not matter, since the square removes the sign. Deep lists take the same sum as n Σ_i (g_i − ḡ)² of their n gaps
    g = s − t, without pairs.

    Args:
        scores: [B, K] student scores.
        teacher_scores: [B, K] teacher scores t, on the scale that the student should learn.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all pairs of the batch, or "sum".

    Source: Hofstätter et al. 2020, "Improving efficient neural ranking models with cross-architecture KD".
    """
    scores = prepare(scores, teacher_scores, mask)
    gaps = scores - teacher_scores.to(scores.dtype).masked_fill(~mask, 0.0)  # [B, K]
    if has_many_pairs(gaps):
        return reduce_terms(squared_differences(gaps, mask), count_pairs(teacher_scores, mask), reduction)

    def squares(gaps: Tensor, rows: slice) -> Tensor:  # [B, R, K], each pair once
        return differences(gaps, rows) ** 2 * (later(gaps, rows) & real_pairs(mask, rows))

    return reduce_terms(sum_pairs(squares, gaps), count_pairs(teacher_scores, mask), reduction)


def hinge(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor,
    margin: float = 1.0,
    reduction: str = "mean",
    implementation: str = "auto",
) -> Tensor:
    """Pairwise hinge: Σ_{(i,j): y_i > y_j} max(0, margin − (s_i − s_j)).

    Args:
        scores: [B, K] student scores.
        labels: [B, K] graded labels; pairs of equal label contribute nothing.
        mask: [B, K] bool, True for real passages.
        margin: by how much the better passage should lead, in units of the score.
        reduction: "mean" over all pairs of different labels of the batch, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the faster one.

    Source: Herbrich et al. 2000; Morand et al. 2026, section 3.
    """
    if takes_triton(scores, labels, mask, implementation):
        from distill.losses.fused import hinge as kernel

        return kernel.hinge(scores, without_padding(labels, mask), margin, reduction)
    scores = prepare(scores, labels, mask)
    places = -labels.to(scores.dtype)  # the best first; unsigned labels have no negatives

    def violations(scores: Tensor, rows: slice) -> Tensor:  # [B, R, K]: margin - (s_i - s_j)
        return F.relu(margin + differences(scores, rows)) * ordered_pairs(places, mask, rows)

    return reduce_terms(sum_pairs(violations, scores), count_labelled_pairs(labels, mask), reduction)
