"""Rank lists with an LLM: listwise, with a window that slides from bottom to top, like RankGPT (Sun et al., 2023).

    ranker = WindowRanker(engine, "gpt", journal, prompt, Windows("listwise", 20, 10, 1), tries=3)
    for query_id, order, flagged in ranker.rank({"q1": ("what is ...", passages)}, allowed=lambda totals: True): ...

The model orders `window` passages at a time. The window then moves up by `stride`, so that good passages travel to the
top: if the model makes no mistakes, the best window - stride passages are in order after one pass. The windows of one
query are requested one after the other, those of different queries concurrently. Pointwise ranking uses windows of one
passage, which get a score and are sorted at the end.
"""

import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from distill.sources.permutations import mend_permutation
from distill.sources.thinking import answer_in_tag
from distill.teachers.answer import Answer, num_tokens
from distill.teachers.journal import Journal, key_of_request
from distill.teachers.pointwise import mostly_tie, order_by_score
from distill.teachers.prompt import ONE_BY_ONE, Prompt
from distill.teachers.shuffles import order_by_ranks, shuffled
from distill.teachers.totals import Totals

SHORTER = (1, 2, 4, 8, 16)  # by what max_words is divided, one after the other, for passages that are too long
Asked = Generator[list, Any, tuple[list[int] | None, float | None]]  # the same of a window; then order and score
Steps = Generator[list, Any, tuple[list[int], bool]]  # messages of a window out, its Answer in; then order and flag


