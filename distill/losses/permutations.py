"""Losses on the likelihood of the right order: ListMLE and its position-aware variant.

Shapes: B lists, K passages per list; see distill/losses/__init__.py for masks, precision and reduction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.terms import count_ordered_lists, num_above, prepare, reduce_terms


def listmle(scores: Tensor, relevance: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """ListMLE: Σ_i −log( exp s_i / (exp s_i + Σ_{j: y_j < y_i} exp s_j) ).

    Args:
        scores: [B, K] student scores.
        relevance: [B, K] y: labels, teacher scores, or any other numbers that grow with relevance.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all lists of the batch that have an order, or "sum".

    Without ties this is the likelihood of the order under the Plackett-Luce model. Tied passages do not compete with
    each other, so no order is invented among them; with labels 1 and 0 the loss is LCE.
    Source: Xia et al. 2008, "Listwise approach to learning to rank: theory and algorithm".
    """
    scores = prepare(scores, relevance, mask)
    terms, _ = _competitions(scores, relevance, mask)
    return reduce_terms(terms, count_ordered_lists(relevance, mask), reduction)


def plistmle(scores: Tensor, relevance: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Position-aware ListMLE: the terms of `listmle`, weighted by (2^(n − r_i) − 1) / Σ_j (2^(n − r_j) − 1).

    n is the number of passages of the list, and r_i the passage's rank by relevance, where ties share their average.
    Arguments as for `listmle`.

    Source: Lan et al. 2014, "Position-aware ListMLE: a sequential learning process for ranking". The weights are
    divided by their sum, as sentence-transformers does, since those of long lists are astronomical.
    """
    scores = prepare(scores, relevance, mask)
    terms, num_not_below = _competitions(scores, relevance, mask)
    num_tied = (num_not_below - num_above(relevance, mask, right=False)).to(scores.dtype)
    ranks = num_not_below.to(scores.dtype) - (num_tied - 1) / 2  # [B, K], from 1
    sizes = mask.sum(dim=1, keepdim=True).to(scores.dtype)
    weights = (torch.exp2(-ranks) - torch.exp2(-sizes)) * mask  # of the formula, times 2^-n: they never overflow
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    return reduce_terms(terms * weights, count_ordered_lists(relevance, mask), reduction)


def _competitions(scores: Tensor, relevance: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each passage's −log share among itself and all less relevant ones [B, K], and its num_not_below [B, K].

    num_not_below: how many real passages of the list are at least as relevant, itself included.
    """
    lowest = torch.finfo(scores.dtype).min
    order = _by_relevance(relevance, mask)
    in_order = scores.masked_fill(~mask, lowest).gather(1, order)  # [B, K], padding last
    # [B, K + 1]: log Σ exp of all from each place to the end; nothing is below the last
    tails = F.pad(torch.logcumsumexp(in_order.flip(1), dim=1).flip(1), (0, 1), value=lowest)
    num_not_below = num_above(relevance, mask, right=True)
    below = tails.gather(1, num_not_below)  # [B, K]
    return F.softplus(below - scores) * mask, num_not_below


def _by_relevance(relevance: Tensor, mask: Tensor) -> Tensor:
    """Return the indices [B, K] of the passages from the most relevant to the least, padding last."""
    return torch.argsort(relevance.double().masked_fill(~mask, -torch.inf), dim=1, descending=True, stable=True)
