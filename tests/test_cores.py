"""How many threads a run takes, and what it says if others take its cores."""

import time

import pytest
import torch

from distill import cores
from distill.cores import CoreWatch, cpu_quota, fit_threads, usable_cores

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A directory of control groups of our own, and threads that are put back."""
    num_threads = torch.get_num_threads()
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield tmp_path
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize(
    ("text", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("800000 100000\n", 8.0), ("", None)]
)
def test_a_quota_is_read_in_version_2(tmp_path, text, quota):
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("text", "quota"), [("250000\n", 2.5), ("-1\n", None)])
def test_a_quota_is_read_in_version_1(tmp_path, text, quota):
    assert cpu_quota(tmp_path) is None  # no control groups
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(text)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("text", "threads"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 3), ("", 3)])
def test_threads_follow_a_quota(group, text, threads):
    torch.set_num_threads(3)
    (group / "cpu.max").write_text(text)
    fit_threads()
    assert torch.get_num_threads() == threads


def test_threads_that_were_asked_for_stay(group, monkeypatch):
    torch.set_num_threads(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (group / "cpu.max").write_text("100000 100000")
    fit_threads()
    assert torch.get_num_threads() == 3


def spent(monkeypatch, wall: float, busy: float) -> None:
    """Let a watch that starts now see so many seconds of both clocks at its next look."""
    monkeypatch.setattr(time, "perf_counter", lambda: wall)
    monkeypatch.setattr(time, "thread_time", lambda: busy)
    monkeypatch.setattr(time, "process_time", lambda: busy)


@pytest.mark.parametrize(
    ("wall", "busy", "num_threads", "said"),
    [
        (
            12.0,
            6.0,
            2,
            "50% of one for each thread, and its 2 threads wait for one another: stop the others, or set OMP",
        ),
        (12.0, 6.0, 1, "this run had 50% of one for each thread, and takes that much longer"),
        (12.0, 11.0, 2, None),  # it had its cores
        (9.0, 1.0, 2, None),  # too early
    ],
)
def test_a_run_whose_cores_are_taken_says_so_once(monkeypatch, caplog, wall, busy, num_threads, said):
    monkeypatch.setattr(CoreWatch, "warned", False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    for _ in range(2):  # training and validation
        spent(monkeypatch, 0.0, 0.0)
        watch = CoreWatch(CPU)
        spent(monkeypatch, wall, busy)
        watch.look()
        watch.look()
    assert len(caplog.messages) == (said is not None)
    assert said is None or said in caplog.messages[0]


def test_what_a_validation_takes_is_left_out_and_a_gpu_is_not_watched(monkeypatch, caplog):
    monkeypatch.setattr(CoreWatch, "warned", False)
    spent(monkeypatch, 0.0, 0.0)
    watch, of_gpu = CoreWatch(CPU), CoreWatch(torch.device("cuda"))
    spent(monkeypatch, 20.0, 1.0)
    watch.restart()
    spent(monkeypatch, 31.0, 12.0)
    watch.look()
    of_gpu.look()
    assert not caplog.messages


def test_the_wait_for_what_another_thread_prepares_is_left_out(monkeypatch, caplog):
    monkeypatch.setattr(CoreWatch, "warned", False)

    def prepared():
        yield "first"
        spent(monkeypatch, 108.0, 8.0)  # a hundred seconds for the second one, in which this thread did nothing
        yield "second"

    spent(monkeypatch, 0.0, 0.0)
    watch = CoreWatch(CPU)
    for item in watch.without_waits(prepared()):
        spent(monkeypatch, *((8.0, 8.0) if item == "first" else (116.0, 16.0)))
        watch.look()
    assert item == "second" and not caplog.messages


def test_other_threads_of_a_process_with_one_core_do_not_count_as_other_processes(monkeypatch, caplog):
    monkeypatch.setattr(CoreWatch, "warned", False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    spent(monkeypatch, 0.0, 0.0)
    watch = CoreWatch(CPU)
    spent(monkeypatch, 20.0, 19.0)
    monkeypatch.setattr(time, "thread_time", lambda: 10.0)  # half of it went to a thread that tokenises
    watch.look()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("bound", "quota", "number"), [({0, 1, 2}, None, 3), ({0, 1, 2}, 2.5, 2), ({0}, 8.0, 1), ({0}, 0.5, 1)]
)
def test_cores_are_those_that_the_process_is_bound_to_within_the_quota(monkeypatch, bound, quota, number):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: bound)
    monkeypatch.setattr(cores, "cpu_quota", lambda _: quota)
    assert usable_cores() == number
