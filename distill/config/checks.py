"""The configuration: its schema, and the rules of its fields and between them.

The dataclasses give every key its type; `register_schemas` puts them first in the defaults lists of `conf/train.yaml`,
`conf/evaluate.yaml`, `conf/report.yaml` and `conf/dashboards.yaml`, so that a wrong key or type fails while the
configuration is composed. The rule of a single value stands beside its field (distill/config/rules.py): every number
and every choice has one. The values, with a comment beside each, stand in `conf/`. `check_train`, `check_evaluate` and
`check_report` hold the rules between fields. All of it runs before anything is loaded. This file imports neither torch
nor transformers: `--help` stays quick.
"""

import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.config.rules import check_rules
from distill.config.schema import (
    TaskPart,
)
from distill.config.suites import BM25_DEPTH, has_tasks, split_suite, task_depth
from distill.errors import InputError
from distill.sources.locate import is_path, is_remote


def check_train(cfg: DictConfig) -> None:
    """Check the rules between the fields of a training configuration.

    Raises InputError with key, value, rule and remedy.
    """
    _check_values(cfg)
    data, teacher, loss = cfg.data, cfg.teacher, cfg.loss
    if data.list_size is not None and data.num_negatives is not None:
        raise InputError(
            f"data.list_size={data.list_size} and data.num_negatives={data.num_negatives} both say how long a list is: "
            "set one of them to null"
        )
    if (cfg.train.max_steps is None) == (cfg.train.max_epochs is None):
        raise InputError("train.max_steps and train.max_epochs: give exactly one, and set the other to null")
    if cfg.train.patience is not None and cfg.train.patience < cfg.train.validate_every:
        raise InputError(
            f"train.patience={cfg.train.patience} is below train.validate_every={cfg.train.validate_every}: training "
            "would stop at the first validation: raise the one or lower the other"
        )
    for key in ("passages", "queries"):
        if data[key] is None:
            raise InputError(
                f"data.{key} is null: data={data.name} reads texts from teacher.texts, and teacher={teacher.name} has "
                "none: choose another teacher, or data=files"
            )
    _check_format(teacher, data)
    _check_target(loss.target, teacher)
    if loss.target == "label":
        if teacher.path is None and teacher.first_stage is None:
            raise InputError("teacher.first_stage is missing: labels need a run to draw the other passages from")
    elif data.num_negatives is not None:
        raise InputError(
            f"data.num_negatives={data.num_negatives} draws negatives by label, but loss={loss.name} learns from "
            f"teacher {loss.target}s: set data.num_negatives=null and cut lists by data.depth"
        )
    for name in ("data.passages", "data.queries", "teacher.path", "teacher.first_stage", "teacher.qrels"):
        _check_source(cfg, name)
    for name in ("validation", "task"):
        check_task(cfg[name], name)
        check_stride(cfg[name], name, cfg.model.passage_length)
    if not has_tasks(cfg.validation) and cfg.train.patience is not None:
        raise InputError(
            f"train.patience={cfg.train.patience} needs a validation: give validation.run, validation.queries and "
            "validation.qrels, or set train.patience=null"
        )
    if not has_tasks(cfg.task) and cfg.task.untrained:
        raise InputError("task.untrained=true needs task.run: give one, or set task.untrained=false")
    check_resume(cfg, "checkpoints/last.pt", "training")


def check_evaluate(cfg: DictConfig) -> None:
    """Check the rules between the fields of an evaluation; raises InputError like `check_train`."""
    _check_values(cfg)
    if not has_tasks(cfg.task):
        raise InputError("task.run is missing: give the run to score or re-rank, as in task.run=bm25.run")
    check_task(cfg.task, "task", texts=cfg.model is not None)
    check_resume(cfg, "config.yaml", "evaluation")


def check_retrieve(cfg: DictConfig) -> None:
    """Check the values of a retrieval's configuration; raises InputError like `check_train`."""
    _check_values(cfg)
    for key in ("passages", "queries"):
        _check_source(cfg, key, required=True)
    if cfg.method != "bm25" and cfg.model is None:
        raise InputError(f"model is missing: method={cfg.method} needs an encoder's directory or Hub id")


def check_export(cfg: DictConfig) -> None:
    """Check the values of an export; raises InputError like `check_train`."""
    _check_values(cfg)


def check_annotate(cfg: DictConfig) -> None:
    """Check the rules between the fields of an annotation; raises InputError like `check_train`."""
    _check_values(cfg)
    for key in ("passages", "queries", "run"):
        _check_source(cfg, key, required=True)
    for key in ("qrels", "reference"):
        _check_source(cfg, key)
    if cfg.stride > cfg.window:
        raise InputError(
            f"stride={cfg.stride} exceeds window={cfg.window}: the passages between two windows would never be seen"
        )
    llm = cfg.teacher.llm
    if llm.max_cost is not None and not (llm.price_in > 0 or llm.price_out > 0):
        raise InputError(f"teacher.llm.max_cost={llm.max_cost} needs teacher.llm.price_in and price_out")
    check_resume(cfg, "config.yaml", "annotation")


def check_report(cfg: DictConfig) -> None:
    """Check the values of a report's configuration; raises InputError like `check_train`."""
    _check_values(cfg)
    runs = [cfg.runs] if isinstance(cfg.runs, str) else cfg.runs
    if isinstance(runs, dict | DictConfig | int | float) or not all(isinstance(one, str) for one in runs):
        raise InputError(f"runs={cfg.runs}: expected a directory or a list of them, as in runs=[DIR1,DIR2]")


