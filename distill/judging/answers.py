"""The grade in a judge's answer.

    grade_in("grade: 2")                            # 2
    grade_in("It fits the topic, so 1 or 2.")       # None: nothing is called the grade, or it is not one number

An answer counts if it is a number from 0 to 3, with its reason at most, or states one as the grade or score. A line
that says nothing but the grade decides, whatever is remarked after it. Prose must state the grade, as in `the grade is
2`, `grade: 2`, `I give it grade 2`, or `Grade 2, since ...` at its beginning, and all mentions must be of one grade;
those that say what the grade is not, would be, or what another one would need, are passed over. In an answer that was
cut, only such a line counts. What is not sure is no grade: the question is asked again.
"""

import re

from distill.sources.thinking import answer_after_thinking, answer_in_tag, unwrapped

GRADES = range(4)
NEAR = 200  # characters before a mention that say whether it is meant
MARKUP = re.compile(r"[*_`\"'“”‘’#$\\{}<>\[\]]")
NAME = r"(?:grade|score|rating|relevance|category|judge?ment|bewertung|评分|分数|等级|得分|评级)(?![a-z])"
OTHER_SCALE = (
    r"[\s(]*(?:%|percent\b|(?:points?\s+)?(?:/|out of|of|von|on a scale (?:of|from) \d+ ?(?:to|-))\s*(?!3(?!\.?\d))\d)"
)
NUMBER = rf"(?<![-–−])(?P<grade>\d+)(?:\.0+)?(?!\.?\d)(?!{OTHER_SCALE})"
OUT_OF = r"(?:\s*(?:/|out of|of|von)\s*3)?"
END = r"[^\w?？]*"
ALONE = re.compile(rf"\W*(?:(?:(?:final|overall) )?(?:{NAME}|answer)\W*)?{NUMBER}{OUT_OF}{END}", re.IGNORECASE)
WITH_REASON = re.compile(rf"\s*{NUMBER}{OUT_OF}\s*(?:\(|[:：–—-]\s+(?=[^\W\d])).*", re.DOTALL)
IS = r"(?:is|of|ist|为|是)"
BETWEEN = rf"[^\w.\n]*(?:{IS}[^\w.\n]*)?(?:[:：]\s*)?"
NAMED = re.compile(rf"{NAME}{BETWEEN}{NUMBER}{OUT_OF}", re.IGNORECASE)
STATED = re.compile(rf"{NAME}[^\w.\n]*{IS}{BETWEEN}{NUMBER}", re.IGNORECASE)
WITH_SIGN = re.compile(rf"{NAME}[^\w.\n]*[:：=]", re.IGNORECASE)
GIVEN = re.compile(
    r"\b(?:give|gives|gave|assign|assigns|assigned|deserves|merits|earns|gets|receives|rate|rated|gebe|vergebe|verdient"
    r"|erhält|bekommt)\b",
    re.IGNORECASE,
)
THEN_REASON = re.compile(r"\s*(?:[.,;:(–—-]|because\b|since\b|as\b|$)", re.IGNORECASE)
LINE = re.compile(
    rf"^\W*(?:(?:final|overall) )?(?:{NAME}|answer\b){BETWEEN}{NUMBER}{OUT_OF}{END}$", re.IGNORECASE | re.MULTILINE
)
NOT = r"not|(?:is|was|do|does|did|ca|could|would)nt|no|never|cannot"
WANTED = r"to (?:earn|get|gain|reach|merit|receive|deserve|achieve|obtain|justify|warrant|be)|fails?|failed|considered"
RULED_OUT = rf"\b(?:{NOT}|{WANTED}|than|below|under|unlike|without|for|short of|instead of)"
NOT_BEFORE = re.compile(rf"{RULED_OUT}\s+(?:\w+\s+){{0,3}}$", re.IGNORECASE)
WOULD = re.compile(r"\b(?:would|could|might|may)\b(?! (?:give|assign|say)\b)", re.IGNORECASE)
WOULD_AFTER = re.compile(
    r"\W*(?:would|could|requires?|needs?|means?|is for|was|were|had|[^.;:,()\n]{0,80}\b(?:if|unless)\b)\b"
    r"|[^\w.\n]*[?？]",
    re.IGNORECASE,
)
IF = re.compile(r"\b(?:if|unless)\b", re.IGNORECASE)
UNSURE = re.compile(r"\s*(?:[-–—~/]|or|to|and|oder|bis|或|至)\s*\d", re.IGNORECASE)


def grade_in(answer: str, tag: str = "", *, is_cut: bool = False) -> int | None:
    """Return the grade in an answer, None if it states none, or more than one.

    tag: of the part that counts. is_cut: whether the answer got too long.
    """
    text = MARKUP.sub("", unwrapped(answer_in_tag(answer, tag) if tag else answer_after_thinking(answer))).strip()
    with_reason = None if is_cut else WITH_REASON.fullmatch(text)
    found = ALONE.fullmatch(text) or with_reason or _decision(text, is_cut=is_cut)
    grade = int(found["grade"]) if found is not None and len(found["grade"]) < 3 else -1
    return grade if grade in GRADES else None


def _decision(text: str, *, is_cut: bool) -> re.Match | None:
    """Return where a longer text says the grade: in the last line of its own, or where prose states it."""
    own_lines = [*LINE.finditer(text)]
    if own_lines:
        later = [found["grade"] for found in STATED.finditer(text, own_lines[-1].end())]
        return own_lines[-1] if all(grade == own_lines[-1]["grade"] for grade in later) else None
    lines = text.splitlines()
    ends = lines[:1] if is_cut else lines[:1] + lines[-1:]
    numbers = [found for line in ends if (found := ALONE.fullmatch(line))]
    if numbers or is_cut:
        return numbers[-1] if len({found["grade"] for found in numbers}) == 1 else None
    mentions = [found for found in NAMED.finditer(text) if _is_given(text, found)]
    stated = [found for found in mentions if _is_stated(text, found)]
    is_one = len({found["grade"] for found in mentions}) == 1
    return stated[-1] if stated and is_one and not UNSURE.match(text, mentions[-1].end()) else None


def _is_given(text: str, found: re.Match) -> bool:
    """Whether a mention may be the grade: not one that is ruled out or supposed, or whose needs are told."""
    sentence = re.split(r"[.!?;\n]", _before(text, found))[-1]
    clause = re.split(r"[:,()]", sentence)[-1]
    if NOT_BEFORE.search(clause) or WOULD.search(clause) or WOULD_AFTER.match(text, found.end()):
        return False
    return not (IF.search(sentence) and re.search(r"\bwould\b", clause))


def _is_stated(text: str, found: re.Match) -> bool:
    """Whether a mention says that this is the grade: `grade: 2`, `a grade of 2`, `I give it grade 2`."""
    if STATED.match(text, found.start()) or WITH_SIGN.match(found[0]):
        return True
    clause = re.split(r"[.!?;:,()\n]", _before(text, found))[-1]
    is_first = not re.search(r"\w", text[: found.start()])
    return bool(GIVEN.search(clause) or (is_first and THEN_REASON.match(text, found.end())))


def _before(text: str, found: re.Match) -> str:
    return text[max(found.start() - NEAR, 0) : found.start()]
