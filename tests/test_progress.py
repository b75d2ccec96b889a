"""Progress in a log: which lines come, and when."""

import itertools
import logging

import pytest

from distill import progress
from distill.progress import Progress, duration, progress_line


def test_a_line_gives_what_is_done_the_speed_and_the_time_left():
    assert progress_line("training", "step", 400, 0, 2000, 130.0) == (
        "training: 400 of 2,000 steps (20%), 3.1 steps a second, about 8 min 40 s left"
    )
    assert progress_line("training", "step", 400, 300, 500, 10.0).endswith("10.0 steps a second, about 10 s left")
    assert progress_line("tokenising p.tsv", " passages", 12000, 0, None, 10.0) == (
        "tokenising p.tsv: 12,000 passages, 1,200 passages a second"
    )
    assert progress_line("bm25.run", "B", 50_000_000, 0, 200_000_000, 10.0) == (
        "bm25.run: 50 of 200 MB (25%), 5.0 MB a second, about 30 s left"
    )
    assert progress_line("training", "step", 0, 0, 10, 20.0) == "training: 0 of 10 steps (0%), 0.0 steps a second"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (98, "1 min 38 s"), (569, "9 min 29 s"), (570, "10 min"),
     (3569, "59 min"), (3600, "1 h"), (7500, "2 h 5 min")],
)  # fmt: skip
def test_times_are_written_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_a_log_gets_lines_less_and_less_often(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    with Progress(total=1000, desc="training", unit="step", mininterval=0) as bar:
        bar.mininterval = 0
        times = []
        for _ in range(1000):
            now[0] += 1.0
            bar.update()
            if len(caplog.records) > len(times):
                times.append(now[0])
    assert times[:4] == [10, 15, 23, 35]
    assert times[-1] < 1000 and max(b - a for a, b in itertools.pairwise(times)) <= 301
    assert caplog.records[0].getMessage() == ("training: 10 of 1,000 steps (1%), 1.0 steps a second, about 16 min left")


def test_short_work_logs_nothing(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(total=2, desc="training", unit="step", shown=False) as bar:
        now[0] += 100.0
        bar.update()
    assert not caplog.records
