"""The steps of the annotate command after reading its lists: let a teacher rank them, write the ranking.

lists = read_lists_to_rank(cfg, with_local_files(cfg))      # distill/teachers/lists_to_rank.py
ranking = rank_with_teacher(cfg, directory, lists)
worth = write_annotation(directory, cfg, local, lists, ranking)
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from distill.errors import InputError
from distill.evaluation.results import write_results
from distill.sources.run_files import Run, write_run
from distill.sources.runs import stored_run
from distill.storage.writing import write_text, write_whole
from distill.teachers.asking import ask_llm, estimate_requests
from distill.teachers.data_card import data_card
from distill.teachers.lists_to_rank import ListsToRank
from distill.teachers.orders import OrderedRun
from distill.teachers.totals import Totals
from distill.teachers.worth import TeacherWorth, random_answers

RANKING = "teacher.run"
ROWS = 2**16  # of teacher.parquet, that are in memory at a time


@dataclass
class TeacherRanking:
    """A teacher's order of all lists, and what the data card says about how it was made."""

    run: Run
    flagged: dict[str, bool] = field(default_factory=dict)  # lists with a window that got no usable answer
    totals: Totals | None = None  # requests, tokens and answers of an LLM
    notes: list[str] = field(default_factory=list)


def rank_with_teacher(cfg: DictConfig, directory: Path, lists: ListsToRank) -> TeacherRanking:
    """Let the configured teacher rank the lists; an LLM's answers are kept in a journal in the directory.

    A resumed directory with a ranking keeps it: it is only measured, and no request is sent. Raises InputError if
    max_cost is reached, and for a teacher that cannot be loaded or ranks nothing.
    """
    is_finished = cfg.resume is not None and (directory / RANKING).is_file()
    if cfg.teacher.llm.engine == "cross-encoder":
        if is_finished:
            return TeacherRanking(ranked_before(directory, lists.run), notes=[f"scores: as {RANKING} had them"])
        from distill.teachers.ensemble import score_lists  # imported here: an LLM over HTTP needs no torch

        run, notes = score_lists(lists.run, lists.queries, lists.passages, cfg)
        return TeacherRanking(run, notes=notes)
    orders, flagged, totals = ask_llm(cfg, directory, lists.texts, is_finished=is_finished)
    run = ranked_before(directory, lists.run) if is_finished else OrderedRun(lists.run, orders)
    return TeacherRanking(run, flagged, totals)


def ranked_before(directory: Path, lists: Run) -> Run:
    """Return the ranking in a directory, such as that of joined shards; raises InputError if it is of other lists."""
    ranking = stored_run(str(directory / RANKING))
    for query_id in dict.fromkeys((*lists, *ranking)):
        if any(query_id not in run for run in (lists, ranking)) or {*lists[query_id].doc_ids} != {
            *ranking[query_id].doc_ids
        }:
            raise InputError(
                f"{directory / RANKING}: ranks other passages of query {query_id} than the first stage has: give the "
                "first stage that it was made from, or use another directory"
            )
    return {query_id: ranking[query_id] for query_id in lists}


def estimate_cost(cfg: DictConfig, lists: ListsToRank) -> str:
    """Return, in words, the requests, tokens and money that the teacher will need."""
    llm = cfg.teacher.llm
    if llm.engine == "cross-encoder":
        return f"{lists.num_pairs} pairs for {llm.model}; no request, no cost"
    return estimate_requests(cfg, lists.texts)


def write_annotation(
    directory: Path, cfg: DictConfig, local: DictConfig, lists: ListsToRank, ranking: TeacherRanking
) -> TeacherWorth:
    """Write teacher.run, teacher.parquet, results.json and card.md; return what the ranking is worth."""
    worth = TeacherWorth.of(lists.run, ranking.run, local, random_answers(cfg), ranking.totals)
    results = worth.results()
    card = data_card(cfg, lists.run, ranking.flagged, ranking.totals, worth.describe(), ranking.notes)
    write_whole(directory / RANKING, lambda path: write_run(ranking.run, path, tag="teacher"))
    write_whole(directory / "teacher.parquet", lambda path: _write_parquet(path, lists.run, ranking))
    write_text(directory / "card.md", card)
    write_results(directory / "results.json", results)
    return worth


def _write_parquet(path: Path, run: Run, ranking: TeacherRanking) -> None:
    """Write the ranking with the first stage's ranks, some lists at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"query_id": pa.string(), "doc_id": pa.string(), "rank": pa.int64(), "first_stage_rank": pa.int64()}
    schema = pa.schema(types | {"flagged": pa.bool_()})
    with pq.ParquetWriter(path, schema) as writer:
        waiting: list[pa.Table] = []
        for query_id, ranked in ranking.run.items():
            size = len(ranked)
            first = {doc_id: rank for rank, doc_id in enumerate(run[query_id].doc_ids, start=1)}
            ranks = ranked.places, [first[doc_id] for doc_id in ranked.doc_ids]
            columns = [query_id] * size, ranked.doc_ids, *ranks, [ranking.flagged.get(query_id, False)] * size
            table = pa.Table.from_arrays(
                [pa.array(*one) for one in zip(columns, schema.types, strict=True)], schema=schema
            )
            if sum(map(len, waiting)) + size > ROWS and waiting:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting.clear()
            waiting.append(table)
        writer.write_table(pa.concat_tables(waiting).combine_chunks())
