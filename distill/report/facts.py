"""What the stages of a recipe have left about themselves, as a verdict needs it.

    facts = read_facts(Path("outputs/own-corpus"))      # of a folder with a directory for each stage
    facts.num_lists, facts.best.difference              # 300, 0.031

Every stage is optional: what is not there is None, and counts as not measured. Stages are told apart by their
config.yaml, not by the names of their directories.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distill.config.composition import flatten
from distill.config.saved import read_plain
from distill.errors import InputError
from distill.evaluation.agreement import LEAST
from distill.evaluation.significance import ALPHA, compare, p_in_words, read_per_query, subtract
from distill.report.runs import CHANGING, places_of
from distill.sources.locate import is_path, is_remote
from distill.storage.small_files import read_numbers

NOT_SEARCHED = ("model", "checkpoints", "tasks", "wandb")  # a stage's own folders
WITHOUT_WINDOWS = ("pointwise", "graded", "setwise", "pairwise")  # methods that have no windows to shuffle
BY_PEOPLE = "judgments"
POWER = 2.80  # 1.96 + 0.84: standard errors of a difference that is found in 80% of cases, at p < 0.05

Values = dict[str, float]  # query id -> value


@dataclass(frozen=True)
class Compared:
    """A measure of a ranking beside the first stage's, on queries that were held out."""

    measure: str
    first: Values
    values: Values

    @property
    def difference(self) -> float:
        """The mean difference: above 0, the ranking is better than the first stage's."""
        return float(subtract(fmean(self.values.values()), fmean(self.first.values())))

    @property
    def p(self) -> float:
        """The p-value of a paired t-test, two-sided; 1 for fewer than two queries."""
        return compare(self.first, {"": self.values})[0].p if len(self.first) > 1 else 1.0

    @property
    def is_better(self) -> bool:
        """Whether it is better, and that not by chance."""
        return self.difference > 0 and self.p < ALPHA

    @property
    def deviation(self) -> float:
        """The standard deviation of the differences."""
        values = [self.values[query_id] for query_id in self.first]
        return stdev(subtract(values, [*self.first.values()])) if len(values) > 1 else math.nan

    @property
    def visible(self) -> float:
        """The smallest difference that so many queries show, in 80% of cases."""
        return POWER * self.deviation / math.sqrt(len(self.first))

    @property
    def needed(self) -> int | None:
        """How many queries would show the difference that was found, in 80% of cases; None for no difference."""
        if len(self.first) < 2 or not self.difference:
            return None
        return math.ceil((POWER * self.deviation / self.difference) ** 2)

    def beside(self) -> str:
        """Return both means and the test in words."""
        means = f"{self.measure} {fmean(self.values.values()):.4f} against {fmean(self.first.values()):.4f}"
        return f"{means}, {p_in_words(self.p)}"


@dataclass
class Facts:
    """What is known of a recipe's stages."""

    directory: Path
    judged: Compared | None = None  # the student, by judgments of held-out queries
    judged_by: str = BY_PEOPLE
    one_grade: str | None = None  # the LLM that gave every passage the same grade: its judgments tell nothing
    teacher: Compared | None = None  # the teacher, by the same judgments
    agreement: Compared | None = None  # of the student with the teacher, beside the first stage's, on held-out queries
    num_lists: int | None = None  # trained on
    backbone: str | None = None
    unknown_tokens: float | None = None  # share of the passages' tokens that the student's tokenizer does not know
    pieces: float | None = None  # tokens of a word
    language: str | None = None  # of the passages
    shuffles: float | None = None  # Kendall's tau of the teacher with itself, passages shuffled; 0 is chance
    is_noise: bool | None = None
    loss: str | None = None  # how the loss failed to fall, and what may help; "" if it fell
    student: dict[str, Any] = field(default_factory=dict)  # configuration of the training
    student_directory: Path | None = None
    num_steps: int | None = None
    noise_directory: Path | None = None  # of the annotation that shuffled passages
    teacher_directories: list[Path] = field(default_factory=list)  # of all annotations
    ranks_pairs: bool = False  # the teacher is a cross-encoder or scores single passages: there is nothing to shuffle

    @property
    def best(self) -> Compared | None:
        """What counts most: judgments, else the agreement with the teacher."""
        return self.judged or self.agreement


@dataclass(frozen=True)
class Stage:
    """A finished stage: its directory, configuration and results."""

    directory: Path
    config: dict[str, Any]
    results: dict[str, float]


def read_facts(directory: Path) -> Facts:
    """Read what the stages below a directory have left; raises InputError where there is none that trained a student.

    Of several students, it is the one that was trained last.
    """
    if not directory.is_dir():
        raise InputError(f"runs={directory}: no such directory (it is looked up from {Path.cwd()})")
    stages = list(_stages(directory))
    trained = [stage for stage in stages if "train/steps" in stage.results]
    if not trained:
        raise InputError(f"runs={directory}: no finished training there or below: train a student first")
    student = max(trained, key=lambda stage: (stage.directory / "results.json").stat().st_mtime)
    facts = Facts(directory, student=student.config, student_directory=student.directory)
    facts.num_lists = _whole(student.results.get("train/lists"))
    facts.num_steps = _whole(student.results.get("train/steps"))
    facts.backbone = student.config.get("backbone", {}).get("name")
    annotations = [stage for stage in stages if "window" in stage.config]
    for stage in annotations:
        _take_annotation(facts, stage)
    teachers = {_model_of(stage.config) for stage in annotations}
    evaluations = [stage for stage in stages if _is_of(stage, student)]
    for stage in sorted(evaluations, key=_is_plain):  # the last one counts: of the student as it is, if there is one
        _take_evaluation(facts, stage, teachers)
    return facts


