"""The packed layout gives the padded one's scores and gradients, for every family, and little remainder."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from distill.device import choose_precision, is_ampere
from distill.errors import InputError
from distill.models import packed
from distill.models.cross_encoder import CrossEncoder
from distill.models.packed import BUCKETS, PAIR_BUCKET, pack_chunks
from tests.helpers.backbones import PACKED_FAMILIES, make_backbone, positions
from tests.helpers.batches import LENGTHS, SIZES, ragged_batch


def plain_scores(model: CrossEncoder, backbone, batch) -> torch.Tensor:
    """Scores by transformers' own backbone, one pair at a time: nothing packed, padded or left out."""
    scores, start = [], 0
    for length in batch.lengths.tolist():
        inputs = {"input_ids": batch.tokens[None, start : start + length]}
        if model.takes_token_types:
            inputs["token_type_ids"] = batch.token_types[None, start : start + length]
        states = backbone(**inputs).last_hidden_state
        pooled = states[:, 0] if model.pooling == "cls" else states.mean(dim=1)
        scores.append(model.head(pooled)[0, 0])
        start += length
    return torch.stack(scores)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_packed_padded_and_plain_scores_and_gradients_agree(tmp_path, family, pooling):
    directory = str(positions(make_backbone(tmp_path, family)))
    batch = ragged_batch(LENGTHS, SIZES)
    models = {}
    for layout in ("packed", "padded"):
        torch.manual_seed(0)
        models[layout] = CrossEncoder.from_backbone(directory, pooling, 32, 472, layout=layout, dropout=0.0).train()
        assert models[layout].layout == layout
    plain = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    expected = plain_scores(models["packed"], plain, batch)
    weights = torch.randn(len(LENGTHS), generator=torch.Generator().manual_seed(0))
    expected @ weights
    (expected @ weights).backward()
    for max_tokens in (10_000, 600):
        for model in models.values():
            model.zero_grad()
            scores = model.score(batch, max_tokens)[batch.mask]
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
            (scores @ weights).backward()
            gradients = dict(model.backbone.named_parameters())
            for name, parameter in plain.named_parameters():
                if parameter.grad is None:
                    continue
                error = (gradients[name].grad - parameter.grad).norm()
                assert error <= 1e-4 * parameter.grad.norm() + 1e-7, name


