"""A cascade: the first model scores all passages of a list, and the second one scores the best of them again.

best = best_of(task, run, keep=20)          # the task with only the best passages of each list, by a model's run
run = joined(run, second_run)               # the others stay in the first model's order, below
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from distill.errors import InputError
from distill.evaluation.tasks import Task
from distill.models.pruned import place_below
from distill.sources.run_files import RankedList, Run
from distill.sources.stored_passages import Passages


class SomePassages:
    """The texts of some passages, which are looked up where the others are, too."""

    def __init__(self, passages: Passages, doc_ids: dict[str, None]):
        """Take the passages and the ids of those that are wanted, in order."""
        self.passages, self.doc_ids = passages, doc_ids

    def __getitem__(self, doc_id: str) -> str:
        """Return a text; raises KeyError if there is none."""
        if doc_id not in self.doc_ids:
            raise KeyError(doc_id)
        return self.passages[doc_id]

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self.doc_ids and doc_id in self.passages

    def __len__(self) -> int:
        return len(self.doc_ids)

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield ids and texts."""
        yield from ((doc_id, self.passages[doc_id]) for doc_id in self.doc_ids)


def best_of(task: Task, run: Run, keep: int) -> Task:
    """Return a task with the `keep` best passages of each list, in the order and with the scores of a run."""
    best = {query_id: ranked.cut(keep) for query_id, ranked in run.items()}
    doc_ids = dict.fromkeys(doc_id for ranked in best.values() for doc_id in ranked.doc_ids)
    return replace(task, run=best, passages=SomePassages(task.passages, doc_ids))


def joined(first: Run, second: Run) -> Run:
    """Return the second run, which has the best passages of the first one, and below them the first one's others.

    The best of the others has the lowest score of the second run minus 1; they keep their distances.
    """
    both = {}
    for query_id, ranked in first.items():
        best = second[query_id]
        low = place_below(best.scores, ranked.scores[len(best) :])
        both[query_id] = RankedList.by_score(
            best.doc_ids + ranked.doc_ids[len(best) :], np.concatenate([best.scores, low])
        )
    return both


def check_second(model, name: str) -> None:
    """Raise InputError for a second model that needs the whole list."""
    if model.first_stage_score is not None:
        raise InputError(
            f"cascade.model={name}: reads the first stage's scores of whole lists, and would get a part of each: use a "
            "model that was trained with model.first_stage_score=null"
        )
