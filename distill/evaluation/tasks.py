"""The tasks to evaluate on, each a run with judgments; a suite has several.

for task_cfg in split_suite(cfg.task):                          # a single task is a suite of one
    task = read_task(task_cfg)
    values, per_query = measure(task.run, task.qrels, task.measures)
    measured[task.name] = {"first_stage": per_query}
suite_results(cfg.task, measured)
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig

from distill.config.local_files import with_local_files
from distill.config.measures import parse_measures
from distill.config.schema import TaskConfig
from distill.config.suites import BM25_DEPTH, split_suite, task_depth
from distill.data.cutting import article_of
from distill.errors import InputError, Unavailable
from distill.evaluation.articles import article_run
from distill.evaluation.measures import try_measures
from distill.sources.fields import Fields
from distill.sources.locate import is_missing_file, is_path, is_remote
from distill.sources.qrels import Qrels, read_qrels
from distill.sources.run_files import RankedList, Run
from distill.sources.runs import read_run
from distill.sources.shards import Shard
from distill.sources.stored_passages import Passages, passages_of
from distill.sources.texts import Texts, check_passages, drop_empty, known_queries, read_queries

log = logging.getLogger(__name__)


@dataclass
class Task:
    """A run with judgments to evaluate on, and the texts to re-rank it."""

    name: str
    corpus: str  # tasks of one corpus are averaged together
    run: Run  # the first stage, cut to the task's depth
    qrels: Qrels  # empty for a task that is only compared with its teacher
    measures: list  # of ir_measures
    teacher: Run | None  # whole: cut to the task's depth only where it is measured
    queries: Texts
    passages: Passages  # empty if the run is only measured; on disk if there are many
    windows: int  # how many windows of a long passage are scored, of which the best counts; 1: only its beginning
    window_stride: int | None  # tokens from the start of one window to the next; None: half a window
    first_stage: str = ""  # the run's name: of its file, an ir_datasets id, or bm25
    fused: Run | None = None
    ideal: bool = False  # whether the perfect order is measured
    interpolate: Any = None  # the student's weight, auto or fit
    depth: int | None = None  # to which the teacher is cut
    max_passage: bool = False  # whether qrels judge articles, and the runs' passages were cut from them

    @property
    def rows(self) -> dict[str, Run]:
        """The rankings measured besides the student's: the first stage's and those that were asked for."""
        teacher = {query_id: ranked.cut(self.depth) for query_id, ranked in (self.teacher or {}).items()}
        rows = {"first_stage": self.run, "teacher": teacher, "fused": self.fused}
        if self.ideal:
            rows["ideal"] = perfect_order(self.run, self.qrels, self.judged_as)
        return {row: run for row, run in rows.items() if run}

    def judged_as(self, doc_id: str) -> str:
        """Return the id by which the qrels judge a passage: its own, or its article's."""
        return (article_of(doc_id) if self.max_passage else None) or doc_id

    def judged(self, run: Run) -> Run:
        """Return a ranking as it is measured: of what the qrels judge."""
        return article_run(run, self.name) if self.max_passage else run


def read_tasks(
    cfg: DictConfig, missing: dict[str, str], *, texts: bool = True, shard: str | None = None
) -> Iterator[Task]:
    """Yield the tasks of a suite, or the one task that is no suite; there may be none.

    missing: gets the tasks of a suite that are not available here, with the reason. shard: as of `read_task`. Raises
    InputError like `read_task`, and Unavailable if no task is available.
    """
    num_read = 0
    for task_cfg in split_suite(cfg):
        try:
            task = read_task(task_cfg, texts=texts, shard=shard)
        except Unavailable as error:
            if not cfg.tasks:
                raise
            missing[task_cfg.name] = f"{error} ({task_cfg.licence})" if task_cfg.licence else str(error)
            log.warning("%s: not measured: %s", task_cfg.name, missing[task_cfg.name])
            continue
        num_read += 1
        yield task
    if missing and not num_read:
        reason = next(iter(missing.values()))
        raise Unavailable(f"{cfg.name}: none of its {len(missing)} tasks is available: {reason}")


