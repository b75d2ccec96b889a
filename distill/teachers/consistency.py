"""How consistent an LLM is: its orders of a window that is shown in several ways, and of a list in two passes.

    consistency.add_orders([[2, 0, 1], [2, 1, 0]])      # of one window, shown in other orders: shuffles=2
    consistency.add_pass(before, after, at_random)      # of one list: passes=2
    for name, agreement in consistency.found(): print(name, agreement.describe())

A model that answers at random, or by the place where a passage is shown, orders a shuffled window anew each time:
Kendall's tau is 0 or less. Two passes tell less, since the second is shown the first one's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from distill.evaluation.agreement import Agreement, tau_of_orders


@dataclass
class Consistency:
    """The agreement of an LLM with itself."""

    shuffles: Agreement = field(default_factory=Agreement)  # of the orders of one window
    passes: Agreement = field(default_factory=Agreement)  # of a list's last two passes
    num_windows: int = 0  # of three passages or more, with a usable answer
    num_as_shown: int = 0  # of those, answered in the order shown

    def add_answer(self, order: Sequence[int]) -> None:
        """Count an answer, as places in the order shown."""
        if len(order) > 2:
            self.num_windows += 1
            self.num_as_shown += all(one < other for one, other in pairwise(order))

    def add_orders(self, orders: Sequence[Sequence[int]]) -> None:
        """Count the orders of one window, as places in the same order."""
        if len(orders) > 1 and len(orders[0]) > 1:
            taus = [tau_of_orders(one, other) or 0.0 for one, other in combinations(orders, 2)]
            self.shuffles.taus.add(sum(taus) / len(taus), 0.0)

    def add_pass(self, before: Sequence[int], after: Sequence[int], at_random: Sequence[int]) -> None:
        """Count a list before and after its last pass; at_random: what random answers make of the order before."""
        tau = tau_of_orders(after, before)
        if tau is not None:
            self.passes.taus.add(tau, tau_of_orders(at_random, before))

    def found(self) -> dict[str, Agreement]:
        """Return what was counted, by name."""
        return {name: one for name, one in (("shuffles", self.shuffles), ("passes", self.passes)) if one.taus.values}

    @property
    def mostly_as_shown(self) -> bool:
        """Whether more than half of the answers repeat the order shown."""
        return 2 * self.num_as_shown > self.num_windows
