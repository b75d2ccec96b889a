"""Questions to an LLM that do not wait for each other: with its journals, its limits and its totals.

    with Questions(cfg, directory, {"judge": prompt.digest}, Wording("judging", "grades"), len(texts)) as questions:
        answers = questions.ask([(name, steps_of(name)) for name in texts])     # {name: what its steps returned}

    entry, is_new = yield from questions.requests["judge"].ask(key, fill)       # within steps
    questions.count(entry, is_new, is_usable=True)

Every answer is kept in the directory's journal before it counts, and those of an endpoint also in the cache, for other
directories, where each prompt has a file.
"""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from distill.config.overrides import as_override
from distill.progress import Progress
from distill.teachers.asking import open_engine, open_shared
from distill.teachers.journal import Journal
from distill.teachers.requests import Requests
from distill.teachers.side_by_side import SideBySide, Steps
from distill.teachers.totals import Limits, Totals

log = logging.getLogger(__name__)


class Wording(NamedTuple):
    """What messages call the work, and what answers should be."""

    work: str
    wanted: str


class Questions:
    """An LLM that answers with text, as many questions at a time as it takes."""

    def __init__(self, cfg: DictConfig, directory: Path, prompts: dict[str, str], wording: Wording, number: int):
        """Open the engine and the journals; prompts: their digests, by name; number: questions that say enough.

        Raises InputError if one of them cannot be used.
        """
        self.cfg, self.llm, self.directory = cfg, cfg.teacher.llm, directory
        self.wording = wording
        self.limits = Limits(self.llm, cfg.max_unusable, number)
        self.totals, self.lock = Totals(), threading.Lock()
        self.engine = open_engine(self.llm, "listwise")  # which answers with text
        self.journal = Journal(directory / "journal.jsonl")
        self.totals.count_earlier(entry for _, entry in self.journal.answers.entries())
        is_finished = cfg.resume is not None and (directory / "results.json").is_file()
        self.shared = {name: open_shared(cfg, digest) for name, digest in prompts.items()}
        self.requests = {
            name: Requests(self.engine, self.journal, shared, self.totals, self.lock, is_finished=is_finished)
            for name, shared in self.shared.items()
        }
        self.bar = Progress(total=0, desc=wording.work, unit="answer")

    def ask(self, steps: Sequence[tuple[str, Steps]]) -> dict[str, Any]:
        """Take the steps of each question, by its name, and return what they have returned; may be called again.

        Raises InputError if max_cost is reached, and if too many answers are of no use.
        """
        self.bar.total += len(steps)
        found = dict(SideBySide(self.engine, self.totals, self.lock).run(iter(steps), self.limits.allow))
        totals = self.totals
        self.limits.check_whole(
            totals,
            f"{totals.unanswered} of {totals.windows} answers are no {self.wording.wanted}, more than max_unusable="
            f"{self.cfg.max_unusable:g}; what came back: {totals.what_came_back()}",
            f"teacher.llm.max_cost={self.llm.max_cost}: reached after {totals.windows} answers",
            as_override("resume", self.directory),
            is_whole=len(found) == len(steps),
        )
        return found

    def count(self, entry: dict, is_new: bool, *, is_usable: bool) -> None:
        """Count an answer, as the journal holds it."""
        with self.lock:
            self.totals.count(entry, set() if is_usable else {"unusable"}, is_new=is_new)

    def end_question(self, *, is_answered: bool) -> None:
        """Count a question that will not be asked again."""
        with self.lock:
            self.totals.windows += 1
            self.totals.unanswered += not is_answered
            self.bar.set_postfix_str(self.totals.describe(self.limits.prices), refresh=False)
            self.bar.update()

    def __enter__(self) -> "Questions":
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
