"""The six training objectives in plain PyTorch, as the papers define them.

    loss = ranknet(scores, ranks, mask)            # scalar
    loss = LOSSES["adr_mse"](scores, ranks, mask, alpha=2.0, reduction="sum")

Every objective is one function `loss(scores, target, mask, **options) -> scalar` and knows nothing of tokens.

Shapes: B lists, K passages per list; a padded slot has mask False (and rank 0) and takes part in nothing.
Precision: half-precision scores are raised to float32 first; float32 and float64 scores keep their precision.
Reduction: "sum" is the formula as it stands; "mean" divides by the number of its terms over the whole batch
(`TERMS[name](target, mask)`). A training step made of several micro-batches adds up sums and divides once.
Implementation: RankNet and ADR-MSE have a fused Triton kernel each, which "auto" takes on CUDA (`kernels/`); what
stands here is the definition that the kernels are tested against.
Errors: ValueError for shapes that differ and for an unknown option.
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

TRITON_INSTALLED = importlib.util.find_spec("triton") is not None  # on Linux, it comes with torch or beside it
IMPLEMENTATIONS = ("auto", "torch", "triton")


def ranknet(
    scores: Tensor, ranks: Tensor, mask: Tensor, reduction: str = "mean", implementation: str = "auto"
) -> Tensor:
    """RankNet: Σ_{(i,j): r_i < r_j} softplus(s_j − s_i).

    Args:
        scores: [B, K] student scores.
        ranks: [B, K] teacher ranks, 1 = best, ties at their average rank, 0 = padding.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all real pairs of the batch, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the one that is faster.

    Pairs of tied ranks and pairs with a padded slot contribute nothing.
    Source: Burges et al. 2005; Rank-DistiLLM, section 3 (whose formula prints the opposite sign).
    """
    if _takes_triton(scores, ranks, mask, implementation):
        from kernels import ranknet as kernel

        return kernel.ranknet(scores, ranks.masked_fill(~mask, 0), reduction)
    scores = _prepare(scores, ranks, mask)
    punished = F.softplus(_differences(scores))  # [B, K, K]: softplus(s_j - s_i)
    return _reduce(punished * _ordered_pairs(ranks, mask), count_ranked_pairs(ranks, mask), reduction)


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
        alpha: steepness, above 0; towards infinity the smooth rank becomes the exact rank.
        discount: "log2" as in the formula, or "none" to weigh all ranks alike.
        reduction: "mean" over all real passages of the batch, or "sum".
        implementation: "torch" for this definition, "triton" for the fused kernel, "auto" for the one that is faster.

    Source: Rank-DistiLLM, section 3; smooth ranks: Qin et al. 2010 (Appendix B prints another fraction).
    """
    if _takes_triton(scores, ranks, mask, implementation):
        from kernels import adr_mse as kernel

        return kernel.adr_mse(scores, ranks.masked_fill(~mask, 0), alpha, discount, reduction)
    if not alpha > 0:
        raise ValueError(f"alpha={alpha}: must be above 0")
    scores = _prepare(scores, ranks, mask)
    outscored = torch.sigmoid(alpha * _differences(scores)) * mask[:, None, :]  # [B, K, K]
    smooth_ranks = 0.5 + outscored.sum(dim=2)  # [B, K]: j = i adds σ(0) = 0.5 to the sum, hence not 1 +
    errors = (ranks.to(scores.dtype) - smooth_ranks) ** 2
    if discount == "log2":
        # a padded slot has rank 0, whose discount would be a division by zero
        errors = errors / torch.log2(ranks.to(scores.dtype).masked_fill(~mask, 1.0) + 1.0)
    elif discount != "none":
        raise ValueError(f"discount={discount!r} is unknown: use 'log2' or 'none'")
    return _reduce(errors * mask, count_passages(ranks, mask), reduction)


