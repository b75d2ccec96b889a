"""The keys of every loss, with the type and the rules of each: one dataclass a loss, beside conf/loss/NAME.yaml.

LOSS_SCHEMAS lists them by option. Every key but `name`, `target`, `guided` and `reduction` is an argument of the
function, which distill/losses/__init__.py lists under the same name. The functions need torch, which `--help` does not
wait for.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig

from distill.config.rules import above, at_least, beside, choice, only
from distill.targets import parts_of

GAIN_OF_RANKS = "a rank gives the gain n - rank, and 2 to its power would leave only the first passage"


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
    guided: bool = MISSING
    label_smoothing: float = at_least(0, below=1)
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
    label_smoothing: float = at_least(0, below=1)
    reduction: str = choice("mean", "sum")


@dataclass
class Hinge:
    name: str = choice("hinge")
    target: str = choice("label")
    margin: float = above(0)
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class Mse:
    name: str = choice("mse")
    target: str = choice("score")
    normalise: str = choice("none", "z-score")
    reduction: str = choice("mean", "sum")


@dataclass
class Kl:
    name: str = choice("kl")
    target: str = choice("score")
    temperature: float = above(0)
    reduction: str = choice("mean", "sum")


@dataclass
class ListNet:
    name: str = choice("listnet")
    target: str = choice("score", "label")
    reduction: str = choice("mean", "sum")


@dataclass
class ListMle:
    name: str = choice("listmle")
    target: str = choice("rank", "label")
    reduction: str = choice("mean", "sum")


@dataclass
class PositionAwareListMle:
    name: str = choice("plistmle")
    target: str = choice("rank", "label")
    reduction: str = choice("mean", "sum")


@dataclass
class Lambda:
    name: str = choice("lambda")
    target: str = choice("label", "rank")
    weighting: str = choice("ndcg-loss2++", "ndcg-loss2", "lambdarank")
    mu: float = at_least(0.0)
    cutoff: int | None = at_least(1, default=None)
    gain: str = beside(choice("exponential", "linear"), only("linear", "target", ("rank",), GAIN_OF_RANKS))
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class ApproxNdcg:
    name: str = choice("approxndcg")
    target: str = choice("label", "rank")
    alpha: float = above(0)
    gain: str = beside(choice("exponential", "linear"), only("linear", "target", ("rank",), GAIN_OF_RANKS))
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class BradleyTerry:
    name: str = choice("bradleyterry")
    target: str = choice("score")
    temperature: float = above(0)
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class Mixture:
    name: str = MISSING
    parts: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    teachers: dict[str, str] = field(default_factory=dict)


LOSS_SCHEMAS: dict[str, type] = {  # by option of conf/loss/
    "ranknet": RankNet,
    "adrmse": AdrMse,
    "lce": Lce,
    "marginmse": MarginMse,
    "bce": Bce,
    "hinge": Hinge,
    "mse": Mse,
    "kl": Kl,
    "listnet": ListNet,
    "listmle": ListMle,
    "plistmle": PositionAwareListMle,
    "lambda": Lambda,
    "approxndcg": ApproxNdcg,
    "bradleyterry": BradleyTerry,
    "mixture": Mixture,
}


def implementation_of(loss: DictConfig) -> str | None:
    """Return the chosen implementation of a loss, "triton" if any part has it; None if there is only the definition."""
    chosen = [part.implementation for part in parts_of(loss).values() if "implementation" in part]
    return "triton" if "triton" in chosen else next(iter(chosen), None)
