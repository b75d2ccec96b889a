"""What to evaluate on: tasks, each a run with judgments; suites of tasks; runs measured.

    for part in split_suite(cfg.task):                              # a task that is no suite is its only part
        task = read_task(part)
        values, per_query = measure(task.run, task.qrels, task.measures)
        measured[task.name] = {"first_stage": per_query}
    suite_results(cfg.task, measured)

A suite's means are taken over corpora; within a corpus, over all queries of all its tasks (the micro-average of TIREx).
"""

import logging
import os
from dataclasses import dataclass

from omegaconf import DictConfig

from distill.config.measures import parse_measures
from distill.config.suites import BM25_DEPTH, split_suite, task_depth
from distill.errors import InputError, Unavailable
from distill.evaluation.measures import try_measures
from distill.sources.fields import Fields
from distill.sources.locate import is_path, with_local_files
from distill.sources.qrels import Qrels, read_qrels
from distill.sources.run_files import Run
from distill.sources.runs import read_run
from distill.sources.texts import Texts, check_passages, drop_empty, known_queries, read_passages, read_queries

log = logging.getLogger(__name__)


@dataclass
class Task:
    """What to evaluate on: a run with judgments, and the texts to re-rank it."""

    name: str
    corpus: str  # tasks of one corpus are averaged together
    run: Run  # the first stage, cut to the task's depth
    qrels: Qrels
    measures: list  # of ir_measures
    teacher: Run | None
    queries: Texts
    passages: Texts  # empty where the run is only measured
    windows: int  # parts of a long passage that are scored, the best of which counts; 1: its beginning
    window_stride: int | None  # tokens from one window's beginning to the next one's; None: half of a window

    @property
    def rows(self) -> dict[str, Run]:
        """The rankings that are measured beside the student's: the first stage's and, if known, the teacher's."""
        return {"first_stage": self.run} | ({"teacher": self.teacher} if self.teacher else {})


def read_tasks(cfg: DictConfig) -> list[Task]:
    """Read all tasks of a suite, with their texts; there may be none.

    What is not available here is left out of a suite, with a warning. Raises InputError like `read_task`, and
    Unavailable where nothing is left.
    """
    tasks, missing = [], None
    for part in split_suite(cfg):
        try:
            tasks.append(read_task(part))
        except Unavailable as error:
            if not cfg.tasks:
                raise
            log.warning("%s: left out of %s: %s", part.name, cfg.name, error)
            missing = error
    if missing and not tasks:
        raise missing
    return tasks


def read_task(cfg: DictConfig, texts: bool = True, reranked: bool | None = None) -> Task:
    """Read one task's files, with the texts that re-ranking needs or without them.

    reranked: whether a model re-ranks the run, which decides about depth=auto; None: as texts says. Raises InputError
    for bad files, measures that cannot be computed, and ids that queries or passages lack; Unavailable for what is not
    on this machine and cannot be downloaded.
    """
    measures = parse_measures(cfg.measures)
    depth = task_depth(cfg, texts if reranked is None else reranked)
    for one in measures:
        if depth is not None and one.params.get("cutoff", 0) > depth:
            log.warning("%s: %s looks below task.depth=%d: no passage there counts", cfg.name, one, depth)
    if cfg.licence and texts:
        log.info("%s: its texts need a licence: %s", cfg.name, cfg.licence)
    cfg = with_local_files(cfg)
    queries = read_queries(cfg.queries, Fields.of(cfg, "queries")) if cfg.queries else {}
    qrels = read_qrels(cfg.qrels)
    try_measures(measures, qrels)
    run = _read_first_stage(cfg, queries, qrels, depth)
    if texts:
        run = {query_id: run[query_id] for query_id in known_queries(run, cfg.run, queries, cfg.queries)}
    foreign = [query_id for query_id in qrels if query_id not in queries] if queries else []
    if foreign:
        log.info(
            "%s: judgments of %d queries that are not in %s: not of this task", cfg.name, len(foreign), cfg.queries
        )
        qrels = {query_id: grades for query_id, grades in qrels.items() if query_id in queries}
    unjudged = [query_id for query_id in run if query_id not in qrels]
    if len(unjudged) == len(run):
        raise InputError(
            f"{cfg.qrels}: judges none of the {len(run)} queries of {cfg.run}: use qrels that belong to the run"
        )
    if unjudged:
        log.warning("%s: %d of %d queries of the run are not judged: not measured", cfg.name, len(unjudged), len(run))
    log_unranked(cfg.run, run, qrels)
    teacher = None
    if cfg.teacher is not None:
        teacher = {query_id: ranked.cut(depth) for query_id, ranked in read_run(cfg.teacher).items()}
        _check_teacher(cfg.teacher, teacher, cfg.run, run)
        log_unranked(cfg.teacher, teacher, qrels)
    corpus = cfg.corpus or cfg.name
    task = Task(cfg.name, corpus, run, qrels, measures, teacher, queries, {}, cfg.windows, cfg.window_stride)
    if texts:
        doc_ids = {doc_id for ranked in run.values() for doc_id in ranked.doc_ids}
        task.passages = read_passages(cfg.passages, doc_ids, Fields.of(cfg))
        check_passages(run, cfg.run, task.passages, cfg.passages)
        task.run = drop_empty(run, task.passages, cfg.name)
    return task


def log_unranked(source: str, run: Run, qrels: Qrels) -> None:
    """Log how many judged queries a run lacks, and where none of its passages is judged: both bring the means down."""
    lacking = [query_id for query_id in qrels if query_id not in run]
    if lacking:
        log.warning(
            "%s: lacks %d of %d judged queries: they count as the measure defines, mostly 0 (first: %s)",
            *(source, len(lacking), len(qrels), lacking[0]),
        )
    judged = (doc_id in qrels[query_id] for query_id in run if query_id in qrels for doc_id in run[query_id].doc_ids)
    if not any(judged):
        log.warning("%s: none of its passages is judged: check that the judgments belong to this collection", source)


def _check_teacher(source: str, teacher: Run, run_source: str, run: Run) -> None:
    """Raise InputError where a teacher's ranking is of other queries, or other passages, than the run."""
    shared = [query_id for query_id in run if query_id in teacher]
    if not any(set(run[query_id].doc_ids) & set(teacher[query_id].doc_ids) for query_id in shared):
        what = "passage" if shared else "query"
        raise InputError(f"{source}: shares no {what} with {run_source}: use the teacher's ranking of this run")


def _read_first_stage(cfg: DictConfig, queries: Texts, qrels: Qrels, depth: int | None) -> Run:
    if cfg.run == "bm25":
        from distill.retrieval.bm25 import bm25_run  # here: most tasks have a run

        judged = {query_id: text for query_id, text in queries.items() if query_id in qrels}
        if not judged:
            raise InputError(f"{cfg.qrels}: judges no query of {cfg.queries}: use qrels that belong to the queries")
        depth = (depth or BM25_DEPTH) + cfg.drop_identical
        run = bm25_run(cfg.passages, judged, depth, fields=Fields.of(cfg))
    elif is_path(cfg.run) and not os.path.isfile(cfg.run):
        raise Unavailable(f"{cfg.run}: no such file: put the run of {cfg.name} there, or name another")
    else:
        run = read_run(cfg.run)
    if cfg.drop_identical:
        run = {q: ranked.keep([doc_id != q for doc_id in ranked.doc_ids]) for q, ranked in run.items()}
    return {query_id: ranked.cut(depth) for query_id, ranked in run.items()}
