"""What a ranking is worth beside the one that it re-ranks: whom it helps and harms, and whether that is chance.

worth = Worth.of(before, after)                     # {query id: value of a measure} of each ranking
for name, text in worth.describe("nDCG@10"): print(name, text)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from distill.evaluation.significance import compare, p_in_words

SAME = 1e-9  # two values of a measure that differ by less are equal


@dataclass
class Worth:
    """The values of a measure before and after, and how many queries were helped or harmed."""

    before: float  # means
    after: float
    differences: list[float]  # of each query, after less before; 0.0 if equal
    p: float | None  # of the paired t-test, two-sided; None for fewer than two queries

    @classmethod
    def of(cls, before: Mapping[str, float], after: Mapping[str, float]) -> "Worth":
        """Compare the values of the same queries."""
        differences = [after[query_id] - value for query_id, value in before.items()]
        p = compare(dict(before), {"after": dict(after)})[0].p if len(before) > 1 else None
        differences = [0.0 if abs(difference) < SAME else difference for difference in differences]
        return cls(fmean(before.values()), fmean(after.values()), differences, p)

    def shares(self) -> dict[str, float]:
        """Return the shares of queries that were helped, harmed and left as they were."""
        signs = {"helped": 1, "harmed": -1, "unchanged": 0}
        total = len(self.differences)
        return {name: sum(_sign(one) == sign for one in self.differences) / total for name, sign in signs.items()}

    def describe(self, measure: str) -> list[tuple[str, str]]:
        """Return lines of (name, text)."""
        lines = [(measure, f"{self.before:.4f} → {self.after:.4f} ({self.after - self.before:+.4f})")]
        for name, sign in (("helped", 1), ("harmed", -1)):
            moved = [one for one in self.differences if one * sign > 0]
            by = f", by {fmean(moved):+.4f} on average" if moved else ""
            lines.append((name, share(len(moved), len(self.differences)) + by))
        lines.append(("unchanged", share(self.differences.count(0.0), len(self.differences))))
        if self.p is not None:
            lines.append(("paired t-test", p_in_words(self.p)))
        return lines


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def share(number: int, total: int) -> str:
    """Return a number with its share of the total."""
    return f"{number} ({number / total:.0%})" if total else str(number)
