"""Write a trained model in another library's format, with the same scores, and upload it.

    distill export model=outputs/DATE/TIME/model format=onnx output=DIR              one graph; onnx-int8: for CPUs
    distill export model=outputs/DATE/TIME/model format=lightning-ir output=DIR
    distill export model=outputs/DATE/TIME/model format=transformers output=DIR      ELECTRA, DeBERTa, DistilBERT
    distill export model=outputs/DATE/TIME/model format=sentence-transformers output=DIR hub=OWNER/NAME

The model's card goes along; its section on use is the format's.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_export
from distill.config.composition import ROOT, register_schemas
from distill.jobs import run_command

log = logging.getLogger("export")


def export(cfg: DictConfig) -> None:
    """Export as configured; raises InputError for bad input."""
    # Imported here, so that --help and the first line of output need not wait for torch
    from distill.export.formats import export as write_export
    from distill.export.hub import push_to_hub
    from distill.export.model_card import exported_card
    from distill.models.cross_encoder import CrossEncoder

    directory = Path(cfg.output).absolute()
    card = exported_card(Path(cfg.model), cfg.format, cfg.hub)
    write_export(CrossEncoder.from_pretrained(cfg.model), directory, cfg.format, card)
    log.info("%s: %s", cfg.format, cfg.output)
    if cfg.hub is not None:
        log.info("uploaded: %s", push_to_hub(directory, cfg.hub, cfg.private))


def describe(cfg: DictConfig) -> str:
    """Return the first words that the user reads."""
    return f"exporting {cfg.model} as {cfg.format}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="export", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Export once; bad input is answered with one line and exit status 2."""
    run_command(cfg, describe, check_export, export)


def main() -> None:
    """Run the command with the arguments of the command line."""
    register_schemas()
    run()
