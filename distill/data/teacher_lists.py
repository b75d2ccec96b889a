"""The lists of a teacher, one at a time: which passages belong to a query, and what the loss learns from them.

for taught in RankedLists(cfg):                   # or TripleLists(cfg): distill/data/triples.py
    taught.query_id, taught.doc_ids, taught.targets["rank"]
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from distill.data.negatives import Negatives, are_chosen, by_score
from distill.data.pairs import score_numbers
from distill.errors import InputError
from distill.sources.large_runs import CachedRun
from distill.sources.permutations import read_permuted_run
from distill.sources.qrels import Qrels, read_qrels
from distill.sources.run_files import RankedList, Run
from distill.sources.runs import find_line, read_run
from distill.sources.texts import log_left_out
from distill.targets import kept_targets, learned_targets, targets_of

log = logging.getLogger(__name__)

ENOUGH = 200  # lists to begin with: with fewer, a new layer learns little of what a teacher knows
MAX_IN_MEMORY = 250_000  # lines of all lists: with more, the whole collection is tokenised on disk, once


@dataclass
class TeacherList:
    """The passages of one query with the targets that the loss learns from."""

    query_id: str
    doc_ids: list[str]  # K passages
    targets: dict[str, np.ndarray]  # of [K]: ranks (1 = best), labels or teacher scores; NaN where there is none
    num_added: int = 0  # how many at the end are relevant passages missing from the run
    numbers: np.ndarray | None = None  # [K] where the model reads them: of the first stage's scores, 0 for an added one

    def keep(self, kept: np.ndarray) -> None:
        """Leave out passages of the run, given which of all to keep, bool [K]."""
        self.doc_ids = [doc_id for doc_id, keep in zip(self.doc_ids, kept, strict=True) if keep]
        self.targets = {name: values[kept] for name, values in self.targets.items()}
        self.numbers = None if self.numbers is None else self.numbers[kept]


class RankedLists:
    """The lists of a run: a teacher's ranking, or the first stage's with labels."""

    def __init__(self, cfg: DictConfig):
        """Open the runs; raises InputError for bad ones, and too great a depth."""
        self.false_negatives: Path | None = None  # the file to list them in
        teacher, data = cfg.teacher, cfg.data
        self.cfg, self.depth, self.targets = cfg, data.depth, _own_targets(cfg)
        self.scale = cfg.model.first_stage_score  # of the numbers that the model reads; None: it reads none
        first_stage = read_run(teacher.first_stage) if teacher.first_stage and needs_first_stage(cfg) else None
        if teacher.path is None or (_learns_labels_only(cfg) and first_stage is not None):
            self.path, self.run, self.first_stage = teacher.first_stage, first_stage, None
        else:
            self.path, self.run, self.first_stage = teacher.path, read_teacher(teacher, first_stage), first_stage
        self.is_large = self._count_lines() > MAX_IN_MEMORY  # too many texts for memory
        self.query_ids = choose_queries(self.run, data.num_queries, data.subset_seed, self.path)

    def _count_lines(self) -> int:
        """Return how many lines the run has; raises InputError where no list is long enough."""
        if isinstance(self.run, CachedRun):
            sizes = np.diff(self.run.starts)
        else:
            sizes = np.array([len(ranked.doc_ids) for ranked in self.run.values()])
        longest = sizes.max()
        if longest < 2:
            query_id = next(iter(self.run))
            raise InputError(
                f"{find_line(self.path, query_id)}: query {query_id} has one passage, and so do all {len(sizes)} "
                "queries: a training list needs two: use a deeper run"
            )
        if self.depth is not None and self.depth > longest:
            raise InputError(
                f"data.depth={self.depth} exceeds the {longest} passages of the longest list in {self.path}: lower "
                "data.depth or use a deeper run"
            )
        return int(sizes.sum())

    @property
    def sources(self) -> list[str]:
        """The files and ids that the lists come from."""
        teacher = self.cfg.teacher
        qrels = teacher.qrels if "label" in self.targets else None
        return [
            path for path in (self.path, teacher.first_stage if needs_first_stage(self.cfg) else None, qrels) if path
        ]

    @property
    def options(self) -> dict:
        """The options that the lists depend on."""
        teacher, data = self.cfg.teacher, self.cfg.data
        target = self.targets[0] if len(self.targets) == 1 else self.targets
        options = {"target": target, "format": teacher.format, "min_grade": teacher.min_grade}
        if "label" in self.targets:  # which lists and passages are kept
            options["needs_relevant"] = needs_relevant(self.cfg)
            options["only_labels"] = learned_targets(self.cfg.loss) == ["label"]
        if not teacher.add_relevant:
            options["add_relevant"] = False
        if self.scale is not None:
            options["first_stage_score"] = self.scale
        if are_chosen(data.negatives):
            negatives = dict[str, Any](OmegaConf.to_container(data.negatives, resolve=True))  # type: ignore[arg-type]
            options["negatives"] = negatives | {"listed": True}  # their list is kept beside the lists
        return options | {key: data[key] for key in ("depth", "num_queries", "subset_seed")}

    def __len__(self) -> int:
        return len(self.query_ids)

    def __iter__(self) -> Iterator[TeacherList]:
        """Yield the lists; afterwards log what was left out."""
        if not are_chosen(self.cfg.data.negatives):
            yield from self._lists(None)
            return
        with Negatives(self.cfg.data.negatives, self.false_negatives) as negatives:
            yield from self._lists(negatives)
        negatives.report(self.path)

    def _lists(self, negatives: Negatives | None) -> Iterator[TeacherList]:
        qrels = read_qrels(self.cfg.teacher.qrels) if "label" in self.targets else None
        if self.depth is not None:
            first_stage = self.cfg.teacher.first_stage
            by = f"the first-stage rank in {first_stage}" if self.first_stage else f"their own order in {self.path}"
            log.info("data.depth=%d: lists are cut by %s", self.depth, by)
        left_out = _LeftOut()
        for query_id in self.query_ids:
            taught = self._taught(query_id, qrels, negatives, left_out)
            if taught is not None:
                taught.targets = {name: taught.targets[name] for name in self.targets}
                yield taught
        self._report(left_out)

    def _taught(
        self, query_id: str, qrels: Qrels | None, negatives: Negatives | None, left_out: "_LeftOut"
    ) -> TeacherList | None:
        """Return what a query's list teaches, None if that is nothing; left_out: counts what it lacks."""
        ranked = self._cut(query_id)
        if len(ranked) < 2:
            left_out.short.append(query_id)
            return None
        if qrels is None:
            taught = TeacherList(query_id, ranked.doc_ids, {"rank": ranked.ranks, "score": ranked.scores})
        else:
            taught = _label_list(query_id, ranked, qrels.get(query_id, {}), self.cfg.teacher)
            left_out.num_relevant += int((taught.targets["label"] > 0).sum())
            left_out.num_added += taught.num_added
            if self.targets != ["label"]:
                taught.targets |= ranked_targets(ranked, taught.doc_ids)
        if self.scale is not None:
            taught.numbers = self._numbers(query_id, ranked, taught.num_added)
        if qrels is not None:
            if negatives is not None:
                self._leave_out(negatives, taught)
            if _is_of_one_label(taught):
                left_out.unlabelled.append(query_id)
                if needs_relevant(self.cfg):
                    return None
        if "rank" in self.targets and ranked.ranks[0] == ranked.ranks[-1]:
            left_out.tied.append(query_id)
        return taught

    def _leave_out(self, negatives: Negatives, taught: TeacherList) -> None:
        """Leave out, or relabel, what the rules take for false negatives.

        They read what the teacher says of an added passage, too, however deep it is in the uncut list.
        """
        uncut = ranked_targets(self.run[taught.query_id], taught.doc_ids)
        labels = negatives.judge(taught.query_id, taught.doc_ids, taught.targets | uncut)
        taught.targets["label"] = labels
        if learned_targets(self.cfg.loss) == ["label"]:  # nothing else could be learned from the others
            taught.keep(~np.isnan(labels))

    def _numbers(self, query_id: str, ranked: RankedList, num_added: int) -> np.ndarray:
        """Return the numbers that are read for a cut list's first-stage scores, and 0 for each added passage."""
        first = ranked if self.first_stage is None else self.first_stage.get(query_id)
        scores = _scores_in(first, ranked.doc_ids)
        return score_numbers(np.append(scores, np.full(num_added, np.nan)), self.scale)

    def _cut(self, query_id: str) -> RankedList:
        """Return a list, cut to data.depth."""
        ranked = self.run[query_id]
        if self.depth is None:
            return ranked
        if self.first_stage is not None:
            return self._within_first_stage(query_id, ranked)
        ranked = ranked.cut(self.depth)
        return replace(ranked, ranks=ranks_among(ranked.ranks))  # the cut may go through a tie

    def _within_first_stage(self, query_id: str, ranked: RankedList) -> RankedList:
        """Keep the passages of the first stage's top `depth`, in their present order."""
        known = self.first_stage[query_id].doc_ids if query_id in self.first_stage else []
        unknown = set(ranked.doc_ids).difference(known)
        if unknown:
            doc_id = next(doc_id for doc_id in ranked.doc_ids if doc_id in unknown)
            raise InputError(
                f"{find_line(self.path, query_id, doc_id)}: passage {doc_id} of query {query_id} is not in the "
                f"first-stage run {self.cfg.teacher.first_stage}: set teacher.first_stage to the run that the teacher "
                "re-ranked, or to null"
            )
        top = set(known[: self.depth])
        kept = ranked.keep([doc_id in top for doc_id in ranked.doc_ids])
        return replace(kept, ranks=ranks_among(kept.ranks))

    def _report(self, left_out: "_LeftOut") -> None:
        """Log which queries were left out or teach nothing, and whether most relevant passages were added to the lists.

        Raises InputError where no list teaches an order.
        """
        short, unlabelled, tied = left_out.short, left_out.unlabelled, left_out.tied
        num_lists = len(self.query_ids)
        at_depth = f" at data.depth={self.depth}" if self.depth is not None else ""
        log_left_out(self.path, f"lists have fewer than two passages{at_depth}", short, num_lists)
        if needs_relevant(self.cfg):
            log_left_out(self.path, "queries lack a relevant or an irrelevant passage", unlabelled, num_lists)
        elif unlabelled and len(unlabelled) == num_lists - len(short):
            raise InputError(
                f"teacher.qrels={self.cfg.teacher.qrels}: no list of {self.path} has both a relevant and an irrelevant "
                "passage, so there is nothing to learn from labels: give judgments of the same queries and passages"
            )
        elif unlabelled:
            log.info(
                "%s: %d of %d lists lack a relevant or an irrelevant passage, and teach nothing by labels (first: %s)",
                *(self.path, len(unlabelled), num_lists, unlabelled[0]),
            )
        if tied and len(tied) == num_lists - len(short):
            raise InputError(
                f"{self.path}: all passages of every list tie, so there is no ranking to learn: add scores (in JSONL "
                "pos_scores and neg_scores), or learn from labels with loss=lce"
            )
        if tied:
            log.warning(
                "%s: in %d of %d lists all passages tie, which teaches no order (first: %s)",
                *(self.path, len(tied), num_lists, tied[0]),
            )
        if left_out.num_added > left_out.num_relevant / 2:
            log.warning(
                "%s: its lists lack %d of the %d relevant passages, which were added: the student learns to find what "
                "the first stage does not rank; with teacher.add_relevant=false, lists have only what it ranks",
                *(self.path, left_out.num_added, left_out.num_relevant),
            )


