"""Heapsort of the top of a list, by a judge that names the best of a few passages (Zhuang et al., SIGIR 2024).

    sorting = sort_top(100, arity=3, top=10, best=best_of_set)
    questions = next(sorting)                       # [[33, 100, ...]]: sets of places; answers are sent back

A sorting is a generator of questions that do not wait for each other: each is a list of places, and its answer the
index of the best among them, or None. It returns the order of all places: the top, then the rest as it came.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Any

Sorting = Generator[list[list[int]], Any, list[int]]
Finding = Generator[list[list[int]], Any, int]  # the same, which returns the index of the best


def sort_top(num_passages: int, arity: int, top: int, best: Callable[[list[int]], Finding]) -> Sorting:
    """Return the order of places, of which the first `top` are sorted; arity: children of a node of the heap.

    The heap begins in the incoming order, whose best passages are near the top already, so that few must move.
    """
    heap, order = list(range(num_passages)), []
    for level in reversed(_levels(num_passages, arity)):
        yield from together(_sift(heap, node, num_passages, arity, best) for node in level)
    for size in range(num_passages, 0, -1):
        order.append(heap[0])
        if len(order) == min(top, num_passages):
            break
        heap[0] = heap[size - 1]
        yield from _sift(heap, 0, size - 1, arity, best)
    return [*order, *sorted(set(range(num_passages)).difference(order))]


def most_questions(num_passages: int, arity: int, top: int, cost: Callable[[int], int]) -> int:
    """Return how many questions are asked at most; cost: those about a node with so many children."""
    nodes = [node for level in _levels(num_passages, arity) for node in level]
    number = sum(_most_of_sift(node, num_passages, arity, cost) for node in nodes)
    sizes = range(num_passages - 1, max(num_passages - top, 0), -1)
    return number + sum(_most_of_sift(0, size, arity, cost) for size in sizes)


def together(parts: Iterable[Generator[list[list[int]], Any, Any]]) -> Generator[list[list[int]], Any, None]:
    """Ask the questions of several generators at the same time, until all are finished."""
    waiting: list[tuple[Generator, list]] = []
    sent: list[tuple[Generator, Any]] = [(part, None) for part in parts]
    while True:
        waiting.clear()
        for part, answered in sent:
            try:
                waiting.append((part, part.send(answered)))
            except StopIteration:
                continue
        if not waiting:
            return
        found: list = yield [question for _, questions in waiting for question in questions]
        answers = iter(found)
        sent = [(part, [next(answers) for _ in questions]) for part, questions in waiting]


def _levels(num_passages: int, arity: int) -> list[range]:
    """Return the nodes with children, level by level from the root."""
    levels, start, width = [], 0, 1
    while arity * start + 1 < num_passages:
        levels.append(range(start, min(start + width, (num_passages - 2) // arity + 1)))
        start, width = arity * start + 1, width * arity
    return levels


def _children(node: int, size: int, arity: int) -> range:
    return range(arity * node + 1, min(arity * node + arity + 1, size))


def _sift(heap: list[int], node: int, size: int, arity: int, best: Callable[[list[int]], Finding]) -> Generator:
    """Let the passage at a node sink below better ones, as far as the heap's first `size` places reach."""
    while children := _children(node, size, arity):
        chosen = yield from best([heap[place] for place in (node, *children)])
        if chosen == 0:
            return
        child = children[chosen - 1]
        heap[node], heap[child] = heap[child], heap[node]
        node = child


def _most_of_sift(node: int, size: int, arity: int, cost: Callable[[int], int]) -> int:
    """Return the questions of the longest way down: that of the first children."""
    number = 0
    while children := _children(node, size, arity):
        number += cost(len(children))
        node = children[0]
    return number
