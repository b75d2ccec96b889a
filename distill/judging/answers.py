"""The grade in a judge's answer.

    grade_in("grade: 2")                            # 2
    grade_in("It fits the topic, so 1 or 2.")       # None: nothing is called the grade, or it is not one number

An answer counts if it is a number from 0 to 3, with its reason at most, or names one as the grade or score. A line
that says nothing but the grade decides, whatever is remarked after it. In prose, all mentions must be of one grade;
those that say what the grade is not, or what another one would need, are passed over. What is not sure is no grade:
the question is asked again.
"""

import re

from distill.sources.thinking import answer_after_thinking, answer_in_tag

GRADES = range(4)
MARKUP = re.compile(r"[*_`\"'“”‘’#$\\{}<>\[\]]|\bboxed\b")
NAME = r"(?:grade|score|rating|relevance|category|judge?ment|bewertung|评分|分数|等级|得分|评级)(?![a-z])"
NUMBER = r"(?<![-–−])(?P<grade>\d+)(?:\.0+)?(?!\.?\d)"
OUT_OF = r"(?:\s*(?:/|out of|of|von)\s*3)?"
ALONE = re.compile(rf"\W*(?:(?:(?:final|overall) )?(?:{NAME}|answer)\W*)?{NUMBER}{OUT_OF}\W*", re.IGNORECASE)
WITH_REASON = re.compile(rf"\s*{NUMBER}{OUT_OF}\s*(?:\(|[:：–—-]\s+(?=[^\W\d])).*", re.DOTALL)
IS = r"(?:is|of|ist|为|是)"
BETWEEN = rf"[^\w.\n]*(?:{IS}[^\w.\n]*)?(?:[:：]\s*)?"
NAMED = re.compile(rf"{NAME}{BETWEEN}{NUMBER}{OUT_OF}", re.IGNORECASE)
STATED = re.compile(rf"{NAME}[^\w.\n]*{IS}{BETWEEN}{NUMBER}", re.IGNORECASE)
LINE = re.compile(
    rf"^\W*(?:(?:final|overall) )?(?:{NAME}|answer\b){BETWEEN}{NUMBER}{OUT_OF}\W*$", re.IGNORECASE | re.MULTILINE
)
NOT = r"not|(?:is|was|do|does|did|ca|could|would)nt|no|never|cannot"
RULED_OUT = rf"\b(?:{NOT}|than|below|under|unlike|without|for|short of|instead of)"
NOT_BEFORE = re.compile(rf"{RULED_OUT}\s+(?:\w+\s+){{0,3}}$", re.IGNORECASE)
WOULD_AFTER = re.compile(r"\W*(?:would|could|requires?|needs?|means?|is for)\b", re.IGNORECASE)
UNSURE = re.compile(r"\s*(?:[-–—~/]|or|to|and|oder|bis|或|至)\s*\d", re.IGNORECASE)


def grade_in(answer: str, tag: str = "") -> int | None:
    """Return the grade in an answer, None if it names none, or more than one; tag: of the part that counts."""
    text = MARKUP.sub("", answer_in_tag(answer, tag) if tag else answer_after_thinking(answer)).strip()
    found = ALONE.fullmatch(text) or WITH_REASON.fullmatch(text) or _decision(text)
    grade = int(found["grade"]) if found is not None and len(found["grade"]) < 3 else -1
    return grade if grade in GRADES else None


def _decision(text: str) -> re.Match | None:
    """Return where a longer text says the grade: in the last line of its own, or where prose mentions it."""
    own_lines = [*LINE.finditer(text)]
    if own_lines:
        later = [found["grade"] for found in STATED.finditer(text, own_lines[-1].end())]
        return own_lines[-1] if all(grade == own_lines[-1]["grade"] for grade in later) else None
    lines = text.splitlines()
    numbers = [found for line in (lines[:1] + lines[-1:]) if (found := ALONE.fullmatch(line))]
    mentions = numbers or [found for found in NAMED.finditer(text) if _is_given(text, found)]
    if len({found["grade"] for found in mentions}) != 1 or (not numbers and UNSURE.match(text, mentions[-1].end())):
        return None
    return mentions[-1]


def _is_given(text: str, found: re.Match) -> bool:
    """Whether a mention may be the grade: not one that is ruled out, or whose needs are told."""
    clause = re.split(r"[.;:,()\n]", text[: found.start()])[-1]
    return not NOT_BEFORE.search(clause) and not WOULD_AFTER.match(text, found.end())
