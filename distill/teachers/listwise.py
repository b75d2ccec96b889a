"""Rank lists with an LLM: listwise, with a window that slides from bottom to top, like RankGPT (Sun et al., 2023).

    ranker = WindowRanker(engine, "gpt", journal, prompt, Windows("listwise", 20, 10, 1), tries=3)
    for query_id, order, flagged, ranks in ranker.rank({"q1": ("what is ...", passages)}, lambda totals: True): ...

The model orders `window` passages at a time. The window then moves up by `stride`, so that good passages travel to the
top: if the model makes no mistakes, the best window - stride passages are in order after one pass. The windows of one
query are requested one after the other, those of different queries concurrently. Pointwise ranking uses windows of one
passage, which get a score and are sorted at the end. Sortings compare a few passages at a time.
"""

import threading
import zlib
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.sources.permutations import mend_permutation
from distill.sources.thinking import answer_in_tag
from distill.teachers.answer import num_tokens
from distill.teachers.journal import Journal, key_of_request
from distill.teachers.letters import named_letter
from distill.teachers.pointwise import mostly_tie, order_by_score, ranks_by_score
from distill.teachers.prompt import ONE_BY_ONE, Messages, Prompt
from distill.teachers.requests import Requests
from distill.teachers.shared_journal import SharedJournal
from distill.teachers.shuffles import order_by_ranks, shuffled
from distill.teachers.side_by_side import SideBySide, Steps, Together
from distill.teachers.sorting import Sorting
from distill.teachers.totals import Totals

Asked = Generator[list, Any, tuple[list[int] | None, float | None]]  # messages out, Answer in; then order and score


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

    def at_random(self, num_passages: int, generator: np.random.Generator, passes: int | None = None) -> list[int]:
        """Return the places in an order that random answers lead to; passes: other than configured."""
        if self.method in ONE_BY_ONE:
            return generator.permutation(num_passages).tolist()
        order = np.arange(num_passages)
        for start, end in window_places(num_passages, self.size, self.stride) * (passes or self.passes):
            order[start:end] = generator.permutation(order[start:end])
        return order.tolist()

    def num_windows(self, num_passages: int) -> int:
        """Return the number of windows of a list."""
        return len(self.of(num_passages))


def estimate(
    lists: Iterable[tuple[str, list[str]]], prompt: Prompt, windows: Windows | Sorting
) -> tuple[int, int, int]:
    """Estimate how many requests, tokens in and tokens out the lists (query, passages) will take."""
    num_requests = tokens_in = tokens_out = 0
    for query, passages in lists:
        if isinstance(windows, Sorting):
            requests, read, written = windows.estimate(query, passages, prompt)
            num_requests, tokens_in, tokens_out = num_requests + requests, tokens_in + read, tokens_out + written
            continue
        for start, end in windows.of(len(passages)):
            num_requests += windows.shuffles
            tokens_in += windows.shuffles * num_tokens(prompt.fill(query, passages[start:end]))
            # "[12] > " for each, or "Yes"
            tokens_out += windows.shuffles * (4 * (end - start) if windows.method == "listwise" else 1)
    return num_requests, tokens_in, tokens_out


