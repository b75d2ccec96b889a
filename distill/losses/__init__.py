"""The six training objectives in plain PyTorch, as the papers define them.

    loss = ranknet(scores, ranks, mask)            # scalar
    loss = LOSSES["adrmse"](scores, ranks, mask, alpha=2.0, reduction="sum")     # by its name in conf/loss/

Each objective is a function `loss(scores, target, mask, **options) -> scalar` that knows nothing about tokens.

Shapes: B lists, K passages per list; a padded slot has mask False (and rank 0) and does not count.
Precision: half-precision scores are converted to float32 first; float32 and float64 scores keep their precision.
Reduction: "sum" is the formula as written; "mean" divides it by the number of terms in the whole batch
(`TERMS[name](target, mask)`). A training step of several micro-batches adds up their sums and divides once.
Implementation: RankNet and ADR-MSE each have a fused Triton kernel (`kernels/`), which "auto" uses on CUDA. The
functions here are the definitions that the kernels are tested against.
Errors: ValueError for shapes that differ and for an unknown option.
"""

import functools
from collections.abc import Callable

from distill.losses.listwise import adr_mse, lce
from distill.losses.pairwise import hinge, margin_mse, ranknet
from distill.losses.pointwise import bce
from distill.losses.terms import (
    count_labelled_pairs,
    count_pairs,
    count_passages,
    count_ranked_pairs,
    count_relevant,
)

__all__ = ["LOSSES", "TERMS", "adr_mse", "bce", "hinge", "lce", "make_loss", "margin_mse", "ranknet"]

_LISTED: dict[str, tuple[Callable, Callable]] = {  # option of conf/loss/: the function, and what counts its terms
    "ranknet": (ranknet, count_ranked_pairs),
    "adrmse": (adr_mse, count_passages),
    "lce": (lce, count_relevant),
    "marginmse": (margin_mse, count_pairs),
    "bce": (bce, count_passages),
    "hinge": (hinge, count_labelled_pairs),
}
LOSSES = {name: function for name, (function, _) in _LISTED.items()}
TERMS = {name: count for name, (_, count) in _LISTED.items()}


def make_loss(name: str, target: str, reduction: str, **options) -> tuple[Callable, Callable]:
    """Return a loss of the configuration, summed over its terms, and the function that counts these.

    Both take the target and mask of a batch; the loss takes the scores before them. target, reduction: used elsewhere.
    """
    return functools.partial(LOSSES[name], reduction="sum", **options), TERMS[name]
