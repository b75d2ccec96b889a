"""Permutation self-consistency: a window shown in several orders, and one ranking of them all (Tang et al., 2024).

    shown = shuffled(20, 3)                             # places of the passages, in the order of the fourth request
    order_by_ranks([[2, 0, 1], [2, 1, 0]])              # [2, 0, 1]: the sums of ranks are 3, 3 and 0

Listwise models favour passages by where they are shown. The sum of ranks (Borda) takes the place of the paper's Kemeny
order, which needs a search; where one ranker answers, the two seldom differ.
"""

import random


def shuffled(num_passages: int, shuffle: int) -> list[int]:
    """Return the places of passages in a seeded order; the first is the order as it is, the second is backwards."""
    places = list(range(num_passages))
    if shuffle == 1:
        places.reverse()
    elif shuffle > 1:
        random.Random(f"{num_passages} {shuffle}").shuffle(places)
    return places


def order_by_ranks(orders: list[list[int]]) -> list[int]:
    """Return the places by the sum of their ranks, the least first; ties keep the order of the places."""
    sums = [0] * len(orders[0])
    for order in orders:
        for rank, place in enumerate(order):
            sums[place] += rank
    return sorted(range(len(sums)), key=sums.__getitem__)
