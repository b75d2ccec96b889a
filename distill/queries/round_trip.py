"""Whether a query finds the passage that it was written for: by BM25, then by a cross-encoder.

round_trip = RoundTrip.of(cfg, local)
round_trip.faults({"g1": "bee navigation"}, {"g1": "d7"})           # {"g1": None}, or "not-retrieved"
"""

from dataclasses import dataclass

from omegaconf import DictConfig

from distill.errors import InputError
from distill.retrieval.bm25 import AUTO, Bm25, found_lists, in_own_language
from distill.sources.fields import Fields
from distill.sources.run_files import Run
from distill.sources.texts import Texts, read_passages

NOT_RETRIEVED, RANKED_LOW = "not-retrieved", "ranked-low"


@dataclass
class RoundTrip:
    """The checks of queries against a collection."""

    source: str  # of the passages
    fields: Fields
    bm25: Bm25
    depth: int | None  # of BM25's lists, in which a query's passage must be; None: it need not be found
    model: str | None = None  # a cross-encoder that re-ranks them
    model_depth: int = 1
    device: str = "auto"

    @classmethod
    def of(cls, cfg: DictConfig, local: DictConfig) -> "RoundTrip":
        """Return the configured checks; local: the configuration with local files.

        Raises InputError for a cross-encoder that cannot be loaded: before the queries that it checks are paid for.
        """
        if cfg.round_trip_model is not None:
            _check_model(cfg.round_trip_model)
        bm25, fields = Bm25.of(cfg), Fields.of(cfg)
        if bm25.stemmer == AUTO:
            bm25 = in_own_language(local.passages, bm25, fields)
        model = cfg.round_trip_model, cfg.round_trip_model_depth, cfg.teacher.llm.device
        return cls(local.passages, fields, bm25, cfg.round_trip, *model)

    def faults(self, queries: Texts, origins: dict[str, str]) -> dict[str, str | None]:
        """Return what speaks against each query, None if nothing does; origins: the passage of each."""
        if self.depth is None or not queries:
            return dict.fromkeys(queries)
        run = found_lists(self.source, queries, self.depth, self.bm25, self.fields)
        found = {query_id: run[query_id] for query_id in run if origins[query_id] in run[query_id].doc_ids}
        low = self._ranked_low(found, queries, origins) if self.model is not None else set()
        return {
            query_id: NOT_RETRIEVED if query_id not in found else RANKED_LOW if query_id in low else None
            for query_id in queries
        }

    def _ranked_low(self, run: Run, queries: Texts, origins: dict[str, str]) -> set[str]:
        """Return the queries whose passage is not among the cross-encoder's best."""
        long = {query_id: ranked for query_id, ranked in run.items() if len(ranked) > self.model_depth}
        if not long:
            return set()
        from distill.teachers.ensemble import score_with  # imported here: an LLM over HTTP needs no torch

        assert self.model is not None
        passages = read_passages(self.source, {doc for ranked in long.values() for doc in ranked.doc_ids}, self.fields)
        scored, _ = score_with(self.model, self.device, long, queries, passages)
        best = {query_id: ranked.cut(self.model_depth).doc_ids for query_id, ranked in scored.items()}
        return {query_id for query_id, doc_ids in best.items() if origins[query_id] not in doc_ids}


def _check_model(name: str) -> None:
    from distill.models.cross_encoder import CrossEncoder  # imported here: an LLM over HTTP needs no torch

    try:
        CrossEncoder.from_pretrained(name)
    except InputError as error:
        raise InputError(f"round_trip_model: {error}") from None
