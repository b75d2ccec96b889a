"""The passage that an answer names by its letter.

    named_letter("Passage B", 4)                    # 1
    named_letter("A and B are both fine.", 4)       # None: nothing is named, or more than one

An answer counts if just one letter has a line to itself, as in `B`, `[B]`, `Passage B.` or `Best: B`; without such a
line, if it names just one passage in its sentences. `A` is also an article: on its own in a sentence it is none.
"""

import re

from distill.sources.thinking import answer_after_thinking, answer_in_tag
from distill.teachers.prompt import LETTERS

MARKUP = re.compile(r"[*_`\"'“”‘’$#]")
NOUN = r"(?:passage|document|doc|text|option|candidate|answer|choice|letter)"
LETTER = r"[\[({<]?\s*([A-Z])\s*[\])}>]?"
LINES = (
    re.compile(rf"\W*(?:the\s+)?(?:{NOUN}\b\W*)*(?:is\b\W*)?{LETTER}\W*", re.IGNORECASE),  # nothing else
    re.compile(rf".*[:：]\s*{LETTER}\W*"),
    re.compile(rf"\W*(?:(?i:{NOUN})\s+)?{LETTER}[.:：),—–-]\s.*"),  # with a remark
)
NAMED = re.compile(rf"\b(?i:{NOUN})\s*(?:is|=|:|：)?\s*[\[(]?([A-Z])(?![\w'’])|[\[(]([A-Z])[\])]")


def named_letter(text: str, num_passages: int, tag: str = "") -> int | None:
    """Return the place of the passage that an answer names, None if it names none, or several; tag: around it."""
    text = answer_in_tag(text, tag) if tag else answer_after_thinking(text)
    text = MARKUP.sub("", text)
    found = {match[1].upper() for line in text.splitlines() if (match := _letter_of(line.strip()))}
    found = found or {match[1] or match[2] for match in NAMED.finditer(text)}
    place = LETTERS.find(found.pop()) if len(found) == 1 else -1
    return place if 0 <= place < num_passages else None


def _letter_of(line: str) -> re.Match | None:
    return next((match for form in LINES if (match := form.fullmatch(line))), None)
