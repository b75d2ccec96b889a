"""Hold queries out of training, so that the student is judged on queries unlike those that it was trained on.

    python -m distill split queries=Q.tsv output=DIR                            a tenth of the queries
    python -m distill split queries=Q.tsv origins=origins.txt output=DIR        parted by the passages of their origin
    python -m distill split queries=Q.tsv origins=origins.txt passages=P.tsv output=DIR     near-equal passages as one

Near-duplicate queries stay on one side, and so do queries that were written for one passage or article. Writes
train.tsv, heldout.tsv and results.json to a new directory, completely or not at all.
"""

import json
import logging
import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values, refuse_unused
from distill.config.composition import ROOT
from distill.config.overrides import as_override
from distill.errors import InputError
from distill.jobs import command_line, run_command, shown_path

log = logging.getLogger("split")


def split(cfg: DictConfig) -> dict[str, int]:
    """Split as configured, and return the counts of results.json; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration do not wait for them
    from distill.config.local_files import with_local_files
    from distill.data.heldout import hold_out, number_of, together
    from distill.sources.fields import Fields
    from distill.sources.qrels import read_qrels
    from distill.sources.texts import read_queries
    from distill.storage.writing import write_text, write_whole_directory

    if cfg.passages is None:
        refuse_unused(["id_field", "text_fields"], "is of the passages, which are not given")
    output = Path(cfg.output).absolute()
    if output.exists():
        raise InputError(f"output={cfg.output}: already exists: choose another, or remove it")
    local = with_local_files(cfg)
    queries = read_queries(local.queries, Fields.of(cfg, "queries"))
    origins = None if local.origins is None or is_empty(local.origins) else read_qrels(local.origins)
    if origins is not None:
        log_without_origin(cfg, queries, origins)
    passages = None if local.passages is None else read_origins(cfg, local, queries, origins or {})
    groups = together(queries, cfg.similarity, origins, passages)
    number = number_of(len(queries), cfg.heldout, cfg.min_heldout)
    heldout = hold_out(groups, number, cfg.seed)
    sides = {
        "train": [query_id for query_id in queries if query_id not in heldout],
        "heldout": [query_id for query_id in queries if query_id in heldout],
    }
    counts = {"queries": len(queries)} | {name: len(query_ids) for name, query_ids in sides.items()}
    counts |= {"groups": len(groups), "largest_group": max(map(len, groups))}

    def write(directory: Path) -> None:
        for name, query_ids in sides.items():
            lines = (f"{query_id}\t{queries[query_id]}\n" for query_id in query_ids)
            write_text(directory / f"{name}.tsv", "".join(lines))
        write_text(directory / "results.json", json.dumps(counts, indent=2) + "\n")

    write_whole_directory(output, write, is_new=True)
    if 2 * len(heldout) < number:
        log.warning(
            "%d queries are held out, not %d, since those that belong together are many, up to %d: raise similarity, "
            "so that fewer count as near-duplicates",
            *(len(heldout), number, counts["largest_group"]),
        )
    print("\n".join(f"{name.replace('_', ' '):15}{count:8}" for name, count in counts.items()))
    files = [as_override("queries", shown_path(output / "train.tsv")), "output=..."]
    log.info("next: %s; the same with heldout.tsv", command_line("retrieve", "passages=...", *files))
    return counts


def is_empty(origins: str) -> bool:
    """Whether a file has no line, as `generate` leaves where all queries are logged ones."""
    return os.path.isfile(origins) and os.path.getsize(origins) == 0


def log_without_origin(cfg: DictConfig, queries: dict, origins: dict) -> None:
    """Say how many queries have no passage of origin; raises InputError where none has."""
    without = [query_id for query_id in queries if query_id not in origins]
    if len(without) == len(queries):
        raise InputError(
            f"{cfg.origins}: names the passage of none of the {len(queries)} queries of {cfg.queries}: use the file "
            "that belongs to these queries, or set origins=null"
        )
    if without:
        log.info(
            "%s: %d of %d queries have no passage of origin, such as logged ones: only near-duplicates stay together",
            *(cfg.origins, len(without), len(queries)),
        )


def read_origins(cfg: DictConfig, local: DictConfig, queries: dict, origins: dict) -> dict[str, str]:
    """Return the texts of the passages that the queries were written for; raises InputError for an unknown one."""
    from distill.sources.fields import Fields
    from distill.sources.texts import read_passages

    doc_ids = {doc_id for query_id in queries for doc_id in origins.get(query_id, {})}
    passages = read_passages(local.passages, doc_ids, Fields.of(cfg))
    lacking = sorted(doc_ids - passages.keys())
    if lacking:
        raise InputError(
            f"{cfg.origins}: passage {lacking[0]} is not in {cfg.passages}: use the collection that it names"
        )
    return passages


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"holding {cfg.heldout:.0%} of {cfg.queries} out of training"


def check(cfg: DictConfig) -> None:
    """Check the configuration; raises InputError with key, value, rule and remedy."""
    check_values(cfg)
    if cfg.passages is not None and cfg.origins is None:
        raise InputError(
            f"passages={cfg.passages} needs origins, the passages of the queries: give it, or leave it out"
        )


@hydra.main(config_path=str(ROOT / "conf"), config_name="split", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Split once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check, split)
