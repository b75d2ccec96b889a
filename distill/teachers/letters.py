"""The passage that an answer names by its letter.

    named_letter("Passage B", 4)                    # 1
    named_letter("A and B are both fine.", 4)       # None: nothing is named, or more than one

An answer counts if just one letter has a line to itself, as in `B`, `(B)`, `**B**`, `Passage B.` or `Best: B`; without
such a line, if just one passage is called the best in a sentence. Prose that only mentions a passage names none, nor
does what says that a passage is not the best. `A` and `I` are also words: in prose they need the noun.
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
    re.compile(rf"\W*(?:(?i:{NOUN})\s+)?{LETTER}[.:：)]\s.*"),  # with a remark
    re.compile(rf"\W*(?:(?i:{NOUN})\s+{LETTER}|([B-HJ-Z]))\s*[,，—–-]\s.*"),
)
OTHERS = re.compile(r"(?<![\w.])[B-HJ-Z](?![\w.]?\w)|[\[(][A-Z][\])]")  # letters by themselves
AFTER_COLON = re.compile(r"[:：]\s*[\[({<]?\s*([A-Z])(?!\w)")
NAMED = re.compile(rf"\b(?i:{NOUN})\s*(?:is|=|:|：)?\s*[\[(]?([A-Z])(?![\w'’])|[\[(]([A-Z])[\])]|\bis\s+([A-HJ-Z])\W*$")
BEST = re.compile(r"\b(?:best|better|most|answers?|choose|chose|choice|pick|select)\b", re.IGNORECASE)
DENIED = re.compile(
    r"\b(?:not|no|none|nor|neither|never|cannot|(?:is|are|was|do|does|did|ca|wo|would|could)nt|worst|worse|least|less)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")


def named_letter(text: str, num_passages: int, tag: str = "") -> int | None:
    """Return the place of the passage that an answer names, None if it names none, or several; tag: around it."""
    text = answer_in_tag(text, tag) if tag else answer_after_thinking(text)
    text = MARKUP.sub("", text)
    found = {letter for line in text.splitlines() if (letter := _letter_of(line.strip()))}
    found = found or _called_best(text)
    place = LETTERS.find(found.pop()) if len(found) == 1 else -1
    return place if 0 <= place < num_passages else None


def _letter_of(line: str) -> str | None:
    """Return the letter that a line is about; None if there is none, or if its remark names another, or denies it."""
    for form in LINES:
        if match := form.fullmatch(line):
            letter = next(filter(None, match.groups())).upper()
            others = {other.strip("[]()") for other in [*OTHERS.findall(line), *AFTER_COLON.findall(line)]} - {letter}
            return None if others or DENIED.search(line) else letter
    return None


def _called_best(text: str) -> set[str]:
    """Return the letters of the passages that sentences call the best."""
    sentences = [one for one in SENTENCE.split(text) if BEST.search(one) and not DENIED.search(one)]
    return {next(filter(None, match.groups())) for one in sentences for match in NAMED.finditer(one)}
