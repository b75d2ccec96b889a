"""Cross-encoders as teachers: one, or the mean of several whose scores were normalised for each query."""

import numpy as np
from omegaconf import DictConfig

from distill.collection import Texts
from distill.device import choose_device, choose_precision
from distill.model import CrossEncoder
from distill.rerank import Reranker
from distill.tasks import Task
from distill.trec import RankedList, Run

MAX_TOKENS = 16384  # of one forward pass


def score_lists(run: Run, queries: Texts, passages: Texts, cfg: DictConfig) -> Run:
    """Return the run in the teachers' order, with their (mean) scores.

    Scores of several models are averaged after each query's were scaled to 0..1 (normalisation=min-max), or to mean 0
    and deviation 1 (z-score). A model alone keeps its own.
    """
    llm = cfg.teacher.llm
    device = choose_device(llm.device)
    task = Task("teacher", "teacher", run, {}, [], None, queries, passages, 1, None)
    names = [name.strip() for name in llm.model.split(",")]
    sums = {query_id: dict.fromkeys(ranked.doc_ids, 0.0) for query_id, ranked in run.items()}
    for name in names:
        model = CrossEncoder.from_pretrained(name).to(device)
        scored = Reranker(task, model).rerank(model, MAX_TOKENS, choose_precision("auto", device))
        for query_id, ranked in scored.items():
            scores = ranked.scores if len(names) == 1 else _normalise(ranked.scores, llm.normalisation) / len(names)
            for doc_id, score in zip(ranked.doc_ids, scores.tolist(), strict=True):
                sums[query_id][doc_id] += score
    return {query_id: _sort(scores) for query_id, scores in sums.items()}


def _normalise(scores: np.ndarray, normalisation: str) -> np.ndarray:
    low, high = scores.min(), scores.max()
    if high == low:
        return np.zeros_like(scores)
    return (scores - low) / (high - low) if normalisation == "min-max" else (scores - scores.mean()) / scores.std()


def _sort(scores: dict[str, float]) -> RankedList:
    doc_ids = sorted(scores, key=lambda doc_id: -scores[doc_id])  # stable: ties keep the first stage's order
    return RankedList.in_order(doc_ids, np.array([scores[doc_id] for doc_id in doc_ids]))
