"""The packed layout: query-passage pairs one after the other in one row of tokens, with no padding between them.

    for chunk in pack_chunks(batch, 16384, pad_id=0, max_length=291, buckets=False):
        states = backbone(**chunk.inputs(takes_token_types=True)).last_hidden_state       # [1, T, D]

The model itself does not change: transformers calls the attention function registered here, which finds the start of
each pair in `cu_seqlens`, and position ids restart with each pair. On CUDA that function is PyTorch's `varlen_attn`,
elsewhere scaled_dot_product_attention over groups of pairs of equal length, in half precision with its gradients in
float32 (half_attention.py). It has no dropout.

`score_only_first_states` (first_states.py) makes the last layer compute only each pair's [CLS] state.
Shapes: T tokens, S pairs, H heads, d their size, D hidden size.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batch import Batch, copy_to
from distill.device import is_ampere
from distill.models.half_attention import HalfAttention, takes_half_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "distill_packed"  # of the attention function, in transformers' registry
BUCKETS = 8  # chunks are filled up to a multiple of max_tokens / BUCKETS, so that compiled code sees few shapes
PAIR_BUCKET = 64  # the number of pairs of a chunk is filled up to a multiple of this
BERT_LIKE = ("bert", "electra", "roberta", "xlm-roberta", "camembert")
DECODERS = ("llama", "mistral", "qwen2", "qwen3")  # tokens attend to earlier ones only
PACKABLE = (*BERT_LIKE, "modernbert", *DECODERS)  # types that hand their keyword arguments to the attention function


@dataclass
class PackedChunk:
    """Some pairs of a batch in one row; tokens that fill a bucket form extra pairs at the end."""

    pairs: Tensor  # [p] int64: which pairs of the batch
    input_ids: Tensor  # [1, T]
    token_type_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T], from 0 in each pair
    cu_seqlens: Tensor  # [S + 1] int32: where each pair starts, and where the last one ends
    lengths: tuple[int, ...] | None  # of the S pairs; None for varlen_attn on a GPU, which reads cu_seqlens
    max_length: int  # at least the length of the longest pair

    def to(self, device: torch.device) -> "PackedChunk":
        """Return the chunk with the model's inputs on the device."""
        names = ("input_ids", "token_type_ids", "position_ids", "cu_seqlens")
        moved: dict[str, Any] = {name: copy_to(getattr(self, name), device) for name in names}
        return replace(self, **moved, lengths=None if device.type == "cuda" and is_ampere(device) else self.lengths)

    def inputs(self, *, takes_token_types: bool, first_position: int = 0) -> dict:
        """Return the backbone's keyword arguments."""
        inputs = {"input_ids": self.input_ids, "position_ids": self.position_ids + first_position}
        if takes_token_types:
            inputs["token_type_ids"] = self.token_type_ids
        return inputs | {"cu_seqlens": self.cu_seqlens, "lengths": self.lengths, "max_length": self.max_length}

    def pool(self, states: Tensor, pooling: str, *, first_only: bool = False) -> Tensor:
        """Return one state per pair, [p, D].

        states: [1, T, D]; first_only: [1, S, D], since the last layer computed only those of first tokens.
        """
        num_pairs, states = len(self.pairs), states[0]
        if pooling == "mean":
            lengths = self.cu_seqlens.diff()
            index = torch.repeat_interleave(lengths, output_size=len(states))
            sums = states.new_zeros(len(lengths), states.shape[1]).index_add(0, index, states)
            return (sums / lengths.clamp(min=1)[:, None])[:num_pairs]
        if pooling == "last":
            return states[self.cu_seqlens[1 : num_pairs + 1] - 1]
        if first_only:
            return states[:num_pairs]
        return states[self.cu_seqlens[:num_pairs]]

    def rows(self, states: Tensor) -> Tensor:
        """Return the states [N, D] of the pairs' N tokens, pair after pair, without what fills the bucket."""
        return states[0, : self.cu_seqlens[len(self.pairs)]]

    def from_rows(self, rows: Tensor) -> Tensor:
        """Return the states [1, T, D] of which `rows` returns these; those of tokens that fill the bucket are 0."""
        return F.pad(rows, (0, 0, 0, self.input_ids.shape[1] - len(rows)))[None]


