"""The loss over single passages: binary cross-entropy.

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

import torch.nn.functional as F
from torch import Tensor

from distill.losses.terms import count_passages, prepare, reduce_terms


def bce(scores: Tensor, labels: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Pointwise binary cross-entropy with logits: Σ_i softplus(s_i) − y_i·s_i, y_i = 1 if the label is above 0.

    Args:
        scores: [B, K] student scores, used as logits; of all objectives, only this one changes if scores are shifted.
        labels: [B, K] graded labels; a label above 0 is relevant.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all real passages of the batch, or "sum".

    Source: Nogueira and Cho 2019; Morand et al. 2026, section 3.
    """
    scores = prepare(scores, labels, mask)
    entropies = F.binary_cross_entropy_with_logits(scores, (labels > 0).to(scores.dtype), reduction="none")
    return reduce_terms(entropies * mask, count_passages(labels, mask), reduction)
