"""Let a teacher rank the passages of a first-stage run: an LLM, listwise or pointwise, or cross-encoders.

    distill annotate passages=P.tsv queries=Q.tsv run=F.run teacher.llm.base_url=URL teacher.llm.model=NAME
    distill annotate passages=P.tsv queries=Q.tsv run=F.run llm@teacher.llm=local teacher.llm.model=DIR_OR_HUB_ID
    distill annotate passages=P.tsv queries=Q.tsv run=F.run llm@teacher.llm=cross-encoder teacher.llm.model=DIR
    distill annotate passages=P.tsv queries=Q.tsv run=F.run method=pointwise teacher.llm.model=NAME
    distill annotate resume=outputs/annotate/DATE/TIME            the stopped annotation there, with its configuration

Leaves teacher.run (TREC), teacher.parquet, card.md and results.json in its output directory, and meanwhile
journal.jsonl, from which it is resumed. What learns from it:
`python train.py teacher=run teacher.path=OUT/teacher.run teacher.first_stage=F.run ...`
"""

import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import ROOT, register_schemas, run_directory
from distill.config.overrides import as_override
from distill.config.resuming import resumed_config
from distill.errors import InputError, exit_on_bad_input
from distill.jobs import open_run, removed_if_refused

log = logging.getLogger("annotate")


def annotate(cfg: DictConfig, directory: Path) -> None:
    """Annotate as configured; raises InputError for bad input, and where max_cost is reached."""
    with open_run(cfg, directory):
        annotate_lists(cfg, directory)


def annotate_lists(cfg: DictConfig, directory: Path) -> None:
    """Do what `annotate` says, in a directory that is this annotation's own."""
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.data.teacher_lists import choose_queries
    from distill.sources.fields import Fields
    from distill.sources.locate import with_local_files
    from distill.sources.runs import read_run
    from distill.sources.texts import known_queries, read_passages, read_queries
    from distill.teachers.annotation import agreement, lists_to_rank, write_annotation

    local = with_local_files(cfg)
    run = read_run(local.run)
    queries = read_queries(local.queries, Fields.of(cfg, "queries"))
    known = known_queries(run, cfg.run, queries, cfg.queries)
    query_ids = choose_queries(known, cfg.num_queries, cfg.subset_seed, cfg.run)
    run = {query_id: run[query_id].cut(cfg.depth) for query_id in query_ids}
    doc_ids = {doc_id for ranked in run.values() for doc_id in ranked.doc_ids}
    passages = read_passages(local.passages, doc_ids, Fields.of(cfg))
    run = lists_to_rank(run, cfg, passages)
    agreement(run, run, local)  # what cannot be compared with is refused before anything is paid
    if cfg.teacher.llm.engine == "cross-encoder":
        from distill.teachers.ensemble import score_lists

        if cfg.dry_run:
            print(f"{sum(map(len, run.values()))} pairs for {cfg.teacher.llm.model}; no request, no cost")
            return
        (ranking, notes), flagged, totals = score_lists(run, queries, passages, cfg), {}, None
    else:
        (ranking, flagged, totals), notes = ask_llm(cfg, directory, run, queries, passages), []
        if cfg.dry_run:
            return
    results = write_annotation(directory, cfg, local, run, ranking, flagged, totals, notes)
    for name, value in results.items():
        print(f"{name:40} {value:.4f}")
    log.info("teacher's ranking: %s", directory / "teacher.run")


def ask_llm(cfg: DictConfig, directory: Path, run, queries: dict, passages: dict) -> tuple[dict, dict, object]:
    """Let the LLM rank all lists; return the orders, which are flagged, and what it took."""
    from tqdm import tqdm

    from distill.device import choose_device
    from distill.teachers.engines import HttpEngine, LocalEngine
    from distill.teachers.journal import Journal
    from distill.teachers.listwise import WindowRanker, Windows, estimate
    from distill.teachers.prompt import read_prompt

    llm, prompt = cfg.teacher.llm, read_prompt(cfg.prompt, cfg.method)
    windows = Windows(cfg.method, cfg.window, cfg.stride, cfg.passes)
    lists = {q: (queries[q], [passages[doc_id] for doc_id in ranked.doc_ids]) for q, ranked in run.items()}
    num_requests, tokens_in, tokens_out = estimate(lists, prompt, windows)
    cost = (tokens_in * llm.price_in + tokens_out * llm.price_out) / 1e6
    summary = (
        f"{len(lists)} queries, {num_requests} requests, about {tokens_in / 1e6:.2f} million tokens in and "
        f"{tokens_out / 1e6:.2f} out" + (f", cost {cost:.2f}" if cost else "")
    )
    log.info("estimate: %s", summary)
    if cfg.dry_run:
        print(summary)
        return {}, {}, None
    if llm.engine == "http":
        engine = HttpEngine(llm, cfg.method)
    else:
        engine = LocalEngine(llm, choose_device(llm.device), cfg.method)
    path = Path(cfg.journal) if cfg.journal else directory / "journal.jsonl"
    orders, flagged = {}, {}

    def allowed(totals) -> bool:
        return llm.max_cost is None or totals.cost(llm.price_in, llm.price_out) < llm.max_cost

    with Journal(path) as journal, tqdm(total=num_requests, desc="annotating", unit="window", disable=None) as bar:

        def show(totals) -> None:
            spent = totals.cost(llm.price_in, llm.price_out)
            bar.set_postfix_str(
                f"{totals.requests} requests, {(totals.tokens_in + totals.tokens_out) / 1e6:.2f} million tokens"
                + (f", cost {spent:.2f}" if spent else ""),
                refresh=False,
            )
            bar.update(totals.windows - bar.n)

        ranker = WindowRanker(engine, llm.model, journal, prompt, windows, cfg.tries, show)
        try:
            for query_id, order, is_flagged in ranker.rank(lists, allowed):
                orders[query_id], flagged[query_id] = order, is_flagged
        finally:
            engine.close()
    totals = ranker.totals
    totals.failures = engine.failures
    if len(orders) < len(lists):
        raise InputError(
            f"teacher.llm.max_cost={llm.max_cost}: reached after {len(orders)} of {len(lists)} queries, at "
            f"{totals.cost(llm.price_in, llm.price_out):.4f}: raise it with {as_override('resume', directory)}"
        )
    log.info(
        "%d requests (%d answers were there), %d million tokens, %s", totals.requests, totals.journaled,
        (totals.tokens_in + totals.tokens_out) // 10**6, ", ".join(f"{n} {kind}" for kind, n in totals.answers.items()),
    )  # fmt: skip
    if totals.tied:
        log.warning(
            "in %d of %d lists more than half of the passages share their score: these keep the first stage's order",
            *(totals.tied, len(lists)),
        )
    return orders, flagged, totals


def quote_models(arguments: list[str]) -> list[str]:
    """Quote a list of models, which Hydra would take for a sweep: teacher.llm.model=A,B."""
    key = "teacher.llm.model="
    return [f'{key}"{a[len(key) :]}"' if a.startswith(key) and "," in a and '"' not in a else a for a in arguments]


@hydra.main(config_path=str(ROOT / "conf"), config_name="annotate", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Annotate once; bad input is answered with one line and exit status 2."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    with exit_on_bad_input(sweep), removed_if_refused(run_directory()):
        if cfg.resume is not None:
            cfg = resumed_config(cfg)
        check_values(cfg)
        annotate(cfg, Path(cfg.resume or run_directory()).absolute())


def main() -> None:
    """Run the command with the arguments of the command line."""
    register_schemas()
    sys.argv[1:] = quote_models(sys.argv[1:])
    run()
