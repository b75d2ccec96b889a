"""Write a trained model in another library's format, with the same scores, and upload it if asked.

    python -m distill export model=DIR output=OUT format=onnx                   one graph; onnx-int8: for CPUs
    python -m distill export model=DIR output=OUT format=lightning-ir
    python -m distill export model=DIR output=OUT format=bert                   an ELECTRA, for more servers
    python -m distill export model=DIR output=OUT format=sentence-transformers dtype=float16        half the size
    python -m distill export model=DIR output=OUT format=sentence-transformers hub=OWNER/NAME       uploaded, too

The model's card is copied too, with its usage code changed to match the format.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values, refuse_unused
from distill.config.composition import ROOT
from distill.jobs import run_command, shown_path

log = logging.getLogger("export")


def export(cfg: DictConfig) -> None:
    """Export as configured; raises InputError for bad input."""
    # Imported here, so that --help and the first line of output do not wait for torch
    from distill.export.formats import export as write_export
    from distill.export.hub import push_to_hub
    from distill.export.model_card import exported_card
    from distill.export.rounding import PAIRS, rounding_change
    from distill.export.use import has_prompt
    from distill.models.cross_encoder import CrossEncoder

    if not cfg.format.startswith("onnx"):
        refuse_unused(["opset"], f"is of an ONNX graph, not of format={cfg.format}")
    if cfg.hub is None:
        refuse_unused(["private"], "is of a repository that an upload creates, which needs hub")
    directory = Path(cfg.output).absolute()
    lists = list(PAIRS.items()) if cfg.run is None else read_pairs(cfg)
    model = CrossEncoder.from_pretrained(cfg.model, base=cfg.base)
    prompted = has_prompt(model)
    card = exported_card(Path(cfg.model), cfg.format, cfg.hub, cfg.dtype, in_prompt=prompted, opset=cfg.opset)
    write_export(model, directory, cfg.format, card, cfg.dtype, cfg.opset)
    log.info("%s: %s", cfg.format, cfg.output)
    if cfg.dtype != "float32" or cfg.format == "onnx-int8":
        what = "onnx-int8" if cfg.format == "onnx-int8" else cfg.dtype
        log.info("%s: %s", what, rounding_change(model, directory, lists))
    if cfg.hub is not None:
        log.info("uploaded: %s", push_to_hub(directory, cfg.hub, private=cfg.private))
    log.info("next: load it as in %s", "docs/models.md" if card is None else shown_path(directory / "README.md"))


def read_pairs(cfg: DictConfig) -> list[tuple[str, list[str]]]:
    """Return the queries of a run with their passages; raises InputError for bad files, before anything is written."""
    from distill.config.local_files import with_local_files
    from distill.sources.runs import stored_run
    from distill.sources.texts import check_passages, known_queries, read_passages, read_queries

    local = with_local_files(cfg)
    run, queries = stored_run(local.run), read_queries(local.queries)
    known = known_queries(run, cfg.run, queries, cfg.queries)
    run = {query_id: run[query_id] for query_id in known}
    passages = read_passages(local.passages, {doc_id for ranked in run.values() for doc_id in ranked.doc_ids})
    check_passages(run, cfg.run, passages, cfg.passages)
    return [(queries[query_id], [passages[doc_id] for doc_id in ranked.doc_ids]) for query_id, ranked in run.items()]


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"exporting {cfg.model} as {cfg.format}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="export", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Export once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, export)
