"""How far a student agrees with its teacher, beside how far the first stage does: for queries without judgments.

    agreed = TeacherAgreement.of(task, {"first_stage": task.run, "test": reranked})
    agreed.results()                    # {"agreement/student/files/nDCG@10": 0.81, "agreement/student/files/tau": 0.64}
    print(agreed.table(), agreed.verdict())

Three measures, the more the better, each the mean over the queries that the teacher ranks:

- nDCG@10 against the teacher's top: its first passage has a gain of 10, its second of 9, ... its tenth of 1, all others
  of 0. Passages that tie share the gain of their average rank. 1 is the teacher's own top ten, in its order.
- Kendall's tau: the share of the pairs of passages that are ordered like the teacher orders them, minus the share
  ordered against it. Pairs that tie in the teacher's list do not count.
- overlap@10: the share of the first ten that the teacher's first ten have, too; of lists with more passages only.

Rows are compared on the passages of their own lists, in the order in which they are measured otherwise.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from distill.errors import InputError
from distill.evaluation.agreement import TOP, kendall_tau, overlap
from distill.evaluation.measures import trec_order
from distill.evaluation.results import ROWS, table, write_per_query
from distill.evaluation.significance import ALPHA, compare, significance_in_words
from distill.evaluation.tasks import Task
from distill.sources.run_files import RankedList, Run

log = logging.getLogger(__name__)

NDCG, TAU, OVERLAP = f"nDCG@{TOP}", "tau", f"overlap@{TOP}"
MEASURES = {NDCG: NDCG, OVERLAP: OVERLAP, TAU: "Kendall's tau"}  # by name in results.json: heading
COMPARED = {  # row of an evaluation -> its name here
    "first_stage": "first_stage",
    "fused": "fused",
    "untrained": "untrained",
    "test": "student",
    "interpolated": "interpolated",
}
Values = dict[str, float]  # query id -> value


def agree_on(ranked: RankedList, teacher: RankedList) -> dict[str, float]:
    """Return the measures of agreement of one query; none where the teacher orders nothing of the list."""
    doc_ids, ideal = trec_order(ranked), trec_order(teacher)
    ranks = dict(zip(teacher.doc_ids, teacher.ranks.tolist(), strict=True))
    shared = [place for place, doc_id in enumerate(ranked.doc_ids) if doc_id in ranks]
    target = -np.array([ranks[ranked.doc_ids[place]] for place in shared])
    if len(np.unique(target)) < 2:
        return {}
    gains = {doc_id: max(TOP + 1 - rank, 0.0) for doc_id, rank in ranks.items()}
    best = _dcg(sorted(gains.values(), reverse=True))
    if best == 0:  # so many tie for the first place that none is among the first ten
        return {}
    found = {NDCG: _dcg([gains.get(doc_id, 0.0) for doc_id in doc_ids]) / best}
    found[TAU] = kendall_tau(ranked.scores[shared], target)
    same = overlap(doc_ids, ideal)
    return found | ({} if same is None else {OVERLAP: same})


def _dcg(gains: list[float]) -> float:
    return math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:TOP]))


@dataclass
class TeacherAgreement:
    """The agreement of each row of a task with the teacher, query by query."""

    task: str
    rows: dict[str, dict[str, Values]]  # row -> measure -> values of the queries, of which all rows have the same

    @classmethod
    def of(cls, task: Task, rows: Mapping[str, Run]) -> "TeacherAgreement | None":
        """Compare the rows of an evaluation with the task's teacher; None for a task without one.

        Raises InputError where the teacher orders two passages of no list.
        """
        if task.teacher is None:
            return None
        runs = {COMPARED[row]: run for row, run in rows.items() if row in COMPARED}
        query_ids = [one for one in task.run if one in task.teacher and all(one in run for run in runs.values())]
        found = {row: {one: agree_on(run[one], task.teacher[one]) for one in query_ids} for row, run in runs.items()}
        kept = [one for one in query_ids if all(values[one] for values in found.values())]
        if not kept:
            raise InputError(
                f"task.teacher of {task.name}: orders no two passages of any list: use the teacher of this run"
            )
        compared = set(kept)
        left_out = [one for one in task.run if one in task.teacher and one not in compared]
        if left_out:
            log.warning(
                "%s: %d of %d queries that the teacher ranks are not compared with it: a row lacks them, or has no two "
                "passages that the teacher orders (first: %s)",
                *(task.name, len(left_out), len(left_out) + len(kept), left_out[0]),
            )
        return cls(
            task.name,
            {
                row: {name: {one: values[one][name] for one in kept if name in values[one]} for name in MEASURES}
                for row, values in found.items()
            },
        )

    @property
    def num_queries(self) -> int:
        """How many queries are compared."""
        return len(self.rows["first_stage"][NDCG])

    @property
    def p(self) -> float | None:
        """The p-value of a paired t-test of the student's nDCG@10 against the first stage's; None if there is none."""
        if "student" not in self.rows or self.num_queries < 2:
            return None
        return compare(self.rows["first_stage"][NDCG], {"student": self.rows["student"][NDCG]})[0].p

    def mean(self, row: str, measure: str) -> float | None:
        """Return a row's mean of a measure; None without a value."""
        values = self.rows[row][measure].values()
        return fmean(values) if values else None

    def results(self) -> dict[str, float]:
        """Return the means under their names in results.json, and the number of queries, and the student's p-value."""
        results: dict[str, float] = {}
        for row in self.rows:
            means = {name: self.mean(row, name) for name in MEASURES}
            results |= {f"agreement/{row}/{self.task}/{name}": mean for name, mean in means.items() if mean is not None}
            results[f"agreement/{row}/{self.task}/queries"] = self.num_queries
        if self.p is not None:
            results[f"agreement/student/{self.task}/p"] = self.p
        return results

    def table(self) -> str:
        """Return a table with a line for each row and a column for each measure."""
        labels = {name: ROWS[row] for row, name in COMPARED.items()}
        names = [name for name in MEASURES if all(self.rows[row][name] for row in self.rows)]
        cells = [[labels[row], *(f"{self.mean(row, name):.4f}" for name in names)] for row in self.rows]
        head = f"agreement with the teacher: {self.num_queries} queries"
        return table([head, *(MEASURES[name] for name in names)], cells)

    def verdict(self) -> tuple[str, bool] | None:
        """Return whether the student agrees with the teacher more than the first stage, in words; None without one."""
        if "student" not in self.rows:
            return None
        first, student = self.mean("first_stage", NDCG), self.mean("student", NDCG)
        assert first is not None and student is not None
        if self.p is None:
            word, test = "no more", "one query, too few to tell"
        else:
            word = ("more" if student > first else "less") if self.p < ALPHA else "no more"
            test = f"{self.num_queries} queries, {significance_in_words(self.p)}"
        line = f"the student agrees with the teacher {word} than the first stage does on {self.task}"
        return f"{line}: {NDCG} against the teacher's top {student:.4f} against {first:.4f} ({test})", word == "more"

    def write(self, directory: Path) -> None:
        """Write agreement.ROW.per_query.csv of each row: a column for each measure that all queries have."""
        for row, measured in self.rows.items():
            names = [name for name, values in measured.items() if len(values) == self.num_queries]
            per_query = {query_id: {name: measured[name][query_id] for name in names} for query_id in measured[NDCG]}
            write_per_query(directory, per_query, f"agreement.{row}.per_query.csv")
