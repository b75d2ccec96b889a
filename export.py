"""Write a trained model in another library's format, with the same scores.

    python export.py model=outputs/DATE/TIME/model format=lightning-ir output=DIR
    python export.py model=outputs/DATE/TIME/model format=transformers output=DIR      ELECTRA, DeBERTa, DistilBERT

sentence-transformers opens `model` directories as they are.
"""

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distill.config import check_export, register_schemas
from distill.errors import exit_on_bad_input

log = logging.getLogger("export")


@hydra.main(config_path="conf", config_name="export", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Export once; bad input is answered with one line and exit status 2."""
    with exit_on_bad_input(sweep=HydraConfig.get().mode == RunMode.MULTIRUN):
        check_export(cfg)
        from distill.exporting import export
        from distill.model import CrossEncoder

        export(CrossEncoder.from_pretrained(cfg.model), Path(cfg.output).absolute(), cfg.format)
        log.info("%s: %s", cfg.format, cfg.output)


if __name__ == "__main__":
    register_schemas()
    main()
