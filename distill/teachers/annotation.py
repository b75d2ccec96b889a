"""What annotate.py reads and leaves: lists with texts, the teacher's ranking, a data card, agreement with others."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distill.errors import InputError
from distill.evaluation.results import write_results
from distill.evaluation.tasks import measure, parse_measures
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList, Run, write_run
from distill.sources.runs import read_run
from distill.sources.texts import Texts, check_passages, drop_empty, log_left_out
from distill.storage.files import write_whole


def lists_to_rank(run: Run, cfg: DictConfig, passages: Texts) -> Run:
    """Return the lists of two passages and more, without empty passages; raises InputError for unknown ids.

    Queries with fewer are left out and counted.
    """
    check_passages(run, cfg.run, passages, cfg.passages)
    filled = drop_empty(run, passages, cfg.run)
    kept = {query_id: ranked for query_id, ranked in filled.items() if len(ranked) > 1}
    if not kept:
        raise InputError(f"{cfg.run}: no query has two passages with a text: nothing to rank")
    short = [query_id for query_id in filled if query_id not in kept]
    log_left_out(cfg.run, "queries have fewer than two passages to rank", short, len(run))
    return kept


def write_annotation(
    directory: Path, cfg, local, run: Run, found: dict, flagged: dict[str, bool], totals, notes: list[str]
) -> dict:
    """Write teacher.run, teacher.parquet, results.json and card.md; return the agreement that was asked for.

    found: each query's order of places in the run, or its ranking. notes: what else the card should say.
    """
    ranking: Run = {}
    for query_id, ranked in run.items():  # in the run's order, whatever was done first
        one = found[query_id]
        if not isinstance(one, RankedList):
            scores = np.arange(float(len(one)), 0, -1)
            one = RankedList.in_order([ranked.doc_ids[place] for place in one], scores)
        ranking[query_id] = one
    results = agreement(run, ranking, local)
    write_whole(directory / "teacher.run", lambda path: write_run(ranking, path, tag="teacher"))
    write_whole(directory / "teacher.parquet", lambda path: _write_parquet(path, run, ranking, flagged))
    write_whole(directory / "card.md", lambda path: path.write_text(_card(cfg, run, flagged, totals, results, notes)))
    write_results(directory / "results.json", results)
    return results


def _write_parquet(path: Path, run: Run, ranking: Run, flagged: dict[str, bool]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {name: [] for name in ("query_id", "doc_id", "rank", "first_stage_rank", "flagged")}
    for query_id, ranked in ranking.items():
        first = {doc_id: rank for rank, doc_id in enumerate(run[query_id].doc_ids, start=1)}
        for rank, doc_id in enumerate(ranked.doc_ids, start=1):
            values = (query_id, doc_id, rank, first[doc_id], flagged.get(query_id, False))
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    pq.write_table(pa.table(rows), path)


def agreement(run: Run, ranking: Run, local: DictConfig) -> dict[str, float]:
    """Measure as configured; raises InputError for judgments or a run that share nothing with the lists."""
    results = {}
    if local.qrels:
        measures, qrels = parse_measures(["nDCG@10"]), read_qrels(local.qrels)
        qrels = {query_id: grades for query_id, grades in qrels.items() if query_id in run}
        if not qrels:
            raise InputError(f"{local.qrels}: judges none of the {len(run)} queries: use qrels that belong to them")
        for row, one in (("first_stage", run), ("teacher", ranking)):
            results |= {f"{row}/{name}": value for name, value in measure(one, qrels, measures)[0].items()}
    if local.reference:
        reference = read_run(local.reference)
        taus = [_tau(ranking[q].doc_ids, reference[q].doc_ids) for q in ranking if q in reference]
        taus = [tau for tau in taus if tau is not None]
        if not taus:
            raise InputError(f"{local.reference}: shares no list of two passages with the teacher's ranking")
        results["tau/reference"] = float(np.mean(taus))
    return results


def _tau(one: list[str], other: list[str]) -> float | None:
    """Kendall's tau over the passages that both rank; None for fewer than two."""
    places = {doc_id: place for place, doc_id in enumerate(other)}
    order = np.array([places[doc_id] for doc_id in one if doc_id in places])
    if len(order) < 2:
        return None
    signs = np.sign(order[None, :] - order[:, None])[np.triu_indices(len(order), 1)]
    return float(signs.mean())


def _card(
    cfg: DictConfig, run: Run, flagged: dict[str, bool], totals, results: dict[str, float], notes: list[str]
) -> str:
    llm = cfg.teacher.llm
    lines = ["# Data card", "", f"- made: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by annotate.py"]
    lines += [f"- teacher: {llm.model} ({llm.engine})", f"- first stage: {cfg.run}, its top {cfg.depth}"]
    lines += [f"- queries: {len(run)} of {cfg.queries}; passages: {sum(map(len, run.values()))} of {cfg.passages}"]
    if totals is not None:
        cost = totals.cost(llm.price_in, llm.price_out)
        lines += [f"- prompt: {Path(cfg.prompt).name}, {totals.prompt}"]
        if cfg.method == "listwise":
            lines += [f"- window {cfg.window}, stride {cfg.stride}, {cfg.passes} passes"]
        lines += [f"- method: {cfg.method}, {totals.windows} windows"]
        lines += [f"- answers: {', '.join(f'{number} {kind}' for kind, number in sorted(totals.answers.items()))}"]
        lines += [
            f"- windows that kept their order for want of a usable answer: {totals.unanswered}, in "
            f"{sum(flagged.values())} lists"
        ]
        if totals.tied:
            lines += [f"- lists with more than half of their scores equal, in the first stage's order: {totals.tied}"]
        failures = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.failures.items()))
        lines += [f"- requests: {totals.requests + totals.journaled}"]
        lines += [f"- tried again in the last run: {totals.failures.total()}" + (f" ({failures})" if failures else "")]
        lines += [
            f"- tokens: {totals.tokens_in} in, {totals.tokens_out} out; {totals.seconds:.0f} seconds of answering"
        ]
        lines += [f"- cost: {cost:.4f} at {llm.price_in} and {llm.price_out} a million tokens"] if cost else []
    lines += [f"- {note}" for note in notes]
    lines += [f"- {name}: {value:.4f}" for name, value in results.items()]
    return "\n".join(lines) + "\n"
