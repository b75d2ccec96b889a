"""Scores of lists of which only the best passages, by the score after an inner layer, go through all layers.

    scores = score_pruned(model, batch, max_tokens, keep=20)        # [B, K] float64, on the CPU
    low = place_below(kept, others)                                 # scores of the others, below those that are kept
    scores = score_again(first, score, keep=20)                     # in a cascade of two models

Kept passages continue from the states that the first layers have computed; nothing is computed twice but embeddings.
Shapes: B lists, K passages per list, P pairs, N tokens of the pairs that are held, D hidden size.
"""

from collections.abc import Callable
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.batch import Batch, split_lists, take_pairs
from distill.errors import InputError
from distill.models.early_exit import from_layer, states_after

MAX_TOKENS_HELD = 2**17  # of lists whose states are held at once: 200 MB with 384 numbers a token


def check_keep(model, keep: int | None, name: str = "exit_keep") -> None:
    """Raise InputError if passages shall be left out by a score after an inner layer, and the model has none.

    name: what the caller calls the number of passages that are kept.
    """
    if keep is None:
        return
    if model.exit is None:
        raise InputError(
            f"{name}={keep}: this model has no score after an inner layer to choose by: train one with "
            "model.exit_layer, or leave it out"
        )
    if isinstance(keep, bool) or not isinstance(keep, Integral) or keep < 1:
        raise InputError(f"{name}={keep}: must be at least 1, and a whole number")


def place_below(kept: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return scores of others, in their order and at their distances, the best of them 1 below the lowest kept one."""
    if not len(kept) or not len(others):
        return others
    return kept.min() - 1 - (others.max() - others)


def score_again(first: np.ndarray, score: Callable[[list[int]], np.ndarray], keep: int) -> np.ndarray:
    """Return the scores [K] of a list in a cascade: its best passages are scored again, the others placed below them.

    first: scores [K] of the first model. score: returns the second model's scores of passages, given their places.
    """
    order = np.argsort(-first, kind="stable")
    scores = np.empty(len(first))
    scores[order[:keep]] = score(order[:keep].tolist())
    scores[order[keep:]] = place_below(scores[order[:keep]], first[order[keep:]])
    return scores


@torch.no_grad()
def score_pruned(model, batch: Batch, max_tokens: int, keep: int) -> Tensor:
    """Return the scores [B, K] of a batch, 0 where padded, with full scores only for the `keep` best of each list.

    Which these are, the exit's score decides; of equal ones, the earlier. The others are placed below as logits, so a
    model's activation applies to them, too. Call it in evaluation mode. Raises InputError for an exit's score that is
    not finite.
    """
    parts = [_score_lists(model, lists, max_tokens, keep) for lists in split_lists(batch, MAX_TOKENS_HELD)]
    return torch.cat([torch.zeros(0, batch.mask.shape[1], dtype=torch.float64), *parts])


def _score_lists(model, batch: Batch, max_tokens: int, keep: int) -> Tensor:
    if not len(batch.lengths):  # only empty lists
        return torch.zeros(batch.mask.shape, dtype=torch.float64)
    layer, mask = model.exit.layer, batch.mask.cpu()
    dtype = _dtype_of(model.exit.linear)
    early = torch.full(batch.lengths.shape, -torch.inf, dtype=dtype)  # [P]; of pairs that no chunk has reached, too
    held: list[tuple[Tensor, Tensor]] = []  # pairs, and the states [N, D] of their tokens
    for chunk in model.chunks(batch, max_tokens):
        on_device = chunk.to(model.device)
        states = states_after(layer, model.run, model.backbone, on_device)
        early[chunk.pairs] = model.exit(on_device.pool(states, model.pooling)).cpu()
        _check_finite(early[chunk.pairs], layer)
        may_stay = _best(early, mask, keep)[chunk.pairs]
        rows = may_stay.repeat_interleave(batch.lengths[chunk.pairs])
        held.append((chunk.pairs[may_stay], on_device.rows(states)[rows.to(model.device)]))
    is_kept = _best(early, mask, keep)
    kept, states = _only(held, batch.lengths, is_kept)
    logits = _full_logits(model, take_pairs(batch, is_kept), states, max_tokens)
    full = logits.new_zeros(early.shape)
    full[kept] = logits
    return _arranged(full, early, is_kept, mask, model.activation)


def _dtype_of(head: nn.Linear) -> torch.dtype:
    """Return the dtype of a head's scores, as `in_float32` gives them."""
    return torch.float64 if head.weight.dtype == torch.float64 else torch.float32


def _check_finite(scores: Tensor, layer: int) -> None:
    bad = scores[~scores.isfinite()]
    if len(bad):
        raise InputError(
            f"the model's score after layer {layer} is {bad[0]:g} for a passage, which cannot be ranked: its weights "
            "are damaged, or too large for the precision: use another checkpoint, or float32"
        )


def _best(scores: Tensor, mask: Tensor, keep: int) -> Tensor:
    """Return which of the pairs [P] are among the best of their lists."""
    lists = scores.new_full(mask.shape, -torch.inf).masked_scatter(mask, scores)  # [B, K]
    best = lists.argsort(dim=1, descending=True, stable=True)[:, :keep]
    return torch.zeros_like(mask).scatter(1, best, value=True)[mask]


def _only(held: list[tuple[Tensor, Tensor]], lengths: Tensor, is_kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs that are kept, in their order in the batch, and the states [N, D] of their tokens."""
    pairs, states = torch.cat([pairs for pairs, _ in held]), torch.cat([states for _, states in held])
    starts = lengths[pairs].cumsum(0) - lengths[pairs]
    order = pairs.argsort()
    order = order[is_kept[pairs[order]]]
    return pairs[order], states[ranges(starts[order], lengths[pairs[order]]).to(states.device)]


def ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Return the numbers from each start on, as many as its length, one range after the other."""
    before = lengths.cumsum(0) - lengths
    return (starts - before).repeat_interleave(lengths) + torch.arange(int(lengths.sum()))


def _full_logits(model, batch: Batch, states: Tensor, max_tokens: int) -> Tensor:
    """Return the logits [P] of pairs, on the CPU, from their states [N, D] after the exit's layer."""
    logits = torch.zeros(batch.lengths.shape, dtype=_dtype_of(model.head))
    starts = batch.lengths.cumsum(0) - batch.lengths
    for chunk in model.chunks(batch, max_tokens):
        rows = states[ranges(starts[chunk.pairs], batch.lengths[chunk.pairs]).to(states.device)]
        on_device = chunk.to(model.device)
        output = from_layer(model.exit.layer, on_device.from_rows(rows), model.run, model.backbone, on_device)
        logits[chunk.pairs] = model.logits(
            on_device.pool(output.last_hidden_state, model.pooling, first_only=model.first_only)
        ).cpu()
    return logits


def _arranged(full: Tensor, early: Tensor, is_kept: Tensor, mask: Tensor, activation: nn.Module) -> Tensor:
    """Return the scores [B, K], with what is not kept below."""
    scores = torch.zeros(mask.shape, dtype=torch.float64)
    parts = (values.split(mask.sum(dim=1).tolist()) for values in (full, early, is_kept))
    for row, (logits, exits, stays) in enumerate(zip(*parts, strict=True)):
        low = place_below(logits[stays].double().numpy(), exits[~stays].double().numpy())
        scores[row, : len(logits)][stays] = activation(logits[stays]).double()
        scores[row, : len(logits)][~stays] = activation(torch.from_numpy(low))
    return scores