class WindowRanker:
    """Ranks lists window by window with an engine, and keeps its answers in a journal."""

    def __init__(self, engine, model: str, journal: Journal, prompt: Prompt, windows: Windows | Sorting, tries: int,
                 show: Callable[[Totals], None] = lambda totals: None,
                 shared: SharedJournal | None = None, *, is_finished: bool = False):  # fmt: skip
        """Keep the engine and the settings.

        tries: how often a window is requested at most, until an answer is usable. show: called after each window.
        shared: the answers that other annotations have paid for, to which those of this one are added. is_finished: as
        of Requests.
        """
        self.engine, self.model, self.prompt = engine, model, prompt
        self.windows, self.tries, self.show = windows, tries, show
        self.totals, self.lock = Totals(prompt.digest), threading.Lock()
        self.requests = Requests(engine, journal, shared, self.totals, self.lock, is_finished=is_finished)
        self.totals.count_earlier(entry for _, entry in journal.answers.entries())

    def rank(
        self,
        lists: Mapping[str, tuple[str, list[str]]],
        allowed: Callable[[Totals], bool],
        without: Container[str] = (),
    ) -> Iterator[tuple]:
        """Yield (query id, order, flagged, ranks) for each list {query id: (query, passages)}, as it is finished.

        order: places in the incoming list, best first. flagged: whether a window kept its order for lack of a usable
        answer. ranks: those of the passages in that order, ties at their average; None: 1 to K. allowed: called before
        each request; once it returns False, no more requests are sent, and only the lists finished by then are yielded.
        without: queries that are left out.
        """
        steps = ((query_id, self._steps(*lists[query_id])) for query_id in lists if query_id not in without)
        for query_id, outcome in SideBySide(self.engine, self.totals, self.lock).run(steps, allowed):
            yield query_id, *outcome

    def _steps(self, query: str, passages: list[str]) -> Steps:
        """Yield the messages of each window that the journal lacks, receive the answers, return order, flag, ranks."""
        if isinstance(self.windows, Sorting):
            return (yield from self._sort(query, passages, self.windows))
        if self.windows.method in ONE_BY_ONE:
            return (yield from self._score(query, passages))
        order, flagged = list(range(len(passages))), False
        starts: list[list[int]] = []  # the order at the start of each pass
        for start, end in self.windows.of(len(passages)):
            if end == len(passages):
                starts.append(order[:])
            places = order[start:end]
            mended = yield from self._ask_shuffled(query, [passages[place] for place in places])
            self._count(mended is not None)
            if mended is None:
                flagged = True
            else:
                order[start:end] = [places[index] for index in mended]
        if len(starts) > 1:
            generator = np.random.default_rng(zlib.crc32(query.encode("utf-8", "replace")))
            drawn = [starts[-1][place] for place in self.windows.at_random(len(passages), generator, passes=1)]
            with self.lock:
                self.totals.consistency.add_pass(starts[-1], order, drawn)
        return order, flagged, None

    def _count(self, is_usable: bool) -> None:
        """Count a window."""
        with self.lock:
            self.totals.windows += 1
            self.totals.unanswered += not is_usable
            self.show(self.totals)

    def _score(self, query: str, passages: list[str]) -> Steps:
        """Ask for each passage's score, for several at a time; return order, flag and ranks."""

        def ask_for(text: str) -> Generator[list, Any, float | None]:
            mended, score = yield from self._ask(query, [text])
            for _ in range(passages.count(text)):
                self._count(mended is not None)
            return score

        texts = list(dict.fromkeys(passages))  # none twice, since both would be paid for
        score_of = dict(zip(texts, (yield Together([ask_for(text) for text in texts])), strict=True))
        scores = [score_of[text] for text in passages]
        with self.lock:
            self.totals.tied += mostly_tie(scores)
        order, ranks = order_by_score(scores), ranks_by_score(scores)
        return order, None in scores, [ranks[place] for place in order]

    def _sort(self, query: str, passages: list[str], sorting: Sorting) -> Steps:
        """Ask what a sorting needs to know, nothing twice; return order, flag and no ranks."""
        steps, found = sorting.steps(len(passages)), None
        known: dict[tuple[str, ...], int | None] = {}  # the best of some texts, by its index; None: no usable answer
        try:
            while True:
                questions = [tuple(passages[place] for place in places) for places in steps.send(found)]
                new = [texts for texts in dict.fromkeys(questions) if texts not in known]
                if new:
                    asked = [self._best_of(query, [*texts]) for texts in new]
                    known |= dict(zip(new, (yield Together(asked)), strict=True))
                found = [known[texts] for texts in questions]
        except StopIteration as end:
            return end.value, None in known.values(), None

    def _best_of(self, query: str, texts: list[str]) -> Generator[list, Any, int | None]:
        mended, _ = yield from self._ask(query, texts)
        self._count(mended is not None)
        return None if mended is None else mended[0]

    def _ask_shuffled(self, query: str, texts: list[str]) -> Generator[Any, Any, list[int] | None]:
        """Ask for a window in several orders, and return the order by the sum of ranks; without shuffles, ask once."""
        every = (shuffled(len(texts), shuffle) for shuffle in range(self.windows.shuffles))
        shows = list({tuple(shown): shown for shown in every}.values())  # a short window has few orders
        asked = [self._ask(query, [texts[place] for place in shown]) for shown in shows]
        answers = (yield Together(asked)) if len(asked) > 1 else [(yield from asked[0])]
        orders = []
        for shown, (mended, _) in zip(shows, answers, strict=True):
            if mended is not None:
                orders.append([shown[index] for index in mended])
                with self.lock:
                    self.totals.consistency.add_answer(mended)
        with self.lock:
            self.totals.consistency.add_orders(orders)
        return order_by_ranks(orders) if orders else None

    def _ask(self, query: str, texts: list[str]) -> Asked:
        """Yield the messages of a window until an answer is usable; return its order and score, None without one."""

        def fill(shorter: int) -> Messages:
            return self.prompt.fill(query, texts, shorter, self.engine.tokenizer)

        options = self.engine.options | self._kind_of_answer()
        for attempt in range(self.tries):
            key = key_of_request(self.model, options, self.prompt.digest, query, texts, attempt)
            entry, is_new = yield from self.requests.ask(key, fill)
            if entry is None:
                return None, None
            mended, faults = self._read(entry, len(texts))
            with self.lock:
                self.totals.count(entry, faults, is_new=is_new)
            if "unusable" not in faults:
                return mended, entry["score"]
        return None, None

    def _kind_of_answer(self) -> dict[str, str]:
        """Return what the same request differs in where its answer is read in another way: it belongs to its key."""
        if self.windows.method == "graded":  # a grade, where pointwise has a log-odds
            return {"method": "graded"}
        is_word = isinstance(self.windows, Sorting) and not self.windows.by_logprobs
        return {"answer": "word"} if is_word and self.engine.options.get("max_tokens") == 1 else {}

    def _read(self, entry: dict, num_passages: int) -> tuple[list[int], set[str]]:
        if self.windows.method in ONE_BY_ONE:
            return [0], {"unusable"} if entry["score"] is None else set()
        tag, text, is_cut = self.prompt.answer_tag, entry["text"], entry.get("finish") == "length"
        if isinstance(self.windows, Sorting) and not self.windows.by_logprobs:
            place = named_letter(text, num_passages, tag, is_cut=is_cut)
            return ([0], {"unusable"}) if place is None else ([place], set())
        order, faults = mend_permutation(answer_in_tag(text, tag) if tag else text, num_passages, is_cut=is_cut)
        if isinstance(self.windows, Sorting):  # only the best of them counts
            return order, faults & {"unusable"}
        # Letters that no passage has are likely first tokens of other answers, and no fault
        return order, faults - {"out of range"} if self.windows.method == "first-token" else faults
