"""Gradients of large embeddings, added row by row, are PyTorch's dense ones, bit for bit."""

import pytest
import torch
from torch import nn

from distill.training import row_gradients
from distill.training.row_gradients import LARGE, add_gradients_by_row

SIZE = (LARGE // 16, 16)


class Tower(nn.Module):
    """An embedding with a padding token, and a layer above it that may share its weights."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(*SIZE, padding_idx=0)
        self.places = nn.Embedding(100, SIZE[1])
        self.tied = tied

    def forward(self, ids):
        states = self.tokens(ids) + self.places(torch.arange(len(ids)))
        return states @ self.tokens.weight.T if self.tied else states


def passes(model: Tower, *, steps: int = 2) -> list[torch.Tensor]:
    """Return the gradients of the tokens' embedding after each of some steps of three passes of two lookups."""
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        for highest in (5, 40, SIZE[0]):  # many tokens of a few rows, and few of each
            looked_up = [model(torch.randint(highest, (60,), generator=generator)) for _ in range(2)]
            states = torch.cat(looked_up)
            states.backward(torch.randn(states.shape, generator=generator))
        found.append(model.tokens.weight.grad.clone())
        model.zero_grad()
    return found


@pytest.mark.parametrize("tied", [False, True], ids=["embedding", "also an output"])
def test_the_gradients_are_the_dense_ones_bit_for_bit(tied):
    plain, ours = Tower(tied=tied), Tower(tied=tied)
    add_gradients_by_row(ours)
    for found, expected in zip(passes(ours), passes(plain), strict=True):
        assert not found.is_sparse
        if tied:  # there, PyTorch adds both uses of the weights before they come here
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found, expected)
            assert not found[0].any()  # of the padding token


def test_steps_of_adamw_are_the_same():
    weights = []
    for by_row in (False, True):
        model = Tower()
        if by_row:
            add_gradients_by_row(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
        for ids in torch.randint(SIZE[0], (3, 60), generator=torch.Generator().manual_seed(1)):
            model(ids).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        weights.append(model.tokens.weight.detach())
    assert torch.equal(*weights)


def test_only_large_trained_embeddings_are_changed(monkeypatch):
    model = Tower()
    add_gradients_by_row(model)
    assert model.tokens.sparse and not model.places.sparse
    frozen = Tower()
    frozen.tokens.requires_grad_(False)
    add_gradients_by_row(frozen)
    assert not frozen.tokens.sparse
    elsewhere = Tower().to("meta")
    add_gradients_by_row(elsewhere)
    assert not elsewhere.tokens.sparse
    monkeypatch.setattr(row_gradients, "LARGE", SIZE[0] * SIZE[1] + 1)
    small = Tower()
    add_gradients_by_row(small)
    assert not small.tokens.sparse
