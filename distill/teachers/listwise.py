"""Ranking by an LLM: listwise with a sliding window, from a list's bottom to its top, like RankGPT (Sun et al., 2023).

    ranker = WindowRanker(engine, "gpt", journal, prompt, Windows("listwise", 20, 10, 1), tries=3)
    for query_id, order, flagged in ranker.rank({"q1": ("what is ...", passages)}, allowed=lambda totals: True): ...

A model orders `window` passages at a time; the window then moves up by `stride`, so that what is good travels to the
top: with a model that makes no mistakes, the best window - stride passages stand in order after one pass. Windows of
one query wait for each other, windows of different queries do not. Pointwise ranking is the same with windows of one
passage, which get a score and are put in order at the end.
"""

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from distill.sources.permutations import mend_permutation
from distill.teachers.engines import Answer, num_tokens
from distill.teachers.journal import Journal, key_of_request
from distill.teachers.pointwise import mostly_tie, order_by_score
from distill.teachers.prompt import Prompt

Steps = Generator[list, Any, tuple[list[int], bool]]  # messages of a window out, its Answer in; then order and flag


@dataclass
class Totals:
    """What asking has taken so far, and what the answers were like."""

    prompt: str = ""  # digest of what was asked with
    windows: int = 0
    requests: int = 0  # that were paid for in this run
    journaled: int = 0  # answers that were there from before
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    unanswered: int = 0  # windows that kept their order for want of a usable answer
    tied: int = 0  # lists of method=pointwise with more than half of their scores equal to another
    failures: Counter = field(default_factory=Counter)  # requests of this run that were tried again, by kind
    answers: Counter = field(default_factory=Counter)  # "whole", and the faults of distill/sources/permutations.py

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the cost of this run's and earlier runs' answers, at prices for a million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