@dataclass
class _LeftOut:
    """What the lists of a run lack: queries whose lists teach nothing, or not all that they could, and passages."""

    short: list[str] = field(default_factory=list)  # with fewer than two passages
    unlabelled: list[str] = field(default_factory=list)  # with relevant passages only, or without any
    tied: list[str] = field(default_factory=list)  # whose passages all tie
    num_relevant: int = 0  # passages of all lists
    num_added: int = 0  # of these, those that the run lacks


def read_teacher(teacher: DictConfig, first_stage: Run | None) -> Run:
    """Read a teacher's ranking; first_stage: the run that permutations permute. Raises InputError for a bad one."""
    if teacher.format == "permutations":
        assert first_stage is not None, "the configuration was checked"
        return read_permuted_run(teacher.path, first_stage, teacher.first_stage)
    return read_run(teacher.path)


def _scores_in(ranked: RankedList | None, doc_ids: list[str]) -> np.ndarray:
    """Return the scores [K] that a query's first-stage list gives the passages, NaN for those that it lacks."""
    scores = {} if ranked is None else dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True))
    return np.array([scores.get(doc_id, np.nan) for doc_id in doc_ids])


def ranked_targets(ranked: RankedList, doc_ids: list[str]) -> dict[str, np.ndarray]:
    """Return what a teacher's list says of some passages: scores, and ranks among these; NaN for those it lacks."""
    places = {doc_id: place for place, doc_id in enumerate(ranked.doc_ids)}
    known = np.array([doc_id in places for doc_id in doc_ids], dtype=bool)
    found = [places[doc_id] for doc_id in doc_ids if doc_id in places]
    ranks, scores = np.full(len(doc_ids), np.nan), np.full(len(doc_ids), np.nan)
    ranks[known], scores[known] = ranks_among(ranked.ranks[found]), ranked.scores[found]
    return {"rank": ranks, "score": scores}


