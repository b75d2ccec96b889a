"""Prompts for ranking: a template in YAML, filled with a query and its passages.

    prompt = read_prompt("distill/teachers/prompts/listwise.yaml")
    messages = prompt.fill("how do bees find home", ["Bees ...", "Trains ..."])     # of a chat: [{"role": ..., ...}]

A template has `system`, `before`, `passage` and `after`; {query}, {count}, {number} and {text} are replaced in them.
"""

import hashlib
import re
from dataclasses import dataclass, fields

import yaml

from distill.errors import InputError

Messages = list[dict[str, str]]
PLACES = {"passage": ("{number}", "{text}"), "after": ("{query}",)}  # what a part must hold; pointwise: no {number}


@dataclass
class Prompt:
    """The parts of a prompt."""

    system: str  # the system message; empty: none
    before: str  # what comes before the passages
    passage: str  # each passage, {number} from 1
    after: str  # what comes after them
    max_words: int  # a passage is cut after so many words

    @property
    def digest(self) -> str:
        """What tells one prompt from another, as 16 hexadecimal digits."""
        return hashlib.sha256(repr(vars(self)).encode()).hexdigest()[:16]

    def fill(self, query: str, passages: list[str]) -> Messages:
        """Return the messages that ask for a ranking of the passages."""
        lines = [self._put(self.before, query, passages)] if self.before else []
        for number, text in enumerate(passages, start=1):
            words = " ".join(text.split()[: self.max_words])
            words = re.sub(r"\[(\d+)\]", r"(\1)", words)  # a passage's own [3] would be taken for another's number
            lines.append(self.passage.replace("{number}", str(number)).replace("{text}", words))
        lines.append(self._put(self.after, query, passages))
        messages = [{"role": "user", "content": "\n".join(lines)}]
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages

    def _put(self, part: str, query: str, passages: list[str]) -> str:
        return part.replace("{count}", str(len(passages))).replace("{query}", query)


def read_prompt(path: str, method: str = "listwise") -> Prompt:
    """Read a template; raises InputError for one that is no YAML or lacks a part or a place."""
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: give a prompt like distill/teachers/prompts/listwise.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())[:150]})") from None
    names = {part.name for part in fields(Prompt)}
    if not isinstance(found, dict) or set(found) != names:
        raise InputError(f"{path}: expected the keys {', '.join(sorted(names))}, and no others")
    for name, places in PLACES.items():
        needed = places if method == "listwise" else [place for place in places if place != "{number}"]
        absent = [place for place in needed if place not in str(found[name])]
        if absent:
            raise InputError(f"{path}: {name} lacks {absent[0]}: without it the model cannot see what it stands for")
    texts = {name: str(found[name] or "").strip("\n") for name in names - {"max_words"}}
    if not isinstance(found["max_words"], int) or found["max_words"] < 1:
        raise InputError(f"{path}: max_words={found['max_words']}: must be a whole number, at least 1")
    return Prompt(**texts, max_words=found["max_words"])
