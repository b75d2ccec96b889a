"""Retrieve the best passages of a collection for each query: the first stage, for a teacher to re-rank.

    python -m distill retrieve passages=P.tsv queries=Q.tsv output=F.run                    BM25's top 100
    python -m distill retrieve passages=P.tsv queries=Q.tsv output=F.run method=sparse model=naver/splade-v3-distilbert
    python -m distill retrieve passages=P.tsv queries=Q.tsv output=F.run bm25.stemmer=german bm25.stop_words=none
    python -m distill retrieve ... method=dense model=DIR run=F.run output=G.run    an encoder's order of F's passages
    python -m distill retrieve ... method=dense model=DIR index=hnsw                approximate, for many queries

Writes a TREC run, completely or not at all. BM25's index and the vectors of a dense encoder are kept in the cache for
later queries.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values, refuse_unused
from distill.config.composition import ROOT
from distill.config.overrides import as_override, field_overrides
from distill.jobs import check_output, command_line, run_command

log = logging.getLogger("retrieve")


def retrieve(cfg: DictConfig) -> None:
    """Retrieve as configured; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration do not wait for them
    from distill.config.local_files import with_local_files
    from distill.retrieval.bm25 import Bm25, bm25_run
    from distill.sources.fields import Fields
    from distill.sources.run_files import write_run
    from distill.sources.texts import read_queries
    from distill.storage.writing import write_whole

    if cfg.method == "bm25":
        refuse_unused(["vectors", "precision", "batch_size", "device"], "is of an encoder, but method=bm25 has none")
    else:
        refuse_unused(["bm25"], f"is of method=bm25, not of {cfg.method}")
    if cfg.method == "sparse":
        refuse_unused(["vectors"], "is of method=dense: the weights of sparse encoders are not kept")
    if cfg.run is not None:
        refuse_unused(["index", "vectors"], "is of a search of all passages, but run=FILE gives those to order")
    output = Path(cfg.output)
    check_output(output, cfg.passages, cfg.queries, cfg.run)
    local = with_local_files(cfg)
    queries, fields = read_queries(local.queries, Fields.of(cfg, "queries")), Fields.of(cfg)
    if cfg.method == "bm25":
        run = bm25_run(local.passages, queries, cfg.depth, Bm25.of(cfg), fields)
    else:
        from distill.device import choose_device, choose_precision
        from distill.models.model_files import check_source
        from distill.models.parts import explained
        from distill.retrieval.encoders import encoder_rerank, encoder_run

        device = choose_device(cfg.device)
        choose_precision(cfg.precision, device)  # refuses it before anything is loaded
        with explained(f"model={cfg.model}", f"as a {cfg.method} encoder"):
            check_source(cfg.model)
        options = cfg.depth, cfg.model, cfg.method, cfg.batch_size, device, fields, cfg.precision
        if cfg.run is None:
            run = encoder_run(local.passages, queries, *options, vectors=cfg.vectors, index=cfg.index)
        else:
            run = encoder_rerank(local.passages, queries, local.run, *options)
    write_whole(output, lambda aside: write_run(run, aside, tag=cfg.method), is_new=True)
    num_passages = sum(map(len, run.values()))
    log.info("%d queries, %.1f passages each: %s", len(run), num_passages / len(run), output)
    files = {"passages": cfg.passages, "queries": cfg.queries, "run": output}
    overrides = [*(as_override(key, value) for key, value in files.items()), *field_overrides(cfg)]
    log.info("next: %s", command_line("annotate", *overrides, "teacher.llm.base_url=...", "teacher.llm.model=..."))


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    encoder = f" {cfg.model}" if cfg.model else ""
    return f"retrieving the top {cfg.depth} of {cfg.passages} with {cfg.method}{encoder}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="retrieve", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Retrieve once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, retrieve)
