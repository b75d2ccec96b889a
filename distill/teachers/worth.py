"""What a teacher's ranking is worth: beside judgments, beside another ranking, and by how consistent its answers are.

worth = TeacherWorth.of(run, ranking, local, random_answers(cfg), totals)
for name, text in worth.describe(): print(name, text)       # "helped", "41 (55%), by +0.3120 on average"
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from omegaconf import DictConfig

from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.agreement import Agreement, agree
from distill.evaluation.measures import measure
from distill.evaluation.worth import Worth
from distill.sources.qrels import Qrels, read_qrels
from distill.sources.run_files import Run
from distill.sources.runs import stored_run
from distill.teachers.asking import windows_of
from distill.teachers.totals import Totals

MEASURE = "nDCG@10"
AT_ONCE = 500  # queries that are measured together
NAMES = {
    "first_stage": "against first stage",
    "reference": "against reference",
    "shuffles": "between shuffles",
    "passes": "between passes",
}
AtRandom = Callable[
    [int, np.random.Generator], list[int]
]  # length of a list -> its places, as random answers rank them


def random_answers(cfg: DictConfig) -> AtRandom:
    """Return how random answers would rank a list, of an annotation with this configuration."""
    if cfg.teacher.llm.engine == "cross-encoder":
        return lambda num_passages, generator: generator.permutation(num_passages).tolist()
    return windows_of(cfg).at_random


@dataclass
class TeacherWorth:
    """What a teacher's ranking is worth, as far as it can be known."""

    worth: Worth | None = None  # with judgments: nDCG@10 beside the first stage's
    with_others: dict[str, Agreement] = field(default_factory=dict)  # Kendall's tau, by what it is compared with

    @classmethod
    def of(
        cls, run: Run, ranking: Run, local: DictConfig, at_random: AtRandom | None = None, totals: Totals | None = None
    ) -> "TeacherWorth":
        """Compare a ranking with judgments, the first stage, a reference and itself.

        at_random: returns a list's places as random answers order them; None: not compared with those. Raises
        InputError for judgments or a reference that share nothing with the lists.
        """
        found = cls()
        if local.qrels:
            measures, qrels = parse_measures([MEASURE]), read_qrels(local.qrels)
            qrels = {query_id: grades for query_id, grades in qrels.items() if query_id in run}
            if not qrels:
                raise InputError(f"{local.qrels}: judges none of the {len(run)} queries: use qrels that belong to them")
            found.worth = Worth.of(*(_measured(one, qrels, measures) for one in (run, ranking)))
        orders, first = DocIds(ranking), DocIds(run)
        if run is not ranking and (close := agree(orders, first)):
            found.with_others["first_stage"] = close
        if local.reference:
            close = agree(
                orders, DocIds(stored_run(local.reference)), None if at_random is None else drawn_from(first, at_random)
            )
            if close is None:
                raise InputError(f"{local.reference}: shares no list of two passages with the teacher's ranking")
            found.with_others["reference"] = close
        if totals is not None:
            found.with_others |= totals.consistency.found()
        return found

    def results(self) -> dict[str, float]:
        """Return the values of results.json."""
        results: dict[str, float] = {}
        if self.worth is not None:
            results |= {f"first_stage/{MEASURE}": self.worth.before, f"teacher/{MEASURE}": self.worth.after}
            results |= {f"teacher/{name}": value for name, value in self.worth.shares().items()}
            results |= {} if self.worth.p is None else {"teacher/p": self.worth.p}
        for name, one in self.with_others.items():
            results |= {f"{key}/{name}": value for key, value in one.results().items()}
        return results

    def describe(self) -> list[tuple[str, str]]:
        """Return lines of (name, text)."""
        lines = [] if self.worth is None else self.worth.describe(MEASURE)
        return lines + [(NAMES[name], one.describe()) for name, one in self.with_others.items()]


class DocIds(Mapping[str, list[str]]):
    """The passages of each list of a run, made when they are asked for."""

    def __init__(self, run: Run):
        """Take the run."""
        self.run = run

    def __getitem__(self, query_id: str) -> list[str]:
        """Return the passages of a list, best first; raises KeyError if there is none."""
        return self.run[query_id].doc_ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.run)

    def __len__(self) -> int:
        return len(self.run)


def _measured(run: Run, qrels: Qrels, measures: list) -> dict[str, float]:
    """Return the values of the judged queries, measured some at a time: all in one call would take much memory."""
    values: dict[str, float] = {}
    judged = (query_id for query_id in run if query_id in qrels)
    while query_ids := list(itertools.islice(judged, AT_ONCE)):
        lists = {query_id: run[query_id] for query_id in query_ids}
        _, per_query = measure(lists, {query_id: qrels[query_id] for query_id in query_ids}, measures)
        values |= {query_id: one[MEASURE] for query_id, one in per_query.items()}
    return values


def drawn_from(lists: Mapping[str, list[str]], at_random: AtRandom) -> Callable[[str, np.random.Generator], list[str]]:
    """Return a function that draws a random order of a query's passages."""

    def draw(query_id: str, generator: np.random.Generator) -> list[str]:
        doc_ids = lists[query_id]
        return [doc_ids[place] for place in at_random(len(doc_ids), generator)]

    return draw
