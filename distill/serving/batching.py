"""Requests that share forward passes: one thread scores what has arrived, a batch of limited size at a time.

    batcher = Batcher(score, max_tokens=16384, max_wait=0.002)
    job = batcher.submit(pairs)
    scores = job.future.result()
    batcher.close()                 # once all jobs are done

A batch takes pairs of as many jobs as fit. A job that does not fit is continued in a later batch: a large request, or
one with a very long passage, does not hold up the others. A job with a function of its own for its whole list has a
batch to itself.
"""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # tokens and token types
ScoreList = Callable[[list[Pair]], tuple[np.ndarray, list[Pair]]]  # scores, and pairs that a second model has read


@dataclass(eq=False)
class Job:
    """The pairs of a request, and how far they are."""

    pairs: list[Pair]
    arrived: float
    scores: np.ndarray  # [P]
    left: list[int]  # indices of the pairs that no batch has taken: the longest first, so that the last is the next
    tokens_left: int
    num_tokens: int  # that models read for it; known once it is done
    score_list: ScoreList | None = None  # scores all pairs at once; None: with other jobs
    clock: float = 0.0  # see Batcher
    future: Future = field(default_factory=Future)
    dropped: bool = False


class Batcher:
    """Scores jobs in a thread, in an order that is fair: weighted fair queueing (Demers et al. 1989), in tokens.

    `clock` counts the tokens that each job would have got by now if all shared the machine equally. A job is due at its
    own clock, that of its arrival, plus the tokens of its next batch; afterwards, it has these tokens on its clock. The
    job that is due first goes first. So small jobs go in the order of their arrival, and pass larger ones, which are
    still served in turn.
    """

    def __init__(
        self,
        score: Callable[[list[list[Pair]]], list],
        max_tokens: int,
        max_wait: float,
        observe: Callable[[int, int, int], None] = lambda jobs, pairs, tokens: None,
    ):
        """Start the thread.

        score: returns the scores of each list of pairs. max_tokens: of a batch; a longer pair has one to itself.
        max_wait: seconds that a batch waits for more jobs to arrive. observe: is called with each batch's jobs, and
        with the pairs and tokens that models have read for it.
        """
        self.score, self.max_tokens, self.max_wait, self.observe = score, max_tokens, max_wait, observe
        self.jobs: list[Job] = []
        self.closed = False
        self.changed = threading.Condition()
        self.clock = 0.0
        self.thread = threading.Thread(target=self._run, name="scoring", daemon=True)
        self.thread.start()

    def submit(self, pairs: list[Pair], score_list: ScoreList | None = None) -> Job:
        """Add a job; its future gets the scores [P] of the pairs, or what `score` has raised.

        score_list: is called with all of its pairs, in their order, in place of `score`.
        """
        left = sorted(range(len(pairs)), key=lambda index: -len(pairs[index][0]))
        num_tokens = count_tokens(pairs)
        job = Job(pairs, time.monotonic(), np.zeros(len(pairs)), left, num_tokens, num_tokens, score_list)
        if not pairs:
            job.future.set_result(job.scores)
            return job
        with self.changed:
            if self.closed:
                raise RuntimeError("the batcher is closed")
            job.clock = self.clock
            self.jobs.append(job)
            self.changed.notify()
        return job

    def drop(self, job: Job) -> None:
        """Leave out what is left of a job: nobody waits for it any more."""
        job.dropped = True

    def close(self) -> None:
        """Finish all jobs, and end the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._score(batch)

    def _next_batch(self) -> list[tuple[Job, list[int]]]:
        """Wait for jobs, and return pairs of theirs for one batch; nothing once it is closed and all are done."""
        with self.changed:
            while True:
                self.jobs = [job for job in self.jobs if not job.dropped]
                if not self.jobs and self.closed:
                    return []
                if not self.jobs:
                    self.changed.wait()
                    continue
                wait = min(job.arrived for job in self.jobs) + self.max_wait - time.monotonic()
                if wait <= 0 or self.closed or sum(job.tokens_left for job in self.jobs) >= self.max_tokens:
                    return self._take()
                self.changed.wait(wait)

    def _take(self) -> list[tuple[Job, list[int]]]:
        """Take pairs out of the jobs until a batch is full, from the job that is due first."""
        batch: list[tuple[Job, list[int]]] = []
        size = 0
        for job in sorted(self.jobs, key=self._due):
            taken: list[int] = []
            if job.score_list is not None:
                if not batch:  # its function gets them in the request's order
                    batch, size, job.left = [(job, list(range(len(job.pairs))))], job.tokens_left, []
                break
            while job.left:
                length = len(job.pairs[job.left[-1]][0])
                if size and size + length > self.max_tokens:
                    break
                taken.append(job.left.pop())
                job.tokens_left -= length
                job.clock += length
                size += length
            if taken:
                batch.append((job, taken))
        self.clock += size / len(self.jobs)
        self.jobs = [job for job in self.jobs if job.left]
        return batch

    def _due(self, job: Job) -> float:
        whole = job.score_list is not None
        return job.clock + (job.tokens_left if whole else min(job.tokens_left, self.max_tokens))

    def _score(self, batch: list[tuple[Job, list[int]]]) -> None:
        """Score a batch; if that fails, each of its jobs by itself, so that only the one to blame fails."""
        lists = [[job.pairs[index] for index in taken] for job, taken in batch]
        [(first, _), *_] = batch
        read_again: list[Pair] = []
        try:
            if first.score_list is None:
                scores = self.score(lists)
            else:
                values, read_again = first.score_list(lists[0])
                scores = [values]
        except Exception as error:  # whatever it is: the thread has other jobs to do
            if len(batch) > 1:
                for one in batch:
                    self._score([one])
                return
            [(job, _)] = batch
            job.dropped = True
            if job.future.set_running_or_notify_cancel():  # False if it was cancelled, which would raise
                job.future.set_exception(error)
            return
        first.num_tokens += count_tokens(read_again)
        read = [*itertools.chain(*lists), *read_again]
        self.observe(len(batch), len(read), count_tokens(read))
        for (job, taken), values in zip(batch, scores, strict=True):
            job.scores[taken] = values
            if not job.left and job.future.set_running_or_notify_cancel():
                job.future.set_result(job.scores)


def count_tokens(pairs: list[Pair]) -> int:
    """Return how many tokens pairs have, special tokens included."""
    return sum(len(tokens) for tokens, _ in pairs)
