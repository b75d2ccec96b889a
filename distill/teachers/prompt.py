"""Prompts for ranking: a YAML template, filled with a query and its passages.

    prompt = read_prompt("rankzephyr")                              # or the path of a file like those in prompts/
    messages = prompt.fill("how do bees find home", ["Bees ...", "Trains ..."])     # chat: [{"role": ..., ...}]

A template has `system`, `before`, `passage` and `after`, with the placeholders {query}, {count}, {number} (or
{letter}) and {text}. With `before_reply` and `passage_reply` it is a conversation, in which each passage is a turn.
"""

import hashlib
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from distill.errors import InputError
from distill.teachers.lengths import cut

Messages = list[dict[str, str]]
BUNDLED = Path(__file__).parent / "prompts"
EXAMPLE = BUNDLED / "listwise.yaml"
PACKAGE = Path(__file__).parent.parent
LETTERS = "ABCDEFGHIJKLMNOPQRST"  # 20: most endpoints list no more than the 20 likeliest tokens
PLACES: dict[str, tuple[str, ...]] = {  # placeholders that a passage needs, by method
    "listwise": ("{number}", "{text}"),
    "first-token": ("{letter}", "{text}"),
    "setwise": ("{letter}", "{text}"),
    "pairwise": ("{letter}", "{text}"),
    "pointwise": ("{text}",),
    "graded": ("{text}",),
    "judge": ("{text}",),
}
ONE_BY_ONE = ("pointwise", "graded")  # methods that give each passage a score, in a request of its own
TAG = re.compile(r"[A-Za-z][\w-]*")


@dataclass
class Prompt:
    """The parts of a prompt; those with a default may be absent from a template."""

    system: str  # the system message; empty: none
    before: str  # the text before the passages
    passage: str  # each passage, with {number} from 1
    after: str  # the text after the passages
    max_words: int  # passages are cut after so many words; in scripts without spaces, after as many tokens
    before_reply: str = ""  # in a conversation, what the assistant says to `before`
    passage_reply: str = ""  # and to each passage; empty: everything is one message of the user
    exact: bool = False  # whether the parts follow each other as they are; else each has lines to itself
    answer_tag: str = ""  # the ranking is between <TAG> and </TAG>; empty: anywhere
    thinks: bool = False  # whether a model writes down its thoughts first, which no estimate can know

    @property
    def digest(self) -> str:
        """A digest that identifies the prompt, 16 hexadecimal digits: of what is sent, not of how answers are read."""
        sent = {name: value for name, value in vars(self).items() if name not in ("answer_tag", "thinks")}
        kept = {one.name: sent[one.name] for one in fields(self) if one.name in sent and sent[one.name] != one.default}
        return hashlib.sha256(repr(kept).encode()).hexdigest()[:16]

    def fill(self, query: str, passages: list[str], shorter: int = 1, tokenizer=None) -> Messages:
        """Return the messages that ask for a ranking of the passages.

        shorter: by what max_words is divided. tokenizer: of the model; None: it is not known.
        """
        query = _harmless(query)
        put = lambda part: part.replace("{count}", str(len(passages))).replace("{query}", query)  # noqa: E731
        parts = [("user", put(self.before)), ("assistant", put(self.before_reply))]
        for number, text in enumerate(passages, start=1):
            words = _harmless(cut(text, max(self.max_words // shorter, 1), tokenizer))
            parts.append(("user", _identified(self.passage, number).replace("{text}", words)))
            parts.append(("assistant", _identified(self.passage_reply, number)))
        parts.append(("user", put(self.after)))
        messages: Messages = [{"role": "system", "content": self.system}] if self.system else []
        for role, text in parts:
            if text and messages and messages[-1]["role"] == role:
                messages[-1]["content"] += text if self.exact else f"\n{text}"
            elif text:
                messages.append({"role": role, "content": text})
        return messages


def _identified(part: str, number: int) -> str:
    return part.replace("{number}", str(number)).replace("{letter}", LETTERS[number - 1 : number])


def _harmless(text: str) -> str:
    """Return a text that UTF-8 can write, without what would look like a passage's number: [3] becomes (3)."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\[［【〔]\s*(\d+)\s*[\]］】〕]", r"(\1)", text)


def read_prompt(name: str, method: str = "listwise") -> Prompt:
    """Read a template, by its path or the name of a bundled one.

    Raises InputError if it is not YAML, or lacks a part or a placeholder.
    """
    template = read_template(name, BUNDLED)
    required = {one.name for one in fields(Prompt) if one.default is MISSING}
    known = {one.name: one.type for one in fields(Prompt)}
    if not isinstance(template, dict) or not required <= set(template) <= set(known):
        others = ", ".join(sorted(set(known) - required))
        raise InputError(
            f"{name}: expected exactly the keys {', '.join(sorted(required))}, and of {others} those that it needs"
        )
    values: dict[str, Any] = {key: value for key, value in template.items() if known[key] is not str}
    texts = {key: str(value or "") for key, value in template.items() if known[key] is str}
    if not isinstance(values["max_words"], int) or values["max_words"] < 1:
        raise InputError(f"{name}: max_words={values['max_words']}: must be a whole number, at least 1")
    for key in ("exact", "thinks"):
        if not isinstance(values.get(key, False), bool):
            raise InputError(f"{name}: {key}={values[key]}: must be true or false")
    if not values.get("exact"):
        texts = {key: text.strip("\n") for key, text in texts.items()}
    values |= texts
    prompt = Prompt(**values)
    _check_parts(prompt, name, method)
    return prompt


def read_template(name: str, folder: Path) -> Any:
    """Return what a YAML file holds, by its path or the name of one in a folder; raises InputError if it cannot."""
    bundled = folder / f"{name}.yaml"
    is_bundled = re.fullmatch(r"[\w-]+", name) and bundled.is_file() and not Path(name).is_file()
    try:
        with open(bundled if is_bundled else name, encoding="utf-8") as file:
            return yaml.safe_load(file)
    except FileNotFoundError:
        paths = sorted(folder.glob("*.yaml"))
        example = EXAMPLE if EXAMPLE in paths else paths[0]
        raise InputError(
            f"{name}: no such file: give a prompt like {example.relative_to(PACKAGE.parent)}, or one of "
            f"{', '.join(path.stem for path in paths)}"
        ) from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}): give the file of a prompt") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: is not YAML ({' '.join(str(error).split())[:150]})") from None


def _check_parts(prompt: Prompt, name: str, method: str) -> None:
    """Raise InputError for a prompt without what the model must see, or with turns that do not alternate."""
    absent = [place for place in PLACES[method] if place not in prompt.passage]
    if absent:
        raise InputError(f"{name}: passage lacks {absent[0]}: without it the model would not see its value")
    if "{query}" not in prompt.before + prompt.after:
        raise InputError(f"{name}: before and after lack {{query}}: without it the model would not see the query")
    if bool(prompt.before_reply) != bool(prompt.before and prompt.passage_reply):
        raise InputError(
            f"{name}: in a conversation, `before` and each passage have a reply: give before_reply and passage_reply, "
            "or neither"
        )
    if prompt.passage_reply and not prompt.after:
        raise InputError(f"{name}: after is empty: a conversation must end with what the user asks for")
    if prompt.answer_tag and not TAG.fullmatch(prompt.answer_tag):
        raise InputError(f"{name}: answer_tag={prompt.answer_tag}: give a name only, as in answer for <answer>")