def pack_chunks(
    batch: Batch, max_tokens: int, pad_id: int, max_length: int, *, buckets: bool, counts_pads: bool = True
) -> Iterator[PackedChunk]:
    """Yield all pairs in chunks of at most max_tokens tokens, longest pairs first.

    A pair longer than max_tokens gets a chunk to itself. buckets: pad every chunk to one of a few sizes, in tokens and
    in pairs; all chunks then have the same max_length, that of the longest possible pair. counts_pads: whether a
    padding token that a text holds has a position of its own, as in BERT; in RoBERTa, it has the one before the first.
    """
    register_attention()  # also for a model that another process has unpickled
    order = torch.argsort(batch.lengths, descending=True, stable=True)
    lengths = batch.lengths[order].tolist()
    starts = F.pad(batch.lengths.cumsum(0), (1, 0))  # [P + 1]
    first, size = 0, 0
    for last in range(len(lengths) + 1):
        if last == len(lengths) or (size and size + lengths[last] > max_tokens):
            filled = _fill(lengths[first:last], max_tokens) if buckets else lengths[first:last]
            chunk = _pack(batch, order[first:last], starts, filled, pad_id, max_length if buckets else lengths[first])
            yield chunk if counts_pads else _without_pads(chunk, pad_id)
            first, size = last, 0
        if last < len(lengths):
            size += lengths[last]


def _fill(lengths: list[int], max_tokens: int) -> list[int]:
    """Add pairs, some of them empty, until the numbers of tokens and pairs fill a bucket."""
    bucket = max(max_tokens // BUCKETS, 1)
    missing = -sum(lengths) % bucket
    longest = max(lengths)
    filled = lengths + [longest] * (missing // longest) + [missing % longest]
    return filled + [0] * (-len(filled) % PAIR_BUCKET)


def _pack(batch: Batch, pairs: Tensor, starts: Tensor, lengths: list[int], pad_id: int, max_length: int) -> PackedChunk:
    sizes = torch.tensor(lengths)  # [S], including the pairs that fill the bucket
    cu_seqlens = F.pad(sizes.cumsum(0), (1, 0))
    position_ids = torch.arange(int(cu_seqlens[-1])) - torch.repeat_interleave(cu_seqlens[:-1], sizes)  # [T]
    num_real = int(cu_seqlens[len(pairs)])
    places = torch.repeat_interleave(starts[pairs], sizes[: len(pairs)]) + position_ids[:num_real]
    padding = (0, len(position_ids) - num_real)
    return PackedChunk(
        pairs=pairs,
        input_ids=F.pad(batch.tokens[places], padding, value=pad_id)[None],
        token_type_ids=F.pad(batch.token_types[places], padding)[None],
        position_ids=position_ids[None],
        cu_seqlens=cu_seqlens.int(),
        lengths=tuple(lengths),
        max_length=max_length,
    )


def _without_pads(chunk: PackedChunk, pad_id: int) -> PackedChunk:
    """Return a chunk in whose texts a padding token takes no position from those after it."""
    is_text, starts = chunk.input_ids[0] != pad_id, chunk.cu_seqlens.long()
    if is_text[: starts[len(chunk.pairs)]].all():
        return chunk
    counts = F.pad(is_text.cumsum(0), (1, 0))  # [T + 1] tokens that are counted before each
    before = torch.repeat_interleave(counts[starts[:-1]], starts.diff())
    return replace(chunk, position_ids=torch.where(is_text, counts[:-1] - before, -1)[None])


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    cu_seqlens: Tensor,
    lengths: tuple[int, ...] | None,
    max_length: int,
    first_only: bool = False,
    **_,
) -> tuple[Tensor, None]:
    """Attend within each pair; transformers calls this in place of its own attention.

    query: [1, H, T, d], or [1, H, S, d] of only the first tokens if first_only is set.
    key, value: [1, H, T, d]; several heads of the queries may share one of theirs.
    sliding_window: tokens at this distance or further are masked.
    In a decoder (`module.is_causal`), tokens attend to themselves and to earlier ones.
    Returns ([1, T or S, H, d], None).
    """
    causal, groups = bool(getattr(module, "is_causal", False)), query.shape[1] // key.shape[1]
    if query.dtype != value.dtype:  # under autocast, rotary embeddings and norms of decoders return float32
        query, key = query.to(value.dtype), key.to(value.dtype)
    if groups > 1:
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, H, d]
    window = None if sliding_window is None else sliding_window - 1
    if lengths is None and _takes_varlen_attn(query):
        from torch.nn.attention.varlen import varlen_attn

        starts = torch.arange(len(cu_seqlens), dtype=torch.int32, device=query.device) if first_only else cu_seqlens
        sides = (-1 if window is None else window, 0 if causal else -1 if window is None else window)
        options: dict[str, Any] = {} if sides == (-1, -1) else {"window_size": sides}
        if scaling is not None and scaling != query.shape[-1] ** -0.5:
            options["scale"] = scaling
        longest = 1 if first_only else max_length
        attended: Any = varlen_attn(query, key, value, starts, cu_seqlens, longest, max_length, **options)
    else:
        lengths = lengths or tuple(cu_seqlens.diff().tolist())
        of_queries = (1,) * len(lengths) if first_only else lengths
        attended = _attend(query, key, value, lengths, of_queries, scaling, window, causal=causal)
    return attended[None], None


