"""The padded layout: pairs of similar length in padded rectangles of tokens.

for chunk in pad_chunks(batch, 16384, pad_id=0):
    states = backbone(**chunk.inputs(takes_token_types=True)).last_hidden_state       # [p, L, D]
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.data.batch import Batch, copy_to

MIN_CHUNK_TOKENS = 2048  # smaller chunks leave the machine idle, which costs more than padding
# Model types whose states depend on the padding, which no mask hides
_READ_PADDING = ("convbert", "fnet", "mobilebert", "nystromformer", "yoso")
MAX_SHRINK = 0.8  # a chunk takes pairs down to this share of its longest pair's length: at most 20% padding


def reads_padding(config) -> bool:
    """Whether a backbone, or the one that an ONNX graph was exported from, reads the padding of a chunk."""
    return (getattr(config, "exported_type", None) or config.model_type) in _READ_PADDING


@dataclass
class PaddedChunk:
    """Some pairs of similar length as one padded rectangle; L tokens in the longest, D hidden size."""

    pairs: Tensor  # [p] int64: which pairs of the batch
    input_ids: Tensor  # [p, L]
    attention_mask: Tensor  # [p, L]
    token_type_ids: Tensor  # [p, L]

    def to(self, device: torch.device) -> "PaddedChunk":
        """Return the chunk with the model's inputs on the device."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        return replace(self, **{name: copy_to(getattr(self, name), device) for name in names})

    def inputs(self, *, takes_token_types: bool, first_position: int = 0) -> dict:
        """Return the backbone's keyword arguments; the backbone counts positions itself."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs | ({"token_type_ids": self.token_type_ids} if takes_token_types else {})

    def pool(self, states: Tensor, pooling: str, *, first_only: bool = False) -> Tensor:
        """Return one state per pair, [p, D].

        states: [p, L, D], or [p, 1, D] where the last layer computed only those of first tokens. first_only: as in
        PackedChunk; here it makes no difference.
        """
        if pooling == "cls":
            return states[:, 0]
        if pooling == "last":
            return states[torch.arange(len(states), device=states.device), self.attention_mask.sum(dim=1) - 1]
        weights = self.attention_mask[:, :, None].to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    def rows(self, states: Tensor) -> Tensor:
        """Return the states [N, D] of the pairs' N tokens, pair after pair, without the padding."""
        return states[self.attention_mask.bool()]

    def from_rows(self, rows: Tensor) -> Tensor:
        """Return the states [p, L, D] of which `rows` returns these; those of the padding are 0."""
        states = rows.new_zeros(*self.attention_mask.shape, rows.shape[1])
        states[self.attention_mask.bool()] = rows
        return states


def pad_chunks(batch: Batch, max_tokens: int, pad_id: int, *, equal: bool = False) -> Iterator[PaddedChunk]:
    """Yield all pairs in padded chunks of at most max_tokens tokens, padding included, longest pairs first.

    Pairs are sorted by length, so that a chunk holds pairs of similar length; equal: of the same length, without
    padding. A pair longer than max_tokens gets a chunk to itself.
    """
    order = torch.argsort(batch.lengths, descending=True, stable=True)
    lengths = batch.lengths[order].tolist()
    starts = torch.cat([torch.zeros(1, dtype=torch.long), batch.lengths.cumsum(0)])  # [P + 1]
    first = 0
    for last in range(1, len(lengths) + 1):
        width = lengths[first]
        full = (last - first + 1) * width > max_tokens
        if last < len(lengths):
            uneven = lengths[last] < MAX_SHRINK * width and (last - first) * width >= MIN_CHUNK_TOKENS
            uneven = lengths[last] < width if equal else uneven
        if last == len(lengths) or full or uneven:
            yield _pad(batch, order[first:last], starts, width, pad_id)
            first = last


def _pad(batch: Batch, pairs: Tensor, starts: Tensor, width: int, pad_id: int) -> PaddedChunk:
    columns = torch.arange(width)
    attention_mask = columns < batch.lengths[pairs, None]  # [p, width]
    places = (starts[pairs, None] + columns).masked_fill(~attention_mask, 0)
    return PaddedChunk(
        pairs=pairs,
        input_ids=batch.tokens[places].masked_fill(~attention_mask, pad_id),
        attention_mask=attention_mask.long(),
        token_type_ids=batch.token_types[places].masked_fill(~attention_mask, 0),
    )
