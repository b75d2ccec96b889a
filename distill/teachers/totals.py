"""What an annotation has used: requests, tokens, cost and the quality of answers, counted once and shown everywhere.

totals.count(entry, faults, is_new=True)
totals.describe(llm)            # "24 requests (15 in this run), 2400 tokens in, 240 out, cost 24.00"
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from omegaconf import DictConfig

from distill.errors import InputError, printable
from distill.teachers.consistency import Consistency

QUOTED = 80  # characters of an answer in a message
ENOUGH = 16  # windows that show what share of them gets no usable answer


class Prices(NamedTuple):
    """What a million tokens cost, read and written: the same as in teacher.llm, but faster to get at."""

    price_in: float
    price_out: float


@dataclass
class Totals:
    """The requests, tokens and seconds so far, and the quality of the answers.

    A request counts once it has an answer; each was paid for once, in this run or in an earlier one of the same
    directory. Answers of other annotations, refused requests and retries cost nothing and have counters of their own.
    """

    prompt: str = ""  # digest of the prompt
    windows: int = 0
    requests: int = 0  # answered in this run
    earlier: int = 0  # answered in earlier runs of this directory, as its journal shows
    shared: int = 0  # answers that other annotations paid for
    tokens_in: int = 0  # of those paid for here
    tokens_out: int = 0
    seconds: float = 0.0
    unanswered: int = 0  # windows that kept their order because no answer was usable
    refused: int = 0  # of those, windows whose request the endpoint refused
    cut: int = 0  # answers without use that max_tokens has ended
    shortened: int = 0  # windows with shorter passages, since they were too long for the model
    tied: int = 0  # with method=pointwise, lists with more than half of their scores equal to another
    failures: Counter = field(default_factory=Counter)  # retries of this run, by kind of error
    answers: Counter = field(default_factory=Counter)  # "whole", and the faults of distill/sources/permutations.py
    useless: Counter = field(default_factory=Counter)  # what came back in place of usable answers, in words
    consistency: Consistency = field(default_factory=Consistency)  # of the answers with each other
    adapted: list[str] = field(default_factory=list)  # parameters changed, since the endpoint refuses them

    def count_earlier(self, entries: Iterable[dict]) -> None:
        """Count the answers of earlier runs, as the directory's journal holds them."""
        for entry in entries:
            if entry.get("is_shared"):
                self.shared += 1
            else:
                self.earlier += 1
                self._pay(entry)

    def count(self, entry: dict, faults: set[str], *, is_new: bool) -> None:
        """Count the use of an answer, as the journal holds it; is_new: it was not there before."""
        if is_new and entry.get("is_shared"):
            self.shared += 1
        elif is_new:
            self.requests += 1
            self._pay(entry)
        self.answers.update(faults or {"whole"})
        if "unusable" in faults:
            self._note(_what_came(entry))
            self.cut += entry.get("finish") == "length" and entry["tokens_out"] > 1

    def _pay(self, entry: dict) -> None:
        self.tokens_in += entry["tokens_in"]
        self.tokens_out += entry["tokens_out"]
        self.seconds += entry["seconds"]

    def count_refusal(self, reason: str) -> None:
        """Count a window whose request was refused."""
        self.refused += 1
        self._note(f"a refusal: {reason}")

    def _note(self, what: str) -> None:
        if what in self.useless or len(self.useless) < 100:  # a few examples are enough
            self.useless[what] += 1

    def cost(self, llm: DictConfig | Prices) -> float:
        """Return the cost of all requests at the prices per million tokens."""
        return (self.tokens_in * llm.price_in + self.tokens_out * llm.price_out) / 1e6

    def results(self, llm: DictConfig | Prices) -> dict[str, float]:
        """Return requests, tokens and cost, under their names in results.json."""
        return {
            "requests": self.requests + self.earlier,
            "requests/shared": self.shared,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost": self.cost(llm),
        }

    def with_tokens(self, tokens_in: int, tokens_out: int) -> "Totals":
        """Return the totals after more tokens."""
        return replace(self, tokens_in=self.tokens_in + tokens_in, tokens_out=self.tokens_out + tokens_out)

    def is_useless(self, limit: float, num_windows: int) -> bool:
        """Whether more than this share of the windows got no usable answer, as far as that can be known."""
        return self.windows >= min(ENOUGH, num_windows) and self.unanswered > limit * self.windows

    def what_came_back(self) -> str:
        """Return in words what came back most often in place of usable answers."""
        return "; ".join(f"{number} × {what}" for what, number in self.useless.most_common(3))

    def describe(self, llm: DictConfig | Prices) -> str:
        """Return requests, tokens and cost in words: the same on the screen, in the log and in the card."""
        earlier = f" ({self.requests} in this run)" if self.earlier else ""
        parts = [f"{self.requests + self.earlier} requests{earlier}"]
        parts += [f"{self.shared} answers of earlier annotations"] if self.shared else []
        parts += [f"{self.tokens_in} tokens in, {self.tokens_out} out"]
        cost = self.cost(llm)
        return ", ".join([*parts, f"cost {cost:.4f}"] if cost else parts)


class Limits:
    """When no more requests are sent: at max_cost, or once too large a share of the answers is useless."""

    def __init__(self, llm: DictConfig, max_unusable: float, num_windows: int):
        """Take teacher.llm, the share, and how many windows there are."""
        self.prices, self.max_cost = Prices(llm.price_in, llm.price_out), llm.max_cost
        self.max_unusable, self.num_windows = max_unusable, num_windows
        self.found_useless = False  # answers that were still on their way may lower the share again

    def allow(self, totals: Totals) -> bool:
        """Whether another request may be sent."""
        self.found_useless |= totals.is_useless(self.max_unusable, self.num_windows)
        return not self.found_useless and (self.max_cost is None or totals.cost(self.prices) < self.max_cost)

    def check_whole(self, totals: Totals, useless: str, spent: str, resume: str, *, is_whole: bool) -> None:
        """Raise InputError, with the remedy, if too many answers are useless, or if max_cost has left work undone.

        useless, spent: what has happened, in words. resume: the override that resumes the work. is_whole: whether
        nothing is left undone.
        """
        stopped = self.found_useless and not is_whole
        if stopped or totals.is_useless(self.max_unusable, self.num_windows):
            raise InputError(f"{useless}: {_remedy(totals)}, or raise max_unusable and resume with {resume}")
        if not is_whole:
            raise InputError(f"{spent}, at {totals.cost(self.prices):.4f}: raise it and resume with {resume}")


def _remedy(totals: Totals) -> str:
    """Return what to do if most answers are useless."""
    if 2 * totals.refused > totals.unanswered:
        return "check teacher.llm"
    if 2 * totals.cut > sum(totals.useless.values()):
        return "raise teacher.llm.max_tokens, or turn the model's thinking off with teacher.llm.body={...}"
    return "try another prompt or model"


def _what_came(entry: dict) -> str:
    end = f" (finish_reason: {entry['finish']})" if entry.get("finish") else ""
    text = printable(" ".join(entry["text"].split()))
    if not text:
        return f"no text{end}"
    return f"`{text[:QUOTED]}{'…' if len(text) > QUOTED else ''}`{end}"
