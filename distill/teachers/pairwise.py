"""Pairwise ranking prompting: which of two passages is better, asked in both orders (Qin et al., NAACL 2024).

    order = yield from pairwise(100, "heap", top=10)        # asks for the better of pairs, like sort_top of heapsort.py

A passage wins where both orders of the pair name it; else, and where an answer is missing, each gets half a win, and
the first stage's order decides. Sorted by the wins over all others (all), by heapsort (heap) or by passes of a bubble
sort from the bottom up, each of which brings one passage to its place (bubble).
"""

import itertools
from collections.abc import Generator
from typing import Any

from distill.teachers.heapsort import Finding, Sorting, most_questions, sort_top


def pairwise(num_passages: int, sort: str, top: int) -> Sorting:
    """Return the order of the places, of which the first `top` are sorted; with "all", all are."""
    if sort == "all":
        return (yield from _by_wins(num_passages))
    if sort == "heap":
        return (yield from sort_top(num_passages, 2, top, _best_by_pairs))
    order = list(range(num_passages))
    for done in range(min(top, num_passages - 1)):
        for place in range(num_passages - 2, done - 1, -1):
            if not (yield from _precedes(order[place], order[place + 1])):
                order[place], order[place + 1] = order[place + 1], order[place]
    return [*order[:top], *sorted(order[top:])]


def _by_wins(num_passages: int) -> Sorting:
    pairs = list(itertools.combinations(range(num_passages), 2))
    found = yield [question for one, other in pairs for question in ([one, other], [other, one])]
    wins = [0.0] * num_passages
    for place, (one, other) in enumerate(pairs):
        share = _share(*found[2 * place : 2 * place + 2])
        wins[one] += share
        wins[other] += 1 - share
    return sorted(range(num_passages), key=lambda place: -wins[place])


def _share(forwards: int | None, backwards: int | None) -> float:
    """Return the wins of the first passage of a pair, asked for as (first, second) and as (second, first)."""
    if (forwards, backwards) == (0, 1):
        return 1.0
    return 0.0 if (forwards, backwards) == (1, 0) else 0.5


def _precedes(one: int, other: int) -> Generator[list[list[int]], Any, bool]:
    """Ask whether a passage comes before another; half a win each leaves it to the first stage."""
    share = _share(*(yield [[one, other], [other, one]]))
    return share == 1 or (share == 0.5 and one < other)


def _best_by_pairs(places: list[int]) -> Finding:
    best = 0
    for index in range(1, len(places)):
        if not (yield from _precedes(places[best], places[index])):
            best = index
    return best


def most_requests(num_passages: int, sort: str, top: int) -> int:
    """Return how many requests a list takes, with "all" exactly, else at most: no pair is asked for twice."""
    every = num_passages * (num_passages - 1)
    if sort == "all":
        return every
    if sort == "heap":
        return min(every, 2 * most_questions(num_passages, 2, top, cost=lambda num_children: num_children))
    return min(every, 2 * sum(num_passages - 1 - done for done in range(min(top, num_passages - 1))))
