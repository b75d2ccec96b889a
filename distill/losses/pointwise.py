"""Losses over single passages: binary cross-entropy and the squared error of scores.

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.terms import count_passages, differ, prepare, reduce_terms


def bce(scores: Tensor, labels: Tensor, mask: Tensor, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Pointwise binary cross-entropy with logits: Σ_i softplus(s_i) − y_i·s_i, y_i = 1 if the label is above 0.

    Args:
        scores: [B, K] student scores, used as logits; shifting them changes the loss, as for `mse` and no other.
        labels: [B, K] graded labels; a label above 0 is relevant.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all real passages of the batch, or "sum".
        label_smoothing: ε from 0 to below 1; y is then 1 − ε/2 of relevant passages, and ε/2 of others.

    Source: Nogueira and Cho 2019; Morand et al. 2026, section 3.
    """
    scores = prepare(scores, labels, mask)
    relevance = (labels > 0).to(scores.dtype)
    if label_smoothing > 0:
        relevance = relevance * (1 - label_smoothing) + label_smoothing / 2
    entropies = F.binary_cross_entropy_with_logits(scores, relevance, reduction="none")
    return reduce_terms(entropies * mask, count_passages(labels, mask), reduction)


def mse(
    scores: Tensor, teacher_scores: Tensor, mask: Tensor, normalise: str = "none", reduction: str = "mean"
) -> Tensor:
    """Mean squared error of the scores: Σ_i (s_i − t_i)².

    Args:
        scores: [B, K] student scores; shifting them changes the loss.
        teacher_scores: [B, K] teacher scores t, on the scale that the student should learn.
        mask: [B, K] bool, True for real passages.
        normalise: "z-score" turns the teacher scores of each list into standard deviations from their mean, so that
            teachers of any scale can be learned from, but no longer how good a whole list is; "none" keeps them.
        reduction: "mean" over all real passages of the batch, or "sum".

    Source: Hinton et al. 2015 (matching logits); the re-rankers ettin-reranker-v1 were trained with it.
    """
    scores = prepare(scores, teacher_scores, mask)
    taught = teacher_scores.to(scores.dtype).masked_fill(~mask, 0.0)
    if normalise == "z-score":
        taught = _z_scores(taught, mask)
    elif normalise != "none":
        raise ValueError(f"normalise={normalise!r} is unknown: use 'none' or 'z-score'")
    return reduce_terms((scores - taught) ** 2 * mask, count_passages(teacher_scores, mask), reduction)


def _z_scores(values: Tensor, mask: Tensor) -> Tensor:
    """Return [B, K] in the population's standard deviations of each list; 0 where all values are equal."""
    sizes = mask.sum(dim=1, keepdim=True).clamp(min=1)
    deviations = (values - values.sum(dim=1, keepdim=True) / sizes) * mask
    spread = ((deviations**2).sum(dim=1, keepdim=True) / sizes).sqrt()
    is_spread = differ(values, mask)[:, None] & (spread > 0)  # the mean of equal values is not always their value
    return torch.where(is_spread, deviations / spread, 0.0)
