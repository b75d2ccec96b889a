"""Lines for W&B are sent by a thread: in order, never waited for by a step, and all there at a checkpoint."""

import threading

import pytest

from distill.training import sender, tracking
from distill.training.sender import Sender
from distill.training.tracking import Tracker
from tests.helpers.configuration import compose_config

LONG = 60.0  # seconds, which no test takes


class Run:
    """A W&B run that takes lines only while its gate is open."""

    def __init__(self, error: Exception | None = None):
        self.gate, self.begun, self.error = threading.Event(), threading.Event(), error
        self.taken: list[tuple[dict, int]] = []

    def log(self, metrics: dict, step: int) -> None:
        self.begun.set()
        assert self.gate.wait(LONG)
        if self.error is not None:
            raise self.error
        self.taken.append((metrics, step))


@pytest.fixture
def run():
    run = Run()
    yield run
    run.gate.set()


def test_a_stalled_run_holds_no_step_and_gets_its_lines_in_order(run):
    lines = Sender(run)
    for step in range(100):
        lines.send({"train/loss": step / 2}, step)  # returns although nothing is taken
    assert not run.taken and not lines.flush(0.01)
    run.gate.set()
    assert lines.flush(LONG, at_end=True) and run.taken == [({"train/loss": step / 2}, step) for step in range(100)]
    lines.close()


def test_a_checkpoint_waits_once_for_a_stalled_run_and_again_when_it_moves(run, monkeypatch):
    lines = Sender(run)
    waits = []
    wait_for = lines.lines.all_tasks_done.wait_for
    monkeypatch.setattr(
        lines.lines.all_tasks_done, "wait_for", lambda holds, seconds: waits.append(seconds) or wait_for(holds, seconds)
    )
    lines.send({}, 1)
    assert [lines.flush(0.01) for _ in range(3)] == [False] * 3 and waits == [0.01]
    run.gate.set()
    lines.send({}, 2)
    while len(run.taken) < 2:
        pass
    assert lines.flush(LONG)


def test_what_does_not_fit_is_left_out_with_one_warning(run, monkeypatch, caplog):
    monkeypatch.setattr(sender, "WAITING", 3)
    lines = Sender(run)
    lines.send({}, 0)
    assert run.begun.wait(LONG)  # the thread holds the first one
    for step in range(1, 8):
        lines.send({}, step)
    run.gate.set()
    assert lines.flush(LONG) and [step for _, step in run.taken] == [0, 1, 2, 3] and lines.num_left_out == 4
    assert caplog.messages == [
        "wandb: does not keep up, so step 4 and others are left out there: metrics.jsonl has them all"
    ]


def test_an_error_of_wandb_stops_its_lines_and_not_the_training(caplog):
    run = Run(RuntimeError("the service\nis gone"))
    run.gate.set()
    lines = Sender(run)
    for step in range(3):
        lines.send({}, step)
    assert lines.flush(LONG) and not run.taken
    assert caplog.messages == [
        "wandb: cannot log any more (the service is gone): metrics.jsonl has what is missing there"
    ]


def test_a_run_that_hangs_at_the_end_has_its_results_in_files_and_is_not_waited_for(run, monkeypatch, tmp_path, caplog):
    finished = []
    run.finish = lambda **options: finished.append(options)
    monkeypatch.setattr(tracking, "_start_wandb", lambda *_: run)
    monkeypatch.setattr(tracking, "WANDB_SECONDS", 0.05)
    with Tracker(compose_config("train", "logger=wandb")) as tracker:
        tracker.start(tmp_path)
        tracker.log(1, {"train/loss": 0.5})
        assert run.begun.wait(LONG)
        tracker.save_results({"test/sample/nDCG@10": 0.9})
        tracker.finish({"test/sample/nDCG@10": 0.9}, tmp_path / "model", {})
    assert caplog.messages == [f"wandb does not answer: results and tables are only in {tmp_path}"]
    assert not finished  # its finish would hang, too
    assert "0.9" in (tmp_path / "results.json").read_text() and "0.5" in (tmp_path / "metrics.jsonl").read_text()


def test_a_service_that_dies_ends_no_training(run, monkeypatch, tmp_path, caplog):
    def finish(**_):
        raise BrokenPipeError("the service is gone")

    run.finish, run.log = finish, finish
    monkeypatch.setattr(tracking, "_start_wandb", lambda *_: run)
    with Tracker(compose_config("train", "logger=wandb")) as tracker:
        tracker.start(tmp_path)
        tracker.log(1, {"train/loss": 0.5})
        tracker.save_results({"test/sample/nDCG@10": 0.9})
        tracker.finish({"test/sample/nDCG@10": 0.9}, tmp_path / "model", {})
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "wandb: cannot log any more",
        f"wandb: results and tables are only in {tmp_path}",
        "wandb: its run is not marked as finished",
    ]
