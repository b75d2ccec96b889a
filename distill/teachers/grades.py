"""Graded ranking: a model grades each passage separately from 0 to 9; the score is the grade that it expects.

    expected_grade([("7", -0.2), ("8", -1.7)])      # 7.2: sum of p(d)·d / sum of p(d) over the digits d

The mean over the digits of the first token, weighted by their probabilities, ties less than the likeliest digit alone
(Liu et al., G-Eval, 2023). Grades end at 9, since a 10 would begin like a 1.
"""

import math

DIGITS = "0123456789"
LEAST = 0.01  # of all probability, that the digits must have: else the model would write something else


def expected_grade(logprobs: list[tuple[str, float]]) -> float | None:
    """Return the expected grade by the likeliest tokens and their log-probabilities; None if hardly any is a digit."""
    grades: dict[int, float] = {}
    for token, logprob in logprobs:
        digit = token.strip(" \n\t\u2581\u0120")  # the last two are tokenizers' marks for a space
        if len(digit) == 1 and digit in DIGITS:
            grades[int(digit)] = grades.get(int(digit), 0.0) + math.exp(logprob)
    total = sum(grades.values())
    return sum(grade * p for grade, p in grades.items()) / total if total >= LEAST else None
