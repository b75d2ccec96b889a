"""Re-rank a run with a cross-encoder, and measure runs.

task = read_task(cfg.task)
student_run = Reranker(task, model).rerank(model, max_tokens=16384)
values, per_query = measure(student_run, task.qrels, task.measures)
results = task_metrics("test", task, student_run)     # {"test/sample/nDCG@10": 0.9}
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from distill.batch import make_batch
from distill.collection import Texts, check_queries, read_passages, read_queries
from distill.distributed import Ranks
from distill.errors import InputError
from distill.model import CrossEncoder
from distill.tokens import TokenStore, silent
from distill.trec import Qrels, RankedList, Run, find_line, read_qrels, read_run

log = logging.getLogger(__name__)

PAIRS_AT_ONCE = 4096  # pairs sorted by length together: many enough for even chunks, few enough for little memory


@dataclass
class Task:
    """What to evaluate on: a run with judgments, and the texts to re-rank it."""

    name: str
    run: Run  # the first stage, cut to the task's depth
    qrels: Qrels
    measures: list  # of ir_measures
    teacher: Run | None
    queries: Texts
    passages: Texts  # empty where the run is only measured


def read_task(cfg: DictConfig, texts: bool = True) -> Task | None:
    """Read a task's files, without its texts where a run is only measured; None where the task names no run.

    Raises InputError for bad files, unknown measures, and ids that queries or passages lack.
    """
    if cfg.run is None:
        return None
    measures = parse_measures(cfg.measures)
    run = {query_id: ranked.cut(cfg.depth) for query_id, ranked in read_run(cfg.run).items()}
    qrels = read_qrels(cfg.qrels)
    queries = read_queries(cfg.queries) if cfg.queries else {}
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
    teacher = None
    if cfg.teacher is not None:
        teacher = {query_id: ranked.cut(cfg.depth) for query_id, ranked in read_run(cfg.teacher).items()}
    task = Task(cfg.name, run, qrels, measures, teacher, queries, {})
    if texts:
        task.passages = read_passages(cfg.passages, {doc_id for ranked in run.values() for doc_id in ranked.doc_ids})
        _check_texts(task, cfg)
    return task


def parse_measures(names: list[str]) -> list:
    """Turn names such as nDCG@10 or RR(rel=2)@10 into `ir_measures`; raises InputError for an unknown one."""
    import ir_measures

    measures = []
    for name in names:
        try:
            measures.append(ir_measures.parse_measure(name))
        except (NameError, ValueError) as error:
            raise InputError(
                f"measure {name}: unknown to ir_measures ({error}): write it as in nDCG@10, RR@10, R@100"
            ) from None
    return measures


def _check_texts(task: Task, cfg: DictConfig) -> None:
    check_queries(task.run, cfg.run, task.queries, cfg.queries)
    num_empty = 0
    for query_id, ranked in task.run.items():
        for doc_id in ranked.doc_ids:
            if doc_id not in task.passages:
                place = find_line(cfg.run, query_id, doc_id)
                raise InputError(f"{place}: passage {doc_id} is not in {cfg.passages}: use the collection of the run")
        kept = np.array([bool(task.passages[doc_id]) for doc_id in ranked.doc_ids])
        num_empty += int((~kept).sum())
        doc_ids = [doc_id for doc_id, keep in zip(ranked.doc_ids, kept, strict=True) if keep]
        task.run[query_id] = RankedList(doc_ids, ranked.scores[kept], ranked.ranks[kept])
    if num_empty:
        log.warning("%s: %d empty passages left out of the run", cfg.name, num_empty)


class Reranker:
    """Re-ranks one task's run, any number of times; its texts are tokenised once."""

    def __init__(self, task: Task, model: CrossEncoder, judged_only: bool = False, ranks: Ranks | None = None):
        """Tokenise the task's texts the way the model reads them.

        judged_only leaves out queries without judgments; of several ranks, each re-ranks its share of the queries.
        """
        self.ranks = ranks or Ranks(0, 1, model.device)
        run = {q: ranked for q, ranked in task.run.items() if len(ranked) and (q in task.qrels or not judged_only)}
        self.query_ids = list(run)  # of all ranks
        self.run = {query_id: run[query_id] for query_id in self.query_ids[self.ranks.rank :: self.ranks.size]}
        queries = {query_id: task.queries[query_id] for query_id in self.run}
        self.queries = TokenStore.of(model.tokenizer, queries, model.query_length, "queries")
        self.passages = TokenStore.of(model.tokenizer, task.passages, model.passage_length, "passages")

    @torch.inference_mode()
    def rerank(self, model: CrossEncoder, max_tokens: int, precision: torch.dtype = torch.float32) -> Run:
        """Score every pair with the model and return the new run of all ranks' queries.

        Passages of equal score keep their old order.
        """
        was_training = model.training
        model.eval()
        reranked: Run = {}
        num_pairs = sum(map(len, self.run.values()))
        with tqdm(
            total=num_pairs,
            desc="re-ranking",
            unit="pair",
            leave=False,
            disable=silent(num_pairs > 2000 and self.ranks.is_first),
        ) as bar:
            for query_ids in self._groups():
                lists = [self._pairs(model, query_id) for query_id in query_ids]
                batch = make_batch(query_ids, lists, [np.zeros(len(pairs)) for pairs in lists])
                with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
                    scores = model.score(batch, max_tokens).cpu().double().numpy()  # [B, K]
                for query_id, row in zip(query_ids, scores, strict=True):
                    reranked[query_id] = _sort_by(self.run[query_id], row)
                bar.update(sum(map(len, lists)))
        model.train(was_training)
        everything = {query_id: ranked for part in self.ranks.gather(reranked) for query_id, ranked in part.items()}
        return {query_id: everything[query_id] for query_id in self.query_ids}

    def _groups(self) -> Iterator[list[str]]:
        group, size = [], 0
        for query_id, ranked in self.run.items():
            if group and size + len(ranked) > PAIRS_AT_ONCE:
                yield group
                group, size = [], 0
            group.append(query_id)
            size += len(ranked)
        if group:
            yield group

    def _pairs(self, model: CrossEncoder, query_id: str) -> list[tuple[np.ndarray, np.ndarray]]:
        query = self.queries[self.queries.rows([query_id])[0]]
        rows = self.passages.rows(self.run[query_id].doc_ids)
        return [model.template.join(query, self.passages[row]) for row in rows]


