"""Sweeps: a job that fails or is killed ends no other, and a second call runs only what is missing."""

import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from distill import interrupt
from distill.errors import InputError
from distill.interrupt import StopRequest
from distill.jobs import check_copies, objective, state_of, take_up
from distill.training.checkpoint import load_checkpoint
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT
from train import train


def start_sweep(directory: Path, *overrides: str, script: str = "train.py", **options) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / script), "-m", *overrides, f"hydra.sweep.dir={directory}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run_sweep(directory: Path, *overrides: str, **options) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error."""
    sweep = start_sweep(directory, *overrides, **options)
    output, errors = sweep.communicate()
    return sweep.returncode, output, errors


def wait_for(path: Path, text: str, sweep: subprocess.Popen) -> None:
    while sweep.poll() is None and not (path.exists() and text in path.read_text()):
        time.sleep(0.005)


def process_of_job(sweep_directory: Path, number: int) -> int:
    listing = subprocess.check_output(["ps", "-A", "-ww", "-o", "pid=,args="], text=True)
    rows = [line.split(maxsplit=1) for line in listing.splitlines()]
    job = f" hydra.run.dir={sweep_directory / str(number)} hydra.mode=RUN hydra.job.num={number} "
    return min(int(pid) for pid, args in rows if job in args)  # a child of it has its name until it has its own


def summary(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("failed: ")]


@pytest.mark.slow
def test_the_rest_runs_when_jobs_fail_or_are_killed_and_a_second_call_runs_what_is_missing(file_overrides, tmp_path):
    common = [*file_overrides, "train.validate_every=20"]
    overrides = [*common, "train.max_steps=60,0,20"]
    directory = tmp_path / "sweep"
    sweep = start_sweep(directory, *overrides, cwd=tmp_path)
    wait_for(directory / "0" / "config.yaml", "seed", sweep)
    process = process_of_job(directory, 0)
    wait_for(directory / "0" / "metrics.jsonl", '"step": 25,', sweep)
    os.kill(process, signal.SIGKILL)
    output, errors = sweep.communicate()
    assert sweep.returncode == 1 and "Traceback" not in errors
    failed = summary(errors)
    assert len(failed) == 2
    assert failed[0].startswith(f"failed: job 0 in {directory}/0: backbone=hf") and "train.max_steps=60" in failed[0]
    assert failed[0].endswith(": killed by signal 9")
    assert failed[1].startswith(f"failed: job 1 in {directory}/1: ") and "train.max_steps=0 " in failed[1]
    assert failed[1].endswith(": train.max_steps=0: must be at least 1")
    assert "must be at least 1" in output  # what jobs print is on the terminal
    assert re.search(rf"(?m)^job 1 of 3: {directory}/0: ", errors)
    assert re.search(rf"(?m)^job 3 of 3, about .* left: {directory}/2: .*train.max_steps=20 ", errors)
    assert output == "".join((directory / name / "job.log").read_text() for name in "012")
    assert (directory / "2" / "results.json").is_file() and (directory / "multirun.yaml").is_file()
    assert (directory / "2" / "config.yaml").is_file() and not (directory / "2" / ".hydra").exists()
    stopped_at = load_checkpoint(directory / "0" / "checkpoints" / "last.pt")["step"]

    times = {path: path.stat().st_mtime_ns for path in (directory / "2").rglob("*")}
    status, output, errors = run_sweep(directory, *overrides)
    assert status == 1 and len(summary(errors)) == 1
    assert f"resumed at step {stopped_at} of 60" in output and errors.count("finished before") == 1
    assert {path: path.stat().st_mtime_ns for path in (directory / "2").rglob("*")} == times
    (tmp_path / "straight").mkdir()
    train(compose_config("train", *common, "train.max_steps=60"), tmp_path / "straight")
    straight, resumed = (
        load_checkpoint(path / "checkpoints" / "last.pt")["model"] for path in (tmp_path / "straight", directory / "0")
    )
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())

    status, output, errors = run_sweep(directory, *overrides, "seed=3")
    assert status == 2 and not output
    assert errors.startswith(f"error: {directory}/0: belongs to another configuration (seed: 0 -> 3): use another")


