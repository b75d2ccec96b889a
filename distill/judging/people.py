"""A judge beside people: Cohen's κ on what both have judged, and whether there is enough of it.

people = People.of(grades, read_qrels("human.txt"), min_grade=2, human_min_grade=2)
for name, text in people.describe(): print(name, text)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distill.errors import InputError
from distill.evaluation.kappa import cohens_kappa, confusion
from distill.judging.answers import GRADES
from distill.judging.pool import Pair
from distill.sources.qrels import Qrels

ENOUGH = 50  # common judgments from which on κ says something: its standard error is then some 0.13
HIGHEST = max(GRADES)


@dataclass
class People:
    """The judgments of a judge beside those of people."""

    table: (
        np.ndarray
    )  # [4, 4]: rows are people's grades, columns the judge's; of other scales only the binary one counts
    binary: np.ndarray  # [2, 2]: not relevant, relevant
    is_graded: bool  # whether people's grades are on the judge's scale
    min_grade: int
    human_min_grade: int

    @classmethod
    def of(
        cls, grades: Mapping[Pair, int | None], qrels: Qrels, source: str, min_grade: int, human_min_grade: int
    ) -> "People":
        """Compare the judge's grades with those of people, whose grades below 0 count as 0.

        min_grade, human_min_grade: from which on a passage is relevant. Raises InputError where no pair is common.
        """
        pairs = [
            (max(qrels[pair.query_id][pair.doc_id], 0), grade)
            for pair, grade in grades.items()
            if grade is not None and pair.doc_id in qrels.get(pair.query_id, {})
        ]
        if not pairs:
            raise InputError(
                f"{source}: judges none of the {len(grades)} passages that were graded: use qrels of these"
            )
        is_graded = all(one <= HIGHEST for one, _ in pairs) and max(one for one, _ in pairs) > 1
        return cls(
            confusion(((min(one, HIGHEST), other) for one, other in pairs), len(GRADES)),
            confusion(((one >= human_min_grade, other >= min_grade) for one, other in pairs), 2),
            is_graded,
            min_grade,
            human_min_grade,
        )

    @property
    def number(self) -> int:
        """How many pairs both have judged."""
        return int(self.binary.sum())

    @property
    def kappas(self) -> dict[str, float | None]:
        """Cohen's κ: of relevant or not, and of the grades with quadratic weights, if people gave such grades.

        None where one side gave a single grade: then κ is 0 or not defined, whatever the other gave.
        """
        found = {"kappa": _kappa(self.binary)}
        return found | ({"kappa_quadratic": _kappa(self.table, quadratic=True)} if self.is_graded else {})

    def results(self) -> dict[str, float]:
        """Return the values of results.json."""
        found = {f"human/{name}": value for name, value in self.kappas.items() if value is not None}
        return {"human/judgments": self.number, **found}

    def describe(self) -> list[tuple[str, str]]:
        """Return lines of (name, text)."""
        few = "" if self.number >= ENOUGH else f": too few to tell, {ENOUGH} or more would do"
        lines = [("judged by people", f"{self.number} of the same passages{few}")]
        scale = f"relevant from grade {self.min_grade} on"
        if self.human_min_grade != self.min_grade:
            scale += f", for people {self.human_min_grade}"
        lines.append(("Cohen's kappa", f"{_shown(self.kappas['kappa'])} ({scale})"))
        if self.is_graded:
            quadratic = _shown(self.kappas["kappa_quadratic"])
            lines.append(("weighted kappa", f"{quadratic} (quadratic weights, grades 0 to {HIGHEST})"))
        return lines

    def table_lines(self) -> list[str]:
        """Return the table of grades in Markdown, people's in rows and the judge's in columns."""
        table, names = (self.table, [*map(str, GRADES)]) if self.is_graded else (self.binary, ["no", "yes"])
        head = "people \\ judge" if self.is_graded else "relevant: people \\ judge"
        rows = [[name, *map(str, row)] for name, row in zip(names, table.tolist(), strict=True)]
        return [f"| {' | '.join(row)} |" for row in ([head, *names], ["---"] * (len(names) + 1), *rows)]


def _kappa(table: np.ndarray, *, quadratic: bool = False) -> float | None:
    sides = ((table.sum(axis=axis) > 0).sum() for axis in (0, 1))
    return cohens_kappa(table, quadratic=quadratic) if min(sides) > 1 else None


def _shown(kappa: float | None) -> str:
    return "not known, since people or the judge gave one grade only" if kappa is None else f"{kappa:.2f}"
