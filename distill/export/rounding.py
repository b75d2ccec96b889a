"""Round the weights of a saved model to 16 bits, which halves its files, and measure what that does to its scores.

    round_weights(directory, "float16")             # its safetensors files, in place
    print(rounding_change(model, directory))        # of the scores of a few lists, or of yours

config.json still says float32, so every library computes with the rounded weights in float32: on a CPU, 16 bits would
be slower, and each operation would round again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.errors import InputError
from distill.models.carried import head_layers
from distill.models.cross_encoder import CrossEncoder
from distill.models.json_files import read_object
from distill.progress import Progress

PAIRS = {  # what the change is measured on: a few answers, and texts near them
    "how do bees find home": [
        "Bees steer by the sun, and learn the landmarks around their hive.",
        "A bee hive holds up to sixty thousand bees in summer.",
        "Trains follow rails.",
    ],
    "is the dead sea below sea level": [
        "The Dead Sea is a salt lake. Its surface is more than 430 metres below sea level, the lowest shore on land.",
        "Sea level is measured as the mean height of the sea between the tides.",
        "The Caspian Sea is the largest inland body of water.",
    ],
}


def round_weights(directory: Path, dtype: str, head: Sequence[str] = ()) -> None:
    """Rewrite the floating-point weights of the safetensors files in a directory in another type.

    The head, also that in its folders for sentence-transformers, is left in float32: a classifier's, which carries the
    linear layer (distill/models/carried.py), is made of very small and very large numbers, and the two must stay equal.
    head: the names of more layers that are one. Raises InputError for a weight that is too large for the type.
    """
    layers = {*head_layers(read_object(directory / "config.json")), *head}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        rounded = {
            name: weight if name.rpartition(".")[0] in layers else _rounded(name, weight, dtype)
            for name, weight in weights.items()
        }
        save_file(rounded, file, metadata)


def _rounded(name: str, weight: Tensor, dtype: str) -> Tensor:
    if not weight.is_floating_point():
        return weight
    rounded = weight.to(getattr(torch, dtype))
    if weight.isfinite().all() and not rounded.isfinite().all():
        largest, fits = weight.abs().max().item(), torch.finfo(rounded.dtype).max
        raise InputError(
            f"dtype={dtype}: the weight {name} holds {largest:g}, and the largest {dtype} is {fits:g}: use bfloat16 or "
            "float32"
        )
    return rounded


@dataclass
class RoundingChange:
    """What rounding the weights does to the scores of some lists."""

    pairs: int
    largest: float  # change of a score
    spread: float  # standard deviation of the scores before
    lists: int
    reordered: int  # lists whose order changes
    new_first: int  # lists with another passage in the first place

    def __str__(self) -> str:
        """Return it in words."""
        text = f"scores of {self.pairs} pairs change by up to {self.largest:.1e}; their deviation is {self.spread:.1e}"
        return (
            f"{text}; of {self.lists} lists, {self.reordered} change their order, {self.new_first} their first passage"
        )


def rounding_change(
    model: CrossEncoder, directory: Path, lists: Sequence[tuple[str, list[str]]] = tuple(PAIRS.items())
) -> RoundingChange:
    """Return how the scores of lists differ between a model and its rounded copy, both computed in float32.

    lists: queries with their passages.
    """
    rounded = CrossEncoder.from_pretrained(str(directory))
    rounded.query_length, rounded.passage_length = model.query_length, model.passage_length  # cut alike
    rounded.template = model.template
    scores, changes, reordered, new_first = [], [], 0, 0
    for query, passages in Progress(lists, desc="comparing scores", unit="list", shown=len(lists) > len(PAIRS)):
        (order, before), (new_order, after) = (one.rank(query, passages) for one in (model, rounded))
        scores += before
        after_of = dict(zip(new_order, after, strict=True))
        changes += [abs(after_of[place] - score) for place, score in zip(order, before, strict=True)]
        reordered += order != new_order
        new_first += order[0] != new_order[0]
    return RoundingChange(
        len(scores), max(changes), stdev(scores) if len(scores) > 1 else 0.0, len(lists), reordered, new_first
    )
