"""Prompts that ask for a query: a YAML template, filled with a passage.

    prompt = read_query_prompt("question")              # or the path of a file like those in distill/queries/prompts/
    messages = prompt.fill("Bees steer by the sun ...")         # chat: [{"role": ..., "content": ...}]

A template has `system`, `passage` (with {text}), `examples`, `max_words` and `max_query_words`. Each example, a passage
with its query, is a turn of the conversation before the passage. Shown are those in the language of the passage: a
small model answers in the language of the last example, whatever the prompt asks for.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distill.errors import InputError
from distill.retrieval.languages import language_of
from distill.teachers.lengths import cut
from distill.teachers.prompt import Messages, read_template

BUNDLED = Path(__file__).parent / "prompts"
TEXTS, NUMBERS = ("system", "passage"), ("max_words", "max_query_words")


class Example(NamedTuple):
    """A passage and its query."""

    passage: str
    query: str
    language: str | None  # of the passage


@dataclass
class QueryPrompt:
    """The parts of a prompt for one type of query."""

    system: str  # the system message; empty: none
    passage: str  # the request, with {text}
    examples: list[Example]
    max_words: int  # passages are cut after so many words; in scripts without spaces, after as many tokens
    max_query_words: int  # a longer query is rejected

    @property
    def digest(self) -> str:
        """A digest that identifies the prompt, 16 hexadecimal digits: of what is sent."""
        sent = json.dumps([self.system, self.passage, [one[:2] for one in self.examples], self.max_words])
        return hashlib.sha256(sent.encode()).hexdigest()[:16]

    def fill(self, text: str, shorter: int = 1, tokenizer=None) -> Messages:
        """Return the messages that ask for a query of a passage.

        shorter: by what max_words is divided. tokenizer: of the model; None: it is not known.
        """
        messages: Messages = [{"role": "system", "content": self.system}] if self.system else []
        for example in self._examples_for(text):
            messages.append({"role": "user", "content": self._ask(example.passage)})
            messages.append({"role": "assistant", "content": example.query})
        return [*messages, {"role": "user", "content": self._ask(cut(text, self.max_words // shorter or 1, tokenizer))}]

    def _examples_for(self, text: str) -> list[Example]:
        """Return the examples in the language of a passage; without any, the first of each language."""
        language = language_of(text)
        own = [one for one in self.examples if one.language == language is not None]
        return own or [*{one.language: one for one in reversed(self.examples)}.values()][::-1]

    def _ask(self, text: str) -> str:
        return self.passage.replace("{text}", text.encode("utf-8", "replace").decode())


def read_query_prompts(names: list[str]) -> dict[str, QueryPrompt]:
    """Read templates, by their type: the name of a bundled one, or of a file; raises InputError for a bad one."""
    prompts: dict[str, QueryPrompt] = {}
    for name in names:
        kind = Path(name).stem
        if kind in prompts:
            raise InputError(f"types={','.join(names)}: {kind} appears twice: name each type once")
        prompts[kind] = read_query_prompt(name)
    return prompts


def read_query_prompt(name: str) -> QueryPrompt:
    """Read a template, by its path or the name of a bundled one; raises InputError for a bad one."""
    template = read_template(name, BUNDLED)
    known = {*TEXTS, *NUMBERS, "examples"}
    if not isinstance(template, dict) or not known - {"examples"} <= set(template) <= known:
        raise InputError(f"{name}: expected exactly the keys {', '.join((*TEXTS, *NUMBERS))}, and examples if needed")
    for key in NUMBERS:
        if type(template[key]) is not int or template[key] < 1:
            raise InputError(f"{name}: {key}={template[key]}: must be a whole number, at least 1")
    system, passage = (str(template[key] or "").strip("\n") for key in TEXTS)
    if "{text}" not in passage:
        raise InputError(f"{name}: passage lacks {{text}}: without it the model would not see the passage")
    examples = [_read_example(one, name) for one in _listed(template.get("examples"), name)]
    return QueryPrompt(system, passage, examples, *(template[key] for key in NUMBERS))


def _listed(examples: Any, name: str) -> list:
    if examples is not None and not isinstance(examples, list):
        raise InputError(f"{name}: examples must be a list of passages with their queries")
    return examples or []


def _read_example(example: Any, name: str) -> Example:
    if not isinstance(example, dict) or set(example) != {"passage", "query"}:
        raise InputError(f"{name}: an example has the keys passage and query, and no others")
    passage, query = (str(example[key] or "").strip() for key in ("passage", "query"))
    if not passage or not query:
        raise InputError(f"{name}: an example has an empty passage or query: fill it, or remove the example")
    return Example(passage, query, language_of(passage))