def window_places(num_passages: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return the windows (start, end) of one pass, from the bottom of the list to its top."""
    places, end = [], num_passages
    while True:
        start = max(end - window, 0)
        places.append((start, end))
        if start == 0:
            return places
        end -= stride


@dataclass
class Windows:
    """Which passages of a list go into each request, in the order of the requests."""

    method: str  # listwise, first-token, pointwise or graded
    size: int
    stride: int
    passes: int
    shuffles: int = 1  # orders in which the passages of a window are shown, in a request each

    def of(self, num_passages: int) -> list[tuple[int, int]]:
        """Return the windows (start, end) of a list."""
        if self.method in ONE_BY_ONE:
            return [(place, place + 1) for place in range(num_passages)]
        return window_places(num_passages, self.size, self.stride) * self.passes


def estimate(lists: dict, prompt: Prompt, windows: Windows) -> tuple[int, int, int]:
    """Estimate how many requests, tokens in and tokens out the lists {query id: (query, passages)} will take."""
    num_requests = tokens_in = tokens_out = 0
    for query, passages in lists.values():
        for start, end in windows.of(len(passages)):
            num_requests += windows.shuffles
            tokens_in += windows.shuffles * num_tokens(prompt.fill(query, passages[start:end]))
            # "[12] > " for each, or "Yes"
            tokens_out += windows.shuffles * (4 * (end - start) if windows.method == "listwise" else 1)
    return num_requests, tokens_in, tokens_out


class WindowRanker:
    """Ranks lists window by window with an engine, and keeps its answers in a journal."""

    def __init__(self, engine, model: str, journal: Journal, prompt: Prompt, windows: Windows, tries: int,
                 show: Callable[[Totals], None] = lambda totals: None,
                 find_shared: Callable[[str], dict | None] = lambda key: None):  # fmt: skip
        """Keep the engine and the settings.

        tries: how often a window is requested at most, until an answer is usable. show: called after each window.
        find_shared: returns an answer that another annotation has paid for, by its key.
        """
        self.engine, self.model, self.journal, self.prompt = engine, model, journal, prompt
        self.windows, self.tries = windows, tries
        self.show, self.find_shared = show, find_shared
        self.totals, self.lock = Totals(prompt.digest), threading.Lock()
        self.totals.count_earlier(journal.answers.values())
        self.tokens_in_flight = [0, 0]  # in and out, that requests without an answer so far may take
        self.landed = threading.Condition(self.lock)
        self.stopped = False

    def rank(self, lists: dict[str, tuple[str, list[str]]], allowed: Callable[[Totals], bool]) -> Iterator[tuple]:
        """Yield (query id, order, flagged) for each list {query id: (query, passages)}, as it is finished.

        order: places in the incoming list, best first. flagged: whether a window kept its order for lack of a usable
        answer. allowed: called before each request; once it returns False, no more requests are sent, and only the
        lists finished by then are yielded.
        """
        waiting, at_once = iter(lists.items()), self.engine.at_once
        if self.engine.in_batches:
            yield from self._rank_in_batches(waiting, at_once, allowed)
            return
        with ThreadPoolExecutor(at_once) as pool:
            running: dict[Future, str] = {}
            try:
                while True:
                    for query_id, (query, passages) in itertools.islice(waiting, at_once - len(running)):
                        future = pool.submit(self._drive, self._steps(query, passages), allowed)
                        running[future] = query_id
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        query_id, ranked = running.pop(future), future.result()
                        if ranked is not None:
                            yield query_id, *ranked
            finally:
                with self.landed:
                    self.stopped = True
                    self.landed.notify_all()
                self.engine.stop()
                for future in running:
                    future.cancel()

    def _drive(self, steps: Steps, allowed) -> tuple[list[int], bool] | None:
        """Send one list's requests, one after the other; return its order and flag, None if stopped before the end."""
        answer, held = None, (0, 0)
        try:
            while True:
                messages = steps.send(answer)  # this also adds the answer to the totals
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

    def _rank_in_batches(self, waiting: Iterator, at_once: int, allowed) -> Iterator[tuple]:
        """Rank lists side by side, as many as fill an engine's batch with one window each."""
        active: dict[str, tuple[Steps, list]] = {}  # query id -> its steps and its next messages
        while True:
            for query_id, (query, passages) in waiting:
                steps = self._steps(query, passages)
                outcome = _advance(steps, None)
                if isinstance(outcome, tuple):
                    yield query_id, *outcome
                else:
                    active[query_id] = (steps, outcome)
                if len(active) >= at_once:
                    break
            if not active or not allowed(self.totals):
                return
            answers = self.engine.ask([messages for _, messages in active.values()])
            for (query_id, (steps, _)), answer in zip(list(active.items()), answers, strict=True):
                outcome = _advance(steps, answer)
                if isinstance(outcome, tuple):
                    del active[query_id]
                    yield query_id, *outcome
                else:
                    active[query_id] = (steps, outcome)

    def _steps(self, query: str, passages: list[str]) -> Steps:
        """Yield the messages of each window that is not in the journal, receive the answers, return order and flag."""
        order, flagged = list(range(len(passages))), False
        scores: list[float | None] = []  # of the passages, if each gets one
        for start, end in self.windows.of(len(passages)):
            places = order[start:end]
            mended, score = yield from self._ask_shuffled(query, [passages[place] for place in places])
            if mended is None:
                flagged = True
            else:
                order[start:end] = [places[index] for index in mended]
            scores.append(score)
            with self.lock:
                self.totals.windows += 1
                self.totals.unanswered += mended is None
                self.show(self.totals)
        if self.windows.method not in ONE_BY_ONE:
            return order, flagged
        with self.lock:
            self.totals.tied += mostly_tie(scores)
        return order_by_score(scores), flagged

    def _ask_shuffled(self, query: str, texts: list[str]) -> Asked:
        """Ask for a window in several orders, and return the order by the sum of ranks; without shuffles, ask once."""
        if self.windows.shuffles == 1:
            return (yield from self._ask(query, texts))
        orders = []
        for shuffle in range(self.windows.shuffles):
            shown = shuffled(len(texts), shuffle)
            mended, _ = yield from self._ask(query, [texts[place] for place in shown])
            if mended is not None:
                orders.append([shown[index] for index in mended])
        return (order_by_ranks(orders) if orders else None), None

    def _ask(self, query: str, texts: list[str]) -> Asked:
        """Yield the messages of a window until an answer is usable; return its order and score, None without one."""
        for attempt in range(self.tries):
            key = key_of_request(self.model, self.engine.options, self.prompt.digest, query, texts, attempt)
            entry, is_new = self.journal.find(key), False
            if entry is None and (entry := self.find_shared(key)) is not None:
                entry, is_new = {**entry, "is_shared": True}, True
                self.journal.add(key, entry)
            elif entry is None:
                answer = yield from self._send(query, texts)
                if answer.refused is not None:  # to ask again would change nothing
                    with self.lock:
                        self.totals.count_refusal(answer.refused)
                    return None, None
                entry, is_new = answer.to_json(), True
                self.journal.add(key, entry)
            mended, faults = self._read(entry, len(texts))
            with self.lock:
                self.totals.count(entry, faults, is_new=is_new)
            if "unusable" not in faults:
                return mended, entry["score"]
        return None, None

    def _send(self, query: str, texts: list[str]) -> Generator[list, Any, Answer]:
        """Yield the messages of a window, with shorter passages if they are too long; return the answer."""
        for shorter in SHORTER:
            answer = yield self.prompt.fill(query, texts, shorter, self.engine.tokenizer)
            if not answer.is_too_long:
                break
        with self.lock:
            self.totals.shortened += shorter > 1 and answer.refused is None
        return answer

    def _read(self, entry: dict, num_passages: int) -> tuple[list[int], set[str]]:
        if self.windows.method in ONE_BY_ONE:
            return [0], {"unusable"} if entry["score"] is None else set()
        tag, text = self.prompt.answer_tag, entry["text"]
        order, faults = mend_permutation(answer_in_tag(text, tag) if tag else text, num_passages)
        # Letters that no passage has are likely first tokens of other answers, and no fault
        return order, faults - {"out of range"} if self.windows.method == "first-token" else faults


def _advance(steps: Steps, answer: Answer | None):
    """Return the next messages of a list, or (order, flagged) when it is finished."""
    try:
        return steps.send(answer)
    except StopIteration as end:
        return end.value
