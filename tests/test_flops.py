"""The operations counted are those that PyTorch's own counter sees in forward and backward."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from distill.models.cross_encoder import CrossEncoder
from distill.training.flops import FlopCounter, peak_flops
from tests.helpers.backbones import make_backbone, positions
from tests.helpers.batches import ragged_batch


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", ["bert", "electra", "roberta", "modernbert"])
def test_operations_are_those_that_pytorch_counts(tmp_path, family, pooling):
    directory = str(positions(make_backbone(tmp_path, family)))
    model = CrossEncoder.from_backbone(directory, pooling, 8, 40, layout="packed", dropout=0.0).train()
    batch = ragged_batch([40, 40, 40, 40], [4])
    counted = FlopCounter(model)(batch.lengths)
    with FlopCounterMode(display=False) as mode, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model.score(batch, 10_000).sum().backward()
    total = mode.get_total_flops()
    if family == "modernbert":  # the reference attention computes the second layer's window of 9 tokens in full
        total -= 3 * 4 * 16 * 4 * 40 * (40 - 9)
    # Left out by us: the linear layer on top, ELECTRA's projection of embeddings, BERT's pooler
    assert counted == pytest.approx(total, rel=0.08) and counted <= total


# Two layers, hidden size 16, intermediate size 32: 4 * 16^2 + 2 * 16 * 32 = 2048 weights in a layer of BERT's
# and 4 * 16^2 + 3 * 16 * 32 = 2560 in ModernBERT's, whose second layer looks at 9 tokens
@pytest.mark.parametrize(
    ("family", "pooling", "lengths", "forward"),
    [
        ("bert", "mean", [3, 5], 2 * 2 * 2048 * 8 + 2 * 4 * 16 * (9 + 25)),
        # Of the last layer, keys and values (2 * 16^2 weights) are of all 8 tokens, the rest of the 2 first ones
        ("bert", "cls", [3, 5], 2 * (2048 + 512) * 8 + 2 * 1536 * 2 + 4 * 16 * (9 + 25) + 4 * 16 * 8),
        ("modernbert", "mean", [3, 12], 2 * 2 * 2560 * 15 + 4 * 16 * (9 + 144) + 4 * 16 * (9 + 12 * 9)),
    ],
)
def test_operations_of_two_short_pairs_by_hand(tmp_path, family, pooling, lengths, forward):
    directory = str(make_backbone(tmp_path, family))
    model = CrossEncoder.from_backbone(directory, pooling, 8, 40, layout="packed").train()
    assert FlopCounter(model)(torch.tensor(lengths)) == 3 * forward  # backward is twice the forward pass


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_the_peak_is_that_of_the_whole_name(monkeypatch, name, peak):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak
