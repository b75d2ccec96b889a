"""Fuse runs of the same queries into one.

    python -m distill fuse runs=[A.run,B.run] output=F.run                           reciprocal rank fusion
    python -m distill fuse runs=[A.run,B.run] output=F.run method=z-score weights=[0.3,0.7]
    python -m distill fuse runs=[A.run,B.run] output=F.run method=z-score qrels=Q      weights fitted on judged queries

Writes a TREC run, completely or not at all.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values, refuse_unused
from distill.config.composition import ROOT
from distill.config.overrides import as_override
from distill.jobs import check_output, command_line, run_command

log = logging.getLogger("fuse")


def fuse_files(cfg: DictConfig) -> None:
    """Fuse as configured; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration do not wait for them
    from distill.config.measures import parse_measures
    from distill.evaluation.articles import article_run, is_of_passages
    from distill.evaluation.fusion_weights import fit_weights
    from distill.retrieval.fusion import DEFAULT_K, fuse, warn_of_lacking
    from distill.sources.qrels import read_qrels
    from distill.sources.run_files import write_run
    from distill.sources.runs import read_run
    from distill.storage.writing import write_whole

    if cfg.qrels is None:
        refuse_unused(["measure"], "is what weights are fitted for, which needs qrels")
    if cfg.method != "rrf":
        refuse_unused(["k"], f"is of method=rrf, not of {cfg.method}")
    output = Path(cfg.output)
    check_output(output, *cfg.runs)
    parse_measures([cfg.measure])
    runs = [read_run(name) for name in cfg.runs]
    if cfg.max_passage:
        runs = [
            article_run(run, name) if is_of_passages(run) else run for name, run in zip(cfg.runs, runs, strict=True)
        ]
    weights = None if cfg.weights is None else list(cfg.weights)
    if cfg.qrels is not None:
        weights = fit_weights(runs, read_qrels(cfg.qrels), cfg.measure, cfg.method, cfg.k, cfg.run_depth)
    fused = fuse(runs, cfg.method, weights, cfg.k, cfg.run_depth, cfg.depth)
    warn_of_lacking(list(cfg.runs), runs, fused)
    write_whole(output, lambda aside: write_run(fused, aside, tag=cfg.method), is_new=True)
    log.info("%d queries, %.1f passages each: %s", len(fused), sum(map(len, fused.values())) / len(fused), output)
    if cfg.qrels is not None and weights is not None:
        shares = ",".join(f"{weight:g}" for weight in weights)
        others = ["runs=...", "output=...", f"method={cfg.method}", f"weights=[{shares}]"]
        others += [f"k={cfg.k:g}"] if cfg.method == "rrf" and cfg.k != DEFAULT_K else []
        others += [f"{key}={cfg[key]}" for key in ("run_depth", "depth") if cfg[key] is not None]
        others += ["max_passage=true"] if cfg.max_passage else []
        log.info("on other queries of the same rankers: %s", command_line("fuse", *others))
    measured = ("model=null", "task=files", as_override("task.run", output), "task.qrels=...")
    log.info("next: %s", command_line("evaluate", *measured))


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"fusing {', '.join(cfg.runs)} with {cfg.method}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="fuse", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Fuse once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, fuse_files)
