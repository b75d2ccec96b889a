"""The lists of the main teacher, with what other teachers say of their passages.

lists = TeacherLists(cfg)                         # of `teacher`, and of those of `teachers` that the loss learns from
for taught in lists:
    taught.targets["score"], taught.targets["llm.score"]
"""

import logging
import operator
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distill.data.teacher_lists import RankedLists, TeacherList, ranked_targets, read_teacher
from distill.data.triples import TripleLists
from distill.errors import InputError
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from distill.targets import split_target, targets_of

log = logging.getLogger(__name__)


class TeacherLists:
    """The lists of `teacher`; other teachers add targets to them, but no passages."""

    def __init__(self, cfg: DictConfig):
        """Open what the teachers have written; raises InputError for bad files."""
        self.own = TripleLists(cfg) if cfg.teacher.format == "triples" else RankedLists(cfg)
        self.path, self.is_large = self.own.path, self.own.is_large
        self.targets = targets_of(cfg.loss)
        names = dict.fromkeys(name for name, _ in map(split_target, self.targets) if name)
        self.others = [OtherTeacher(name, cfg.teachers[name], self.targets) for name in names]

    def list_false_negatives(self, path: Path | None) -> None:
        """Say where the false negatives are listed once the lists are read, if anywhere."""
        if isinstance(self.own, RankedLists):
            self.own.false_negatives = path

    @property
    def sources(self) -> list[str]:
        """The files and ids that the lists come from."""
        return [*self.own.sources, *(source for other in self.others for source in other.sources)]

    @property
    def options(self) -> dict:
        """The options that the lists depend on."""
        if not self.others:
            return self.own.options
        return self.own.options | {"targets": self.targets, "teachers": [other.options for other in self.others]}

    def __length_hint__(self) -> int:
        return operator.length_hint(self.own)

    def __iter__(self) -> Iterator[TeacherList]:
        """Yield the lists; afterwards log what each of the other teachers lacks."""
        for taught in self.own:
            for other in self.others:
                taught.targets |= other.ask(taught)
            yield taught
        for other in self.others:
            other.report(self.path)


class OtherTeacher:
    """One of `teachers`: it knows some passages of the lists."""

    def __init__(self, name: str, teacher: DictConfig, targets: list[str]):
        """Read its files; raises InputError for bad ones."""
        self.name, self.teacher = name, teacher
        self.kinds = [kind for owner, kind in map(split_target, targets) if owner == name]
        self.run, self.qrels, self.sources = None, None, []
        if self.kinds != ["label"]:
            is_permuted = teacher.format == "permutations"
            self.run = read_teacher(teacher, read_run(teacher.first_stage) if is_permuted else None)
            self.sources = [teacher.path, *([teacher.first_stage] if is_permuted else [])]
        if "label" in self.kinds:
            self.qrels = read_qrels(teacher.qrels)
            self.sources.append(teacher.qrels)
        self.num_passages, self.num_known, self.num_relevant = 0, 0, 0

    @property
    def options(self) -> dict:
        """The options that its targets depend on."""
        return {"format": self.teacher.format, "min_grade": self.teacher.min_grade}

    def ask(self, taught: TeacherList) -> dict[str, np.ndarray]:
        """Return its targets [K] of a list's passages, NaN for those that it lacks; no judgment is the label 0."""
        found: dict[str, np.ndarray] = {}
        if self.run is not None:
            if taught.query_id in self.run:
                found = ranked_targets(self.run[taught.query_id], taught.doc_ids)
            else:
                found = dict.fromkeys(("rank", "score"), np.full(len(taught.doc_ids), np.nan))
            self.num_passages += len(taught.doc_ids)
            self.num_known += int((~np.isnan(found["rank"])).sum())
        if self.qrels is not None:
            judged, least = self.qrels.get(taught.query_id, {}), max(self.teacher.min_grade, 1)
            grades = np.array([judged.get(doc_id, 0) for doc_id in taught.doc_ids])
            found["label"] = np.where(grades >= least, grades, 0)
            self.num_relevant += int((found["label"] > 0).sum())
        return {f"{self.name}.{kind}": found[kind] for kind in self.kinds}

    def report(self, lists: str) -> None:
        """Log how many passages it lacks; raises InputError if it knows none, or none that is relevant."""
        if self.qrels is not None and not self.num_relevant:
            raise InputError(
                f"teachers.{self.name}.qrels={self.teacher.qrels}: judges no passage of the lists in {lists} relevant: "
                "there is nothing to learn from its labels: give judgments of the same queries and passages"
            )
        key = f"teachers.{self.name}.path={self.teacher.path}"
        if self.num_passages and not self.num_known:
            raise InputError(f"{key}: ranks no passage of the lists in {lists}: give a run of the same queries")
        if self.num_known < self.num_passages:
            log.info(
                "%s: lacks %d of the %d passages of the training lists: they do not count in what it teaches",
                *(key, self.num_passages - self.num_known, self.num_passages),
            )
