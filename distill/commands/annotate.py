"""Let a teacher rank the passages of a first-stage run: an LLM, by one of several methods, or cross-encoders.

    python -m distill annotate passages=P.tsv queries=Q.tsv run=F.run teacher.llm.base_url=URL teacher.llm.model=NAME
    python -m distill annotate ... llm@teacher.llm=local teacher.llm.model=DIR_OR_HUB_ID    an LLM on this machine
    python -m distill annotate ... llm@teacher.llm=cross-encoder teacher.llm.model=DIR      no LLM
    python -m distill annotate ... method=pointwise                                         each passage by itself
    python -m distill annotate -m shard=0/4,1/4,2/4,3/4 ...             lists divided among jobs: docs/clusters.md
    python -m distill annotate resume=outputs/annotate/DATE/TIME        resume a stopped annotation

Writes teacher.run (TREC), teacher.parquet, card.md and results.json to its output directory, and every answer at once
to journal.jsonl, from which it resumes. To train on the ranking:
`python train.py teacher=run teacher.path=OUT/teacher.run teacher.first_stage=F.run ...`
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.composition import ROOT
from distill.config.overrides import as_override, field_overrides
from distill.errors import InputError
from distill.jobs import command_line, open_run, run_job, shown_path
from distill.teachers.prompt import LETTERS

log = logging.getLogger("annotate")

WIDTH = 22  # of the names in what is printed
MOST_LETTERS = len(LETTERS)


def annotate(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Annotate as configured, and return what the ranking is worth, as far as that can be measured.

    Raises InputError for bad input, and if max_cost is reached.
    """
    # Imported here, so that --help and the first line of output do not wait for them
    from distill.config.local_files import with_local_files
    from distill.teachers.annotation import estimate_cost, rank_with_teacher, write_annotation
    from distill.teachers.journal import answered_before
    from distill.teachers.lists_to_rank import read_lists_to_rank

    with open_run(cfg, directory):
        local = with_local_files(cfg, unused=("qrels", "reference") if cfg.shard is not None else ())
        lists = read_lists_to_rank(cfg, local)
        estimate = estimate_cost(cfg, lists)
        if cfg.dry_run:
            print(estimate + answered_before(directory))
            return {}
        log.info("estimate: %s", estimate)
        ranking = rank_with_teacher(cfg, directory, lists)
        worth = write_annotation(directory, cfg, local, lists, ranking)
        for name, text in worth.describe():
            print(f"{name:{WIDTH}}  {text}")
        log.info("teacher's ranking: %s", shown_path(directory / "teacher.run"))
        if cfg.shard is not None:
            log.info("next, with all shards: %s", command_line("join", "shards=[DIR,DIR]", "output=NEW"))
            return worth.results()
        log.info("look at its lists: %s", command_line("inspect", as_override("run", shown_path(directory))))
        log.info("next: %s", training_command(cfg, directory))
        return worth.results()


def training_command(cfg: DictConfig, directory: Path) -> str:
    """Return the command that trains a student on the annotation."""
    files = {
        "data.passages": cfg.passages,
        "data.queries": cfg.queries,
        "teacher.path": shown_path(directory / "teacher.run"),
        "teacher.first_stage": cfg.run,
    }
    overrides = [*(as_override(key, value) for key, value in files.items()), *field_overrides(cfg, "data.")]
    return command_line("train", "experiment=own-corpus", *overrides)


def check(cfg: DictConfig) -> None:
    """Check the configuration, before any of it is written; raises InputError."""
    from distill.teachers.endpoint_key import check_llm

    check_llm(cfg)
    if cfg.method == "first-token" and cfg.window > MOST_LETTERS:
        raise InputError(
            f"window={cfg.window} with method=first-token: passages have {MOST_LETTERS} letters at most: lower it"
        )
    _check_sorting(cfg)
    for key, what in (("shuffles", "to shuffle"), ("passes", "to pass over again")):
        if cfg[key] > 1 and cfg.method not in ("listwise", "first-token"):
            raise InputError(f"{key}={cfg[key]} with method={cfg.method}: it has no windows {what}: set it to 1")


def _check_sorting(cfg: DictConfig) -> None:
    """Check the keys of setwise and pairwise; raises InputError."""
    if cfg.by_logprobs and cfg.method not in ("setwise", "pairwise"):
        raise InputError(f"by_logprobs=true with method={cfg.method}: it is for setwise and pairwise: set it to false")
    if cfg.method == "setwise" and cfg.set_size > MOST_LETTERS:
        raise InputError(f"set_size={cfg.set_size}: passages have {MOST_LETTERS} letters at most: lower it")
    if cfg.method == "setwise" and cfg.sort != "heap":
        raise InputError(f"sort={cfg.sort} with method=setwise: it sorts by heap: set it to heap, or method=pairwise")


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"annotating the top {cfg.depth} of {cfg.run} with {cfg.teacher.llm.model}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="annotate", version_base="1.3")
def run(cfg: DictConfig) -> float | None:
    """Annotate once; bad input ends with a one-line message and exit status 2."""
    return run_job(cfg, describe, check, annotate)
