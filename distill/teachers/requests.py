"""Requests to an engine, of which none is paid for twice.

    requests = Requests(engine, journal, shared, totals, lock, is_finished=False)
    entry, is_new = yield from requests.ask(key, lambda shorter: prompt.fill(query, texts, shorter, tokenizer))

An answer is looked up in the directory's journal, then in the one that is shared with others; only then it is asked
for. The messages of a request are yielded to whoever sends them, which returns the Answer.
"""

import threading
from collections.abc import Callable, Generator
from typing import Any

from distill.teachers.answer import Answer
from distill.teachers.journal import Journal
from distill.teachers.prompt import Messages
from distill.teachers.shared_journal import SharedJournal
from distill.teachers.totals import Totals

SHORTER = (1, 2, 4, 8, 16)  # by what max_words is divided, one after the other, for passages that are too long
NOT_AGAIN = "no answer; nothing is asked again of what is finished"
Fill = Callable[[int], Messages]  # by what max_words is divided -> messages


class Requests:
    """Asks an engine, through generators, and keeps its answers."""

    def __init__(
        self,
        engine,
        journal: Journal,
        shared: SharedJournal | None,
        totals: Totals,
        lock: threading.Lock,
        *,
        is_finished: bool,
    ):
        """Keep the engine and the journals; totals: changed under the lock.

        is_finished: the journal has all that was ever answered, and no more is asked for: what was refused stays so.
        """
        self.engine, self.journal, self.shared, self.totals, self.lock = engine, journal, shared, totals, lock
        self.is_finished = is_finished

    def ask(self, key: str, fill: Fill) -> Generator[Messages, Any, tuple[dict | None, bool]]:
        """Yield the messages of a request, if it has no answer yet; return the answer and whether it is new.

        The answer is as the journal holds it, and None where it was refused, which is counted: to ask again would
        change nothing. fill: returns the messages, given by what the passages' max_words is divided.
        """
        entry = self.journal.find(key)
        if entry is not None:
            return entry, False
        if self.is_finished:
            with self.lock:
                self.totals.count_refusal(NOT_AGAIN)
            return None, False
        if self.shared is not None and (found := self.shared.find(key)) is not None:
            entry = {**found, "is_shared": True}
            self.journal.add(key, entry)
            return entry, True
        answer = yield from self._send(fill)
        if answer.refused is not None:
            with self.lock:
                self.totals.count_refusal(answer.refused)
            return None, False
        entry = answer.to_json()
        self.journal.add(key, entry)
        if self.shared is not None:
            self.shared.add(key, entry)
        return entry, True

    def _send(self, fill: Fill) -> Generator[Messages, Any, Answer]:
        """Yield messages, with shorter passages if they are too long; return the answer."""
        for shorter in SHORTER:
            answer = yield fill(shorter)
            if not answer.is_too_long:
                break
        with self.lock:
            self.totals.shortened += shorter > 1 and answer.refused is None
        return answer
