"""Cross-encoders as teachers: one, or the mean of several, with scores normalised for each query."""

import logging

import numpy as np
from omegaconf import DictConfig
from torch import nn

from distill.device import choose_device, choose_precision
from distill.errors import InputError
from distill.evaluation.rerank import TaskReranker
from distill.evaluation.tasks import Task
from distill.models.cross_encoder import MAX_TOKENS, CrossEncoder
from distill.sources.run_files import RankedList, Run
from distill.sources.texts import Texts
from distill.teachers.pointwise import mostly_tie

log = logging.getLogger(__name__)

SATURATING = (nn.Sigmoid, nn.Tanh)  # they keep the order in theory, but in float32 all scores above about 17 become 1


def score_lists(run: Run, queries: Texts, passages: Texts, cfg: DictConfig) -> tuple[Run, list[str]]:
    """Return the run in the teachers' order with their (mean) scores, and notes for the data card.

    The scores of several models are averaged, after scaling each query's to 0..1 (normalisation=min-max), or to mean 0
    and standard deviation 1 (z-score). The scores of a single model are kept. Raises InputError for a model that gives
    all passages of every list the same score.
    """
    llm = cfg.teacher.llm
    names, bases = models_of(llm)
    sums = {query_id: dict.fromkeys(ranked.doc_ids, 0.0) for query_id, ranked in run.items()}
    notes = []
    for name, base in zip(names, bases, strict=True):
        scored, own_notes = score_with(name, llm.device, run, queries, passages, base)
        notes += own_notes
        for query_id, ranked in scored.items():
            scores = ranked.scores if len(names) == 1 else _normalise(ranked.scores, llm.normalisation) / len(names)
            for doc_id, score in zip(ranked.doc_ids, scores.tolist(), strict=True):
                sums[query_id][doc_id] += score
    return {query_id: RankedList.by_score([*of], np.array([*of.values()])) for query_id, of in sums.items()}, notes


def models_of(llm: DictConfig) -> tuple[list[str], list[str | None]]:
    """Return the models' names, and of those that are adapters the backbone; raises InputError for another number."""
    names = [name.strip() for name in llm.model.split(",")]
    bases = [base.strip() or None for base in (llm.base or "").split(",")]
    if len(bases) == 1:
        return names, bases * len(names)
    if len(bases) != len(names):
        raise InputError(
            f"teacher.llm.base={llm.base}: names {len(bases)} backbones for {len(names)} models: give one for all, or "
            "one for each, empty for a model that is whole"
        )
    return names, bases


def score_with(
    name: str, device: str, run: Run, queries: Texts, passages: Texts, base: str | None = None
) -> tuple[Run, list[str]]:
    """Return the run in the order of one cross-encoder, with its scores, and notes for the data card.

    base: of adapters that were saved without their backbone, the backbone. Raises InputError like `check_scores`.
    """
    place = choose_device(device)
    model = CrossEncoder.from_pretrained(name, base=base).to(place)
    notes = take_logits(model, name)
    reranker = TaskReranker(Task("teacher", "teacher", run, {}, [], None, queries, passages, 1, None), model, once=True)
    scored = reranker.rerank(model, MAX_TOKENS, choose_precision("auto", place))
    notes += check_scores(scored, name)
    if reranker.cut_queries:
        cut, length = len(reranker.cut_queries), model.query_length
        notes.append(f"{name}: {cut} of {len(run)} queries are longer than its {length} tokens and were truncated")
    return scored, notes


def take_logits(model: CrossEncoder, name: str) -> list[str]:
    """Remove a final activation that rounds high scores to one value; return a note if there was one."""
    if not isinstance(model.activation, SATURATING):
        return []
    kind = type(model.activation).__name__.lower()
    model.activation = nn.Identity()
    note = f"{name}: scores are taken before its final {kind}, which would make high scores equal"
    log.info(note)
    return [note]


def check_scores(scored: Run, name: str) -> list[str]:
    """Warn about lists in which more than half of the passages share a score; return the warning as a note.

    Those passages tie, which teaches no order among them. Raises InputError if the passages of every
    list all tie, and for a score that is not finite.
    """
    for query_id, ranked in scored.items():
        if not np.isfinite(ranked.scores).all():
            raise InputError(f"{name}: gives a passage of query {query_id} a score that is not finite")
    all_tied = [query_id for query_id, ranked in scored.items() if len(np.unique(ranked.scores)) == 1]
    if len(all_tied) == len(scored):
        query_id, ranked = next(iter(scored.items()))
        raise InputError(
            f"{name}: gives all passages of every list the same score (query {query_id}: {ranked.scores[0]:g}), so it "
            "ranks nothing: check that it is a trained re-ranker"
        )
    tied = [query_id for query_id, ranked in scored.items() if mostly_tie(ranked.scores.tolist())]
    if not tied:
        return []
    note = (
        f"{name}: in {len(tied)} of {len(scored)} lists more than half of the passages share a score with another (in "
        f"{len(all_tied)}, all share one score): those passages tie, which teaches no order (first: query {tied[0]})"
    )
    log.warning(note)
    return [note]


def _normalise(scores: np.ndarray, normalisation: str) -> np.ndarray:
    low, high = scores.min(), scores.max()
    if high == low:
        return np.zeros_like(scores)
    return (scores - low) / (high - low) if normalisation == "min-max" else (scores - scores.mean()) / scores.std()
