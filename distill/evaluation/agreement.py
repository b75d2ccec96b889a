"""How far two rankings of the same lists agree, beside what answers at random would give.

    found = agree(ranking, other, at_random)            # of {query id: passage ids, best first}
    found.results()["tau"], found.is_noise              # 0.64, True
    print(found.describe())                             # "Kendall's tau 0.64 (by chance 0.62): noise"

Two rankings that start from the same first stage agree even if every answer is random: a window that slides over 100
passages leaves most of them near their place. So Kendall's tau says little without what chance gives. As in Cohen's
kappa, 0 is chance and 1 is the same order.
"""

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

TOP = 10  # passages of overlap@10
LEAST = 0.1  # an agreement that is so little above chance, on a scale where 1 is the same order, is noise
ERRORS = 2.0  # standard errors that it must be above chance
MOST_LISTS = 500  # whose random orders are drawn
DRAWS = 4  # random orders of each

Orders = Mapping[str, Sequence[str]]  # query id -> passage ids, best first


def kendall_tau(scores: np.ndarray, target: np.ndarray) -> float:
    """Return the share of pairs that scores [K] order like the target [K], minus the share ordered against it: -1 to 1.

    Pairs that tie in the target do not count, as there is nothing to agree with; pairs that tie in the scores only
    count 0. Without ties it is Kendall's tau. Two rankings that may both tie, neither of which is a target, are
    compared by tau-b (distill/report/changes.py).
    """
    above, below = np.nonzero(target[:, None] > target[None, :])
    agreeing, opposed = (scores[above] > scores[below]).mean(), (scores[above] < scores[below]).mean()
    return float(agreeing - opposed)


def tau_of_orders(order: Sequence, other: Sequence) -> float | None:
    """Return Kendall's tau over what both orders hold; None for fewer than two."""
    places = {one: place for place, one in enumerate(other)}
    ranks = np.array([places[one] for one in order if one in places])
    return kendall_tau(-np.arange(len(ranks)), -ranks) if len(ranks) > 1 else None


def overlap(order: Sequence, other: Sequence, top: int = TOP) -> float | None:
    """Return the share of the first `top` that both orders have; None if one of them has no more than these."""
    if min(len(order), len(other)) <= top:
        return None
    return len(set(order[:top]) & set(other[:top])) / top


@dataclass
class Beside:
    """A measure of agreement for each list, beside its value for a random order."""

    values: array = field(default_factory=lambda: array("d"))
    compared: array = field(default_factory=lambda: array("d"))  # those that have a random order, too
    by_chance: array = field(default_factory=lambda: array("d"))  # of the random orders

    def add(self, value: float, by_chance: float | None = None) -> None:
        """Count a list: its value, and that of a random order."""
        self.values.append(value)
        if by_chance is not None:
            self.compared.append(value)
            self.by_chance.append(by_chance)

    @property
    def mean(self) -> float | None:
        """The mean, the same in whichever order the lists came; None without any."""
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def chance(self) -> float | None:
        """The mean of random orders; None if it is not known."""
        return math.fsum(self.by_chance) / len(self.by_chance) if self.by_chance else None

    @property
    def is_noise(self) -> bool:
        """Whether the agreement cannot be told from that of random orders, or is hardly above it."""
        if self.chance is None:
            return True
        differences = np.array(self.compared) - np.array(self.by_chance)
        error = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
        return float(differences.mean()) < max(LEAST * (1 - self.chance), ERRORS * error)


@dataclass
class Agreement:
    """How far pairs of orders agree."""

    taus: Beside = field(default_factory=Beside)  # Kendall's
    overlaps: Beside = field(default_factory=Beside)  # at 10, of lists with more passages

    @property
    def is_noise(self) -> bool:
        """Whether neither tau nor overlap@10 is above that of answers at random, as far as these are known.

        Both, since a window that slides to the top settles the first places and leaves most others to the first stage.
        """
        return self.taus.chance is not None and self.taus.is_noise and self.overlaps.is_noise

    def results(self) -> dict[str, float]:
        """Return the means, those of answers at random, and, where these are known, whether it is noise: 1 or 0."""
        names: dict[str, float | None] = {"tau": self.taus.mean, f"overlap@{TOP}": self.overlaps.mean}
        names |= {"chance/tau": self.taus.chance, f"chance/overlap@{TOP}": self.overlaps.chance}
        names |= {"noise": None if self.taus.chance is None else int(self.is_noise)}
        return {name: value for name, value in names.items() if value is not None}

    def describe(self) -> str:
        """Return the agreement in words."""
        text = f"Kendall's tau {_with_chance(self.taus)}"
        if self.overlaps.values:
            text += f", overlap@{TOP} {_with_chance(self.overlaps)}"
        return text + (": noise" if self.is_noise else "")


def _with_chance(beside: Beside) -> str:
    return f"{beside.mean:.2f}" + (f" (by chance {beside.chance:.2f})" if beside.chance is not None else "")


def agree(
    ranking: Orders, other: Orders, at_random: Callable[[str, np.random.Generator], Sequence[str]] | None = None
) -> Agreement | None:
    """Return how far two rankings agree on the queries of both; None if no list of both shares two passages.

    at_random: returns the order of a query's passages in which random answers leave them, drawn anew at each call.
    """
    found, generator = Agreement(), np.random.default_rng(0)
    for query_id, order in ranking.items():
        compared = other.get(query_id, ())
        tau = tau_of_orders(order, compared)
        if tau is None:
            continue
        drawn: list[Sequence[str]] = []
        if at_random is not None and len(found.taus.values) < MOST_LISTS:
            drawn = [at_random(query_id, generator) for _ in range(DRAWS)]
        found.taus.add(tau, _mean([tau_of_orders(one, compared) for one in drawn]))
        shared = overlap(order, compared)
        if shared is not None:
            found.overlaps.add(shared, _mean([overlap(one, compared) for one in drawn]))
    return found if found.taus.values else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
