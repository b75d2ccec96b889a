"""Prompts for ranking: a YAML template, filled with a query and its passages.

    prompt = read_prompt("distill/teachers/prompts/listwise.yaml")
    messages = prompt.fill("how do bees find home", ["Bees ...", "Trains ..."])     # chat: [{"role": ..., ...}]

A template has `system`, `before`, `passage` and `after`, with the placeholders {query}, {count}, {number} (or
{letter}) and {text}.
"""

import hashlib
import re
from dataclasses import dataclass, fields

import yaml

from distill.errors import InputError
from distill.teachers.lengths import cut

Messages = list[dict[str, str]]
LETTERS = "ABCDEFGHIJKLMNOPQRST"  # 20: most endpoints list no more than the 20 likeliest tokens
PLACES: dict[str, dict[str, tuple[str, ...]]] = {  # required placeholders, by method
    "listwise": {"passage": ("{number}", "{text}"), "after": ("{query}",)},
    "first-token": {"passage": ("{letter}", "{text}"), "after": ("{query}",)},
    "pointwise": {"passage": ("{text}",), "after": ("{query}",)},
    "graded": {"passage": ("{text}",), "after": ("{query}",)},
}
ONE_BY_ONE = ("pointwise", "graded")  # methods that give each passage a score, in a request of its own


@dataclass
class Prompt:
    """The parts of a prompt."""

    system: str  # the system message; empty: none
    before: str  # the text before the passages
    passage: str  # each passage, with {number} from 1
    after: str  # the text after the passages
    max_words: int  # passages are cut after so many words; in scripts without spaces, after as many tokens

    @property
    def digest(self) -> str:
        """A digest that identifies the prompt, 16 hexadecimal digits."""
        return hashlib.sha256(repr(vars(self)).encode()).hexdigest()[:16]

    def fill(self, query: str, passages: list[str], shorter: int = 1, tokenizer=None) -> Messages:
        """Return the messages that ask for a ranking of the passages.

        shorter: by what max_words is divided. tokenizer: of the model; None: it is not known.
        """
        query = _harmless(query)
        lines = [self._put(self.before, query, passages)] if self.before else []
        for number, text in enumerate(passages, start=1):
            words = _harmless(cut(text, max(self.max_words // shorter, 1), tokenizer))
            identified = self.passage.replace("{number}", str(number)).replace("{letter}", LETTERS[number - 1 : number])
            lines.append(identified.replace("{text}", words))
        lines.append(self._put(self.after, query, passages))
        messages = [{"role": "user", "content": "\n".join(lines)}]
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages

    def _put(self, part: str, query: str, passages: list[str]) -> str:
        return part.replace("{count}", str(len(passages))).replace("{query}", query)


def _harmless(text: str) -> str:
    """Return a text that UTF-8 can write, without what would look like a passage's number: [3] becomes (3)."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\[［【〔]\s*(\d+)\s*[\]］】〕]", r"(\1)", text)


def read_prompt(path: str, method: str = "listwise") -> Prompt:
    """Read a template; raises InputError if it is not YAML, or lacks a part or a placeholder."""
    try:
        with open(path, encoding="utf-8") as file:
            template = yaml.safe_load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: give a prompt like distill/teachers/prompts/listwise.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML ({' '.join(str(error).split())[:150]})") from None
    names = {field.name for field in fields(Prompt)}
    if not isinstance(template, dict) or set(template) != names:
        raise InputError(f"{path}: expected exactly the keys {', '.join(sorted(names))}")
    for name, needed in PLACES[method].items():
        absent = [place for place in needed if place not in str(template[name])]
        if absent:
            raise InputError(f"{path}: {name} lacks {absent[0]}: without it the model would not see its value")
    texts = {name: str(template[name] or "").strip("\n") for name in names - {"max_words"}}
    if not isinstance(template["max_words"], int) or template["max_words"] < 1:
        raise InputError(f"{path}: max_words={template['max_words']}: must be a whole number, at least 1")
    return Prompt(**texts, max_words=template["max_words"])
