"""Micro-batches and padded chunks: nothing lost, nothing above budget, and the same gradient however a batch is cut."""

import pytest
import torch

from distill.data.batch import split_lists
from distill.losses import LOSSES, TERMS
from distill.models.cross_encoder import CrossEncoder
from distill.models.padded import PaddedChunk, pad_chunks
from tests.helpers.backbones import FAMILIES, make_backbone
from tests.helpers.batches import random_batch


@pytest.mark.parametrize("max_tokens", [1, 40, 100, 10**6])
def test_split_lists_keeps_every_list_whole_and_below_the_budget(max_tokens):
    batch = random_batch()
    parts = list(split_lists(batch, max_tokens))
    assert [query_id for part in parts for query_id in part.query_ids] == batch.query_ids
    for name in ("tokens", "token_types", "lengths", "list_sizes", "mask"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert batch.targets
    for name, target in batch.targets.items():
        assert torch.equal(torch.cat([part.targets[name] for part in parts]), target)
    assert all(len(part.tokens) <= max_tokens or len(part.query_ids) == 1 for part in parts)
    assert all(len(part.tokens) == part.lengths.sum() for part in parts)


@pytest.mark.parametrize("max_tokens", [1, 40, 100, 10**6])
def test_pad_chunks_gives_every_pair_once_and_below_the_budget(max_tokens):
    batch = random_batch()
    chunks = list(pad_chunks(batch, max_tokens, pad_id=0))
    assert sorted(torch.cat([chunk.pairs for chunk in chunks]).tolist()) == list(range(len(batch.lengths)))
    starts = batch.lengths.cumsum(0) - batch.lengths
    for chunk in chunks:
        assert chunk.input_ids.numel() <= max_tokens or len(chunk.pairs) == 1
        for row, pair in enumerate(chunk.pairs):
            own = slice(starts[pair], starts[pair] + batch.lengths[pair])
            length = int(batch.lengths[pair])
            assert torch.equal(chunk.input_ids[row, :length], batch.tokens[own])
            assert torch.equal(chunk.token_type_ids[row, :length], batch.token_types[own])
            assert chunk.attention_mask[row].sum() == length and (chunk.input_ids[row, length:] == 0).all()


def test_long_chunks_hold_pairs_of_similar_length():
    batch = random_batch(sizes=(400,), longest=100)
    chunks = list(pad_chunks(batch, 10**6, pad_id=0))
    real = sum(int(chunk.attention_mask.sum()) for chunk in chunks)
    assert real / sum(chunk.input_ids.numel() for chunk in chunks) > 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_any_micro_batching_gives_the_gradient_of_one_padded_batch(tmp_path, family):
    model = CrossEncoder.from_backbone(str(make_backbone(tmp_path, family)), query_length=8, passage_length=16).double()
    model.eval()  # dropout would differ from cut to cut
    batch = random_batch()
    loss_function, count_terms = LOSSES["ranknet"], TERMS["ranknet"]

    def gradient(micro_tokens: int, chunk_tokens: int) -> torch.Tensor:
        model.zero_grad()
        terms = count_terms(batch.targets["rank"], batch.mask)
        for lists in split_lists(batch, micro_tokens):
            loss = loss_function(model.score(lists, chunk_tokens), lists.targets["rank"], lists.mask, reduction="sum")
            (loss / terms).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient(10**6, 10**6)
    assert whole.abs().max() > 1e-3
    for micro_tokens, chunk_tokens in ((100, 10**6), (100, 40), (1, 10**6), (10**6, 1)):
        torch.testing.assert_close(gradient(micro_tokens, chunk_tokens), whole, rtol=1e-9, atol=1e-12)


def test_scores_of_a_ragged_batch_are_those_of_each_pair_alone(backbone):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16, layout="padded")
    model.double().eval()
    batch = random_batch()
    scores = model.score(batch, 10**6)
    assert scores.shape == batch.mask.shape and (scores[~batch.mask] == 0).all()
    ends = batch.lengths.cumsum(0).tolist()
    alone = []
    for length, end in zip(batch.lengths.tolist(), ends, strict=True):
        ids, types = batch.tokens[None, end - length : end], batch.token_types[None, end - length : end]
        alone.append(model(PaddedChunk(torch.zeros(1), ids, torch.ones_like(ids), types)))
    torch.testing.assert_close(scores[batch.mask], torch.cat(alone), rtol=1e-10, atol=1e-12)
