"""Learning from a draw of the passages: whose gradient is expected to be that of the whole list."""

import numpy as np
import pytest
import torch

from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.training.backward import backward
from distill.training.draw import PassageDraw, draw_systematically, inclusion_probabilities
from distill.training.throughput import Throughput
from tests.helpers.backbones import make_backbone
from tests.helpers.batches import random_batch


def test_probabilities_worked_by_hand():
    # Twice 8 is more than the sum, 13: certain. The others share the second place in proportion to 3, 2 and 0
    np.testing.assert_allclose(inclusion_probabilities(np.array([8.0, 3.0, 2.0, 0.0]), 2), [1, 0.6, 0.4, 0])
    np.testing.assert_allclose(inclusion_probabilities(np.array([4.0, 4.0, 1.0, 1.0]), 1), [0.4, 0.4, 0.1, 0.1])
    np.testing.assert_array_equal(inclusion_probabilities(np.array([0.0, 5.0, 0.0, 1e-300]), 2), [0, 1, 0, 1])


@pytest.mark.parametrize("seed", range(20))
def test_exactly_as_many_are_taken_as_asked_for_each_with_its_probability(seed):
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=rng.integers(5, 60)) ** 3
    size = int(rng.integers(1, len(weights)))
    shares = inclusion_probabilities(weights, size)
    assert shares.sum() == pytest.approx(size) and shares.max() <= 1
    offsets = (np.arange(2000) + rng.random()) / 2000  # a grid in place of random offsets: the mean is nearly exact
    taken = np.array([draw_systematically(shares, offset) for offset in offsets])
    assert set(taken.sum(1)) <= {size - 1, size, size + 1} and np.mean(taken.sum(1) == size) > 0.998
    np.testing.assert_allclose(taken.mean(0), shares, atol=2e-3)


@pytest.fixture
def model(tmp_path, request):
    options = {"dropout": 0.0} | getattr(request, "param", {})
    directory = str(make_backbone(tmp_path, "electra", num_layers=3))
    torch.manual_seed(0)
    return CrossEncoder.from_backbone(directory, query_length=8, passage_length=16, **options).double().train()


def gradient(model, batch, draw: PassageDraw | None, max_tokens: int = 10**6, loss: str = "ranknet"):
    model.zero_grad()
    torch.manual_seed(0)
    objective = Objective({"name": loss, "target": "rank", "reduction": "sum"}, 0.5 if model.exit is not None else None)
    weights = objective.weights(0, 1)
    losses = backward(model, batch, objective, torch.tensor(7), weights, max_tokens, draw=draw)
    return losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("model", "loss"),
    [({}, "ranknet"), ({"layout": "padded"}, "adrmse"), ({"exit_layer": 2}, "ranknet")],
    ids=str,
    indirect=["model"],
)
def test_the_mean_over_draws_is_the_gradient_of_the_whole_lists(model, loss):
    batch = random_batch(sizes=(7, 2, 9), longest=8)
    losses, whole = gradient(model, batch, None, loss=loss)
    drawn = []
    for step in range(100):
        same_losses, own = gradient(model, batch, PassageDraw(3, 0, step), loss=loss)
        torch.testing.assert_close(same_losses, losses)  # those of all passages
        drawn.append(own)
    mean, spread = torch.stack(drawn).mean(0), torch.stack(drawn).std(0)
    assert spread.max() > 1e-3 * whole.abs().max()
    # 100 draws: within 5 standard errors in every one of the weights
    assert ((mean - whole).abs() <= 5 * spread / 10 + 1e-9 * whole.abs().max()).all()


def test_draws_depend_on_seed_step_and_query_only(model):
    batch = random_batch(sizes=(7, 2, 9), longest=8)
    _, own = gradient(model, batch, PassageDraw(3, 5, 17))
    _, in_chunks = gradient(model, batch, PassageDraw(3, 5, 17), max_tokens=40)
    torch.testing.assert_close(in_chunks, own, rtol=1e-9, atol=1e-12)
    others = [PassageDraw(3, 5, 18), PassageDraw(3, 6, 17), None]
    assert not any(torch.allclose(gradient(model, batch, other)[1], own) for other in others)


def test_lists_that_are_no_longer_than_the_draw_are_learned_whole(model):
    batch = random_batch(sizes=(7, 2, 9), longest=8)
    draw = PassageDraw(9, 0, 0)
    assert torch.equal(gradient(model, batch, draw)[1], gradient(model, batch, None)[1])
    assert not draw.shortens(batch) and draw.left_out == []
    draw = PassageDraw(7, 0, 0)
    gradient(model, batch, draw)
    assert [len(lengths) for lengths in draw.left_out] == [2]


@pytest.mark.parametrize("model", [{}, {"layout": "padded"}], ids=str, indirect=True)
def test_lists_that_teach_nothing_leave_a_gradient_of_0(model):
    batch = random_batch(sizes=(7, 5), longest=8)
    batch.targets["rank"] = torch.full((2, 7), 4.0) * batch.mask  # all tie
    losses, own = gradient(model, batch, PassageDraw(3, 0, 0))
    assert losses.item() == 0 and len(own) == sum(p.numel() for p in model.parameters()) and not own.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_all_passages_are_taken_where_gradients_are_not_finite(value):
    batch = random_batch(sizes=(7, 2), longest=8)
    gradients = torch.ones(2, 7)
    gradients[0, 3] = value
    drawn, taken = PassageDraw(3, 0, 0)(batch, gradients)
    assert drawn.list_sizes.tolist() == [7, 2] and not taken.isfinite().all()


def test_what_is_only_scored_counts_a_third(model):
    batch = random_batch(sizes=(8,), longest=8)
    throughput, draw = Throughput(model, torch.device("cpu")), PassageDraw(3, 0, 0)
    draw.left_out = [batch.lengths[:5]]
    throughput.count(batch, draw)
    counted = throughput.count_flops
    expected = counted(batch.lengths[5:]) + counted(batch.lengths[:5]) / 3
    assert throughput.num_flops == pytest.approx(expected)
