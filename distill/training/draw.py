"""Learn from some passages of each list: all are scored, and those drawn go through the backward pass.

    draw = PassageDraw(size=20, seed=0, step=17)
    drawn, gradients = draw(lists, gradients)       # the pairs that are taken, and what each is to backpropagate

The gradient of a list is Σᵢ ∂L/∂sᵢ · ∂sᵢ/∂θ over its passages. Most of them say little: once the student has them in
place, ∂L/∂sᵢ is close to 0. So a passage is taken with probability πᵢ = min(1, c·|∂L/∂sᵢ|), where c makes the πᵢ add up
to `size`, and its term is divided by πᵢ (Horvitz and Thompson, 1952, https://doi.org/10.1080/01621459.1952.10483446).
The expected gradient is then that of the whole list, which shorter lists (`data.list_size`) do not give.
The draw is systematic: of one random number per list, so that exactly `size` passages are taken (Madow, 1949,
https://doi.org/10.1214/aoms/1177729988). It depends on seed, step and query only.
"""

import zlib

import numpy as np
import torch
from torch import Tensor

from distill.data.batch import Batch, take_pairs


class PassageDraw:
    """Draws the passages of one step's lists that are learned from."""

    def __init__(self, size: int | None, seed: int, step: int):
        """Take at most `size` passages of each list; None: all."""
        self.size, self.seed = size, (seed, step)
        self.left_out: list[Tensor] = []  # tokens of the pairs that are only scored, by micro-batch

    def shortens(self, lists: Batch) -> bool:
        """Say whether there is anything to leave out."""
        return self.size is not None and int(lists.list_sizes.max()) > self.size

    def __call__(self, lists: Batch, gradients: Tensor) -> tuple[Batch, Tensor]:
        """Return the p pairs that are taken, as a batch, and their gradients [p], or [p, 2] with two scores of a pair.

        gradients: ∂L/∂s [B, K], or [2, B, K]. If they are not finite, all pairs are taken, so that the loss shows it.
        """
        flat = gradients.flatten(-2)[..., lists.slots.to(gradients.device)]  # [P] or [2, P]
        influence = flat.detach().abs().reshape(-1, flat.shape[-1]).sum(0).double().cpu().numpy()  # [P]
        ends = np.cumsum(lists.list_sizes.numpy())
        shares = [
            self._shares(query_id, influence[end - size : end])
            for query_id, end, size in zip(lists.query_ids, ends, lists.list_sizes.tolist(), strict=True)
        ]
        share = torch.from_numpy(np.concatenate(shares))  # [P]: πᵢ, 0 for what is left out
        taken = share > 0
        self.left_out.append(lists.lengths[~taken])
        places = taken.nonzero().squeeze(1).to(flat.device)
        return take_pairs(lists, taken), (flat[..., places] / share[taken].to(flat)).movedim(-1, 0)

    def _shares(self, query_id: str, influence: np.ndarray) -> np.ndarray:
        """Return π of the passages of a list that are taken, 0 for the others."""
        assert self.size is not None
        if len(influence) <= self.size or not np.isfinite(influence).all():
            return np.ones(len(influence))
        shares = inclusion_probabilities(influence, self.size)
        if not shares.any():  # the loss has no gradient here; one passage is taken, so that the weights still get one
            shares[0] = 1.0
        offset = np.random.default_rng((*self.seed, zlib.crc32(query_id.encode()))).random()
        return np.where(draw_systematically(shares, offset), shares, 0.0)


def inclusion_probabilities(weights: np.ndarray, size: int) -> np.ndarray:
    """Return min(1, c·weights) [n], with c such that they add up to `size`; 1 where no more weights are positive."""
    positive = weights > 0
    if positive.sum() <= size:
        return positive.astype(np.float64)
    certain = np.zeros(len(weights), dtype=bool)
    while True:
        rest = positive & ~certain
        shares = np.where(certain, 1.0, weights / weights[rest].sum() * (size - certain.sum()))
        above = rest & (shares >= 1)
        if not above.any():
            return shares
        certain |= above


def draw_systematically(shares: np.ndarray, offset: float) -> np.ndarray:
    """Return which elements are taken [n]: each with its probability in `shares`, for an offset uniform in [0, 1).

    The shares lie one after another on a line, and the points offset, offset + 1, … take those that they fall in.
    """
    certain = shares >= 1
    ends = np.cumsum(np.where(certain, 0.0, shares))
    points = np.ceil(ends - offset)  # how many are before the end of each
    return certain | (np.diff(points, prepend=np.ceil(-offset)) > 0)
