"""An LLM that writes a query for each passage it is shown.

    with QueryWriter(cfg, directory, prompts) as writer:
        written = writer.write([("keyword", "Bees steer by the sun ...")])         # [Written("bee navigation", None)]

Every answer is kept in the directory's journal before it counts, and those of an endpoint also in the cache, for other
directories. No passage is asked about again for the same type, whatever the answer.
"""

from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from distill.queries.answers import fault_of, query_of, repeats
from distill.queries.prompt import QueryPrompt
from distill.teachers.journal import key_of_request
from distill.teachers.questions import Questions, Wording
from distill.teachers.side_by_side import Steps
from distill.teachers.totals import Totals

WORDING = Wording("writing queries", "usable queries")
REFUSED, EXAMPLE = "refused", "repeats-example"  # by the endpoint; of the prompt


class Written(NamedTuple):
    """A query, cleaned, and what is wrong with it."""

    query: str
    fault: str | None


class QueryWriter:
    """Asks an LLM for queries, as many at a time as it takes; prompts: by type."""

    def __init__(self, cfg: DictConfig, directory: Path, prompts: dict[str, QueryPrompt]):
        """Open the engine and the journals; raises InputError if they cannot be used."""
        self.cfg, self.prompts = cfg, prompts
        digests = {kind: prompt.digest for kind, prompt in prompts.items()}
        self.questions = Questions(cfg, directory, digests, WORDING, cfg.num_queries)

    @property
    def totals(self) -> Totals:
        """What all requests have used."""
        return self.questions.totals

    def write(self, asked: list[tuple[str, str]]) -> list[Written]:
        """Return a query for each type and passage, in their order.

        Raises InputError if max_cost is reached, and if too many answers are no queries.
        """
        written = self.questions.ask([(str(place), self._steps(*one)) for place, one in enumerate(asked)])
        return [written[str(place)] for place in range(len(asked))]

    def _steps(self, kind: str, text: str) -> Steps:
        """Yield the messages that ask for a query, if there is no answer yet; return what was written."""
        questions, prompt = self.questions, self.prompts[kind]
        key = key_of_request(questions.llm.model, questions.engine.options, prompt.digest, "", [text], 0)
        entry, is_new = yield from questions.requests[kind].ask(
            key, lambda shorter: prompt.fill(text, shorter, questions.engine.tokenizer)
        )
        written = Written("", REFUSED) if entry is None else self._read(entry["text"], text, prompt)
        if entry is not None:
            questions.count(entry, is_new, is_usable=written.fault is None)
        questions.end_question(is_answered=written.fault is None)
        return written

    def _read(self, answer: str, text: str, prompt: QueryPrompt) -> Written:
        query = query_of(answer)
        fault = fault_of(query, text, prompt.max_query_words, self.cfg.max_copied)
        if fault is None and any(repeats(query, one.query, self.cfg.max_copied) for one in prompt.examples):
            fault = EXAMPLE
        return Written(query, fault)

    def __enter__(self) -> "QueryWriter":
        return self

    def __exit__(self, *exception) -> None:
        """Close engine and journals, and log the totals."""
        self.questions.__exit__(*exception)