@pytest.mark.parametrize("buckets", [False, True])
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_padding_token_within_a_text_has_the_position_that_transformers_gives_it(tmp_path, family, buckets):
    directory = str(positions(make_backbone(tmp_path, family)))
    model = CrossEncoder.from_backbone(directory, layout="packed").eval()
    batch, pad_id = ragged_batch([9, 30, 12, 7], [2, 2]), model.tokenizer.pad_token_id
    batch.tokens[[4, 12, 13, 45]] = pad_id  # of the first, second and third pair
    plain = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    options = {"buckets": buckets, "counts_pads": model.first_position == 0}
    with torch.inference_mode():
        (chunk,) = pack_chunks(batch, 512, pad_id, model.max_length, **options)
        torch.testing.assert_close(model(chunk), plain_scores(model, plain, batch)[chunk.pairs], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_filling_a_bucket_changes_no_score(tmp_path, family):
    model = CrossEncoder.from_backbone(str(positions(make_backbone(tmp_path, family))), layout="packed").eval()
    batch = ragged_batch(LENGTHS, SIZES)
    pad_id = model.tokenizer.pad_token_id
    scores = {}
    for buckets in (False, True):
        flat = torch.zeros(len(LENGTHS))
        for chunk in pack_chunks(batch, 800, pad_id, model.max_length, buckets=buckets):
            flat[chunk.pairs] = model(chunk)
        scores[buckets] = flat
    torch.testing.assert_close(scores[True], scores[False], rtol=0, atol=1e-6)


def test_first_tokens_are_pooled_where_a_chunk_has_as_many_tokens_as_pairs(tmp_path):
    model = CrossEncoder.from_backbone(str(positions(make_backbone(tmp_path, "modernbert"))), layout="packed").eval()
    batch = ragged_batch([20, 20], [2])
    (chunk,) = pack_chunks(batch, 512, model.tokenizer.pad_token_id, model.max_length, buckets=True)
    assert chunk.input_ids.shape[1] == len(chunk.cu_seqlens) - 1 == 64
    whole = [model(one) for one in pack_chunks(batch, 512, model.tokenizer.pad_token_id, 20, buckets=False)]
    torch.testing.assert_close(model(chunk), torch.cat(whole), rtol=0, atol=1e-6)


@settings(max_examples=100, derandomize=True)
@given(lengths=st.lists(st.integers(3, 300), min_size=1, max_size=80), max_tokens=st.integers(300, 3000))
def test_every_token_is_packed_once_within_the_budget(lengths, max_tokens):
    batch = ragged_batch(lengths, [len(lengths)])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for buckets in (False, True):
        chunks = list(pack_chunks(batch, max_tokens, 0, 512, buckets=buckets))
        assert sorted(torch.cat([chunk.pairs for chunk in chunks]).tolist()) == list(range(len(lengths)))
        for chunk in chunks:
            bounds = chunk.cu_seqlens.tolist()
            assert bounds[-1] == chunk.input_ids.shape[1] and sum(chunk.lengths) == bounds[-1]
            for pair, first, last in zip(chunk.pairs.tolist(), bounds, bounds[1:], strict=False):
                assert chunk.input_ids[0, first:last].tolist() == batch.tokens[starts[pair] : starts[pair + 1]].tolist()
                assert chunk.position_ids[0, first:last].tolist() == list(range(lengths[pair]))
            if buckets:
                assert bounds[-1] % (max_tokens // BUCKETS) == 0 and (len(bounds) - 1) % PAIR_BUCKET == 0
                assert max(chunk.lengths) <= chunk.max_length == 512
            else:
                assert bounds[-1] <= max_tokens
        if not buckets and len(chunks) > 1:  # all but the last chunk lack at most the next pair
            assert all(c.input_ids.shape[1] > max_tokens - max(lengths) for c in chunks[:-1])


def test_deberta_stays_padded(tmp_path):
    directory = str(make_backbone(tmp_path, "deberta-v2"))
    assert CrossEncoder.from_backbone(directory, query_length=8, passage_length=16).layout == "padded"
    with pytest.raises(InputError, match="layout=packed: a deberta-v2 backbone .* packed: set it to padded"):
        CrossEncoder.from_backbone(directory, query_length=8, passage_length=16, layout="packed")


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_the_way_of_a_gpu_traces_into_one_graph_for_all_shapes(tmp_path, monkeypatch, family):
    # Without a GPU varlen_attn cannot run; that it is called as it wants to be, and what it returns, shows in the trace
    model = CrossEncoder.from_backbone(str(positions(make_backbone(tmp_path, family))), layout="packed").eval()
    monkeypatch.setattr(packed, "_takes_varlen_attn", lambda query: True)
    graphs = []

    def trace(graph, _):
        graphs.append(graph)
        return lambda *inputs: [torch.zeros(1)] * 2  # in place of the states, and of what BERT's pooler makes of them

    compiled = torch.compile(model.backbone, backend=trace, fullgraph=True, dynamic=True)
    for max_tokens in (800, 1600):
        batch = ragged_batch(LENGTHS, SIZES)
        for chunk in pack_chunks(batch, max_tokens, 0, model.max_length, buckets=True):
            inputs = replace(chunk, lengths=None).inputs(
                takes_token_types=model.takes_token_types, first_position=model.first_position
            )
            compiled(**inputs)
    (graph,) = graphs
    calls = [node for node in graph.graph.nodes if "varlen_attn" in str(node.target)]
    assert len(calls) == model.backbone.config.num_hidden_layers


def test_flash_attention_is_asked_for_what_it_takes():
    def taken(size: int, dtype: torch.dtype) -> bool:
        return packed._takes_varlen_attn(SimpleNamespace(is_cuda=True, dtype=dtype, shape=(9, 2, size)))

    assert taken(64, torch.bfloat16) and taken(256, torch.float16)
    assert not (taken(64, torch.float32) or taken(26, torch.bfloat16) or taken(264, torch.bfloat16))


@pytest.mark.parametrize(("capability", "kept"), [((7, 5), (7, 5)), ((8, 0), None)])
def test_older_gpus_get_the_lengths_for_attention_without_flash_attention(monkeypatch, capability, kept):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr(packed, "copy_to", lambda tensor, device: tensor)
    (chunk,) = pack_chunks(ragged_batch([5, 7], [2]), 100, 0, 20, buckets=False)
    is_ampere.cache_clear()
    assert chunk.to(torch.device("cuda")).lengths == kept
    assert choose_precision("auto", torch.device("cuda")) == (torch.float32 if kept else torch.bfloat16)
    is_ampere.cache_clear()