def read_task(cfg: DictConfig, *, texts: bool = True, reranked: bool | None = None, shard: str | None = None) -> Task:
    """Read one task's files, with or without the texts that re-ranking needs.

    reranked: whether a model re-ranks the run, which decides the value of depth=auto; None: the same as texts. shard:
    the share of the run's queries to take, without the rankings that are only measured; None: all.

    Raises InputError for bad files, measures that cannot be computed, and ids without a query or passage. Raises
    Unavailable for a file that is not on this machine and cannot be downloaded.
    """
    measures = parse_measures(cfg.measures)
    depth = task_depth(cfg, texts if reranked is None else reranked)
    for measure in measures:
        if depth is not None and measure.params.get("cutoff", 0) > depth:
            log.warning("%s: %s looks below task.depth=%d, where there are no passages", cfg.name, measure, depth)
    if cfg.licence and texts:
        log.info("%s: its texts require a licence: %s", cfg.name, cfg.licence)
    first_stage = first_stage_name(cfg.run)
    cfg = with_local_files(cfg, schema=TaskConfig)
    queries = read_queries(cfg.queries, Fields.of(cfg, "queries")) if cfg.queries else {}
    qrels = read_qrels(cfg.qrels) if cfg.qrels else {}
    if qrels:
        try_measures(measures, qrels)
    run = _read_first_stage(cfg, queries, qrels, depth)
    if texts:
        run = {query_id: run[query_id] for query_id in known_queries(run, cfg.run, queries, cfg.queries)}
    foreign = [query_id for query_id in qrels if query_id not in queries] if queries else []
    if foreign:
        log.info(
            "%s: ignored the judgments of %d queries that are not in %s (first: %s)",
            *(cfg.name, len(foreign), cfg.queries, foreign[0]),
        )
        qrels = {query_id: grades for query_id, grades in qrels.items() if query_id in queries}
    if cfg.qrels:
        _check_judged(cfg, run, qrels)
    if shard is not None:
        taken = Shard.parse(shard).take(list(run), cfg.run, [len(ranked) for ranked in run.values()])
        run = {query_id: run[query_id] for query_id in taken}
    beside = {key: None if shard else cfg[key] for key in ("teacher", "fused")}
    task = Task(
        name=cfg.name,
        corpus=cfg.corpus or cfg.name,
        run=run,
        qrels=qrels,
        measures=measures,
        teacher=_read_beside(beside["teacher"], "teacher's ranking", cfg, run, qrels, None),
        depth=depth,
        queries=queries,
        passages={},
        windows=cfg.windows,
        window_stride=cfg.window_stride,
        first_stage=first_stage,
        fused=_read_beside(beside["fused"], "fusion", cfg, run, qrels, depth),
        ideal=cfg.ideal,
        interpolate=cfg.interpolate,
        max_passage=cfg.max_passage,
    )
    if texts:
        task.passages = passages_of(cfg.passages, run, Fields.of(cfg))
        check_passages(run, cfg.run, task.passages, cfg.passages)
        task.run = drop_empty(run, task.passages.items(), cfg.name)
    return task


def check_later_tasks(cfg: DictConfig) -> None:
    """Read the files of a suite's tasks after the first, so that none is refused after hours of work on others.

    Passages and downloads are left for later. Raises InputError for bad files.
    """
    for task in split_suite(cfg)[1:]:
        if task.queries and os.path.isfile(task.queries):
            read_queries(task.queries, Fields.of(task, "queries"))
        if task.qrels and os.path.isfile(task.qrels):
            try_measures(parse_measures(task.measures), read_qrels(task.qrels))
        for run in (task.run, task.teacher, task.fused):
            if run and os.path.isfile(run):
                read_run(run)


def _check_judged(cfg: DictConfig, run: Run, qrels: Qrels) -> None:
    """Warn of queries without judgments, and like `log_unranked`; raises InputError where no query has any."""
    unjudged = [query_id for query_id in run if query_id not in qrels]
    if len(unjudged) == len(run):
        raise InputError(
            f"{cfg.qrels}: judges none of the {len(run)} queries of {cfg.run}: use qrels that belong to the run"
        )
    if unjudged:
        log.warning(
            "%s: %d of %d queries of the run have no judgments: not measured (first: %s)",
            *(cfg.name, len(unjudged), len(run), unjudged[0]),
        )
    log_unranked(cfg.run, article_run(run, cfg.run) if cfg.max_passage else run, qrels)


