"""The training loop: what a run leaves behind, that stopping changes nothing, and how it fails."""

import json
import os
import signal
import time

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from distill.errors import InputError
from distill.losses import LOSSES
from distill.models.cross_encoder import CrossEncoder
from distill.training.checkpoint import load_checkpoint
from distill.training.state import TrainingState
from tests.helpers.commands import Started, run, start, without_wandb
from tests.helpers.training import run_train


def read_metrics(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def weights_of(directory) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory / "checkpoints" / "last.pt")["model"]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_leaves_its_files_and_lowers_the_loss(file_overrides, tmp_path, loss, capsys):
    options = ["train.max_steps=60", "train.validate_every=20", "train.batch_size=6", "backbone.lr=0.01"]
    options += ["model.dropout=0.0", "task.untrained=true", f"loss={loss}"]
    results = run_train(tmp_path / "run", *file_overrides, *options)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("config.yaml", "run.lock", "metrics.jsonl", "checkpoints", "model", "results.json", "run.txt"),
        *("per_query.csv", "first_stage.per_query.csv"),
    }
    metrics = read_metrics(tmp_path / "run")
    losses = [row["train/loss"] for row in metrics if "train/loss" in row]
    assert len(losses) == 60 and losses[-1] < 0.8 * losses[0]
    assert [row["step"] for row in metrics if "val/nDCG@10" in row] == [20, 40, 60]
    assert set(metrics[0]) == {
        "step",
        *(f"train/{n}" for n in "loss lr grad_norm pairs_per_second tokens_per_second".split()),
    }
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert results["val/nDCG@10"] == max(row["val/nDCG@10"] for row in metrics if "val/nDCG@10" in row)
    assert results["test/files/nDCG@10"] == pytest.approx(results["val/nDCG@10"])  # the same queries, the best model
    assert results["test/files/nDCG@10"] > results["untrained/files/nDCG@10"]
    printed = capsys.readouterr().out
    assert (
        "student before training  " in printed and "\nstudent before training: where its linear layer is new" in printed
    )
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    model = CrossEncoder.from_pretrained(str(tmp_path / "run" / "model"))
    assert all(torch.equal(best["model"][name], value) for name, value in weights_that_score(model).items())


