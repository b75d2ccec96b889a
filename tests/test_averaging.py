"""Averages of weights: worked by hand, kept through a stop, and what validation and the saved model see of them."""

import logging

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distill.config.checks import check_train
from distill.distributed import Ranks
from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.training.averaging import MovingAverage, Soup
from distill.training.checkpoint import load_checkpoint
from distill.training.state import TrainingState
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.training import run_train
from train import train

ONE = Ranks(0, 1, torch.device("cpu"))


def scalar(value: float) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    model.backbone = nn.Identity()
    return model


def test_a_moving_average_worked_by_hand():
    model = scalar(1.0)
    average = MovingAverage(model, 0.5)
    expected = 1.0
    for step, value in enumerate([3.0, -2.0, 8.0, 8.0, 0.0, 7.0, 1.0, 5.0, 9.0, 4.0], start=1):
        nn.init.constant_(model.weight, value)
        average.update(step)
        decay = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5][step - 1]
        expected = decay * expected + (1 - decay) * value
        assert average.averages["weight"].item() == pytest.approx(expected, rel=1e-6)
        assert model.weight.item() == value


def test_the_model_gets_its_own_weights_back_bit_by_bit_even_after_an_error():
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    average = MovingAverage(model, 0.9)
    nn.init.normal_(model.weight)
    own, averaged = model.weight.detach().clone(), average.averages["weight"].clone()
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert torch.equal(model.weight, averaged)
        raise ZeroDivisionError
    assert torch.equal(model.weight, own) and [*average.averages] == ["weight"]  # what is not trained does not move
    nothing = MovingAverage(model, None)
    nothing.update(1)
    with nothing.in_place():
        assert torch.equal(model.weight, own)
    assert nothing.state_dict() == {}


def test_a_soup_is_the_mean_of_the_best_validations(tmp_path, caplog):
    soup = Soup(tmp_path, 2)
    joined = [
        soup.offer(step, value, scalar(step)) for step, value in [(1, 0.3), (2, 0.5), (3, 0.3), (4, 0.4), (5, 0.6)]
    ]
    assert joined == [True, True, False, True, True]  # step 3 is no better than step 1, which came before
    assert soup.members == {5: 0.6, 2: 0.5}
    files = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert files == {"step-2.pt", "step-4.pt", "step-5.pt"}  # the checkpoint before the last one still names step 4
    model = scalar(0.0)
    soup.stir(model, ONE)
    assert model.weight.item() == 3.5
    (tmp_path / "checkpoints" / "step-2.pt").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        soup.stir(model, ONE)
    assert model.weight.item() == 5 and "step-2.pt: left out of the soup: " in caplog.text
    assert soup.keeps(0.6, 0.6) and not soup.keeps(0.59, 0.6)
    assert not Soup(tmp_path, None).offer(1, 1.0, model)


AVERAGED = ["train.ema=0.8", "train.soup=2", "train.validate_every=1", "train.save_every=2", "optimizer.lr=0.01"]


def test_a_stopped_and_resumed_run_ends_with_the_same_averages(file_overrides, tmp_path, monkeypatch):
    overrides = [*file_overrides, *AVERAGED, "train.precision=float16"]
    results = run_train(tmp_path / "whole", *overrides)
    note = TrainingState.note
    monkeypatch.setattr(TrainingState, "note", lambda self, *args: note(self, *args) if self.step < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_train(tmp_path / "stopped", *overrides)
    monkeypatch.undo()
    assert 0 < load_checkpoint(tmp_path / "stopped" / "checkpoints" / "last.pt")["step"] < 6
    train(resumed(tmp_path / "stopped"), tmp_path / "stopped")
    last, same = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "stopped"))
    for part in ("model", "average"):
        assert all(torch.equal(weight, same[part][name]) for name, weight in last[part].items())
    assert last["soup"] == same["soup"] and len(last["soup"]) == 2
    assert last["scaler"] == same["scaler"] and last["scaler"]["_growth_tracker"] == 6
    saved, again = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    finished = train(resumed(tmp_path / "whole"), tmp_path / "whole")  # measures the same again
    assert [finished[name] for name in results if "nDCG" in name] == [
        results[name] for name in results if "nDCG" in name
    ]


def trained_part(directory) -> dict[str, torch.Tensor]:
    """The weights of a saved model that it scores with."""
    weights = CrossEncoder.from_pretrained(str(directory)).state_dict()
    return {name: weight for name, weight in weights.items() if "pooler" not in name}


@pytest.mark.parametrize("soup", [None, 2])
def test_the_model_that_is_saved_is_the_one_that_was_validated(file_overrides, tmp_path, soup):
    run_train(tmp_path, *file_overrides, *AVERAGED, f"train.soup={soup or 'null'}")
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    saved = trained_part(tmp_path / "model")
    assert any(not torch.equal(weight, best["average"][name]) for name, weight in best["model"].items())
    steps = [torch.load(path)["model"] for path in (tmp_path / "checkpoints").glob("step-*.pt")] if soup else []
    members = {name: sum(step[name].double() for step in steps) / len(steps) for name in saved} if soup else {}
    expected = [best["model"] | best["average"], *([members] if soup else [])]  # the mean, if it validates no worse
    assert any(all(torch.equal(saved[name], of_all[name].float()) for name in saved) for of_all in expected)


def test_without_validation_the_last_average_is_the_model(file_overrides, tmp_path):
    nothing = [f"{task}.{key}=null" for task in ("validation", "task") for key in ("run", "queries", "qrels")]
    run_train(tmp_path, *file_overrides, *nothing, "train.ema=0.8", "train.max_steps=2")
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    saved = trained_part(tmp_path / "model")
    assert all(torch.equal(weight, last["average"][name]) for name, weight in saved.items())


def test_a_checkpoint_without_an_average_starts_one_from_its_weights():
    model = scalar(2.0)
    average = MovingAverage(model, 0.9)
    nn.init.constant_(model.weight, 5.0)  # as when a checkpoint is loaded
    average.load_state_dict({})
    assert average.averages["weight"].item() == 5.0


def test_a_soup_of_adapters_is_refused(file_overrides):
    lora = ["model.lora.rank=2", "model.lora.save=adapters", "train.soup=3"]
    with pytest.raises(
        InputError, match=r"train.soup=3 averages whole models, but model.lora.save=adapters keeps only"
    ):
        check_train(compose_config("train", *file_overrides, *lora))


def test_a_soup_without_validation_is_refused(file_overrides):
    with pytest.raises(InputError, match=r"train.soup=3 needs a validation, which chooses the checkpoints"):
        check_train(compose_config("train", *file_overrides, "train.soup=3", "validation.run=null"))
