"""One teacher of several: `teacher.path=[A.run,B.run]` is the fusion of these runs.

    local = with_fused_teacher(with_local_files(cfg))       # local.teacher.path is now one run, in the cache

The fusion is the file that the command fuse writes, so that training on it is the same as fusing first. It is kept in
the cache, under the state of its runs and how they are fused.
"""

import copy
import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distill.retrieval.fusion import fuse, warn_of_lacking
from distill.sources.literals import as_literal
from distill.sources.locate import source_state
from distill.sources.run_files import write_run
from distill.sources.runs import read_run
from distill.storage.cache import entry, key_of, make_once
from distill.targets import teacher_keys

log = logging.getLogger(__name__)

FILE = "fused.run"
FORMAT = 2  # of the file: ties share their rank


def with_fused_teacher(cfg: DictConfig) -> DictConfig:
    """Return a configuration whose teachers have one run each: where one has several, a copy with that of their fusion.

    Raises InputError for runs that cannot be fused.
    """
    fused = cfg
    for key in teacher_keys(cfg):
        teacher = OmegaConf.select(cfg, key)
        if OmegaConf.is_list(teacher.path):
            fused = copy.deepcopy(cfg) if fused is cfg else fused
            OmegaConf.select(fused, key).path = as_literal(str(_fusion(teacher, key)))
    return fused


def _fusion(teacher: DictConfig, key: str) -> Path:
    """Return the path of the fusion of a teacher's runs, which is made where it is not in the cache."""
    names, fusion = teacher.path, teacher.fusion
    options = {"method": fusion.method, "weights": fusion.weights, "k": fusion.k, "run_depth": fusion.run_depth}
    if fusion.weights is not None:
        options["weights"] = [float(weight) for weight in fusion.weights]

    def write(aside: Path) -> None:
        runs = [read_run(name) for name in names]
        fused = fuse(runs, **options)
        warn_of_lacking(list(names), runs, fused)
        write_run(fused, aside / FILE, tag=fusion.method)

    state = key_of(format=FORMAT, sources=[source_state(name) for name in names], **options)
    path = make_once(entry("fused", teacher.name, state), write) / FILE
    log.info("%s: %s of %s, in %s", key, fusion.method, ", ".join(names), path)
    return path
