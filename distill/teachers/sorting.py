"""How a list is sorted by comparisons of a few passages, setwise or pairwise, and what that takes.

sorting = Sorting("setwise", top=10, sort="heap", set_size=4, by_logprobs=False)
sorting.num_windows(100)                        # 85
steps = sorting.steps(100)                      # a generator of questions: distill/teachers/heapsort.py
"""

from dataclasses import dataclass

import numpy as np
from omegaconf import DictConfig

from distill.teachers import heapsort, pairwise, setwise
from distill.teachers.answer import num_tokens
from distill.teachers.prompt import Prompt

SORTS = ("setwise", "pairwise")  # methods that sort a list by comparisons


@dataclass
class Sorting:
    """How lists are sorted."""

    method: str  # setwise or pairwise
    top: int | None  # passages that are put in order; None: all
    sort: str  # heap, bubble or all
    set_size: int  # passages of a set
    by_logprobs: bool  # whether the letter that is likeliest counts, rather than the one that is written
    shuffles = 1  # a question is asked in one order, or is two questions

    @classmethod
    def of(cls, cfg: DictConfig) -> "Sorting":
        """Return the sorting that a configuration asks for."""
        return cls(cfg.method, cfg.top, cfg.sort, cfg.set_size, cfg.by_logprobs)

    def _top(self, num_passages: int) -> int:
        return num_passages if self.top is None else min(self.top, num_passages)

    def steps(self, num_passages: int) -> heapsort.Sorting:
        """Return the questions of a list, as a generator."""
        if self.method == "setwise":
            return setwise.setwise(num_passages, self.set_size, self._top(num_passages))
        return pairwise.pairwise(num_passages, self.sort, self._top(num_passages))

    def num_windows(self, num_passages: int) -> int:
        """Return how many requests a list takes at most; where `is_exact`, as many as it takes.

        Each is a window of its own.
        """
        if self.method == "setwise":
            return setwise.most_requests(num_passages, self.set_size, self._top(num_passages))
        return pairwise.most_requests(num_passages, self.sort, self._top(num_passages))

    def at_random(self, num_passages: int, generator: np.random.Generator) -> list[int]:
        """Return the places in an order that random answers lead to."""
        steps, found = self.steps(num_passages), None
        try:
            while True:
                questions = steps.send(found)
                found = [int(generator.integers(len(tuple(places)))) for places in questions]
        except StopIteration as end:
            return list(end.value)

    @property
    def is_exact(self) -> bool:
        """Whether the number of requests does not depend on the answers."""
        return self.method == "pairwise" and self.sort == "all"

    def estimate(self, query: str, passages: list[str], prompt: Prompt) -> tuple[int, int, int]:
        """Return the requests, tokens in and tokens out of a list, with passages of its mean length."""
        number = self.num_windows(len(passages))
        nothing = num_tokens(prompt.fill(query, []))
        each = (num_tokens(prompt.fill(query, passages)) - nothing) / len(passages)
        size = min(self.set_size if self.method == "setwise" else 2, len(passages))
        return number, round(number * (nothing + size * each)), number

    def describe(self) -> str:
        """Return in words how lists are sorted, for the data card."""
        what = f"sets of {self.set_size}" if self.method == "setwise" else "pairs in both orders"
        how = {"heap": "heapsort", "bubble": "bubble sort", "all": "wins over all others"}[self.sort]
        top = "all" if self.top is None or self.is_exact else f"the top {self.top}"
        return f"{what}, {how}, {top} in order" + (", by the likeliest letter" if self.by_logprobs else "")