def _is_of_one_label(taught: TeacherList) -> bool:
    """Whether a list lacks a relevant passage, or any other."""
    labels = taught.targets["label"]
    return not ((labels > 0).any() and (labels <= 0).any())


def _label_list(query_id: str, ranked: RankedList, judged: dict[str, int], teacher: DictConfig) -> TeacherList:
    """Return a run's passages with their labels; teacher.add_relevant: with missing relevant ones appended.

    Passages judged teacher.min_grade or better are relevant; all others of the run are negatives.
    """
    grades = {doc_id: grade for doc_id, grade in judged.items() if grade >= max(teacher.min_grade, 1)}
    listed = set(ranked.doc_ids)
    added = [doc_id for doc_id in grades if doc_id not in listed] if teacher.add_relevant else []
    labels = np.array([grades.get(doc_id, 0) for doc_id in ranked.doc_ids] + [grades[doc_id] for doc_id in added])
    return TeacherList(query_id, ranked.doc_ids + added, {"label": labels}, len(added))


def needs_first_stage(cfg: DictConfig) -> bool:
    """Whether the training lists depend on teacher.first_stage: it is large, so it is read only if needed."""
    depth, teacher = cfg.data.depth, cfg.teacher
    if teacher.format == "permutations" or cfg.model.first_stage_score is not None:
        return True
    if _learns_labels_only(cfg) or teacher.path is None:
        return True
    return depth is not None and (teacher.depth is None or depth < teacher.depth)