def test_ctrl_c_reaches_the_jobs_which_save_and_no_new_one_starts(file_overrides, tmp_path):
    overrides = [*file_overrides, "train.max_steps=3000", "train.validate_every=1000", "seed=0,1,2"]
    directory = tmp_path / "sweep"
    sweep = start_sweep(directory, *overrides, "hydra/launcher=processes", start_new_session=True)
    for name in "01":  # both at once
        wait_for(directory / name / "metrics.jsonl", '"step": 10,', sweep)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does it
    output, errors = sweep.communicate()
    assert sweep.returncode == 128 + signal.SIGINT and "Traceback" not in errors and not summary(errors)
    assert f"hydra.sweep.dir={directory}" in errors.splitlines()[-1]
    assert not output  # of several jobs only job.log has it
    for name in "01":
        step = load_checkpoint(directory / name / "checkpoints" / "last.pt")["step"]
        assert 10 <= step < 3000
        assert f"checkpoint saved at step {step}" in (directory / name / "job.log").read_text()
    assert not (directory / "2").exists()


def test_a_search_goes_past_a_trial_that_fails(file_overrides, tmp_path):
    if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        pytest.skip("needs hydra-optuna-sweeper, which is optional")
    fixed = [one for one in file_overrides if not one.startswith(("train.batch_size", "optimizer."))]
    overrides = [*fixed, "train.max_steps=2", "train.batch_size=choice(0,2)", "hydra.sweeper.n_trials=2"]
    status, _, errors = run_sweep(tmp_path / "sweep", *overrides, "hydra/sweeper=optuna-search")
    assert status == 1, errors
    [failed] = summary(errors)
    assert failed.endswith("train.batch_size=0: must be at least 1")
    best = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    values = [json.loads(path.read_text())["val/nDCG@10"] for path in (tmp_path / "sweep").glob("*/results.json")]
    assert len(values) == 1 and best.best_value == max(values)
    assert best.best_params["train.batch_size"] == 2 and 1e-6 <= best.best_params["optimizer.lr"] <= 1e-4


def test_finished_evaluations_are_not_run_again(collection, tmp_path):
    files = [f"task.run={collection['first_stage']}", f"task.qrels={collection['qrels']}"]
    overrides = ["model=null", "task=files", *files, "task.measures=[nDCG@10],[RR@10]", "hydra/launcher=processes"]
    for again in (False, True):
        status, _, errors = run_sweep(tmp_path / "sweep", *overrides, script="evaluate.py")
        assert status == 0, errors
        assert errors.count("finished before") == 2 * again and errors.count(": finished\n") == 2 * (not again)


@pytest.mark.parametrize(
    ("override", "environment", "message"),
    [
        ("resume=somewhere", {}, "resume=somewhere: resumes one run, not a sweep"),
        ("hydra.launcher.n_jobs=0", {}, "hydra.launcher.n_jobs=0: must be a whole number of at least 1"),
        ("hydra.launcher.n_jobs=auto", {}, "hydra.launcher.n_jobs=auto: must be a whole number of at least 1"),
        ("hydra.sweep.subdir=same", {}, "hydra.sweep.subdir gives two jobs one directory"),
        ("hydra.sweep.subdir=${los.name}", {}, "hydra.sweep.subdir: Interpolation key 'los.name' not found: name keys"),
        ("seed=0,1", {"WORLD_SIZE": "2"}, "-m: a sweep starts its own processes and does not run under torchrun"),
    ],
)
def test_a_sweep_that_cannot_run_is_answered_with_one_line(tmp_path, override, environment, message):
    status, _, errors = run_sweep(tmp_path, "seed=0,1", override, env=os.environ | environment)
    assert status == 2 and errors.startswith(f"error: {message}") and errors.count("\n") == 1


