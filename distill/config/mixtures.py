"""The rules of a mixture of losses: its parts, their weights, and the teachers that they learn from.

check_mixture(cfg)          # raises InputError: one line with key, value, rule and remedy
"""

import math
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill.config.losses import LOSS_SCHEMAS
from distill.errors import InputError
from distill.targets import split_target, targets_of

SINGLE = {name: schema for name, schema in LOSS_SCHEMAS.items() if name != "mixture"}


def check_mixture(cfg: DictConfig) -> None:
    """Check the parts of a mixture, if the loss is one, and that each of `teachers` is used; raises InputError."""
    if "parts" in cfg.loss:
        _check_parts(cfg.loss)
        for name in cfg.loss.weights:
            _check_weight(cfg.loss.weights[name], f"loss.weights.{name}")
        if not any(_largest(weight) > 0 for weight in cfg.loss.weights.values()):
            raise InputError("loss.weights are all 0, so nothing would be learned: raise one of them")
        _check_teachers(cfg)
    unused = sorted(cfg.teachers.keys() - {split_target(target)[0] for target in targets_of(cfg.loss)})
    if unused:
        remedy = (
            f"name the part that does, as in +loss.teachers.{next(iter(cfg.loss.parts))}={unused[0]}"
            if "parts" in cfg.loss
            else "only a mixture of losses has several: see conf/loss/mixture.yaml"
        )
        raise InputError(f"teachers.{unused[0]}: loss={cfg.loss.name} does not learn from this teacher: {remedy}")


def _check_parts(loss: DictConfig) -> None:
    """Check that there are parts, that each is a loss with a weight, and that no other part is spoken of."""
    if not loss.parts:
        raise InputError("loss.parts is empty: name the losses to add up, as in +loss@loss.parts.lce=lce")
    for name in loss.parts:
        if not _is_loss(loss.parts[name]):
            raise InputError(
                f"loss.parts.{name}: must be a loss with all of its keys: choose one with "
                f"+loss@loss.parts.{name}=LOSS, which is one of {', '.join(SINGLE)}"
            )
        if name not in loss.weights:
            raise InputError(f"loss.weights.{name} is missing: give the part a weight, as in +loss.weights.{name}=1")
    for key in ("weights", "teachers"):
        for name in loss[key]:
            if name not in loss.parts:
                known = ", ".join(loss.parts)
                raise InputError(f"loss.{key}.{name}: no part of the loss has this name: the parts are {known}")


def _is_loss(part: Any) -> bool:
    if not OmegaConf.is_dict(part) or part.get("name") not in SINGLE:
        return False
    known = {field.name for field in fields(SINGLE[part.name])}
    return {"name", "target", "reduction"} <= set(part) <= known


def _check_weight(weight: Any, key: str) -> None:
    values = list(weight) if OmegaConf.is_list(weight) else [weight]
    numbers = all(type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in values)
    if not numbers or (OmegaConf.is_list(weight) and len(values) != 2):
        raise InputError(
            f"{key}={weight}: must be a number from 0 on, or two of them, as in [1.0,0.1]: the weight at the first "
            "step and at the last"
        )


def _largest(weight: Any) -> float:
    return max(weight) if OmegaConf.is_list(weight) else weight


def _check_teachers(cfg: DictConfig) -> None:
    """Check that the teachers of the parts exist, and that they have lists that can be joined."""
    for part, name in cfg.loss.teachers.items():
        if name not in cfg.teachers:
            known = f"the teachers are {', '.join(cfg.teachers)}" if cfg.teachers else "there are none beside `teacher`"
            raise InputError(
                f"loss.teachers.{part}={name}: no such teacher: {known}: add it with +teacher@teachers.{name}=run"
            )
        if cfg.teachers[name].format == "triples":
            raise InputError(
                f"teachers.{name}.format=triples: only the main teacher can give triples, since they are lists: make "
                "it `teacher`"
            )
