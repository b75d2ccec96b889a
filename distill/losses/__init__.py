"""The training objectives in plain PyTorch, as the papers define them.

    loss = ranknet(scores, ranks, mask)            # scalar
    loss = LOSSES["adrmse"](scores, ranks, mask, alpha=2.0, reduction="sum")     # by its name in conf/loss/

Each objective is a function `loss(scores, target, mask, **options) -> scalar` that knows nothing about tokens.

Shapes: B lists, K passages per list; a padded slot has mask False (and rank 0) and does not count.
Precision: half-precision scores are converted to float32 first; float32 and float64 scores keep their precision.
Reduction: "sum" is the formula as written; "mean" divides it by the number of terms in the whole batch
(`TERMS[name](target, mask)`). A training step of several micro-batches adds up their sums and divides once.
Implementation: RankNet, its soft form, hinge, LambdaLoss, ADR-MSE and ApproxNDCG have fused Triton kernels
(`kernels/`), which "auto" uses on CUDA. The functions here are the definitions that the kernels are tested against.
Errors: ValueError for shapes that differ and for an unknown option.
"""

import functools
from collections.abc import Callable

from torch import Tensor

from distill.losses.distributions import kl, listnet
from distill.losses.listwise import adr_mse, lce
from distill.losses.ndcg import approx_ndcg, lambda_loss
from distill.losses.pairwise import bradley_terry, hinge, margin_mse, ranknet
from distill.losses.permutations import listmle, plistmle
from distill.losses.pointwise import bce, mse
from distill.losses.terms import (
    count_labelled_pairs,
    count_lists,
    count_ordered_lists,
    count_pairs,
    count_passages,
    count_ranked_pairs,
    count_relevant,
    count_relevant_lists,
    relevance_of,
)

__all__ = [
    "LOSSES",
    "TERMS",
    "adr_mse",
    "approx_ndcg",
    "bce",
    "bradley_terry",
    "hinge",
    "kl",
    "lambda_loss",
    "lce",
    "listmle",
    "listnet",
    "make_loss",
    "margin_mse",
    "mse",
    "plistmle",
    "ranknet",
]

_LISTED: dict[str, tuple[Callable, Callable]] = {  # option of conf/loss/: the function, and what counts its terms
    "ranknet": (ranknet, count_ranked_pairs),
    "adrmse": (adr_mse, count_passages),
    "lce": (lce, count_relevant),
    "marginmse": (margin_mse, count_pairs),
    "bce": (bce, count_passages),
    "hinge": (hinge, count_labelled_pairs),
    "mse": (mse, count_passages),
    "kl": (kl, count_lists),
    "listnet": (listnet, count_lists),
    "listmle": (listmle, count_ordered_lists),
    "plistmle": (plistmle, count_ordered_lists),
    "lambda": (lambda_loss, count_labelled_pairs),
    "approxndcg": (approx_ndcg, count_relevant_lists),
    "bradleyterry": (bradley_terry, count_pairs),
}
ON_RANKS = {"ranknet", "adrmse"}  # the others learn from numbers that grow with relevance
LOSSES = {name: function for name, (function, _) in _LISTED.items()}
TERMS = {name: count for name, (_, count) in _LISTED.items()}


def make_loss(name: str, target: str, reduction: str, guided: bool = False, **options) -> tuple[Callable, Callable]:
    """Return a loss of the configuration, summed over its terms, and the function that counts these.

    Both take the target and mask of a batch; the loss takes the scores before them. target: where it is "rank" and the
    loss needs relevance, that is n − rank of n passages. reduction and guided: used in distill/losses/objective.py.
    """
    loss, count = functools.partial(LOSSES[name], reduction="sum", **options), TERMS[name]
    if target != "rank" or name in ON_RANKS:
        return loss, count

    def loss_on_ranks(scores: Tensor, ranks: Tensor, mask: Tensor) -> Tensor:
        return loss(scores, relevance_of(ranks, mask), mask)

    def count_on_ranks(ranks: Tensor, mask: Tensor) -> Tensor:
        return count(relevance_of(ranks, mask), mask)

    return loss_on_ranks, count_on_ranks
