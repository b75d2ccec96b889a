"""What a judge grades: the passages that rankings have at their top, in an order that shows no ranking.

    pool = read_pool(cfg, with_local_files(cfg))
    [pair.query_id, pair.doc_id] for pair in pool.pairs

The order of the requests is shuffled, and each asks about one passage: no judge sees which ranking found it, at which
rank, or beside what.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

from omegaconf import DictConfig

from distill.data.teacher_lists import choose_queries
from distill.errors import InputError
from distill.evaluation.measures import trec_order
from distill.sources.fields import Fields
from distill.sources.run_files import RankedList, Run
from distill.sources.runs import read_run
from distill.sources.texts import Texts, check_passages, log_empty, log_left_out, read_passages, read_queries


class Pair(NamedTuple):
    """A passage to grade for a query."""

    query_id: str
    doc_id: str


@dataclass
class Pool:
    """The pairs in the order of the requests, and their texts."""

    pairs: list[Pair]
    queries: Texts  # of the pairs only, in the order of their source
    passages: Texts

    def texts(self, pair: Pair) -> tuple[str, str]:
        """Return the texts of a query and a passage."""
        return self.queries[pair.query_id], self.passages[pair.doc_id]


def read_pool(cfg: DictConfig, local: DictConfig) -> Pool:
    """Read the top of each run; raises InputError for unknown ids, and where a run has none of the queries.

    local: the configuration with local files.
    """
    queries = read_queries(local.queries, Fields.of(cfg, "queries"))
    tops = {name: _top(name, queries, cfg) for name in cfg.runs}
    found = [query_id for query_id in queries if any(query_id in top for top in tops.values())]
    known = set(found)
    lacking = [query_id for query_id in queries if query_id not in known]
    log_left_out(cfg.queries, "queries are in none of the runs", lacking, len(queries))
    chosen = choose_queries(found, cfg.num_queries, cfg.subset_seed, cfg.queries)
    tops = {name: {query_id: top[query_id] for query_id in chosen if query_id in top} for name, top in tops.items()}
    passages = read_passages(
        local.passages,
        {doc_id for top in tops.values() for ranked in top.values() for doc_id in ranked.doc_ids},
        Fields.of(cfg),
    )
    for name, top in tops.items():
        check_passages(top, name, passages, cfg.passages)
    pairs = {Pair(query_id, doc_id) for top in tops.values() for query_id in top for doc_id in top[query_id].doc_ids}
    empty = sorted(pair.doc_id for pair in pairs if not passages[pair.doc_id])
    log_empty(", ".join(cfg.runs), len(empty), empty)
    kept = [pair for pair in sorted(pairs) if passages[pair.doc_id]]
    if not kept:
        raise InputError(f"{cfg.passages}: all passages at the top of the runs are empty: there is nothing to grade")
    random.Random(cfg.seed).shuffle(kept)
    return Pool(kept, {query_id: queries[query_id] for query_id in chosen}, passages)


def _top(name: str, queries: Texts, cfg: DictConfig) -> Run:
    """Return the first passages of a run's lists, in the order that measures see."""
    run = read_run(name)
    top: dict[str, RankedList] = {}
    for query_id, ranked in run.items():
        if query_id in queries:
            best = set(trec_order(ranked)[: cfg.depth])
            top[query_id] = ranked.keep([doc_id in best for doc_id in ranked.doc_ids])
    if not top:
        raise InputError(f"{name}: has none of the {len(queries)} queries of {cfg.queries}: use runs of these queries")
    return top