def _stages(directory: Path) -> Iterator[Stage]:
    for path in sorted(directory.rglob("results.json")):
        place = path.parent
        if (place / "config.yaml").is_file() and not {*place.relative_to(directory).parts} & {*NOT_SEARCHED}:
            yield Stage(place, read_plain(place / "config.yaml"), read_numbers(path))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _is_of(stage: Stage, student: Stage) -> bool:
    """Whether a stage is an evaluation of the student, by itself and with all of its layers."""
    model, flat = stage.config.get("model"), flatten(stage.config)
    if any(flat.get(key) is not None for key in ("exit_keep", "cascade.model")):
        return False
    models = places_of(model, stage.directory) if isinstance(model, str) else []
    return student.directory.resolve() in [path.resolve().parent for path in models]


def _is_plain(stage: Stage) -> bool:
    """Whether an evaluation reads as the training did."""
    flat = flatten(stage.config)
    return all(flat.get(key) is None for key in CHANGING)


def _take_annotation(facts: Facts, stage: Stage) -> None:
    facts.teacher_directories.append(stage.directory)
    llm = stage.config.get("teacher", {}).get("llm", {})
    if llm.get("engine") == "cross-encoder" or stage.config.get("method") in WITHOUT_WINDOWS:
        facts.ranks_pairs = True
    tau = stage.results.get("tau/shuffles")
    if tau is not None:
        is_noise = bool(stage.results.get("noise/shuffles", tau < LEAST))  # annotations of before have no such value
        facts.shuffles, facts.is_noise, facts.noise_directory = tau, is_noise, stage.directory


def _model_of(config: dict[str, Any]) -> str | None:
    """Return the name of the LLM that an annotation or a judge's configuration asks."""
    return config.get("teacher", {}).get("llm", {}).get("model")


def _take_evaluation(facts: Facts, stage: Stage, teachers: set[str | None]) -> None:
    task = stage.config.get("task", {})
    if task.get("teacher") is not None:
        first, student = (
            _values(stage.directory / f"agreement.{row}.per_query.csv") for row in ("first_stage", "student")
        )
        facts.agreement = _compared(first, student) if first and student else facts.agreement
    if task.get("qrels") is None:
        return
    judge = _directory_of(task["qrels"], stage.directory)
    model = _model_of(read_plain(judge / "config.yaml")) if judge and (judge / "config.yaml").is_file() else None
    if judge and model is not None and _gave_one_grade(judge):
        facts.one_grade = model
        return
    judged_by = BY_PEOPLE
    if model is not None:
        judged_by = f"judgments by {model}{', which is also the teacher' if model in teachers else ''}"
    elif judge is None and _names_a_file(task["qrels"]):
        judged_by = f"judgments of unknown origin ({task['qrels']} is not there)"
    if judged_by != BY_PEOPLE and facts.judged is not None and facts.judged_by == BY_PEOPLE:  # that counts more
        return
    rows = {row: _values(stage.directory / name) for row, name in FILES.items()}
    if rows["first"] and rows["student"]:
        facts.judged, facts.judged_by = _compared(rows["first"], rows["student"]), judged_by
        facts.teacher = _compared(rows["first"], rows["teacher"]) if rows["teacher"] else None


def _directory_of(qrels: str, directory: Path) -> Path | None:
    """Return where a stage's judgments are, an LLM's beside the judge's configuration; None if they are not there."""
    found = (place for place in places_of(qrels, directory) if os.path.exists(place))
    return next((place.parent for place in found), None)


def _names_a_file(qrels: str) -> bool:
    """Whether judgments are in a file, rather than those of an address or an `ir_datasets` id, which are published."""
    return "${" in qrels or (is_path(qrels) and not is_remote(qrels))


def _gave_one_grade(judge: Path) -> bool:
    results = read_numbers(judge / "results.json") if (judge / "results.json").is_file() else {}
    grades = [number for name, number in results.items() if name.startswith("grade/")]
    return bool(grades) and sum(number > 0 for number in grades) < 2


FILES = {"first": "first_stage.per_query.csv", "student": "per_query.csv", "teacher": "teacher.per_query.csv"}


def _values(path: Path) -> dict[str, Values]:
    return read_per_query(path) if path.is_file() else {}


def _compared(first: dict[str, Values], other: dict[str, Values]) -> Compared | None:
    """Compare two rows by their first measure, on the queries of both."""
    measure = next(iter(first))  # nDCG@10, unless another was asked for
    shared = [query_id for query_id in first[measure] if query_id in other.get(measure, {})]
    if not shared:
        return None
    rows = [{query_id: row[measure][query_id] for query_id in shared} for row in (first, other)]
    return Compared(measure, *rows)
