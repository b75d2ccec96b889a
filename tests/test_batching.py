"""Requests that share batches: what goes first, what waits, and what fails."""

import itertools
import threading
import time
from concurrent.futures import wait

import numpy as np
import pytest

from distill.serving.batching import Batcher
from tests.helpers.serving import wait_until


def pairs(*lengths: int) -> list:
    """Pairs of so many tokens; the score of each will be its length."""
    return [(np.zeros(length, np.int32), np.zeros(length, np.int32)) for length in lengths]


class Scoring:
    """Scores pairs by their lengths, a batch each time that it is told to; notes the batches."""

    def __init__(self, held: bool = False):
        self.batches: list[list[list[int]]] = []
        self.gate = threading.Semaphore(0) if held else None

    def __call__(self, lists):
        lengths = [[len(tokens) for tokens, _ in of_job] for of_job in lists]
        self.batches.append(lengths)
        if self.gate:
            assert self.gate.acquire(timeout=60)
        if any(13 in of_job for of_job in lengths):
            raise ValueError("13 tokens")
        return [np.array(of_job, np.float32) for of_job in lengths]


@pytest.fixture
def started():
    """Batchers that are closed at the end."""
    batchers: list[Batcher] = []

    def start(score, max_tokens=100, max_wait=0.0, **options) -> Batcher:
        batchers.append(Batcher(score, max_tokens, max_wait, **options))
        return batchers[-1]

    yield start
    for batcher in batchers:
        if isinstance(batcher.score, Scoring) and batcher.score.gate:
            batcher.score.gate.release(1000)
        batcher.close()
        assert not batcher.thread.is_alive()


def held(start, **options) -> tuple[Batcher, Scoring]:
    """A batcher whose thread is busy with a first job, so that the next ones arrive together."""
    scoring = Scoring(held=True)
    batcher = start(scoring, **options)
    batcher.submit(pairs(1))
    wait_until(lambda: scoring.batches)
    return batcher, scoring


def test_a_job_gets_its_scores_in_its_order(started):
    job = started(Scoring(), max_tokens=10).submit(pairs(5, 2, 9, 3, 30, 1))
    assert job.future.result(60).tolist() == [5, 2, 9, 3, 30, 1]


def test_no_pairs_have_no_scores(started):
    assert started(Scoring()).submit([]).future.result(60).tolist() == []


def test_jobs_that_arrive_together_share_a_batch_of_limited_size(started):
    seen = []
    batcher, scoring = held(started, observe=lambda *counts: seen.append(counts))
    jobs = [batcher.submit(pairs(20, 20)) for _ in range(4)]
    scoring.gate.release(3)
    wait({job.future for job in jobs}, 60)
    assert scoring.batches[1:] == [[[20, 20], [20, 20], [20]], [[20], [20, 20]]]  # 100 tokens, then the rest
    assert seen == [(1, 1, 1), (3, 5, 100), (2, 3, 60)]


def test_what_a_second_model_reads_for_a_list_is_counted(started):
    seen = []
    batcher = started(Scoring(), observe=lambda *counts: seen.append(counts))
    job = batcher.submit(pairs(20, 30, 40), lambda given: (np.arange(len(given)), pairs(7, 8)))
    assert job.future.result(60).tolist() == [0, 1, 2]
    assert seen == [(1, 5, 105)] and job.num_tokens == 105
    alone = batcher.submit(pairs(20, 30))
    assert alone.future.result(60).tolist() == [20, 30] and alone.num_tokens == 50


def test_a_batch_waits_for_others_to_arrive_but_not_once_it_is_full(started):
    scoring = Scoring()
    batcher = started(scoring, max_wait=30.0)
    first = batcher.submit(pairs(40))
    second = batcher.submit(pairs(40))
    time.sleep(0.05)
    assert not first.future.done()
    third = batcher.submit(pairs(20))  # now there are 100 tokens
    wait({first.future, second.future, third.future}, 60)
    assert sorted(scoring.batches[0]) == [[20], [40], [40]] and len(scoring.batches) == 1


def test_a_batch_starts_after_max_wait(started):
    batcher = started(Scoring(), max_wait=0.05)
    start = time.monotonic()
    batcher.submit(pairs(40)).future.result(60)
    assert time.monotonic() - start >= 0.05


def test_a_very_long_pair_is_scored_by_itself_after_what_is_due_before_it(started):
    batcher, scoring = held(started)
    long = batcher.submit(pairs(5000, 3))
    short = [batcher.submit(pairs(10)) for _ in range(3)]
    scoring.gate.release(2)
    wait({job.future for job in short}, 60)
    assert scoring.batches[1] == [[10], [10], [10], [3]] and not long.future.done()
    scoring.gate.release(1)
    assert long.future.result(60).tolist() == [5000, 3] and scoring.batches[2] == [[5000]]


def test_small_jobs_pass_a_large_one_which_still_gets_its_share(started):
    batcher, scoring = held(started)
    large = batcher.submit(pairs(*[50] * 60))  # 30 batches by itself
    others = [batcher.submit(pairs(40, 40)) for _ in range(2)]
    while not large.future.done():  # small jobs never stop arriving
        before = len(scoring.batches)
        scoring.gate.release(1)
        wait_until(lambda before=before: len(scoring.batches) > before or large.future.done())
        others = [job for job in others if not job.future.done()]
        others += [batcher.submit(pairs(40, 40)) for _ in range(2 - len(others))]
    shares = [sum(lengths.count(50) for lengths in batch) for batch in scoring.batches[1:]]
    small = [sum(lengths.count(40) for lengths in batch) for batch in scoring.batches[1:]]
    assert sum(shares) == 60 and 30 <= sum(small) / 2 <= 75  # of three jobs, the large one gets a third
    assert max(len(list(run)) for full, run in itertools.groupby(share == 2 for share in shares) if full) <= 2


def test_only_the_job_to_blame_fails(started):
    batcher, scoring = held(started)
    good, bad, also_good = (batcher.submit(pairs(*lengths)) for lengths in ((2, 3), (13, 4), (5,)))
    scoring.gate.release(10)
    assert good.future.result(60).tolist() == [2, 3] and also_good.future.result(60).tolist() == [5]
    with pytest.raises(ValueError, match="13 tokens"):
        bad.future.result(60)
    assert batcher.submit(pairs(6)).future.result(60).tolist() == [6]  # the thread lives on


def test_what_nobody_waits_for_is_not_scored(started):
    batcher, scoring = held(started)
    gone, cancelled, kept = batcher.submit(pairs(7)), batcher.submit(pairs(8)), batcher.submit(pairs(9))
    batcher.drop(gone)
    cancelled.future.cancel()  # scored, but its result is not wanted
    scoring.gate.release(10)
    assert kept.future.result(60).tolist() == [9]
    assert scoring.batches[1] == [[8], [9]] and not gone.future.done()


def test_closing_finishes_what_is_waiting_and_takes_nothing_more(started):
    batcher, scoring = held(started)
    batcher.max_wait = 60.0
    jobs = [batcher.submit(pairs(10)) for _ in range(25)]
    scoring.gate.release(100)
    batcher.close()
    assert all(job.future.result(0).tolist() == [10] for job in jobs)
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(pairs(1))
