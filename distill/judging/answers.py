"""The grade in a judge's answer.

    grade_in("grade: 2")                            # 2
    grade_in("It fits the topic, so 1 or 2.")       # None: nothing is called the grade, or it is not one number

An answer counts if it is a number from 0 to 3 and nothing else, or names one as the grade or score; of several, the
last one is the decision. What is not sure is no grade: the question is asked again.
"""

import re

from distill.sources.thinking import answer_after_thinking, answer_in_tag

GRADES = range(4)
MARKUP = re.compile(r"[*_`\"'“”‘’#$\\{}<>\[\]]|\bboxed\b")
NAME = r"(?:grade|score|rating|relevance|category|judge?ment|bewertung|评分|分数|等级|得分|评级)(?![a-z])"
NUMBER = r"(?<![-–−])(?P<grade>\d+)(?:\.0+)?(?!\.?\d)"
OUT_OF = r"(?:\s*(?:/|out of|of|von)\s*3)?"
ALONE = re.compile(rf"\W*{NUMBER}{OUT_OF}\W*")
BETWEEN = r"[^\w.\n]*(?:(?:is|of|ist|为|是)[^\w.\n]*)?(?:[:：]\s*)?"
NAMED = re.compile(rf"{NAME}{BETWEEN}{NUMBER}{OUT_OF}", re.IGNORECASE)
UNSURE = re.compile(r"\s*(?:[-–—~/]|or|to|and|oder|bis|或|至)\s*\d", re.IGNORECASE)


def grade_in(answer: str, tag: str = "") -> int | None:
    """Return the grade in an answer, None if it names none, or more than one; tag: of the part that counts."""
    text = MARKUP.sub("", answer_in_tag(answer, tag) if tag else answer_after_thinking(answer)).strip()
    found = ALONE.fullmatch(text)
    if found is None:
        found = next(reversed([*NAMED.finditer(text)]), None)
        if found is None or UNSURE.match(text, found.end()):
            return None
    grade = int(found["grade"]) if len(found["grade"]) < 3 else -1
    return grade if grade in GRADES else None