def weights_that_score(model: CrossEncoder) -> dict[str, torch.Tensor]:
    """Return a model's weights without those of BERT's pooler, whose place in the files the head takes."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.pooler.")}


def test_without_validation_and_task_the_last_model_is_kept(file_overrides, tmp_path):
    results = run_train(tmp_path / "run", *file_overrides, "validation.run=null", "task.run=null")
    agreement = {f"agreement/{row}/tau" for row in ("student", "first_stage")}
    assert set(results) == {"train/lists", "train/steps", "train/seconds", "memory/train/peak_bytes"} | agreement
    assert 10**8 < results["memory/train/peak_bytes"] < 10**11
    weights = weights_that_score(CrossEncoder.from_pretrained(str(tmp_path / "run" / "model")))
    assert all(torch.equal(weights_of(tmp_path / "run")[name], value) for name, value in weights.items())


def test_training_stops_after_patience_steps_without_improvement(file_overrides, tmp_path):
    overrides = [*file_overrides, "train.max_steps=100", "train.patience=4", "backbone.lr=1e-12"]
    results = run_train(tmp_path / "run", *overrides)
    assert results["train/steps"] == 6  # best at the first validation, step 2; 4 steps without a better one
    longer = ["train.max_steps=200", f"resume={tmp_path / 'run'}"]
    results = run_train(tmp_path / "run", *overrides, *longer)
    assert results["train/steps"] == 10  # patience counts from step 6 there


def test_the_step_at_which_patience_ends_is_logged_and_saved(file_overrides, tmp_path):
    run, flat = tmp_path / "run", ["train.max_steps=60", "train.patience=5", "train.log_every=4", "backbone.lr=1e-12"]
    assert run_train(run, *file_overrides, *flat)["train/steps"] == 7  # best at step 2; 5 without a better one
    rows = read_metrics(run)
    assert [row["step"] for row in rows if "train/loss" in row] == [4, 7]
    assert load_checkpoint(run / "checkpoints" / "last.pt")["step"] == 7
    assert run_train(run, *file_overrides, *flat, f"resume={run}")["train/steps"] == 7
    assert read_metrics(run) == rows  # nothing was trained again
    longer = [*flat, "train.max_steps=80", f"resume={run}"]
    assert run_train(run, *file_overrides, *longer)["train/steps"] == 12  # 5 steps from where it ended


def test_a_better_validation_at_the_end_of_patience_lets_a_run_go_on(file_overrides, tmp_path, monkeypatch):
    improves = TrainingState.improves
    monkeypatch.setattr(
        TrainingState, "improves", lambda state, _: state.step in (2, 6) and improves(state, state.step)
    )
    options = ["train.max_steps=60", "train.patience=4", "train.log_every=100", "train.save_every=100"]
    assert run_train(tmp_path / "run", *file_overrides, *options)["train/steps"] == 10
    assert [row["step"] for row in read_metrics(tmp_path / "run") if "train/loss" in row] == [10]


def test_epochs_are_turned_into_steps(file_overrides, tmp_path):
    results = run_train(
        tmp_path / "run", *file_overrides, "train.max_steps=null", "train.max_epochs=1.5", "train.batch_size=4"
    )
    assert results["train/steps"] == 3  # 1.5 * 6 lists / 4, rounded up


@pytest.mark.parametrize("learn_from", ["null", "2"])
def test_the_token_budget_leaves_the_update_as_it_is(file_overrides, tmp_path, learn_from):
    same = [*file_overrides, "model.dropout=0.0", "optimizer.eps=1e-3", f"train.learn_from={learn_from}"]
    for name, budget in (("whole", 10**6), ("cut", 50)):
        run_train(tmp_path / name, *same, f"train.max_tokens={budget}")
    whole, cut = (weights_of(tmp_path / name) for name in ("whole", "cut"))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=1e-6)


def test_a_draw_from_lists_that_are_too_short_for_it_is_refused(file_overrides, tmp_path):
    options = ["data.depth=null", "train.learn_from=10"]
    with pytest.raises(InputError, match="^train.learn_from=10 leaves nothing out, since the longest list has 10 pass"):
        run_train(tmp_path / "run", *file_overrides, *options)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(file_overrides, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_train(tmp_path / name, *file_overrides, f"seed={seed}")
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_half_precision_on_the_cpu_stays_near_float32(file_overrides, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16", "float16"):
        run_train(tmp_path / precision, *file_overrides, f"train.precision={precision}", "model.dropout=0.0")
        rows = [row for row in read_metrics(tmp_path / precision) if "train/loss" in row]
        losses[precision] = [row["train/loss"] for row in rows]
        assert [row.get("train/loss_scale") for row in rows] == [2.0**16 if precision == "float16" else None] * 6
        assert {value.dtype for value in weights_of(tmp_path / precision).values()} == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.005)
    assert len({tuple(values) for values in losses.values()}) == 3
    saved = {name: load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in losses}
    assert saved["float16"]["scaler"]["scale"] == 2.0**16 and "scaler" not in saved["bfloat16"]


@pytest.mark.long
def test_a_compiled_backbone_gives_the_same_losses(file_overrides, tmp_path):
    for compiled in ("true", "false"):
        run_train(
            tmp_path / compiled, *file_overrides, f"train.compile={compiled}", "model.dropout=0.0", "train.max_steps=3"
        )
    losses = [
        [row["train/loss"] for row in read_metrics(tmp_path / name) if "train/loss" in row]
        for name in ("true", "false")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert weights_of(tmp_path / "true").keys() == weights_of(tmp_path / "false").keys()


@pytest.mark.parametrize("loss", ["ranknet", pytest.param("adrmse", marks=pytest.mark.long)])
def test_plain_and_fused_loss_train_alike_on_the_sample(tmp_path, loss):
    losses = {}
    for implementation in ("torch", "triton"):
        overrides = [f"loss={loss}", f"loss.implementation={implementation}", "validation.run=null", "task.run=null"]
        overrides += ["train.max_epochs=null", "train.max_steps=5", "train.log_every=1", "train.patience=null"]
        run_train(tmp_path / implementation, *overrides, "task.untrained=false")
        losses[implementation] = [row["train/loss"] for row in read_metrics(tmp_path / implementation)]
    assert len(losses["torch"]) == 5 and len(set(losses["torch"])) == 5
    assert losses["triton"] == pytest.approx(losses["torch"], rel=1e-5)


def test_a_kernel_that_cannot_run_here_is_refused_before_the_data_are_read(file_overrides, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match="loss.implementation=triton: Triton does not run on device=cpu: use auto"):
        run_train(tmp_path / "run", *file_overrides, "train.device=cpu", "loss.implementation=triton")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_queries(file_overrides, tmp_path):
    with pytest.raises(
        InputError, match=r"step \d+: the loss or its gradient is not finite \(queries q\d q\d\).*lower optimizer.lr"
    ):
        run_train(
            tmp_path / "run", *file_overrides, "backbone.lr=1e38", "optimizer.max_grad_norm=null", "train.log_every=3"
        )
    assert not (tmp_path / "run" / "results.json").exists()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert not last.exists() or all(value.isfinite().all() for value in load_checkpoint(last)["model"].values())


def start_and_signal(directory, overrides, number: int, after_step: int) -> Started:
    """Start a run in its own process and send it a signal once it has logged a step."""
    process = start("train.py", *overrides, f"hydra.run.dir={directory}", start_new_session=True)
    metrics = directory / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and f'"step": {after_step},' in metrics.read_text()):
        time.sleep(0.005)
    # As a terminal or a job scheduler does it: to the workers that prepare batches as well
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    process.wait()
    return process


@pytest.fixture
def long_overrides(file_overrides) -> list[str]:
    return [*file_overrides, "train.max_steps=120", "train.validate_every=40", "train.save_every=20"]


@pytest.mark.slow
def test_a_stopped_and_resumed_run_ends_with_the_same_weights_bit_for_bit(long_overrides, tmp_path):
    straight = tmp_path / "straight"
    run("train.py", *long_overrides, f"hydra.run.dir={straight}", check=True)
    expected = weights_of(straight)
    long_overrides = [*long_overrides, "train.num_workers=2"]  # the run above had none: that changes nothing
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        directory = tmp_path / signal.Signals(number).name
        process = start_and_signal(directory, long_overrides, number, after_step=50)
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
        stopped_at = load_checkpoint(directory / "checkpoints" / "last.pt")["step"]
        if number == signal.SIGKILL:
            assert stopped_at % 20 == 0 and 40 <= stopped_at < 120
        else:
            _, error = process.communicate()
            assert 50 <= stopped_at < 120
            assert f"checkpoint saved at step {stopped_at}; resume with: python train.py resume={directory}\n" in error
            assert f"resume={directory}" in error
        resumed = run("train.py", *long_overrides, f"resume={directory}", check=True)
        assert f"resumed at step {stopped_at} of 120" in resumed.stderr
        weights = weights_of(directory)
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
        best, same = (load_file(path / "model" / "model.safetensors") for path in (straight, directory))
        assert all(torch.equal(best[name], same[name]) for name in best)
        numbers = ("step", "train/loss", "train/lr", "train/grad_norm", "val/nDCG@10")
        logged = [
            [{key: row.get(key) for key in numbers} for row in read_metrics(path)] for path in (straight, directory)
        ]
        assert logged[0] == logged[1]  # no line lost or doubled


def test_resuming_with_a_changed_configuration_is_refused(file_overrides, tmp_path):
    directory = tmp_path / "run"
    run_train(directory, *file_overrides)
    with pytest.raises(
        InputError,
        match=r"of the stopped training \(train.batch_size: 2 -> 3\): leave that out, or start a new training ",
    ):
        run_train(directory, *file_overrides, "train.batch_size=3", f"resume={directory}")


def test_resuming_a_finished_run_only_measures_again(file_overrides, tmp_path):
    first = run_train(tmp_path / "run", *file_overrides)
    again = run_train(tmp_path / "run", *file_overrides, f"resume={tmp_path / 'run'}")
    differ = {"train/seconds", "memory/train/peak_bytes"}
    assert 0 < again["train/seconds"] <= first["train/seconds"]  # up to the last checkpoint: measuring is no training
    assert {k: v for k, v in first.items() if k not in differ} == {k: v for k, v in again.items() if k not in differ}


def test_bad_input_is_one_line_and_exit_status_2(tmp_path):
    done = run("train.py", "data.depth=101", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "data.depth=101 exceeds the 100 passages" in errors[0]
    assert "Traceback" not in done.stderr


def test_a_sweep_leaves_one_directory_a_job(file_overrides, tmp_path):
    overrides = [*file_overrides, "train.max_steps=2", "loss=ranknet,adrmse", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    run("train.py", "-m", *overrides, check=True)
    for job, loss in (("0", "ranknet"), ("1", "adrmse")):
        directory = tmp_path / "sweep" / job
        assert OmegaConf.load(directory / "config.yaml").loss.name == loss
        assert (directory / "results.json").is_file()


def test_wandb_without_key_or_network_keeps_the_run_on_disk(file_overrides, tmp_path):
    overrides = [*file_overrides, "logger=wandb", "logger.tags=[a,b]", "logger.group=g", "logger.log_model=true"]
    done = run("train.py", *overrides, f"hydra.run.dir={tmp_path / 'run'}", env=without_wandb(tmp_path), check=True)
    assert "no API key: logging offline" in done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert (tmp_path / "run" / "results.json").is_file()
