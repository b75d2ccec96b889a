"""Several ranks take the steps of one, a lost rank ends the run, and any number of ranks goes on with it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT

from distill.training.checkpoint import load_checkpoint


def command(directory, ranks: int, *overrides) -> list[str]:
    script = [str(ROOT / "train.py"), *overrides, f"hydra.run.dir={directory}"]
    if ranks == 1:
        return [sys.executable, *script]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *script]


def weights_of(directory) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory / "checkpoints" / "last.pt")["model"]


def losses_of(directory) -> list[float]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


@pytest.mark.parametrize("loss", ["ranknet", "adrmse"])
def test_one_two_and_four_ranks_end_with_the_same_weights(file_overrides, tmp_path, loss):
    overrides = [*file_overrides, f"loss={loss}", "train.max_steps=20", "train.batch_size=3", "model.dropout=0"]
    overrides += ["train.validate_every=10", "train.max_tokens=100"]  # with four ranks one has no list in any step
    overrides += ["optimizer.eps=1e-3"]  # or Adam would blow up gradients that are rounding alone, as of key biases
    directories = {ranks: tmp_path / str(ranks) for ranks in ((1, 2, 4) if loss == "ranknet" else (1, 2))}
    for ranks, directory in directories.items():
        run = subprocess.run(command(directory, ranks, *overrides), capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    expected = weights_of(directories[1])
    for directory in directories.values():
        for name, weight in weights_of(directory).items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
        assert losses_of(directory) == pytest.approx(losses_of(directories[1]), rel=1e-5)
        results = json.loads((directory / "results.json").read_text())
        first = json.loads((directories[1] / "results.json").read_text())
        assert results["test/files/nDCG@10"] == pytest.approx(first["test/files/nDCG@10"], abs=1e-6)


def test_a_lost_rank_ends_the_run_which_resumes_on_two_and_on_one(file_overrides, tmp_path):
    overrides = [*file_overrides, "train.max_steps=600", "train.validate_every=300", "train.save_every=20"]
    directory = tmp_path / "run"
    process = subprocess.Popen(
        command(directory, 2, *overrides), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = directory / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and '"step": 50,' in metrics.read_text()):
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    ranks = {int(read_environment(child).get("RANK", -1)): int(child) for child in children}
    os.kill(ranks[1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert "rank 0 of 2: lost another rank" in errors or "Signal 9 (SIGKILL)" in errors
    stopped_at = load_checkpoint(directory / "checkpoints" / "last.pt")["step"]
    assert 20 <= stopped_at < 600
    for ranks, last_step in ((2, stopped_at + 40), (1, None)):
        process = subprocess.Popen(
            command(directory, ranks, *overrides, f"resume={directory}"), stderr=subprocess.PIPE, text=True
        )
        if last_step is None:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            break
        while process.poll() is None and f'"step": {last_step},' not in metrics.read_text():
            time.sleep(0.01)
        process.terminate()  # torchrun passes it on: every rank stops after the same step
        _, errors = process.communicate()
        assert f"saved; resume with: python train.py resume={directory}" in errors
    assert load_checkpoint(directory / "checkpoints" / "last.pt")["step"] == 600
    assert all(loss == loss for loss in losses_of(directory)) and len(losses_of(directory)) == 600


def read_environment(pid: str) -> dict[str, str]:
    """The environment of a process."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        return dict(entry.decode().split("=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