def _sort_by(ranked: RankedList, scores: np.ndarray) -> RankedList:
    scores = scores[: len(ranked)]
    order = np.argsort(-scores, kind="stable")
    return RankedList([ranked.doc_ids[i] for i in order], scores[order], np.arange(1.0, len(ranked) + 1))


def measure(run: Run, qrels: Qrels, measures: list) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measure a run with `ir_measures`: the means by measure name, and the values of each query.

    Scores are passed on as they are, so that trec_eval gives the same values on the file that `write_run` writes; it
    breaks ties of score by passage id. Judged queries that the run lacks count as the measure defines, mostly 0.
    """
    import ir_measures

    scored = {q: dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)) for q, ranked in run.items()}
    aggregated, results = ir_measures.calc(measures, qrels, scored)
    per_query: dict[str, dict[str, float]] = {}
    for result in results:
        per_query.setdefault(result.query_id, {})[str(result.measure)] = result.value
    return {str(name): aggregated[name] for name in measures}, per_query  # in the order asked for


def task_metrics(prefix: str, task: Task, run: Run) -> dict[str, float]:
    """Measure a run on a task and return `results.json`'s names and values, `<prefix>/<task>/<measure>`."""
    values, _ = measure(run, task.qrels, task.measures)
    return {f"{prefix}/{task.name}/{name}": value for name, value in values.items()}