def _learns_labels_only(cfg: DictConfig) -> bool:
    """Whether the first stage's lists will do, since nothing depends on what the teacher says of their passages."""
    return _own_targets(cfg) == ["label"] and not by_score(cfg.data.negatives)


def _own_targets(cfg: DictConfig) -> list[str]:
    """Return what the lists hold of `teacher` itself."""
    return [target for target in kept_targets(cfg) if "." not in target]


def unused_sources(cfg: DictConfig) -> tuple[str, ...]:
    """Return the keys of the sources that the training lists do not depend on, so that nobody downloads them."""
    unused = [] if needs_first_stage(cfg) else ["teacher.first_stage"]
    targets = targets_of(cfg.loss)
    for name, teacher in cfg.teachers.items():
        unused += [f"teachers.{name}.texts"]
        unused += [] if teacher.format == "permutations" else [f"teachers.{name}.first_stage"]
        unused += [] if f"{name}.label" in targets else [f"teachers.{name}.qrels"]
    return tuple(unused)


def needs_relevant(cfg: DictConfig) -> bool:
    """Whether a list teaches nothing unless it has both relevant and other passages."""
    return learned_targets(cfg.loss) == ["label"] or cfg.data.num_negatives is not None


def choose_queries(query_ids: Iterable[str], num_queries: int | None, seed: int, source: str) -> list[str]:
    """Return a random subset of the queries; with the same seed, larger subsets contain smaller ones."""
    query_ids = list(query_ids)
    if num_queries is None:
        return query_ids
    if num_queries > len(query_ids):
        raise InputError(f"num_queries={num_queries} exceeds the {len(query_ids)} queries of {source}: lower it")
    query_ids.sort()  # a subset must not depend on the order of the file
    chosen = np.random.default_rng(seed).permutation(len(query_ids))[:num_queries]
    return [query_ids[index] for index in sorted(chosen)]


def ranks_among(ranks: np.ndarray) -> np.ndarray:
    """Return the ranks [K] that some passages of a list have among themselves, ties at their average; NaN stays."""
    ordered = np.sort(ranks)  # NaN last
    first, last = np.searchsorted(ordered, ranks, "left"), np.searchsorted(ordered, ranks, "right")
    return np.where(np.isnan(ranks), np.nan, (first + last + 1) / 2)
