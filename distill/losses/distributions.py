"""Losses between the student's and the teacher's distribution over a list: ListNet and Kullback-Leibler divergence.

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

import torch
from torch import Tensor

from distill.losses.terms import count_lists, prepare, reduce_terms


def listnet(scores: Tensor, teacher_scores: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """ListNet: the cross-entropy −Σ_i softmax(t)_i · log softmax(s)_i of each list.

    Args:
        scores: [B, K] student scores.
        teacher_scores: [B, K] teacher scores or graded labels t; their differences are those of log-probabilities.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all lists of the batch with two or more passages, or "sum".

    Its gradient is that of `kl` at temperature 1; its value is higher by the entropy of the teacher's distribution.
    Source: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach" (top-one probabilities).
    """
    scores = prepare(scores, teacher_scores, mask)
    taught = _log_softmax(teacher_scores.to(scores.dtype), mask).exp()
    entropies = -(taught * _log_softmax(scores, mask)).sum(dim=1)  # [B]
    return reduce_terms(entropies, count_lists(teacher_scores, mask), reduction)


def kl(
    scores: Tensor, teacher_scores: Tensor, mask: Tensor, temperature: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Kullback-Leibler divergence: Σ_i p_i · (log p_i − log q_i) · τ², p = softmax(t/τ), q = softmax(s/τ).

    Args:
        scores: [B, K] student scores.
        teacher_scores: [B, K] teacher scores t.
        mask: [B, K] bool, True for real passages.
        temperature: τ, above 0; the higher, the more the passages below the first count. τ² keeps the gradients' size.
        reduction: "mean" over all lists of the batch with two or more passages, or "sum".

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    scores = prepare(scores, teacher_scores, mask)
    taught = _log_softmax(teacher_scores.to(scores.dtype) / temperature, mask)
    gaps = taught - _log_softmax(scores / temperature, mask)  # [B, K]: log p - log q
    divergences = (taught.exp() * gaps).sum(dim=1) * temperature**2  # [B]
    return reduce_terms(divergences, count_lists(teacher_scores, mask), reduction)


def _log_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probabilities [B, K] of the real passages; 0 in padded slots, and in lists without a passage."""
    lowest = torch.finfo(values.dtype).min  # not -inf: a list of padding would be NaN
    logs = torch.log_softmax(values.masked_fill(~mask, lowest), dim=1)
    return logs.masked_fill(~mask, 0.0)
