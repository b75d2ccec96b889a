"""The orders of all lists, packed, and the run that they make.

orders = PackedOrders()
orders.add("q1", [2, 0, 1])
orders["q1"]                                    # [2, 0, 1]: places in the list, best first
orders.add("q2", [1, 0, 2], [1, 2.5, 2.5])      # the last two tie
OrderedRun(run, orders)["q1"].doc_ids           # the passages of the run's list in that order
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from distill.sources.run_files import RankedList, Run


class PackedOrders(Mapping[str, list[int]]):
    """The order of each list, two bytes a place, or four in lists of more than 65,536."""

    def __init__(self):
        """Hold none yet."""
        self.packed: dict[str, array] = {}
        self.tied: dict[str, np.ndarray] = {}  # the ranks of lists with ties

    def add(self, query_id: str, order: Sequence[int], ranks: Sequence[float] | None = None) -> None:
        """Keep the order of a list; ranks: of its passages in that order, ties at their average; None: 1 to K."""
        self.packed[query_id] = array("H" if len(order) <= 2**16 else "I", order)
        if ranks is not None and len(set(ranks)) < len(ranks):
            self.tied[query_id] = np.array(ranks, np.float64)

    def repeat(self, query_id: str, other: str) -> None:
        """Give a list the order of another."""
        self.packed[query_id] = self.packed[other]
        if other in self.tied:
            self.tied[query_id] = self.tied[other]

    def ranks(self, query_id: str) -> np.ndarray:
        """Return the ranks [K] of a list's passages, best first."""
        return self.tied.get(query_id, np.arange(1.0, 1 + len(self.packed[query_id])))

    def __getitem__(self, query_id: str) -> list[int]:
        """Return the order of a list; raises KeyError if there is none."""
        return self.packed[query_id].tolist()

    def __iter__(self) -> Iterator[str]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)


class OrderedRun(Mapping[str, RankedList]):
    """The lists of a run in another order, in the run's order of queries; each is made when it is asked for."""

    def __init__(self, run: Run, orders: PackedOrders):
        """Take the run, and the order of each of its lists."""
        self.run, self.orders = run, orders

    def __getitem__(self, query_id: str) -> RankedList:
        """Return a list, whose scores are K to 1; passages that tie have the same."""
        ranked, order, ranks = self.run[query_id], self.orders[query_id], self.orders.ranks(query_id)
        return RankedList([ranked.doc_ids[place] for place in order], len(order) + 1 - ranks, ranks)

    def __iter__(self) -> Iterator[str]:
        return iter(self.run)

    def __len__(self) -> int:
        return len(self.run)
