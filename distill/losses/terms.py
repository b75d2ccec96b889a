"""Shared parts of the losses: masks and differences of pairs, the number of terms, and the reduction.

Shapes: B lists, K passages per list.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.tiles import ALL, sum_partners


def count_passages(target: Tensor, mask: Tensor) -> Tensor:
    """Return the number of real passages, a scalar tensor."""
    return mask.sum()


def count_pairs(target: Tensor, mask: Tensor) -> Tensor:
    """Return the number of unordered pairs of real passages within their lists, a scalar tensor."""
    sizes = mask.sum(dim=1)
    return (sizes * (sizes - 1) // 2).sum()


def count_ranked_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """Return the number of pairs of real passages with different ranks, a scalar tensor."""
    return count_labelled_pairs(-ranks, mask)


def count_labelled_pairs(labels: Tensor, mask: Tensor) -> Tensor:
    """Return the number of pairs of real passages with different labels, a scalar tensor."""
    return (num_above(labels, mask, right=False) * mask).sum()


def num_above(relevance: Tensor, mask: Tensor, right: bool) -> Tensor:
    """Return int64 [B, K]: how many real passages are more relevant; right: or equally so, itself included."""
    keys = -relevance.double().masked_fill(~mask, -torch.inf)  # ascending in order; padding at +inf
    return torch.searchsorted(keys.sort(dim=1).values, keys, right=right)


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
    return differ(relevance.double(), mask).sum()  # whole numbers have no infinity


def differ(values: Tensor, mask: Tensor) -> Tensor:
    """Return bool [B]: whether the values [B, K], floating-point, of a list's real passages are not all the same."""
    # One column more, since there is none where a rank has no list
    highest = F.pad(values.masked_fill(~mask, -torch.inf), (0, 1), value=-torch.inf).amax(dim=1)
    lowest = F.pad(values.masked_fill(~mask, torch.inf), (0, 1), value=torch.inf).amin(dim=1)
    return highest > lowest


def relevance_of(ranks: Tensor, mask: Tensor) -> Tensor:
    """Return relevance from ranks, n − r of n passages [B, K]: 0 for the last one, n − 1 for the first."""
    return (mask.sum(dim=1, keepdim=True) - ranks).masked_fill(~mask, 0.0)


def check_shapes(scores: Tensor, target: Tensor, mask: Tensor) -> None:
    """Raise ValueError unless all three are [B, K]."""
    if scores.dim() != 2 or scores.shape != target.shape or scores.shape != mask.shape:
        shapes = f"{list(scores.shape)}, {list(target.shape)} and {list(mask.shape)}"
        raise ValueError(f"scores, target and mask must share one shape [B, K], got {shapes}")


def prepare(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the scores in float32 or float64, with 0 for padding; raises ValueError for shapes that differ."""
    check_shapes(scores, target, mask)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    return scores.masked_fill(~mask, 0.0)  # so that no value in a padded slot counts, even NaN


def without_padding(target: Tensor, mask: Tensor) -> Tensor:
    """Return a target with NaN for padding, as the fused kernels take it."""
    target = target if target.is_floating_point() else target.float()
    return target.masked_fill(~mask, torch.nan)


def squared_differences(values: Tensor, mask: Tensor) -> Tensor:
    """Return Σ_{i<j} (v_i − v_j)² over the real passages of each list, summed: n Σ_i (v_i − v̄)², without pairs."""
    sizes = mask.sum(dim=1, keepdim=True)
    means = (values * mask).sum(dim=1, keepdim=True) / sizes.clamp(min=1)
    return (sizes * ((values - means) * mask) ** 2).sum()


def differences(values: Tensor, rows: slice = ALL) -> Tensor:
    """Return the rows i of [B, K, K] from [B, K], with entry (i, j) = v_j − v_i."""
    return values[:, None, :] - values[:, rows, None]


def real_pairs(mask: Tensor, rows: slice = ALL) -> Tensor:
    """Return the rows i of bool [B, K, K], True at (i, j) if both are real."""
    return mask[:, rows, None] & mask[:, None, :]


def ordered_pairs(ranks: Tensor, mask: Tensor, rows: slice = ALL) -> Tensor:
    """Return the rows i of bool [B, K, K], True at (i, j) if both are real and i ranks before j."""
    return (ranks[:, rows, None] < ranks[:, None, :]) & real_pairs(mask, rows)


def later(values: Tensor, rows: slice = ALL) -> Tensor:
    """Return the rows i of bool [K, K], True at (i, j) if j comes after i in the list: each pair once."""
    places = torch.arange(values.shape[1], device=values.device)
    return places > places[rows, None]


def smooth_ranks_of(scores: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """Return the smooth ranks [B, K], 1 + Σ_{j≠i} σ(α(s_j − s_i)) over the real passages of the list.

    Raises ValueError for an alpha that is not above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha={alpha}: must be above 0")

    def outscored(scores: Tensor, rows: slice) -> Tensor:  # [B, R, K]
        return torch.sigmoid(alpha * differences(scores, rows)) * mask[:, None, :]

    return 0.5 + sum_partners(outscored, scores)  # j = i adds σ(0) = 0.5 to the sum, hence not 1 +


def reduce_terms(terms: Tensor, num_terms: Tensor, reduction: str) -> Tensor:
    """Return the sum of the terms, or with "mean" that divided by their number; raises ValueError for another word."""
    if reduction == "sum":
        return terms.sum()
    if reduction == "mean":
        return terms.sum() / num_terms.clamp(min=1)
    raise ValueError(f"reduction={reduction!r} is unknown: use 'mean' or 'sum'")
