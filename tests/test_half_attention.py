"""Attention in half precision on a CPU: PyTorch's values, and gradients that are nearer to float64's than PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from distill.device import half_precision
from distill.models import packed
from distill.models.cross_encoder import CrossEncoder
from distill.models.half_attention import MAX_LENGTH, HalfAttention, takes_half_attention
from tests.helpers.backbones import make_backbone, positions
from tests.helpers.batches import LENGTHS, SIZES, ragged_batch


def states(length: int, dtype: torch.dtype, queries: int | None = None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    sizes = (queries or length, length, length)
    return [torch.randn(3, 4, size, 16).mul(2).to(dtype).requires_grad_() for size in sizes]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("causal", "scale"), [(False, None), (True, None), (False, 0.4)])
@pytest.mark.parametrize(("length", "queries"), [(1, None), (37, None), (130, None), (37, 1)])
def test_values_are_those_of_pytorch_and_gradients_at_least_as_exact(dtype, causal, scale, length, queries):
    if causal and queries:
        pytest.skip("the layers of decoders attend from all tokens")
    given = states(length, dtype, queries)
    assert takes_half_attention(*given, length)
    gradient = torch.randn(3, 4, queries or length, 16).to(dtype)
    exact = [state.detach().double().requires_grad_() for state in given]
    reference = F.scaled_dot_product_attention(*exact, is_causal=causal, scale=scale)
    expected = torch.autograd.grad(reference, exact, gradient.double())
    ours = HalfAttention.apply(*given, causal, scale)
    theirs = F.scaled_dot_product_attention(*given, is_causal=causal, scale=scale)
    assert torch.equal(ours, theirs)
    found = torch.autograd.grad(ours, given, gradient)
    of_pytorch = torch.autograd.grad(theirs, given, gradient)
    assert all(each.dtype == dtype for each in found)
    if length == 1:  # the softmax over one key is 1, whatever the score
        assert all(each.abs().max() < 0.1 for each in found[:2])
        found, of_pytorch, expected = found[2:], of_pytorch[2:], expected[2:]
    for one, other, right in zip(found, of_pytorch, expected, strict=True):
        assert error(one, right) <= 1.02 * error(other, right)
        assert error(one, right) < 0.01


def test_it_is_taken_only_where_it_is_faster():
    given = states(8, torch.bfloat16)
    assert takes_half_attention(*given, MAX_LENGTH)
    assert not takes_half_attention(*given, MAX_LENGTH + 1)
    assert not takes_half_attention(*states(8, torch.float32), 8)
    assert not takes_half_attention(*(state.to("meta") for state in given), 8)
    with torch.no_grad():
        assert not takes_half_attention(*given, 8)
    assert not takes_half_attention(*(state.detach() for state in given), 8)


def test_packed_training_takes_it_and_keeps_scores_and_gradients(tmp_path, monkeypatch):
    directory = str(positions(make_backbone(tmp_path, "bert")))
    batch, found = ragged_batch(LENGTHS, SIZES), {}
    for takes in (takes_half_attention, lambda *_: False):
        taken: list[bool] = []

        def noted(*given, takes=takes, taken=taken) -> bool:
            taken.append(takes(*given))
            return taken[-1]

        monkeypatch.setattr(packed, "takes_half_attention", noted)
        torch.manual_seed(0)
        model = CrossEncoder.from_backbone(directory, "mean", 32, 472, layout="packed", dropout=0.0).train()
        with half_precision(torch.device("cpu"), torch.bfloat16):
            scores = model.score(batch, 10_000)[batch.mask]
        assert any(taken) == (takes is takes_half_attention)
        scores.square().sum().backward()
        gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        found[any(taken)] = (scores.detach(), gradients)
    assert torch.equal(found[True][0], found[False][0])
    for name, gradient in found[False][1].items():
        assert (found[True][1][name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-6, name
