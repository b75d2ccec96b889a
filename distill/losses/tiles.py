"""Sums over the pairs of a list whose memory grows with B·K, not with B·K².

    losses = sum_pairs(lambda s, rows: F.softplus(differences(s, rows)), scores)        # scalar, over all (i, j)
    outscored = sum_partners(lambda s, rows: torch.sigmoid(differences(s, rows)), scores)           # [B, K], over j

The function computes some rows of [B, K, K] from scores [B, K]. Short lists are computed at once. On the CPU, deep
lists are computed in tiles of rows, each with its gradient, so that no more than a tile is kept. On CUDA the memory is
the definition's, which the fused kernels (`kernels/`) spare.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ALL = slice(None)
MOST_AT_ONCE = 2**20  # pairs of a batch: below, tiles cost more time than they save
TILE = 2**18  # pairs of a tile, 1 MiB in float32
Rows = Callable[[Tensor, slice], Tensor]  # ([B, K], R rows) to [B, R, K]


def sum_pairs(function: Rows, scores: Tensor) -> Tensor:
    """Return the sum of `function(scores, rows)` over all rows, a scalar tensor; only through scores is it derived."""
    return _SumOfPairs.apply(function, scores) if is_deep(scores) else function(scores, ALL).sum()


def sum_partners(function: Rows, scores: Tensor) -> Tensor:
    """Return the sums of `function(scores, rows)` over their last dimension, for all rows: [B, K]."""
    return _SumOfPartners.apply(function, scores) if is_deep(scores) else function(scores, ALL).sum(dim=2)


def is_deep(scores: Tensor) -> bool:
    """Whether the pairs of scores [B, K] are summed in tiles."""
    return scores.device.type == "cpu" and has_many_pairs(scores) and not torch.compiler.is_compiling()


def has_many_pairs(scores: Tensor) -> bool:
    """Whether the pairs of scores [B, K] are too many to be held at once."""
    num_lists, size = scores.shape
    return num_lists * size * size > MOST_AT_ONCE


def _tiles(scores: Tensor) -> Iterator[slice]:
    """Yield slices of rows whose [B, R, K] has at most TILE elements, or of one row."""
    num_lists, size = scores.shape
    num_rows = max(1, TILE // (num_lists * size))
    for first in range(0, size, num_rows):
        yield slice(first, first + num_rows)


class _SumOfPairs(torch.autograd.Function):
    """A scalar's gradient is known up to a factor, so it is computed along with the sum."""

    @staticmethod
    def forward(ctx, function: Rows, scores: Tensor) -> Tensor:
        total, gradient = scores.new_zeros(()), None
        if scores.requires_grad:
            gradient = torch.zeros_like(scores)
        for rows in _tiles(scores):
            with torch.set_grad_enabled(gradient is not None):
                own = scores.detach().requires_grad_(gradient is not None)
                part = function(own, rows).sum()
            if gradient is not None:
                gradient += torch.autograd.grad(part, own)[0]
            total = total + part.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, outer[0] * gradient


class _SumOfPartners(torch.autograd.Function):
    """The gradient of each tile needs that of its sums, so the tiles are computed again in the backward pass."""

    @staticmethod
    def forward(ctx, function: Rows, scores: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(scores)
        sums = torch.empty_like(scores)  # at once: a small tensor between two tiles would split the memory of the next
        for rows in _tiles(scores):
            sums[:, rows] = function(scores, rows).sum(dim=2)
        return sums

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[None, Tensor]:
        (scores,) = ctx.saved_tensors
        gradient = torch.zeros_like(scores)
        for rows in _tiles(scores):
            with torch.enable_grad():
                own = scores.detach().requires_grad_()
                sums = ctx.function(own, rows).sum(dim=2)
            gradient += torch.autograd.grad(sums, own, outer[0][:, rows])[0]
        return None, gradient