def log_unranked(source: str, run: Run, qrels: Qrels) -> None:
    """Warn if a run lacks judged queries, or if none of its passages is judged: both lower the means."""
    lacking = [query_id for query_id in qrels if query_id not in run]
    if lacking:
        log.warning(
            "%s: lacks %d of %d judged queries: they get the value that the measure defines, mostly 0 (first: %s)",
            *(source, len(lacking), len(qrels), lacking[0]),
        )
    judged = (doc_id in qrels[query_id] for query_id in run if query_id in qrels for doc_id in run[query_id].doc_ids)
    if not any(judged):
        log.warning("%s: none of its passages are judged: check that the judgments belong to this collection", source)


def _read_beside(
    source: str | None, noun: str, cfg: DictConfig, run: Run, qrels: Qrels, depth: int | None
) -> Run | None:
    """Read another ranking to measure beside the run, cut to its depth; None if there is none.

    Raises InputError if it has no query, or no passage, in common with the run.
    """
    if source is None:
        return None
    whole = read_run(source)
    beside = {query_id: _without_itself(cfg, query_id, ranked).cut(depth) for query_id, ranked in whole.items()}
    shared = [query_id for query_id in run if query_id in beside]
    if not any(set(run[query_id].doc_ids) & set(beside[query_id].doc_ids) for query_id in shared):
        what = "passage" if shared else "query"
        raise InputError(f"{source}: shares no {what} with {cfg.run}: use the {noun} of this run")
    if qrels:
        log_unranked(source, article_run(beside, source) if cfg.max_passage else beside, qrels)
    return beside


def first_stage_name(source: str) -> str:
    """Return what a first stage is called: its file's name, an `ir_datasets` id, or bm25."""
    is_file = is_remote(source) or is_path(source) or os.path.isfile(source)
    return source.split("#")[0].rsplit("/", 1)[-1] if is_file else source


def perfect_order(run: Run, qrels: Qrels, judged_as: Callable[[str], str] = str) -> Run:
    """Return the run in the order of the judgments, best grade first; within a grade, passages keep their order.

    judged_as: returns what the qrels judge, of a passage's id.
    """
    ordered = {}
    for query_id, ranked in run.items():
        judged = qrels.get(query_id, {})
        grades = np.array([max(judged.get(judged_as(doc_id), 0), 0) for doc_id in ranked.doc_ids])  # [K]
        doc_ids = [ranked.doc_ids[place] for place in np.argsort(-grades, kind="stable")]
        ordered[query_id] = RankedList.in_order(doc_ids, -np.arange(len(doc_ids), dtype=np.float64))
    return ordered


def _read_first_stage(cfg: DictConfig, queries: Texts, qrels: Qrels, depth: int | None) -> Run:
    if cfg.run == "bm25":
        from distill.retrieval.bm25 import Bm25, bm25_run  # imported here because most tasks have a run

        judged = {query_id: text for query_id, text in queries.items() if query_id in qrels or not cfg.qrels}
        if not judged:
            raise InputError(f"{cfg.qrels}: judges no query of {cfg.queries}: use qrels that belong to the queries")
        depth = depth or BM25_DEPTH
        to_find = depth + 1 if cfg.drop_identical else depth  # one more, for the passage that is dropped below
        run = bm25_run(cfg.passages, judged, to_find, Bm25.of(cfg), Fields.of(cfg))
    elif is_missing_file(cfg.run):
        raise Unavailable(f"{cfg.run}: no such file: put the run of {cfg.name} there, or name another")
    else:
        run = read_run(cfg.run)
    longer = [query_id for query_id, ranked in run.items() if depth is not None and len(ranked) > depth]
    if longer and cfg.run != "bm25":
        log.info(
            "%s: depth=%d: %d of %d lists of %s are longer, and are cut (first: %s)",
            *(cfg.name, depth, len(longer), len(run), cfg.run, longer[0]),
        )
    return {query_id: _without_itself(cfg, query_id, ranked).cut(depth) for query_id, ranked in run.items()}


def _without_itself(cfg: DictConfig, query_id: str, ranked: RankedList) -> RankedList:
    """Return a list without the passage that is the query itself, where the task says so."""
    if not cfg.drop_identical:
        return ranked
    judged_as = article_of if cfg.max_passage else str
    return ranked.keep([judged_as(doc_id) != query_id for doc_id in ranked.doc_ids])
