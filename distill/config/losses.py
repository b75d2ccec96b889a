"""The keys of every loss, with the type and the rules of each: one dataclass a loss, beside conf/loss/NAME.yaml.

LOSS_SCHEMAS lists them by option. Every key but `name`, `target` and `reduction` is an argument of the function, which
distill/losses/__init__.py lists under the same name. The functions need torch, which `--help` does not wait for.
"""

from dataclasses import dataclass

from omegaconf import DictConfig

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


LOSS_SCHEMAS: dict[str, type] = {  # by option of conf/loss/
    "ranknet": RankNet,
    "adrmse": AdrMse,
    "lce": Lce,
    "marginmse": MarginMse,
    "bce": Bce,
    "hinge": Hinge,
}


def implementation_of(loss: DictConfig) -> str | None:
    """Return the chosen implementation of a loss; None for a loss that has only the plain definition."""
    return loss.implementation if "implementation" in loss else None
