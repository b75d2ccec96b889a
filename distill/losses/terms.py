"""Shared parts of the losses: masks and differences of pairs, the number of terms, and the reduction.

Shapes: B lists, K passages per list.
"""

import torch
from torch import Tensor


def count_passages(target: Tensor, mask: Tensor) -> Tensor:
    """Return the number of real passages, a scalar tensor."""
    return mask.sum()


def count_pairs(target: Tensor, mask: Tensor) -> Tensor:
    """Return the number of unordered pairs of real passages within their lists, a scalar tensor."""
    sizes = mask.sum(dim=1)
    return (sizes * (sizes - 1) // 2).sum()


def count_ranked_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """Return the number of pairs of real passages with different ranks, a scalar tensor."""
    return ordered_pairs(ranks, mask).sum()


def count_labelled_pairs(labels: Tensor, mask: Tensor) -> Tensor:
    """Return the number of pairs of real passages with different labels, a scalar tensor."""
    return ordered_pairs(-labels, mask).sum()


def count_relevant(labels: Tensor, mask: Tensor) -> Tensor:
    """Return the number of relevant passages, a scalar tensor."""
    return ((labels > 0) & mask).sum()


def count_lists(target: Tensor, mask: Tensor) -> Tensor:
    """Return the number of lists with two or more real passages, a scalar tensor."""
    return (mask.sum(dim=1) > 1).sum()


def count_relevant_lists(labels: Tensor, mask: Tensor) -> Tensor:
    """Return the number of lists with a relevant passage, a scalar tensor."""
    return ((labels > 0) & mask).any(dim=1).sum()


def count_ordered_lists(relevance: Tensor, mask: Tensor) -> Tensor:
    """Return the number of lists in which one real passage is more relevant than another, a scalar tensor."""
    highest = relevance.masked_fill(~mask, -torch.inf).amax(dim=1)
    lowest = relevance.masked_fill(~mask, torch.inf).amin(dim=1)
    return (highest > lowest).sum()


def relevance_of(ranks: Tensor, mask: Tensor) -> Tensor:
    """Return relevance from ranks, n − r of n passages [B, K]: 0 for the last one, n − 1 for the first."""
    return (mask.sum(dim=1, keepdim=True) - ranks).masked_fill(~mask, 0.0)


def check_shapes(scores: Tensor, target: Tensor, mask: Tensor) -> None:
    if scores.dim() != 2 or scores.shape != target.shape or scores.shape != mask.shape:
        shapes = f"{list(scores.shape)}, {list(target.shape)} and {list(mask.shape)}"
        raise ValueError(f"scores, target and mask must share one shape [B, K], got {shapes}")


def prepare(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    check_shapes(scores, target, mask)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    return scores.masked_fill(~mask, 0.0)  # so that no value in a padded slot counts, even NaN


def differences(values: Tensor) -> Tensor:
    """Return [B, K, K] from [B, K], with entry (i, j) = v_j − v_i."""
    return values[:, None, :] - values[:, :, None]


def real_pairs(mask: Tensor) -> Tensor:
    return mask[:, :, None] & mask[:, None, :]


def ordered_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """Return bool [B, K, K], True at (i, j) if both are real and i ranks before j."""
    return (ranks[:, :, None] < ranks[:, None, :]) & real_pairs(mask)


def reduce_terms(terms: Tensor, num_terms: Tensor, reduction: str) -> Tensor:
    if reduction == "sum":
        return terms.sum()
    if reduction == "mean":
        return terms.sum() / num_terms.clamp(min=1)
    raise ValueError(f"reduction={reduction!r} is unknown: use 'mean' or 'sum'")
