"""One training step's lists as tensors, cut into pieces that fit the token budget.

Shapes: B lists, K passages in the longest list, P = Σ list sizes pairs, T = Σ pair lengths tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

NO_TARGETS: Mapping[str, Sequence] = MappingProxyType({})


@dataclass
class Batch:
    """B ragged lists: the tokens of their P pairs without padding, in list order, and the targets of each passage."""

    query_ids: list[str]  # B
    tokens: Tensor  # [T] int64
    token_types: Tensor  # [T] int64
    lengths: Tensor  # [P] int64: tokens of each pair
    list_sizes: Tensor  # [B] int64: passages of each list
    targets: dict[str, Tensor]  # of [B, K] float32: ranks, labels, scores; 0 where padded, NaN where a teacher has none
    mask: Tensor  # [B, K] bool: True for real passages

    @property
    def slots(self) -> Tensor:
        """[P] int64: the place of each pair in the flattened [B, K]; on the CPU, so that reading it never waits."""
        width = self.mask.shape[1]
        places = torch.arange(self.mask.numel()).view(self.mask.shape)
        return places[torch.arange(width) < self.list_sizes[:, None]]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with the tensors that the loss reads on the device; tokens follow chunk by chunk."""
        targets = {name: copy_to(target, device) for name, target in self.targets.items()}
        return replace(self, targets=targets, mask=copy_to(self.mask, device))


def copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device; the host does not wait for a copy to a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # from other memory the copy would not be asynchronous
    return tensor.to(device, non_blocking=True)


def make_batch(
    query_ids: list[str], lists: list[list[tuple[np.ndarray, np.ndarray]]], targets: Mapping[str, Sequence] = NO_TARGETS
) -> Batch:
    """Join lists of (tokens, token types) pairs into one batch; there may be no list.

    targets: what the loss learns from, by name, as the passages' values [K] of each list.
    """
    pairs = [pair for pairs in lists for pair in pairs]
    sizes = [len(pairs) for pairs in lists]
    shape = len(lists), max(sizes, default=0)
    mask = torch.zeros(shape, dtype=torch.bool)  # [B, K]
    for row, size in enumerate(sizes):
        mask[row, :size] = True
    padded = {name: torch.zeros(shape) for name in targets}  # of [B, K]
    for name, of_lists in targets.items():
        for row, values in enumerate(of_lists):
            padded[name][row, : sizes[row]] = torch.as_tensor(np.asarray(values), dtype=torch.float32)
    nothing = np.zeros(0, np.int32)
    return Batch(
        query_ids=query_ids,
        tokens=torch.from_numpy(np.concatenate([nothing, *(tokens for tokens, _ in pairs)])).long(),
        token_types=torch.from_numpy(np.concatenate([nothing, *(types for _, types in pairs)])).long(),
        lengths=torch.tensor([len(tokens) for tokens, _ in pairs], dtype=torch.long),
        list_sizes=torch.tensor(sizes, dtype=torch.long),
        targets=padded,
        mask=mask,
    )


def split_lists(batch: Batch, max_tokens: int) -> Iterator[Batch]:
    """Yield the batch as micro-batches of whole lists with at most max_tokens tokens each.

    A list that is longer than the budget makes a micro-batch by itself.
    """
    list_starts = torch.cat([torch.zeros(1, dtype=torch.long), batch.list_sizes.cumsum(0)])  # [B + 1] pairs
    token_starts = torch.cat([torch.zeros(1, dtype=torch.long), batch.lengths.cumsum(0)])  # [P + 1] tokens
    bounds = token_starts[list_starts].tolist()  # [B + 1]: where each list's tokens begin
    first = 0
    for last in range(1, len(batch.query_ids) + 1):
        if last == len(batch.query_ids) or bounds[last + 1] - bounds[first] > max_tokens:
            pairs = slice(int(list_starts[first]), int(list_starts[last]))
            yield _take_lists(batch, slice(first, last), pairs, slice(bounds[first], bounds[last]))
            first = last


def _take_lists(batch: Batch, lists: slice, pairs: slice, tokens: slice) -> Batch:
    return Batch(
        query_ids=batch.query_ids[lists],
        tokens=batch.tokens[tokens],
        token_types=batch.token_types[tokens],
        lengths=batch.lengths[pairs],
        list_sizes=batch.list_sizes[lists],
        targets={name: target[lists] for name, target in batch.targets.items()},
        mask=batch.mask[lists],
    )


def take_pairs(batch: Batch, taken: Tensor) -> Batch:
    """Return the batch with only some pairs of each list, without targets; taken: [P] bool."""
    tokens = taken.repeat_interleave(batch.lengths)
    lists = torch.arange(len(batch.query_ids)).repeat_interleave(batch.list_sizes)
    sizes = torch.bincount(lists[taken], minlength=len(batch.query_ids))
    return Batch(
        query_ids=batch.query_ids,
        tokens=batch.tokens[tokens],
        token_types=batch.token_types[tokens],
        lengths=batch.lengths[taken],
        list_sizes=sizes,
        targets={},
        mask=torch.arange(int(sizes.max()) if len(sizes) else 0) < sizes[:, None],
    )
