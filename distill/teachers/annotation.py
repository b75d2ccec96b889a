"""The steps of the annotate command: read lists with texts, let a teacher rank them, write the ranking.

lists = read_lists_to_rank(cfg, with_local_files(cfg))
ranking = rank_with_teacher(cfg, directory, lists)
worth = write_annotation(directory, cfg, local, lists, ranking)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distill.data.teacher_lists import choose_queries
from distill.errors import InputError
from distill.evaluation.results import write_results
from distill.sources.fields import Fields
from distill.sources.run_files import RankedList, Run, write_run
from distill.sources.runs import read_run
from distill.sources.texts import (
    Texts,
    check_passages,
    drop_empty,
    known_queries,
    log_left_out,
    read_passages,
    read_queries,
)
from distill.storage.writing import write_text, write_whole
from distill.teachers.asking import ask_llm, estimate_requests
from distill.teachers.data_card import data_card
from distill.teachers.totals import Totals
from distill.teachers.worth import TeacherWorth, random_answers


@dataclass
class ListsToRank:
    """The lists of a first-stage run that a teacher ranks, with their texts."""

    run: Run
    queries: Texts
    passages: Texts

    def __len__(self) -> int:
        return len(self.run)

    @property
    def num_pairs(self) -> int:
        """Number of query-passage pairs."""
        return sum(map(len, self.run.values()))

    def texts(self) -> dict[str, tuple[str, list[str]]]:
        """Return {query id: (query, passages)}, the passages in the run's order."""
        return {q: (self.queries[q], [self.passages[d] for d in ranked.doc_ids]) for q, ranked in self.run.items()}


@dataclass
class TeacherRanking:
    """A teacher's order of all lists, and what the data card says about how it was made."""

    run: Run
    flagged: dict[str, bool] = field(default_factory=dict)  # lists with a window that got no usable answer
    totals: Totals | None = None  # requests, tokens and answers of an LLM
    notes: list[str] = field(default_factory=list)


def read_lists_to_rank(cfg: DictConfig, local: DictConfig) -> ListsToRank:
    """Read the first-stage run, cut to cfg.depth, and its texts; lists that cannot be ranked are left out and counted.

    local: the configuration with local files. Raises InputError for unknown ids, for judgments or a reference that
    share nothing with the lists, and if no list is left.
    """
    run = read_run(local.run)
    queries = read_queries(local.queries, Fields.of(cfg, "queries"))
    known = known_queries(run, cfg.run, queries, cfg.queries)
    query_ids = choose_queries(known, cfg.num_queries, cfg.subset_seed, cfg.run)
    run = {query_id: run[query_id].cut(cfg.depth) for query_id in query_ids}
    doc_ids = {doc_id for ranked in run.values() for doc_id in ranked.doc_ids}
    passages = read_passages(local.passages, doc_ids, Fields.of(cfg))
    run = lists_to_rank(run, cfg, passages)
    TeacherWorth.of(run, run, local)  # raises its errors before anything is paid for
    return ListsToRank(run, queries, passages)


def lists_to_rank(run: Run, cfg: DictConfig, passages: Texts) -> Run:
    """Return the lists of two or more passages, without empty passages; raises InputError for unknown ids.

    Shorter lists are left out and counted.
    """
    check_passages(run, cfg.run, passages, cfg.passages)
    filled = drop_empty(run, passages, cfg.run)
    kept = {query_id: ranked for query_id, ranked in filled.items() if len(ranked) > 1}
    if not kept:
        raise InputError(f"{cfg.run}: no query has two non-empty passages: nothing to rank")
    short = [query_id for query_id in filled if query_id not in kept]
    log_left_out(cfg.run, "queries have fewer than two passages to rank", short, len(run))
    return kept


def rank_with_teacher(cfg: DictConfig, directory: Path, lists: ListsToRank) -> TeacherRanking:
    """Let the configured teacher rank the lists; an LLM's answers are kept in a journal in the directory.

    Raises InputError if max_cost is reached, and for a teacher that cannot be loaded or ranks nothing.
    """
    if cfg.teacher.llm.engine == "cross-encoder":
        from distill.teachers.ensemble import score_lists  # imported here: an LLM over HTTP needs no torch

        run, notes = score_lists(lists.run, lists.queries, lists.passages, cfg)
        return TeacherRanking(run, notes=notes)
    orders, flagged, totals = ask_llm(cfg, directory, lists.texts())
    run = {}
    for query_id, ranked in lists.run.items():  # in the run's order, whichever list was finished first
        order = orders[query_id]
        doc_ids = [ranked.doc_ids[place] for place in order]
        run[query_id] = RankedList.in_order(doc_ids, np.arange(float(len(order)), 0, -1))
    return TeacherRanking(run, flagged, totals)


def estimate_cost(cfg: DictConfig, lists: ListsToRank) -> str:
    """Return, in words, the requests, tokens and money that the teacher will need."""
    llm = cfg.teacher.llm
    if llm.engine == "cross-encoder":
        return f"{lists.num_pairs} pairs for {llm.model}; no request, no cost"
    return estimate_requests(cfg, lists.texts())


def write_annotation(
    directory: Path, cfg: DictConfig, local: DictConfig, lists: ListsToRank, ranking: TeacherRanking
) -> TeacherWorth:
    """Write teacher.run, teacher.parquet, results.json and card.md; return what the ranking is worth."""
    worth = TeacherWorth.of(lists.run, ranking.run, local, random_answers(cfg), ranking.totals)
    results = worth.results()
    card = data_card(cfg, lists.run, ranking.flagged, ranking.totals, worth.describe(), ranking.notes)
    write_whole(directory / "teacher.run", lambda path: write_run(ranking.run, path, tag="teacher"))
    write_whole(directory / "teacher.parquet", lambda path: _write_parquet(path, lists.run, ranking))
    write_text(directory / "card.md", card)
    write_results(directory / "results.json", results)
    return worth


def _write_parquet(path: Path, run: Run, ranking: TeacherRanking) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def first_stage_ranks() -> Iterator[int]:
        for query_id, ranked in ranking.run.items():
            first = {doc_id: rank for rank, doc_id in enumerate(run[query_id].doc_ids, start=1)}
            yield from (first[doc_id] for doc_id in ranked.doc_ids)

    lists = ranking.run.items()
    columns: dict[str, Iterator] = {  # one at a time, since rows would take much more memory
        "query_id": (query_id for query_id, ranked in lists for _ in ranked.doc_ids),
        "doc_id": (doc_id for _, ranked in lists for doc_id in ranked.doc_ids),
        "rank": (rank for _, ranked in lists for rank in range(1, len(ranked) + 1)),
        "first_stage_rank": first_stage_ranks(),
        "flagged": (ranking.flagged.get(query_id, False) for query_id, ranked in lists for _ in ranked.doc_ids),
    }
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
