"""Rank lists side by side: as many requests at a time as an engine takes, of several lists or of one.

    for query_id, outcome in SideBySide(engine, totals, lock).run(iter([("q1", steps)]), allowed): ...

A list is ranked by its steps, a generator: it yields the messages of a request and receives the Answer, or it yields
`Together`, the steps of requests that do not wait for each other, and receives what each of them returned. What it
returns itself is the list's outcome. Requests of lists that are under way come first, so that few are open at a time.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from distill.teachers.answer import Answer, num_tokens
from distill.teachers.prompt import Messages
from distill.teachers.totals import Totals

Steps = Generator[Any, Any, Any]
Allowed = Callable[[Totals], bool]


@dataclass
class Together:
    """Steps that may be taken at the same time; what they return comes back as a list, in their order."""

    parts: list[Steps]


@dataclass
class _Outcome:
    """What steps have returned."""

    value: Any


@dataclass(eq=False)
class _Task:
    """The steps of a list, or of one part of its `Together`."""

    query_id: str
    steps: Steps
    parent: "_Task | None" = None
    place: int = 0  # among the parent's parts
    results: list = field(default_factory=list)  # of its own parts
    num_missing: int = 0


class _Queue:
    """The tasks that can be continued, and the lists that have not begun."""

    def __init__(self, lists: Iterator[tuple[str, Steps]]):
        self.lists = lists
        self.ready: deque[tuple[_Task, Any]] = deque()

    def next(self) -> tuple[_Task, Any] | None:
        """Return a task and what it is to be sent; None if none can be continued."""
        if self.ready:
            return self.ready.popleft()
        following = next(self.lists, None)
        return None if following is None else (_Task(*following), None)

    def split(self, task: _Task, together: Together) -> None:
        """Let a task wait for its parts."""
        task.results, task.num_missing = [None] * len(together.parts), len(together.parts)
        parts = enumerate(together.parts)
        self.ready.extend((_Task(task.query_id, steps, task, place), None) for place, steps in parts)
        if not together.parts:
            self.ready.appendleft((task, []))

    def finish(self, task: _Task, outcome: Any) -> list[tuple[str, Any]]:
        """Hand the outcome of a part to its parent; return that of a list, with its query id."""
        parent = task.parent
        if parent is None:
            return [(task.query_id, outcome)]
        parent.results[task.place] = outcome
        parent.num_missing -= 1
        if parent.num_missing == 0:
            self.ready.appendleft((parent, parent.results))
        return []


class SideBySide:
    """Takes the steps of lists with an engine, as long as that is allowed."""

    def __init__(self, engine, totals: Totals, lock: threading.Lock):
        """Keep the engine; totals: what `allowed` judges by, changed under the lock."""
        self.engine, self.totals = engine, totals
        self.landed = threading.Condition(lock)
        self.tokens_in_flight = [0, 0]  # in and out, that requests without an answer so far may take
        self.stopped = False

    def run(self, lists: Iterator[tuple[str, Steps]], allowed: Allowed) -> Iterator[tuple[str, Any]]:
        """Yield (query id, outcome) of each list, as it is finished.

        allowed: called before each request; once it returns False, no more requests are sent, and only the lists that
        need none are yielded.
        """
        queue = _Queue(lists)
        return (self._in_batches if self.engine.in_batches else self._in_threads)(queue, allowed)

    def _in_threads(self, queue: _Queue, allowed: Allowed) -> Iterator[tuple[str, Any]]:
        at_once = self.engine.at_once
        with ThreadPoolExecutor(at_once) as pool:
            running: dict[Future, _Task] = {}
            finished: SimpleQueue[Future] = SimpleQueue()
            try:
                while True:
                    while len(running) < at_once and (following := queue.next()) is not None:
                        task, sent = following
                        future = pool.submit(self._take, task.steps, sent, allowed)
                        running[future] = task
                        future.add_done_callback(finished.put)
                    if not running:
                        return
                    future = finished.get()
                    task, result = running.pop(future), future.result()
                    if isinstance(result, Together):
                        queue.split(task, result)
                    elif result is not None:
                        yield from queue.finish(task, result.value)
            finally:
                with self.landed:
                    self.stopped = True
                    self.landed.notify_all()
                if running:  # else nobody waits, and the engine may be asked again
                    self.engine.stop()
                for future in running:
                    future.cancel()

    def _take(self, steps: Steps, sent: Any, allowed: Allowed) -> Together | _Outcome | None:
        """Send the requests of steps, one after the other, up to their next parts or their end; None if stopped."""
        held = (0, 0)
        try:
            while True:
                step = steps.send(sent)  # this also adds the answer to the totals
                self._release(held)
                held = (0, 0)
                if isinstance(step, Together):
                    return step
                held = (num_tokens(step), self.engine.options["max_tokens"])
                if not self._hold(held, allowed):
                    held = (0, 0)
                    return None
                (sent,) = self.engine.ask([step])
        except StopIteration as end:
            return _Outcome(end.value)
        finally:
            self._release(held)

    def _hold(self, held: tuple[int, int], allowed: Allowed) -> bool:
        """Count a request's tokens as in flight, once the others in flight leave room; False if nothing is allowed."""
        with self.landed:
            while not self.stopped and allowed(self.totals):
                if allowed(self.totals.with_tokens(*self.tokens_in_flight)):
                    self.tokens_in_flight[0] += held[0]
                    self.tokens_in_flight[1] += held[1]
                    return True
                self.landed.wait()  # answers to those in flight may cost less than held
            return False

    def _release(self, held: tuple[int, int]) -> None:
        with self.landed:
            self.tokens_in_flight[0] -= held[0]
            self.tokens_in_flight[1] -= held[1]
            self.landed.notify_all()

    def _in_batches(self, queue: _Queue, allowed: Allowed) -> Iterator[tuple[str, Any]]:
        """Fill each batch of the engine with one request of each task."""
        asking: list[tuple[_Task, Messages]] = []

        def advance(task: _Task, sent: list | Answer | None) -> list[tuple[str, Any]]:
            try:
                step = task.steps.send(sent)
            except StopIteration as end:
                return queue.finish(task, end.value)
            if isinstance(step, Together):
                queue.split(task, step)
            else:
                asking.append((task, step))
            return []

        while True:
            while len(asking) < self.engine.at_once and (following := queue.next()) is not None:
                yield from advance(*following)
            if not asking or not allowed(self.totals):
                return
            asked = asking[:]
            asking.clear()
            answers = self.engine.ask([messages for _, messages in asked])
            for (task, _), answer in zip(asked, answers, strict=True):
                yield from advance(task, answer)
