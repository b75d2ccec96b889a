"""How many steps of how many lists a training takes, where its configuration leaves that to the number of lists.

    plan = plan_training(cfg.train, num_lists)          # Plan(num_lists=300, batch_size=8, num_steps=300)
    log.info(plan.describe()); warn_of_few_lists(num_lists)

With few lists, a fixed number of passes would be too few steps for a new layer to learn anything: 75 lists are 15 steps
in 3 passes of 16 lists. So steps are counted first, and smaller batches make more of them out of the same lists. The
warm-up follows, since it is a share of the steps.
"""

import logging
import math
from dataclasses import dataclass

from omegaconf import DictConfig

from distill.data.teacher_lists import ENOUGH

log = logging.getLogger(__name__)

BATCH_SIZES = ((1_000, 16), (200, 8), (0, 4))  # from so many lists on, so many lists a step
STEPS = 300  # updates that a new layer needs
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20  # passes over the lists; above, a student learns them by heart


@dataclass(frozen=True)
class Plan:
    """The length of a training."""

    num_lists: int
    batch_size: int
    num_steps: int

    def describe(self) -> str:
        """Return the plan in a line."""
        epochs = self.num_steps * self.batch_size / self.num_lists
        return f"{self.num_lists} lists: {self.num_steps} steps of {self.batch_size} lists, {epochs:.1f} passes"


def plan_training(cfg: DictConfig, num_lists: int) -> Plan:
    """Return the length of a training; cfg: `train`, whose values count wherever they are given."""
    batch_size = cfg.batch_size or next(size for least, size in BATCH_SIZES if num_lists >= least)
    if cfg.max_steps is not None:
        return Plan(num_lists, batch_size, cfg.max_steps)
    epochs = cfg.max_epochs
    if epochs is None:
        epochs = min(max(STEPS * batch_size / num_lists, FEWEST_EPOCHS), MOST_EPOCHS)
    return Plan(num_lists, batch_size, max(math.ceil(round(epochs * num_lists / batch_size, 6)), 1))


def warn_of_few_lists(num_lists: int) -> None:
    """Warn before a training on so few lists that it can hardly teach anything."""
    if num_lists < ENOUGH:
        log.warning(
            "%d lists are few to learn from: some %d are enough to begin with, and 10000 in the papers: have queries "
            "written for your passages, as in python -m distill generate passages=... num_queries=%d, or start from a "
            "re-ranker, as in backbone=googleq-minilm-3",
            *(num_lists, ENOUGH, 2 * ENOUGH),
        )
