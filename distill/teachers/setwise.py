"""Setwise ranking: the model names the best of a set, and heapsort finds the top (Zhuang et al., SIGIR 2024).

    order = yield from setwise(100, set_size=4, top=10)     # asks for the best of sets, like sort_top of heapsort.py

A set is a passage of the heap with its children: larger sets make a flatter heap, and fewer requests.
"""

from distill.teachers.heapsort import Finding, Sorting, most_questions, sort_top


def setwise(num_passages: int, set_size: int, top: int) -> Sorting:
    """Return the order of the places, of which the first `top` are sorted."""
    return (yield from sort_top(num_passages, set_size - 1, top, _best_of_set))


def _best_of_set(places: list[int]) -> Finding:
    """Ask once; without a usable answer the set stays as it is, with its first passage above the others."""
    (found,) = yield [places]
    return found or 0


def most_requests(num_passages: int, set_size: int, top: int) -> int:
    """Return how many requests a list takes at most."""
    return most_questions(num_passages, set_size - 1, top, cost=lambda num_children: 1)
