"""Checkpoints: a run that is killed while it writes them resumes as if it had not been."""

import os

import pytest
import torch

from distill.models.cross_encoder import CrossEncoder
from distill.training.checkpoint import joined_overrides, load_checkpoint
from tests.helpers.commands import run_patched
from tests.helpers.configuration import compose_config, resumed
from train import train


def test_the_model_card_names_the_overrides_that_a_run_was_started_and_resumed_with():
    assert joined_overrides(["loss=adrmse", "train.max_steps=80"], []) == ["loss=adrmse", "train.max_steps=80"]
    more = ["train.max_steps=160", "train.device=cpu"]
    assert joined_overrides(["loss=adrmse", "train.max_steps=80"], more) == ["loss=adrmse", *more]


def best_files(directory) -> tuple:
    checkpoint = load_checkpoint(directory / "checkpoints" / "best.pt")
    return checkpoint["step"], (directory / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "killed_at", ["best.pt", "best.new", "checkpoint", "model", "model, and best.pt is another's", "copied"]
)
def test_a_run_killed_between_two_renames_is_mended_when_it_is_resumed(file_overrides, tmp_path, killed_at):
    directory = tmp_path / "run"
    overrides = [*file_overrides, "train.max_steps=4", "validation.measures=[nDCG@10]", "train.patience=null"]
    train(compose_config("train", *overrides), directory)
    last, best = (directory / "checkpoints" / f"{name}.pt" for name in ("last", "best"))
    expected, model = best_files(directory), directory / "model"
    state = load_checkpoint(last)
    if expected[0] != state["step"]:  # make the last step the best: that is where a kill can come between
        state["best_step"] = state["step"]
        torch.save(state, last)
        best.unlink()
        os.link(last, best)
        _save_model(state, model)
        expected = best_files(directory)
    if killed_at in ("best.pt", "best.new", "copied"):  # last.pt was renamed, best.pt not
        best.unlink()
        if killed_at == "best.new":
            os.link(last, best.with_suffix(".new"))
        if killed_at == "copied":  # as by cp -r: the same content, but no link
            best.write_bytes(last.read_bytes())
    elif killed_at == "checkpoint":  # the model of a later step was saved, its checkpoint was not
        weights = {name: value + 1 for name, value in state["model"].items()}
        _save_model(state | {"model": weights}, model)
    elif killed_at == "model":
        model.rename(directory / ".model.old")
    else:
        best.unlink()
        torch.save(state | {"step": 1}, best)
        state["best_step"] = 3
        torch.save(state, last)
        model.rename(directory / ".model.new")
        expected = (1, expected[1])
    train(resumed(directory), directory)
    assert best_files(directory) == expected
    names = {path.name for path in [*directory.iterdir(), *(directory / "checkpoints").iterdir()]}
    assert not names & {".model.new", ".model.old", "best.new", "last.new"}


def _save_model(state: dict, directory) -> None:

    model = CrossEncoder.from_pretrained(str(directory))
    model.load_state_dict(state["model"])
    model.save_pretrained(directory)


KILLED_AT = {
    "best.pt": "import distill.training.checkpoint\nlink = distill.training.checkpoint.link_checkpoint\n"
    "def killed(last, best):\n    os.kill(os.getpid(), 9) if best.exists() else link(last, best)\n"
    "distill.training.checkpoint.link_checkpoint = killed",
    "model": "rename = os.rename\n"
    "def killed(old, new):\n    rename(old, new)\n    str(new).endswith('.model.old') and os.kill(os.getpid(), 9)\n"
    "os.rename = killed",
}


@pytest.mark.parametrize("place", KILLED_AT)
def test_a_run_killed_in_its_second_improvement_ends_as_one_that_was_not(file_overrides, tmp_path, place):
    overrides = [*file_overrides, "optimizer.lr=0.01", "train.max_steps=8"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(compose_config("train", *overrides), straight)
    done = run_patched(tmp_path, KILLED_AT[place], "train.py", *overrides, f"hydra.run.dir={killed}")
    assert done.returncode == -9, done.stderr
    assert (killed / "model").is_dir() == (place == "best.pt") and (killed / "checkpoints" / "best.pt").is_file()
    train(resumed(killed), killed)
    assert best_files(killed) == best_files(straight)
