"""Show what the journals of LLMs' answers hold, and what the answers cost.

    python -m distill journals                                          those in the cache
    python -m distill journals journal=FILE price_in=0.5 price_out=1.5   one file, with the cost at these prices

An annotation shares them with later ones: the same call with more queries pays for the new ones only. Any of them can
be deleted at any time; its answers are then paid for again.
"""

import logging

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import ROOT, is_sweep
from distill.errors import exit_on_bad_input

log = logging.getLogger("journals")


def show(cfg: DictConfig) -> None:
    """Print a table of the journals as configured; raises InputError for a file that cannot be read."""
    from distill.teachers.shared_journal import journals, summarise  # here: --help does not wait for it

    paths = journals(cfg.journal)
    if not paths:
        log.info("the cache holds no journal: annotate makes one for each model, address and prompt of an endpoint")
        return
    rows = [summarise(path) for path in paths]
    print(f"{'answers':>9} {'tokens in':>13} {'tokens out':>13} {'cost':>10}  {'last used':16}  journal")
    for path, row in zip(paths, rows, strict=True):
        cost = (row.tokens_in * cfg.price_in + row.tokens_out * cfg.price_out) / 1e6
        counts = f"{row.answers:9,} {row.tokens_in:13,} {row.tokens_out:13,} {cost:10.2f}"
        print(f"{counts}  {row.changed:%Y-%m-%d %H:%M}  {path}")
    for path, row in zip(paths, rows, strict=True):
        if row.num_bad:
            log.warning("%s: %d lines are no journal entries", path, row.num_bad)


@hydra.main(config_path=str(ROOT / "conf"), config_name="journals", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Show them once; bad input ends with a one-line message and exit status 2."""
    with exit_on_bad_input(sweep=is_sweep()):
        check_values(cfg)
        show(cfg)