def lce(scores: Tensor, labels: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Localized contrastive estimation (InfoNCE): Σ_+ −log( exp s_+ / (exp s_+ + Σ_{negatives} exp s_−) ).

    Args:
        scores: [B, K] student scores.
        labels: [B, K] graded labels; a label above 0 is relevant, any other is a negative.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all relevant passages of the batch, or "sum".

    Each relevant passage competes with the negatives of its list only, never with another relevant one.
    Source: Gao et al. 2021; Rank-DistiLLM, section 3.
    """
    scores = _prepare(scores, labels, mask)
    relevant = (labels > 0) & mask
    # the lowest finite number instead of -inf: a list without negatives has loss 0 and gradient 0, not NaN
    lowest = torch.finfo(scores.dtype).min
    negatives = torch.logsumexp(scores.masked_fill(relevant | ~mask, lowest), dim=1, keepdim=True)  # [B, 1]
    return _reduce(F.softplus(negatives - scores) * relevant, count_relevant(labels, mask), reduction)


def margin_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """MarginMSE: Σ_{i<j} ((s_i − s_j) − (t_i − t_j))² over all pairs of a list.

    A list of one relevant and one other passage gives the published formula; which of the two is the relevant
    one does not matter, since the square forgets the sign.

    Args:
        scores: [B, K] student scores.
        teacher_scores: [B, K] teacher scores t, on the scale that the student is to learn.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all pairs of the batch, or "sum".

    Source: Hofstätter et al. 2020, "Improving efficient neural ranking models with cross-architecture KD".
    """
    scores = _prepare(scores, teacher_scores, mask)
    gaps = scores - teacher_scores.to(scores.dtype).masked_fill(~mask, 0.0)  # [B, K]
    squares = torch.triu(_differences(gaps) ** 2, diagonal=1)  # [B, K, K], each pair once
    return _reduce(squares * _real_pairs(mask), count_pairs(teacher_scores, mask), reduction)


def bce(scores: Tensor, labels: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Pointwise binary cross-entropy with logits: Σ_i softplus(s_i) − y_i·s_i, y_i = 1 where the label is above 0.

    Args:
        scores: [B, K] student scores, read as logits; the only objective that a shift of the scores changes.
        labels: [B, K] graded labels; a label above 0 is relevant.
        mask: [B, K] bool, True for real passages.
        reduction: "mean" over all real passages of the batch, or "sum".

    Source: Nogueira and Cho 2019; Morand et al. 2026, section 3.
    """
    scores = _prepare(scores, labels, mask)
    entropies = F.binary_cross_entropy_with_logits(scores, (labels > 0).to(scores.dtype), reduction="none")
    return _reduce(entropies * mask, count_passages(labels, mask), reduction)


def hinge(scores: Tensor, labels: Tensor, mask: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """Pairwise hinge: Σ_{(i,j): y_i > y_j} max(0, margin − (s_i − s_j)).

    Args:
        scores: [B, K] student scores.
        labels: [B, K] graded labels; pairs of equal label contribute nothing.
        mask: [B, K] bool, True for real passages.
        margin: by how much the better passage shall lead, in units of the score.
        reduction: "mean" over all pairs of different labels of the batch, or "sum".

    Source: Herbrich et al. 2000; Morand et al. 2026, section 3.
    """
    scores = _prepare(scores, labels, mask)
    violations = F.relu(margin + _differences(scores))  # [B, K, K]: margin - (s_i - s_j)
    return _reduce(violations * _ordered_pairs(-labels, mask), count_labelled_pairs(labels, mask), reduction)


def count_passages(target: Tensor, mask: Tensor) -> Tensor:
    """Number of real passages, a scalar tensor."""
    return mask.sum()


def count_pairs(target: Tensor, mask: Tensor) -> Tensor:
    """Number of unordered pairs of real passages within their lists, a scalar tensor."""
    sizes = mask.sum(dim=1)
    return (sizes * (sizes - 1) // 2).sum()


def count_ranked_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """Number of pairs of real passages with different ranks, a scalar tensor."""
    return _ordered_pairs(ranks, mask).sum()


def count_labelled_pairs(labels: Tensor, mask: Tensor) -> Tensor:
    """Number of pairs of real passages with different labels, a scalar tensor."""
    return _ordered_pairs(-labels, mask).sum()


def count_relevant(labels: Tensor, mask: Tensor) -> Tensor:
    """Number of relevant passages, a scalar tensor."""
    return ((labels > 0) & mask).sum()


LOSSES = {"ranknet": ranknet, "adr_mse": adr_mse, "lce": lce, "margin_mse": margin_mse, "bce": bce, "hinge": hinge}
TERMS = {
    "ranknet": count_ranked_pairs,
    "adr_mse": count_passages,
    "lce": count_relevant,
    "margin_mse": count_pairs,
    "bce": count_passages,
    "hinge": count_labelled_pairs,
}


def _takes_triton(scores: Tensor, ranks: Tensor, mask: Tensor, implementation: str) -> bool:
    """Whether the kernel is to be used: asked for, or on CUDA with a dtype that it computes in full precision."""
    _check_shapes(scores, ranks, mask)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r} is unknown: use 'auto', 'torch' or 'triton'")
    fits = scores.is_cuda and scores.dtype != torch.float64 and TRITON_INSTALLED
    return implementation == "triton" or (implementation == "auto" and fits)


def _check_shapes(scores: Tensor, target: Tensor, mask: Tensor) -> None:
    if scores.dim() != 2 or scores.shape != target.shape or scores.shape != mask.shape:
        shapes = f"{list(scores.shape)}, {list(target.shape)} and {list(mask.shape)}"
        raise ValueError(f"scores, target and mask must share one shape [B, K], got {shapes}")


def _prepare(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    _check_shapes(scores, target, mask)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    return scores.masked_fill(~mask, 0.0)  # whatever stands in a padded slot, even NaN, stays out


def _differences(values: Tensor) -> Tensor:
    """[B, K] -> [B, K, K] with entry (i, j) = v_j − v_i."""
    return values[:, None, :] - values[:, :, None]


def _real_pairs(mask: Tensor) -> Tensor:
    return mask[:, :, None] & mask[:, None, :]


def _ordered_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """Bool [B, K, K], True at (i, j) where both are real and i stands before j."""
    return (ranks[:, :, None] < ranks[:, None, :]) & _real_pairs(mask)


def _reduce(terms: Tensor, num_terms: Tensor, reduction: str) -> Tensor:
    if reduction == "sum":
        return terms.sum()
    if reduction == "mean":
        return terms.sum() / num_terms.clamp(min=1)
    raise ValueError(f"reduction={reduction!r} is unknown: use 'mean' or 'sum'")
