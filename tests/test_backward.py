"""Two passes give the gradients of one, dropout included, for every loss and layout."""

import numpy as np
import pytest
import torch

import distill.models.cross_encoder
from distill.losses import LOSSES, ON_RANKS
from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.training.backward import backward
from tests.helpers.backbones import make_backbone
from tests.helpers.batches import random_batch


@pytest.fixture
def model(tmp_path, monkeypatch, request):
    monkeypatch.setattr(distill.models.cross_encoder, "MAX_CPU_TOKENS", 60)  # chunks, in one pass as well
    directory = str(make_backbone(tmp_path, "electra"))
    model = CrossEncoder.from_backbone(directory, query_length=8, passage_length=16, dropout=0.2, layout=request.param)
    return model.double().train()


def gradients(
    model, batch, loss: str, max_tokens: int, scaler: torch.amp.GradScaler | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    [target] = batch.targets
    objective = Objective({"name": loss, "target": target, "reduction": "sum"})
    value = backward(model, batch, objective, torch.tensor([7]), [1.0], max_tokens, scaler=scaler)
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return value, flat, torch.rand(1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", ["packed", "padded"], indirect=True)
def test_two_passes_give_the_gradient_of_one_with_dropout(model, loss):
    batch = random_batch(sizes=(9, 2, 13))
    values = batch.targets["rank"]
    if loss in ("lce", "bce", "hinge", "lambda", "approxndcg"):
        values = (torch.arange(batch.mask.shape[1]) == 1).float() * batch.mask
    batch.targets = {"rank" if loss in ON_RANKS else "score": values}
    assert len(batch.tokens) > 60
    value, one, after = gradients(model, batch, loss, 10**6)
    same_value, two, same_after = gradients(model, batch, loss, 60)
    assert one.abs().max() > 1e-6
    torch.testing.assert_close(same_value, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12)
    assert after == same_after  # the next step draws the same dropout
    model.eval()
    _, without, _ = gradients(model, batch, loss, 10**6)
    assert not np.allclose(without, one)  # dropout was on


@pytest.mark.parametrize("model", ["packed"], indirect=True)
@pytest.mark.parametrize("max_tokens", [60, 10**6], ids=["two passes", "one pass"])
def test_a_scaled_loss_scales_the_gradients_and_nothing_else(model, max_tokens):
    batch = random_batch(sizes=(9, 2, 13))
    value, plain, _ = gradients(model, batch, "ranknet", max_tokens)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    same_value, scaled, _ = gradients(model, batch, "ranknet", max_tokens, scaler)
    assert torch.equal(same_value, value) and torch.equal(scaled, plain * 2**16)  # a power of 2 is exact


@pytest.mark.parametrize("model", ["packed"], indirect=True)
@pytest.mark.parametrize("max_tokens, passes", [(60, 2), (10**6, 1)])
def test_lists_beyond_the_budget_take_two_passes_of_small_chunks(model, monkeypatch, max_tokens, passes):
    forward, sizes = CrossEncoder.forward, []

    def counting(self, chunk):
        sizes.append(chunk.input_ids.numel())
        return forward(self, chunk)

    monkeypatch.setattr(CrossEncoder, "forward", counting)
    batch = random_batch(sizes=(40, 30))
    gradients(model, batch, "ranknet", max_tokens)
    assert max(sizes) <= 60 and sum(sizes) == passes * len(batch.tokens)
