"""Cohen's κ: how far two judges agree beyond what chance gives, and the table of what each said.

    table = confusion(pairs, 4)                     # [4, 4]: rows are the first one's grades
    cohens_kappa(table)                             # 1: always the same; 0: as by chance; below: less than that
    cohens_kappa(table, quadratic=True)             # grades that are near count in part

κ = 1 − Σ w·observed / Σ w·expected, with w = 1 for different grades (Cohen 1960), or (i − j)² (Cohen 1968). What is
expected are the products of the marginals.
"""

from collections.abc import Iterable

import numpy as np


def confusion(pairs: Iterable[tuple[int, int]], num_grades: int) -> np.ndarray:
    """Return how often the first judge gave grade i and the second grade j, of whole numbers below num_grades."""
    table = np.zeros((num_grades, num_grades), dtype=np.int64)
    for one, other in pairs:
        table[int(one), int(other)] += 1  # True as an index would mean all
    return table


def cohens_kappa(table: np.ndarray, *, quadratic: bool = False) -> float | None:
    """Return κ of a table [G, G]; None where it is not defined, since both judges gave one and the same grade."""
    grades = np.arange(len(table))
    apart = grades[:, None] - grades[None, :]
    weights = apart**2 if quadratic else (apart != 0).astype(np.int64)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(table.sum(), 1)
    chance = float((weights * expected).sum())
    return None if chance == 0 else 1 - float((weights * table).sum()) / chance