def window_places(num_passages: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return the windows (start, end) of one pass, the lowest first; the last one reaches the top."""
    places, end = [], num_passages
    while True:
        start = max(end - window, 0)
        places.append((start, end))
        if start == 0:
            return places
        end -= stride


@dataclass
class Windows:
    """Which passages of a list are shown together, in the order of the requests."""

    method: str  # listwise or pointwise
    size: int
    stride: int
    passes: int

    def of(self, num_passages: int) -> list[tuple[int, int]]:
        """Return the windows (start, end) of a list."""
        if self.method == "pointwise":
            return [(place, place + 1) for place in range(num_passages)]
        return window_places(num_passages, self.size, self.stride) * self.passes


def estimate(lists: dict, prompt: Prompt, windows: Windows) -> tuple[int, int, int]:
    """Return about how many requests, tokens in and tokens out the lists {query id: (query, passages)} will take."""
    num_requests = tokens_in = tokens_out = 0
    for query, passages in lists.values():
        for start, end in windows.of(len(passages)):
            num_requests += 1
            tokens_in += num_tokens(prompt.fill(query, passages[start:end]))
            tokens_out += 1 if windows.method == "pointwise" else 4 * (end - start)  # "Yes", or "[12] > " each
    return num_requests, tokens_in, tokens_out


class WindowRanker:
    """Ranks lists window by window through an engine, a journal beside it."""

    def __init__(self, engine, model: str, journal: Journal, prompt: Prompt, windows: Windows, tries: int,
                 show: Callable[[Totals], None] = lambda totals: None):  # fmt: skip
        """tries: how often a window is asked for in all, while no answer can be used; show: told after each window."""
        self.engine, self.model, self.journal, self.prompt = engine, model, journal, prompt
        self.windows, self.tries = windows, tries
        self.show, self.totals, self.lock = show, Totals(prompt.digest), threading.Lock()
        self.in_flight, self.landed = Totals(), threading.Condition(self.lock)  # what requests on their way may take
        self.stopped = False

    def rank(self, lists: dict[str, tuple[str, list[str]]], allowed: Callable[[Totals], bool]) -> Iterator[tuple]:
        """Yield (query id, order, flagged) of each list {query id: (query, passages)}, as they are done.

        order: places of the incoming list, best first. flagged: whether a window kept its order for want of an answer.
        allowed: asked before each request; where it says no, nothing more is asked, and ends with what is done.
        """
        waiting, at_once = iter(lists.items()), self.engine.at_once
        if self.engine.in_batches:
            yield from self._rank_in_batches(waiting, at_once, allowed)
            return
        with ThreadPoolExecutor(at_once) as pool:
            running: dict[Future, str] = {}
            try:
                while True:
                    while len(running) < at_once and (one := next(waiting, None)) is not None:
                        running[pool.submit(self._drive, self._steps(*one[1]), allowed)] = one[0]
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        query_id, found = running.pop(future), future.result()
                        if found is not None:
                            yield query_id, *found
            finally:
                with self.landed:
                    self.stopped = True
                    self.landed.notify_all()
                self.engine.stop()
                for future in running:
                    future.cancel()

    def _drive(self, steps: Steps, allowed) -> tuple[list[int], bool] | None:
        """Answer one list's requests, one after the other; None where asking has been stopped."""
        answer, held = None, (0, 0)
        try:
            while True:
                messages = steps.send(answer)  # which counts the answer
                self._release(held)
                held = (num_tokens(messages), self.engine.options["max_tokens"])
                if not self._hold(held, allowed):
                    held = (0, 0)
                    return None
                (answer,) = self.engine.ask([messages])
        except StopIteration as end:
            return end.value
        finally:
            self._release(held)

    def _hold(self, held: tuple[int, int], allowed) -> bool:
        """Count tokens as in flight, once they are allowed beside all others; False where nothing more is allowed."""
        with self.landed:
            while not self.stopped and allowed(self.totals):
                spent, flying = self.totals, self.in_flight
                ahead = Totals(tokens_in=spent.tokens_in + flying.tokens_in)
                ahead.tokens_out = spent.tokens_out + flying.tokens_out
                if allowed(ahead):
                    flying.tokens_in += held[0]
                    flying.tokens_out += held[1]
                    return True
                self.landed.wait()  # those in flight may come back cheaper
            return False

    def _release(self, held: tuple[int, int]) -> None:
        with self.landed:
            self.in_flight.tokens_in -= held[0]
            self.in_flight.tokens_out -= held[1]
            self.landed.notify_all()

    def _rank_in_batches(self, waiting: Iterator, at_once: int, allowed) -> Iterator[tuple]:
        """Rank so many lists side by side that their windows fill an engine's batch."""
        active: dict[str, tuple[Steps, list]] = {}  # query id -> its steps and the messages that wait
        while True:
            for query_id, one in waiting:
                steps = self._steps(*one)
                found = _advance(steps, None)
                if isinstance(found, tuple):
                    yield query_id, *found
                else:
                    active[query_id] = (steps, found)
                if len(active) >= at_once:
                    break
            if not active or not allowed(self.totals):
                return
            answers = self.engine.ask([messages for _, messages in active.values()])
            for (query_id, (steps, _)), answer in zip(list(active.items()), answers, strict=True):
                found = _advance(steps, answer)
                if isinstance(found, tuple):
                    del active[query_id]
                    yield query_id, *found
                else:
                    active[query_id] = (steps, found)

    def _steps(self, query: str, passages: list[str]) -> Steps:
        """Yield the messages of each window that is not in the journal, receive answers, return order and flag."""
        order, flagged = list(range(len(passages))), False
        scores: list[float | None] = []  # of the passages, where they are judged one by one
        for start, end in self.windows.of(len(passages)):
            part = order[start:end]
            texts = [passages[place] for place in part]
            for attempt in range(self.tries):
                key = key_of_request(self.model, self.engine.options, self.prompt.digest, query, texts, attempt)
                entry, answer = self.journal.find(key), None
                if entry is None:
                    answer = yield self.prompt.fill(query, texts)
                    entry = answer.to_json()
                    self.journal.add(key, entry)
                if self.windows.method == "pointwise":
                    mended, faults = [0], {"unusable"} if entry["score"] is None else set()
                else:
                    mended, faults = mend_permutation(entry["text"], len(part))
                self._count(entry, faults, is_new=answer is not None)
                if "unusable" not in faults:
                    order[start:end] = [part[place] for place in mended]
                    break
            else:
                flagged = True
            scores.append(entry.get("score"))  # type: ignore[union-attr]
            with self.lock:
                self.totals.windows += 1
                self.totals.unanswered += "unusable" in faults
                self.show(self.totals)
        if self.windows.method != "pointwise":
            return order, flagged
        with self.lock:
            self.totals.tied += mostly_tie(scores)
        return order_by_score(scores), flagged

    def _count(self, entry: dict, faults: set[str], is_new: bool) -> None:
        with self.lock:
            self.totals.requests += is_new
            self.totals.journaled += not is_new
            self.totals.tokens_in += entry["tokens_in"]
            self.totals.tokens_out += entry["tokens_out"]
            self.totals.seconds += entry["seconds"]
            self.totals.answers.update(faults or {"whole"})


def _advance(steps: Steps, answer: Answer | None):
    """Return the next messages of a list, or (order, flagged) where it is done."""
    try:
        return steps.send(answer)
    except StopIteration as end:
        return end.value
