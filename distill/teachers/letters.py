"""The passage that an answer names by its letter.

    named_letter("Passage B", 4)                    # 1
    named_letter("A and B are both fine.", 4)       # None: nothing is named, or more than one

An answer counts if just one letter has a line to itself, as in `B`, `(B)`, `**B**`, `Passage B.` or `Best: B`; without
such a line, if sentences call just one passage the best, as in `Passage B is the most relevant`, `Passage B answers the
query best`, `The best is passage B` or `I choose B`. Prose that only mentions a passage names none, nor does what says
that a passage is not the best, or asks, or supposes. In an answer that was cut, only a line counts. `A` and `I` are
also words: in prose, they need the noun or their place.
"""

import re

from distill.sources.thinking import answer_after_thinking, answer_in_tag, unwrapped
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
PASSAGE = rf"(?:\b(?i:{NOUN})\s*[\[(]?|[\[(])([A-Z])(?!\w)[\])]?"
FIRST = rf"(?:{PASSAGE}|\b([A-HJ-Z])(?!\w))(?:\s*,[^,]*,)?"  # in a sentence
LAST = rf"(?:{PASSAGE}|\b([B-HJ-Z])(?!\w)|\b([A-Z])\W*$)"
MOST = (
    r"(?:best|better|(?:most|more)\s+(?:relevant|helpful|useful|suitable|appropriate|fitting|pertinent|informative|likely"
    r"|direct|directly|fully|completely|clearly))(?!\s+known)\b"
)
ANSWERS = r"(?:answers|addresses|matches|fits|responds\s+to)"
QUERY = r"(?:the|this|your)\s+(?:search\s+)?(?:query|question)"
BEST = (
    re.compile(rf"{FIRST}(?i:\s*[:：]\s*{MOST}|\s+is\s+(?:\w+\s+){{0,2}}{MOST}|\s+{MOST}\s+{ANSWERS}\b)"),
    re.compile(rf"{FIRST}\s+(?i:{ANSWERS}\s+(?:(?:{QUERY}|it)\s+)?(?:the\s+)?{MOST})"),
    re.compile(
        rf"\b(?i:(?:{MOST}|(?:the|my|correct|right|final)\s+(?:answer|choice)|(?:passage|one)\s+that\s+{ANSWERS}\s+{QUERY})[^,;:]{{0,80}}?"
        rf"\b(?:is|would\s+be)\s*[:：]?\s*(?:the\s+)?){LAST}"
    ),
    re.compile(rf"\b(?i:(?:choose|chose|pick|picked|select|selected|prefer)\s*[:：]?\s*(?:the\s+)?){LAST}"),
)
DENIED = re.compile(
    r"\b(?:not|no|none|nor|neither|never|cannot|(?:is|are|was|do|does|did|ca|wo|would|could)nt|worst|worse|least|less)\b",
    re.IGNORECASE,
)
SUPPOSED = re.compile(r"\b(?:if|unless)\b|[?？]\W*$", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")


def named_letter(text: str, num_passages: int, tag: str = "", *, is_cut: bool = False) -> int | None:
    """Return the place of the passage that an answer names, None if it names none, or several.

    tag: around it. is_cut: whether the answer got too long.
    """
    text = answer_in_tag(text, tag) if tag else answer_after_thinking(text)
    text = MARKUP.sub("", unwrapped(text))
    found = {letter for line in text.splitlines() if (letter := _letter_of(line.strip()))}
    found = found or (set() if is_cut else _called_best(text))
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
    sentences = [one for one in SENTENCE.split(text) if not (DENIED.search(one) or SUPPOSED.search(one))]
    found = [match for one in sentences for form in BEST for match in form.finditer(one)]
    return {next(filter(None, match.groups())) for match in found}
