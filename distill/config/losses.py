"""The keys of every loss, with the type and the rules of each: one dataclass a loss, beside conf/loss/NAME.yaml.

A dataclass of this file belongs to the option that its `name` allows. Every key but `name`, `target` and `reduction` is
an argument of the function, which distill/losses/__init__.py lists under that name.
"""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from distill.config.rules import above, choice


@dataclass
class RankNet:
    name: str = choice("ranknet")
    target: str = choice("rank")
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class AdrMse:
    name: str = choice("adrmse")
    target: str = choice("rank")
    alpha: float = above(0)
    discount: str = choice("log2", "none")
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class Lce:
    name: str = choice("lce")
    target: str = choice("label")
    reduction: str = choice("mean", "sum")


@dataclass
class MarginMse:
    name: str = choice("marginmse")
    target: str = choice("score")
    reduction: str = choice("mean", "sum")


@dataclass
class Bce:
    name: str = choice("bce")
    target: str = choice("label")
    reduction: str = choice("mean", "sum")


@dataclass
class Hinge:
    name: str = choice("hinge")
    target: str = choice("label")
    margin: float = above(0)
    reduction: str = choice("mean", "sum")


def loss_schemas() -> dict[str, type]:
    """Return the dataclasses of this file by the option that each belongs to."""
    schemas: list[Any] = [kind for kind in globals().values() if is_dataclass(kind)]
    return {fields(schema)[0].metadata["options"][0]: schema for schema in schemas}
