"""An LLM that writes a query for each passage it is shown.

    with QueryWriter(cfg, directory, prompts) as writer:
        written = writer.write([("keyword", "Bees steer by the sun ...")])         # [Written("bee navigation", None)]

Every answer is kept in the directory's journal before it counts, and those of an endpoint also in the cache, for other
directories. No passage is asked about again for the same type, whatever the answer.
"""

import logging
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from distill.config.overrides import as_override
from distill.errors import InputError
from distill.progress import Progress
from distill.queries.answers import fault_of, query_of, repeats
from distill.queries.prompt import QueryPrompt
from distill.teachers.asking import open_engine, open_shared, remedy, what_came_back
from distill.teachers.journal import Journal, key_of_request
from distill.teachers.requests import Requests
from distill.teachers.side_by_side import SideBySide, Steps
from distill.teachers.totals import Prices, Totals

log = logging.getLogger(__name__)

REFUSED, EXAMPLE = "refused", "repeats-example"  # by the endpoint; of the prompt


class Written(NamedTuple):
    """A query, cleaned, and what is wrong with it."""

    query: str
    fault: str | None


class QueryWriter:
    """Asks an LLM for queries, as many at a time as it takes; prompts: by type."""

    def __init__(self, cfg: DictConfig, directory: Path, prompts: dict[str, QueryPrompt]):
        """Open the engine and the journals; raises InputError if they cannot be used."""
        self.cfg, self.llm, self.prompts, self.directory = cfg, cfg.teacher.llm, prompts, directory
        self.prices = Prices(self.llm.price_in, self.llm.price_out)
        self.totals, self.lock = Totals(), threading.Lock()
        self.engine = open_engine(self.llm, "listwise")  # which answers with text
        self.journal = Journal(directory / "journal.jsonl")
        self.totals.count_earlier(entry for _, entry in self.journal.answers.entries())
        self.shared = {kind: open_shared(cfg, prompt.digest) for kind, prompt in prompts.items()}
        self.requests = {
            kind: Requests(self.engine, self.journal, shared, self.totals, self.lock)
            for kind, shared in self.shared.items()
        }
        self.bar = Progress(total=0, desc="writing queries", unit="answer")

    def write(self, asked: list[tuple[str, str]]) -> list[Written]:
        """Return a query for each type and passage, in their order.

        Raises InputError if max_cost is reached, and if too many answers are no queries.
        """
        self.bar.total += len(asked)
        steps = ((str(place), self._steps(*one)) for place, one in enumerate(asked))
        side_by_side = SideBySide(self.engine, self.totals, self.lock)
        written = {int(place): one for place, one in side_by_side.run(steps, self._is_allowed)}
        self._check_whole(len(asked) - len(written))
        return [written[place] for place in range(len(asked))]

    def _steps(self, kind: str, text: str) -> Steps:
        """Yield the messages that ask for a query, if there is no answer yet; return what was written."""
        prompt = self.prompts[kind]
        key = key_of_request(self.llm.model, self.engine.options, prompt.digest, "", [text], 0)
        entry, is_new = yield from self.requests[kind].ask(
            key, lambda shorter: prompt.fill(text, shorter, self.engine.tokenizer)
        )
        written = Written("", REFUSED) if entry is None else self._read(entry["text"], text, prompt)
        with self.lock:
            if entry is not None:
                self.totals.count(entry, {"unusable"} if written.fault else set(), is_new=is_new)
            self.totals.windows += 1
            self.totals.unanswered += written.fault is not None
            self.bar.set_postfix_str(self.totals.describe(self.prices), refresh=False)
            self.bar.update()
        return written

    def _read(self, answer: str, text: str, prompt: QueryPrompt) -> Written:
        query = query_of(answer)
        fault = fault_of(query, text, prompt.max_query_words, self.cfg.max_copied)
        if fault is None and any(repeats(query, one.query, self.cfg.max_copied) for one in prompt.examples):
            fault = EXAMPLE
        return Written(query, fault)

    def _is_allowed(self, totals: Totals) -> bool:
        has_money = self.llm.max_cost is None or totals.cost(self.prices) < self.llm.max_cost
        return has_money and not totals.is_useless(self.cfg.max_unusable, self.cfg.num_queries)

    def _check_whole(self, num_missing: int) -> None:
        """Raise InputError, with the remedy, if the answers are useless, or if max_cost is reached."""
        totals, resume = self.totals, as_override("resume", self.directory)
        if totals.is_useless(self.cfg.max_unusable, self.cfg.num_queries):
            raise InputError(
                f"{totals.unanswered} of {totals.windows} answers are no usable queries, more than max_unusable="
                f"{self.cfg.max_unusable:g}; what came back: {what_came_back(totals)}: {remedy(totals)}, or raise "
                f"max_unusable and resume with {resume}"
            )
        if num_missing:
            raise InputError(
                f"teacher.llm.max_cost={self.llm.max_cost}: reached after {totals.windows} answers, at "
                f"{totals.cost(self.prices):.4f}: raise it and resume with {resume}"
            )

    def __enter__(self) -> "QueryWriter":
        return self

    def __exit__(self, *exception) -> None:
        """Close engine and journals, and log the totals."""
        self.bar.close()
        self.engine.close()
        for shared in self.shared.values():
            if shared is not None:
                shared.close()
        self.journal.close()
        self.totals.failures, self.totals.adapted = Counter(self.engine.failures), self.engine.adapted
        log.info("%s", self.totals.describe(self.llm))
