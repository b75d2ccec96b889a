"""Several data sets in one training: `data` with `teacher`, which is called main, and those of `datasets`.

for name, own in data_sets(cfg).items(): ...        # own.data, own.teacher
check_datasets(cfg)                                 # raises InputError
"""

import copy
import math

from omegaconf import DictConfig, OmegaConf

from distill.errors import InputError
from distill.targets import MAIN

ADD = "add one with +data@datasets.NAME=files +teacher@datasets.NAME.teacher=run"


def data_sets(cfg: DictConfig) -> dict[str, DictConfig]:
    """Return a configuration for each data set, the main one first: cfg with `data` and `teacher` of its own."""
    if not cfg.datasets:
        return {MAIN: cfg}
    sets = {}
    for name in [MAIN, *cfg.datasets]:
        own = copy.deepcopy(cfg)
        if name != MAIN:
            own.data, own.teacher = cfg.datasets[name].data, cfg.datasets[name].teacher
        own.datasets = {}
        sets[name] = own
    return sets


def check_datasets(cfg: DictConfig) -> None:
    """Check that the data sets can be mixed, but not each of them; raises InputError."""
    weights = cfg.sampling.weights
    if not cfg.datasets:
        if weights:
            raise InputError(f"sampling.weights={weights} is about several data sets, but there is only one: {ADD}")
        return
    if MAIN in cfg.datasets:
        raise InputError(f"datasets.{MAIN}: this is the name of the data set that `data` reads: choose another name")
    if cfg.teachers:
        raise InputError(
            f"teachers.{next(iter(cfg.teachers))}: with several data sets each has only its own teacher: leave out "
            "`teachers`, or `datasets`"
        )
    for name, part in cfg.datasets.items():
        if OmegaConf.is_missing(part, "teacher"):
            raise InputError(
                f"datasets.{name}.teacher is missing: give one, as in +teacher@datasets.{name}.teacher=run"
            )
    names = [MAIN, *cfg.datasets]
    if weights and sorted(weights) != sorted(names):
        raise InputError(f"sampling.weights={weights}: must have one weight for each of {', '.join(names)}")
    for name, weight in weights.items():
        if not 0 < weight < math.inf:
            raise InputError(f"sampling.weights.{name}={weight}: must be a number above 0")