def _takes_varlen_attn(query: Tensor) -> bool:
    """Whether varlen_attn takes these states [T, H, d]: FlashAttention's types and sizes of a head."""
    size = query.shape[-1]
    return query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and size % 8 == 0 and size <= 256


def _attend(
    query, key, value, lengths, query_lengths, scaling: float | None, window: int | None, *, causal: bool = False
) -> Tensor:
    """Attend with scaled_dot_product_attention, over all consecutive pairs of equal length at once."""
    groups = [(*of_pair, len(list(run))) for of_pair, run in groupby(zip(lengths, query_lengths, strict=True))]
    sizes, query_sizes = ([group[of] * group[2] for group in groups] for of in (0, 1))
    parts = []
    # Not by slices: in the backward pass, each would fill a gradient of all tokens with zeros
    split = zip(groups, query.split(query_sizes), key.split(sizes), value.split(sizes), strict=True)
    for (length, query_length, num_pairs), queries, keys, values in split:
        rest = key.shape[1:]
        keys, values = (states.view(num_pairs, length, *rest).transpose(1, 2) for states in (keys, values))
        queries = queries.view(num_pairs, query_length, *rest).transpose(1, 2)  # [n, H, length, d]
        mask = None
        if window is not None and window < length - 1:
            places = torch.arange(length, device=query.device)
            distances = places[:query_length, None] - places
            mask = (distances >= 0) & (distances <= window) if causal else distances.abs() <= window
        if length:
            if mask is None and takes_half_attention(queries, keys, values, length):
                attended = HalfAttention.apply(queries, keys, values, causal, scaling)
            else:
                is_causal = causal and mask is None
                attended = F.scaled_dot_product_attention(queries, keys, values, mask, 0.0, is_causal, scale=scaling)
            parts.append(attended.transpose(1, 2).reshape(-1, *rest))
        elif query_length:
            parts.append(queries.new_zeros(num_pairs * query_length, *rest))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def can_pack(backbone: "PreTrainedModel") -> bool:
    """Whether a backbone calls attention through transformers' registry, with all keyword arguments."""
    return backbone.config.model_type in PACKABLE


def register_attention() -> None:
    """Let transformers find packed_attention by its name."""
    from transformers import AttentionInterface  # imported here because it takes as long as torch

    AttentionInterface.register(NAME, packed_attention)