def check_resume(cfg: DictConfig, needs: str, noun: str) -> None:
    """Raise InputError where a directory is to be resumed that lacks the file which that needs."""
    if cfg.resume is not None and not os.path.isfile(Path(cfg.resume) / needs):  # False for an impossible name, too
        article = "an" if noun[0] in "ae" else "a"
        raise InputError(f"resume={cfg.resume}: no {needs} there: give the output directory of {article} {noun}")


def check_task(task: DictConfig, key: str, texts: bool = True) -> None:
    """Check that tasks have all that measuring needs, and re-ranking where texts are read; raises InputError."""
    for name, part in task.tasks.items():
        try:
            typed = OmegaConf.merge(TaskPart, part)
        except OmegaConfBaseException as error:
            raise InputError(f"{key}.tasks.{name}: {str(error).splitlines()[0]}: see conf/task/files.yaml") from None
        check_rules(typed, f"{key}.tasks.{name}.")
    for part in split_suite(task):
        prefix = f"{key}.tasks.{part.name}." if task.tasks else f"{key}."
        _check_measures(part, key, prefix, reranked=texts)
        if key == "validation" and part.measures != task.measures:
            raise InputError(f"{prefix}measures={part.measures}: a validation has one mean: set {key}.measures alone")
        needed = ("passages", "queries") if texts or part.run == "bm25" else ()
        for name in needed:
            _check_source(part, name, required=True, prefix=prefix)
        _check_source(part, "qrels", required=True, prefix=prefix)
        if part.run is None or not task.tasks:  # of a suite's runs, some may be missing
            _check_source(part, "run", required=True, prefix=prefix)
        _check_source(part, "teacher", prefix=prefix)


def check_stride(task: DictConfig, key: str, passage_length: int) -> None:
    """Check that windows leave nothing between them unread, once the length of one is known; raises InputError."""
    if task.window_stride is not None and task.window_stride > passage_length:
        raise InputError(
            f"{key}.window_stride={task.window_stride} exceeds the window, model.passage_length={passage_length}: the "
            "tokens between two windows would never be read: lower it, or set it to null for half a window"
        )


def _check_measures(task: DictConfig, key: str, prefix: str, reranked: bool) -> None:
    """Check the depth, the measures' names, and that none looks below a depth that nobody chose; raises InputError."""
    from distill.config.measures import parse_measures  # here: what has no task does without it

    depth = task.depth
    if not task.measures:
        raise InputError(f"{key}.measures is empty: name at least one measure, as in {key}.measures=[nDCG@10]")
    limit = task_depth(task, reranked) or (BM25_DEPTH if task.run == "bm25" else None)
    for measure in parse_measures(task.measures):
        if not isinstance(depth, int) and limit is not None and measure.params.get("cutoff", 0) > limit:
            raise InputError(
                f"measure {measure}: looks below the {limit} passages a query that {prefix}depth={depth} leaves: set "
                f"{prefix}depth={measure['cutoff']}, or choose a smaller cut-off"
            )


def _unknown_keys(node: Any, prefix: str = "") -> list[str]:
    """Keys that no schema has; Hydra lets `+key=value` add them, but nothing would read them."""
    schema = OmegaConf.get_type(node)
    known = {part.name for part in fields(schema)} if is_dataclass(schema) else set(node)
    unknown = [f"{prefix}{name}" for name in node if name not in known]
    parts = [name for name in node if not OmegaConf.is_missing(node, name) and OmegaConf.is_dict(node[name])]
    return unknown + [key for name in parts for key in _unknown_keys(node[name], f"{prefix}{name}.")]


def _check_values(cfg: DictConfig) -> None:
    unknown = _unknown_keys(cfg)
    if unknown:
        raise InputError(f"{unknown[0]} is no key of the configuration: see `--cfg job` for those there are")
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise InputError(f"{missing[0]} is missing: give it on the command line, as in {missing[0]}=VALUE")
    check_rules(cfg)


def _check_format(teacher: DictConfig, data: DictConfig) -> None:
    """Check what a teacher's file needs beside it, and what does not go with it; raises InputError."""
    if teacher.format != "run" and teacher.path is None:
        raise InputError(f"teacher.format={teacher.format} needs teacher.path")
    if teacher.format == "permutations" and teacher.first_stage is None:
        raise InputError("teacher.format=permutations needs teacher.first_stage, the lists that the answers permute")
    if teacher.format == "triples":
        for key in ("depth", "num_negatives", "list_size"):
            if data[key] is not None:
                raise InputError(f"data.{key}={data[key]}: teacher.format=triples has lists of two: set it to null")


def _check_target(target: str, teacher: DictConfig) -> None:
    gives = {
        "rank": (teacher.path is not None, "teacher.path, a run ranked by the teacher"),
        "score": (
            teacher.path is not None and teacher.scores,
            "teacher.path with teacher.scores=true, if the scores of that run mean more than its order",
        ),
        "label": (teacher.qrels is not None or teacher.format == "triples", "teacher.qrels"),
    }
    given, remedy = gives[target]
    if not given:
        able = ", ".join(name for name, (present, _) in gives.items() if present) or "nothing"
        raise InputError(
            f"the loss needs a {target} for every passage, but teacher={teacher.name} gives {able}: add {remedy}, or "
            "choose another loss"
        )


def _check_source(cfg: DictConfig, key: str, required: bool = False, prefix: str = "") -> None:
    """A value that looks like a path must be a file; anything else may be an `ir_datasets` id, looked up later."""
    value = OmegaConf.select(cfg, key)
    if value is None:
        if required:
            raise InputError(f"{prefix}{key} is missing: give a file or an ir_datasets id")
        return
    if is_remote(value):
        return
    # os.path answers False for a name that no file can have; Path.is_file raises OSError
    if not os.path.isfile(value) and (is_path(value) or os.path.isdir(value)):
        raise InputError(f"{prefix}{key}={value}: no such file: check the path (it is read from {Path.cwd()})")
