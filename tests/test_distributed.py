"""Several ranks take the steps of one, a lost rank ends the run, and any number of ranks goes on with it."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distill import distributed
from distill.config.composition import _output_directory
from distill.errors import InputError
from distill.training.checkpoint import load_checkpoint
from tests.helpers.commands import run, start_ranks
from tests.helpers.paths import ROOT


def torchrun(directory, ranks: int, *overrides) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(ROOT / "train.py")]
    command = [sys.executable, *launcher, *overrides, f"hydra.run.dir={directory}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def weights_of(directory) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory / "checkpoints" / "last.pt")["model"]


def losses_of(directory) -> list[float]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


@pytest.mark.parametrize("loss", ["ranknet", "ranknet-lce"])
def test_one_two_and_four_ranks_end_with_the_same_weights(file_overrides, tmp_path, loss):
    overrides = [*file_overrides, f"loss={loss}", "train.max_steps=20", "train.batch_size=3", "model.dropout=0"]
    overrides += ["train.validate_every=10", "train.max_tokens=100"]  # with four ranks one has no list in any step
    overrides += ["optimizer.eps=1e-3"]  # or Adam would blow up gradients that are rounding alone, as of key biases
    directories = {ranks: tmp_path / str(ranks) for ranks in ((1, 2, 4) if loss == "ranknet" else (1, 2))}
    for ranks, directory in directories.items():
        for rank in start_ranks(ranks, "train.py", *overrides, f"hydra.run.dir={directory}"):
            assert rank.wait() == 0, rank.communicate()
    expected = weights_of(directories[1])
    for directory in directories.values():
        for name, weight in weights_of(directory).items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
        assert losses_of(directory) == pytest.approx(losses_of(directories[1]), rel=1e-5)
        results = json.loads((directory / "results.json").read_text())
        first = json.loads((directories[1] / "results.json").read_text())
        assert results["test/files/nDCG@10"] == pytest.approx(first["test/files/nDCG@10"], abs=1e-6)


@pytest.mark.slow
def test_a_lost_rank_ends_the_run_which_resumes_on_two_and_on_one(file_overrides, tmp_path):
    overrides = [*file_overrides, "train.max_steps=200", "train.validate_every=100", "train.save_every=20"]
    directory = tmp_path / "run"
    first, second = start_ranks(2, "train.py", *overrides, f"hydra.run.dir={directory}")
    metrics = directory / "metrics.jsonl"
    while first.poll() is None and not (metrics.exists() and '"step": 50,' in metrics.read_text()):
        time.sleep(0.01)
    second.kill()
    assert second.wait() == -signal.SIGKILL and first.wait() == 2
    _, errors = first.communicate()
    assert errors.splitlines()[-1].startswith("error: rank 0 of 2: lost another rank"), errors
    stopped_at = load_checkpoint(directory / "checkpoints" / "last.pt")["step"]
    assert 20 <= stopped_at < 160
    process = torchrun(directory, 2, *overrides, f"resume={directory}")
    while process.poll() is None and f'"step": {stopped_at + 40},' not in metrics.read_text():
        time.sleep(0.01)
    process.terminate()  # torchrun passes it on: every rank stops after the same step
    _, errors = process.communicate()
    assert f"; resume with: python train.py resume={directory}" in errors
    run("train.py", *overrides, f"resume={directory}", f"hydra.run.dir={directory}", check=True)
    assert load_checkpoint(directory / "checkpoints" / "last.pt")["step"] == 200
    assert all(loss == loss for loss in losses_of(directory)) and len(losses_of(directory)) == 200


ALONE = "start several processes with torchrun, or unset WORLD_SIZE"
PORT_TAKEN = "cannot meet the others at 127.0.0.1:PORT .*: see that MASTER_ADDR is the first rank's machine, and MASTER"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, f"WORLD_SIZE=two is no whole number: {ALONE}"),
        ({"WORLD_SIZE": "2"}, f"RANK is not set, though WORLD_SIZE is: {ALONE}"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, f"MASTER_PORT is not set, .*: {ALONE}"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "PORT"}, f"MASTER_ADDR is not set, .*: {ALONE}"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_PORT": "PORT", "MASTER_ADDR": "127.0.0.1"}, "RANK=2 is not below"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "PORT", "MASTER_ADDR": "127.0.0.1"}, PORT_TAKEN),
    ],
)
def test_an_environment_that_torchrun_would_not_make_is_answered_in_one_line(monkeypatch, variables, message):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("PORT", port))
        with pytest.raises(InputError, match=message.replace(":PORT", f":{port}")) as caught:
            distributed.start_ranks(torch.device("cpu"))
        assert "\n" not in str(caught.value)


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    variables = {"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="LOCAL_RANK=2, but this machine has 2 GPUs: start one process for each"):
        distributed.start_ranks(torch.device("cuda"))


def test_other_ranks_work_in_a_directory_that_nobody_could_have_made_before(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["train.py"])
    removed = []
    monkeypatch.setattr("atexit.register", lambda function, *arguments, **_: removed.append(arguments[0]))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "distill-rank-1").symlink_to(tmp_path / "elsewhere")
    directories = [Path(_output_directory(None, "unused")) for _ in range(2)]
    for directory in directories:
        assert directory.parent == tmp_path and directory.stat().st_mode & 0o777 == 0o700 and not directory.is_symlink()
    assert len(set(directories)) == 2 and removed == [str(directory) for directory in directories]
    assert not list((tmp_path / "elsewhere").iterdir())
    assert _output_directory("given", "unused") == "given"
