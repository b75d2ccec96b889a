"""Round the weights of a saved model to 16 bits, which halves its files, and measure what that does to its scores.

    round_weights(directory, "float16")             # its safetensors files, in place
    rounding_change(model, directory)               # largest change of a score, and the spread of the scores

config.json still says float32, so every library computes with the rounded weights in float32: on a CPU, 16 bits would
be slower, and each operation would round again.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.errors import InputError
from distill.models.carried import head_layers
from distill.models.cross_encoder import CrossEncoder
from distill.models.json_files import read_object

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


def round_weights(directory: Path, dtype: str) -> None:
    """Rewrite the floating-point weights of the safetensors files in a directory in another type.

    The head, also that in its folders for sentence-transformers, is left in float32: a classifier's, which carries the
    linear layer (distill/models/carried.py), is made of very small and very large numbers, and the two must stay equal.
    Raises InputError for a weight that is too large for the type.
    """
    layers = head_layers(read_object(directory / "config.json"))
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


def rounding_change(model: CrossEncoder, directory: Path) -> tuple[float, float]:
    """Return the largest change of a score of PAIRS from a model to a rounded copy, and the spread of the scores.

    The spread is the standard deviation of the model's own scores.
    """
    scores, rounded = _score_pairs(model), _score_pairs(CrossEncoder.from_pretrained(str(directory)))
    return (rounded - scores).abs().max().item(), scores.std().item()


def _score_pairs(model: CrossEncoder) -> Tensor:
    """Return the scores of PAIRS in float32."""
    return torch.tensor(
        [
            model.rank(query, [passage], precision=torch.float32)[1][0]
            for query, passages in PAIRS.items()
            for passage in passages
        ]
    )