def test_jobs_may_be_named_by_their_keys_with_any_character(tmp_path):
    names = ["hydra.sweep.subdir='depth=${task.depth}, ${hydra.job.override_dirname}'", "task.untrained=false"]
    for _ in range(2):
        status, _, errors = run_sweep(tmp_path, "task.depth=5,6", *names, script="evaluate.py")
        assert status == 0, errors
    assert errors.count("finished before") == 2
    found = {path.parent.name for path in tmp_path.glob("*/results.json")}
    assert found == {f"depth={n}, task.depth={n},task.untrained=False" for n in (5, 6)}


def test_a_second_sweep_in_the_same_directory_is_refused(tmp_path):
    (tmp_path / "multirun.yaml").write_text("of the first\n")
    with open(tmp_path / "sweep.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, errors = run_sweep(tmp_path, "seed=0,1")
    assert status == 2 and "still works there: wait for that sweep" in errors
    assert (tmp_path / "multirun.yaml").read_text() == "of the first\n"


def test_a_sweep_that_hydra_refuses_leaves_no_password(tmp_path):
    secret = "logger.project=https://me:hunter2hunter2@host/v1"
    status, _, errors = run_sweep(tmp_path, "seed=0,x", secret)
    assert status == 2, errors
    text = (tmp_path / "multirun.yaml").read_text()
    assert "***@host" in text and "hunter2" not in text


def test_a_job_takes_up_what_its_directory_holds(tmp_path):
    def cfg(*overrides: str):
        return compose_config("train", *overrides)

    assert state_of(cfg(), tmp_path) == "new"
    OmegaConf.save(cfg(), tmp_path / "config.yaml")
    assert state_of(cfg("seed=1"), tmp_path) == "new"  # it has left nothing to go on from
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_text("x")
    stopped = cfg()
    assert take_up(stopped, tmp_path) is None and stopped.resume == str(tmp_path)
    (tmp_path / "results.json").write_text('{"train/steps": 3, "test/a/nDCG@10": 0.25, "val/nDCG@10": 0.5}')
    assert objective(take_up(cfg("train.num_workers=1", "logger=wandb"), tmp_path)) == 0.5
    with pytest.raises(InputError, match=r"belongs to another configuration \(seed: 0 -> 1\)"):
        take_up(cfg("seed=1"), tmp_path)
    with pytest.raises(InputError, match="resume=x: resumes one run, not a sweep"):
        take_up(cfg("resume=x"), tmp_path)
    assert objective({"train/steps": 3, "test/a/nDCG@10": 0.25}) == 0.25 and objective({"train/steps": 3}) is None


def test_a_shard_of_a_suite_that_stopped_between_tasks_belongs_to_its_configuration(tmp_path):
    def cfg(*overrides):
        return compose_config("evaluate", "model=m", "task=beir13", *overrides)

    OmegaConf.save(cfg("shard=0/4"), tmp_path / "config.yaml")
    (tmp_path / "tasks" / "a").mkdir(parents=True)
    (tmp_path / "tasks" / "a" / "run.txt").write_text("q Q0 d 1 1.0 m\n")
    assert state_of(cfg("shard=0/4"), tmp_path) == "stopped"
    with pytest.raises(InputError, match="belongs to another configuration"):
        state_of(cfg("shard=3/4"), tmp_path)


def test_a_launcher_may_not_run_a_job_several_times_at_once():
    check_copies({"nodes": 1, "tasks_per_node": None})
    check_copies({"n_jobs": 2})
    with pytest.raises(InputError, match=r"hydra.launcher.nodes=2: would run as many copies of each job: set it to 1"):
        check_copies({"nodes": 2, "tasks_per_node": 1})
    with pytest.raises(InputError, match=r"hydra.launcher.tasks_per_node=4: "):
        check_copies({"nodes": 1, "tasks_per_node": 4})


def test_a_stop_request_that_comes_twice_within_a_second_is_one(monkeypatch):
    previous = signal.getsignal(signal.SIGTERM)
    ended = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal == signal.SIGTERM and not ended
            monkeypatch.setattr(interrupt, "REPEAT_SECONDS", 0.0)
            os.kill(os.getpid(), signal.SIGTERM)
            assert ended == [signal.SIGTERM]  # the handler from before has it
    finally:
        signal.signal(signal.SIGTERM, previous)
