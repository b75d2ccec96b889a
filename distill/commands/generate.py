"""Let an LLM write queries for sampled passages, and keep those that find their passage again.

    python -m distill generate passages=P.tsv num_queries=1000 teacher.llm.base_url=URL teacher.llm.model=NAME
    python -m distill generate passages=P.tsv num_queries=1000 logged=LOG.tsv ...   with queries from a log
    python -m distill generate passages=P.tsv num_queries=0 logged=LOG.tsv          only those: cleaned, without an LLM
    python -m distill generate resume=outputs/generate/DATE/TIME                    resume a stopped generation

Writes queries.tsv, origins.txt (the passage of each query, as judgments), rejected.tsv (the others, with the reason),
card.md and results.json to its output directory, and every answer at once to journal.jsonl, from which it resumes.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from distill.config.composition import ROOT
from distill.config.overrides import as_override, field_overrides
from distill.errors import InputError
from distill.jobs import command_line, open_run, run_job, shown_path

log = logging.getLogger("generate")

NO_MODEL = "none"  # teacher.llm.model where no query is written


def generate(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Generate as configured, and return how many queries there are, of each type and for each reason.

    Raises InputError for bad input, if max_cost is reached, and if no query is kept.
    """
    # Imported here, so that --help and the first line of output do not wait for them
    from distill.config.local_files import with_local_files
    from distill.queries import generation
    from distill.queries.files import write_queries, write_rejected
    from distill.queries.prompt import read_query_prompts
    from distill.teachers.journal import answered_before

    prompts = read_query_prompts([*cfg.types])
    with open_run(cfg, directory):
        corpus = generation.read_corpus(cfg, with_local_files(cfg))
        if cfg.num_queries:
            if not corpus.sampled.texts:
                raise InputError(
                    f"{cfg.passages}: none of {corpus.sampled.num_passages} passages has {cfg.min_words} words: lower "
                    "min_words"
                )
            estimate = generation.estimate(cfg, prompts, corpus)
            if cfg.dry_run:
                print(estimate + answered_before(directory))
                return {}
            log_sample(cfg, corpus.sampled)
            log.info("estimate: %s", estimate)
        generated = generation.generate(cfg, directory, prompts, corpus)
        if not generated.kept() and not corpus.logged.queries:
            write_rejected(directory, generated)
            raise InputError(
                f"none of {len(generated.candidates)} queries is kept: {shown_path(directory / 'rejected.tsv')} has "
                "the reasons"
            )
        results = write_queries(directory, cfg, corpus, generated, prompts)
        show(cfg, results, [*prompts])
        queries = shown_path(directory / "queries.tsv")
        log.info("queries: %s", queries)
        files = [as_override("passages", cfg.passages), as_override("queries", queries)]
        files += field_overrides(cfg, kinds=[""])  # the queries are in a file of our own
        log.info("next: %s", command_line("retrieve", *files, "output=first.run"))
        return results


def log_sample(cfg: DictConfig, sampled) -> None:
    """Log how many passages are sampled, and which were left out."""
    log.info("%s: %d of %d passages are sampled", cfg.passages, len(sampled.texts), sampled.num_passages)
    for what, doc_ids in (
        (f"have fewer than {cfg.min_words} words", sampled.too_short),
        ("are near to another one", sampled.near),
    ):
        if doc_ids:
            log.info("%s: %d passages %s: left out (first: %s)", cfg.passages, len(doc_ids), what, doc_ids[0])


def show(cfg: DictConfig, results: dict[str, float], kinds: list[str]) -> None:
    """Print what was kept and rejected of each type, and warn if queries are missing."""
    for kind in kinds if cfg.num_queries else ():
        prefix = f"rejected/{kind}/"
        reasons = {key.removeprefix(prefix): number for key, number in results.items() if key.startswith(prefix)}
        shown = [f"{number:.0f} {name}" for name, number in sorted(reasons.items(), key=lambda one: -one[1])]
        kept = f"{kind:10}  {results[f'kept/{kind}']:.0f} of {results[f'asked/{kind}']:.0f} kept"
        print(kept + (f"; rejected: {', '.join(shown)}" if shown else ""))
    if results["generated"] < cfg.num_queries:
        log.warning(
            "only %d of %d queries are kept: rejected.tsv has the reasons: raise max_passages, add passages, or choose "
            "another model or prompt",
            *(results["generated"], cfg.num_queries),
        )


def check(cfg: DictConfig) -> None:
    """Check the configuration, before any of it is written; raises InputError."""
    from distill.teachers.endpoint_key import check_llm

    if cfg.num_queries == 0 and OmegaConf.is_missing(cfg.teacher.llm, "model"):
        cfg.teacher.llm.model = NO_MODEL
    check_llm(cfg)
    if cfg.teacher.llm.engine == "cross-encoder":
        raise InputError("llm@teacher.llm=cross-encoder: it writes no queries: choose http or local")
    if cfg.num_queries == 0 and cfg.logged is None:
        raise InputError("num_queries=0 without logged: there is nothing to do: give one of them")


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    if cfg.num_queries == 0:
        return f"taking queries of {cfg.logged}"
    return f"generating {cfg.num_queries} queries for {cfg.passages} with {cfg.teacher.llm.model}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="generate", version_base="1.3")
def run(cfg: DictConfig) -> float | None:
    """Generate once; bad input ends with a one-line message and exit status 2."""
    return run_job(cfg, describe, check, generate)
