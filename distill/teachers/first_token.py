"""First-token ranking: the order of the letters that a model would answer with (FIRST, Reddy et al., 2024).

    ranking_of_letters([("B", -0.1), ("A", -2.3)])          # "[2] > [1]"

Each passage of a window has a letter, and the model is asked for that of the best one. The probabilities of its first
token order the whole window: one token a window in place of a hundred. Letters that an endpoint does not list, since it
lists only the likeliest tokens, follow in the incoming order.
"""

import math

from distill.teachers.prompt import LETTERS

AROUND = " \n\t\u2581\u0120[(*\"'"  # what may stand before a letter in its token; tokenizers' marks for a space, too


def ranking_of_letters(logprobs: list[tuple[str, float]]) -> str:
    """Return the ranking that the likeliest tokens give, as a listwise answer; empty if no letter is among them."""
    sums: dict[int, float] = {}
    for token, logprob in logprobs:
        letter = token.strip(AROUND)
        if len(letter) == 1 and letter in LETTERS:
            place = LETTERS.index(letter)
            sums[place] = sums.get(place, 0.0) + math.exp(logprob)
    order = sorted(sums, key=lambda place: (-sums[place], place))
    return " > ".join(f"[{place + 1}]" for place in order)
