"""Interpolations in a saved configuration, replaced without OmegaConf: configurations of earlier versions have them.

    expanded({"a": 1, "b": "${a}"}, sample_file, prompt_file)          # {"a": 1, "b": 1}

Replaced are other keys, and this project's own: `${sample:NAME}`, `${prompt:NAME}`, `${divide:A,B}`,
`${answer_tokens:WINDOW}`, `${oc.select:KEY,null}`, `${sweep_name:RESUME}`. Any other, such as `${oc.env:NAME}`, stays
the text that it is. The work is bounded, since text that doubles in each key would fill the memory.
"""

import re
from collections.abc import Callable
from typing import Any

from distill.errors import InputError

BEGIN = re.compile(r"(\\*)\$\{")
MAX_TEXT = 4096  # characters of a value in which interpolations are looked for
MAX_LEVELS = 16  # of keys that name keys: ours have 4
MAX_REPLACED = 5000
MAX_CHARACTERS = 2**20
FILE_NAME = re.compile(r"[A-Za-z0-9_-][\w-]*(?:[./][\w-]+)*")  # no `..`, not absolute


def expanded(plain: dict, sample_file: Callable[[str], str], prompt_file: Callable[[str], str]) -> dict:
    """Return a configuration with its interpolations replaced; raises InputError where that is too much work."""
    return _Expansion(plain, {"sample": sample_file, "prompt": prompt_file}).of(plain, 0)


def answer_tokens(window: int) -> int:
    """Return how many tokens an LLM may write to put so many passages in order: 6 for each, as in `[100] > `."""
    return max(256, 6 * window)


class _Expansion:
    def __init__(self, plain: dict, files: dict[str, Callable[[str], str]]):
        self.plain, self.files = plain, files
        self.replaced = self.characters = 0

    def of(self, value: Any, level: int) -> Any:
        if isinstance(value, dict):
            return {_text(key): self.of(part, level) for key, part in value.items()}
        if isinstance(value, list):
            return [self.of(part, level) for part in value]
        if not isinstance(value, str) or "${" not in value or len(value) > MAX_TEXT:
            return value
        return self.of_text(value, level)

    def of_text(self, text: str, level: int) -> Any:
        parts: list[Any] = []
        place = 0
        while found := BEGIN.search(text, place):
            slashes = len(found[1])
            before = text[place : found.start()] + "\\" * (slashes // 2)
            parts += [before] if before else []
            end = None if slashes % 2 else _end(text, found.end())
            parts.append("${" if end is None else self.value(text[found.end() : end], level))
            place = found.end() if end is None else end + 1
        if len(parts) == 1 and place == len(text):
            return parts[0]
        whole = "".join([*map(_text, parts), text[place:]])
        self.characters += len(whole)
        if self.characters > MAX_CHARACTERS:
            raise InputError("its values name each other too often")
        return whole

    def value(self, inside: str, level: int) -> Any:
        """Return what an interpolation stands for; one that is not known stays as it is."""
        self.replaced += 1
        if level > MAX_LEVELS or self.replaced > MAX_REPLACED:
            raise InputError("its values name each other too often")
        name, sign, given = inside.partition(":")
        if not sign:
            return self.key(inside, f"${{{inside}}}", level)
        if name == "sweep_name":
            return None
        if name not in (*self.files, "divide", "answer_tokens", "oc.select"):
            return f"${{{inside}}}"
        first, *rest = [self.of(part.strip(), level + 1) for part in _arguments(given)] or [""]
        if name == "oc.select":
            return self.key(_text(first), None, level)
        if name == "divide":
            numbers = [int(one) if str(one).isdigit() and len(str(one)) < 20 else 0 for one in (first, *rest)]
            return max(numbers[0] // numbers[1], 1) if len(numbers) == 2 and numbers[1] else f"${{{inside}}}"
        if name == "answer_tokens":
            return answer_tokens(first) if type(first) is int else f"${{{inside}}}"
        return self.files[name](first) if FILE_NAME.fullmatch(_text(first)) else f"${{{inside}}}"

    def key(self, path: str, otherwise: Any, level: int) -> Any:
        value: Any = self.plain
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                return otherwise
            value = value[name]
        return self.of(value, level + 1)


def _end(text: str, start: int) -> int | None:
    """Return where the brace that was opened before `start` is closed; None if it is not."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    return None


def _arguments(text: str) -> list[str]:
    """Cut at commas that are not inside braces."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
