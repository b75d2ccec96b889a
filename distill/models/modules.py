"""Directories of sentence-transformers' modules: Transformer, Pooling, and then Dense and LayerNorm in any order.

    pooling, layers = read_head(path)              # of ours, and of cross-encoder/ettin-reranker-*-v1
    scores = layers.activation(...)

The last module is a Dense with one score. What is written is in distill/models/heads.py.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import InputError
from distill.models.heads import ACTIVATIONS, one_score
from distill.models.json_files import (
    CONFIG,
    COPY_AGAIN,
    DENSE,
    POOLING,
    SENTENCE_TRANSFORMERS,
    read_count,
    read_object,
)
from distill.models.model_files import read_modules
from distill.models.parts import check_shapes, fill, read_weights
from distill.models.saved import WITH_SCORE

TRANSFORMERS = ("Transformer", WITH_SCORE.rsplit(".", 1)[-1])
LAYERS = ("Dense", "LayerNorm")
STATE = "sentence_embedding"  # what sentence-transformers calls the pooled state


@dataclass
class Modules:
    """What follows the encoder in a directory of modules."""

    pooling: str  # "cls" or "mean"
    projection: nn.Module  # before the last layer
    weight: Tensor  # [1, D] of the last layer
    bias: Tensor  # [1]
    activation: nn.Module  # of the score
    widths: list[tuple[Path, int]] = field(default_factory=list)  # numbers that a part takes, to be the encoder's


def module_names(path: Path) -> list[str]:
    """Return the class names in modules.json, none if there is no such file."""
    return [module["type"].rsplit(".", 1)[-1] for module in read_modules(path)]


def is_cross_encoder(path: Path) -> bool:
    """Whether a directory's modules end in a layer with one score; those of an encoder of single texts do not."""
    modules = read_modules(path)
    names = module_names(path)
    if names[:1] not in ([name] for name in TRANSFORMERS) or names[1:2] != ["Pooling"] or names[-1] != "Dense":
        return False
    config = read_object(path / modules[-1]["path"] / "config.json", DENSE)
    return config.get("out_features") == 1 or config.get("module_output_name") == "scores"


def read_head(path: Path) -> Modules:
    """Read all modules but the encoder; raises InputError for modules that cannot be reproduced exactly."""
    modules, names = read_modules(path), module_names(path)
    if len(names) < 3 or not set(names[2:]) <= set(LAYERS) or names[-1] != "Dense":
        raise InputError(
            f"{path}: modules.json names {', '.join(names)}: expected Dense or LayerNorm after Pooling, a Dense last"
        )
    pooling_file = path / modules[1]["path"] / "config.json"
    pooled = read_object(pooling_file, POOLING)
    head = Modules(_pooling(path, pooled), nn.Identity(), torch.empty(0), torch.empty(0), nn.Identity())
    for key in ("embedding_dimension", "word_embedding_dimension"):  # the name in version 6, and in older versions
        width = read_count(pooled, key, pooling_file, optional=True)
        head.widths += [] if width is None else [(pooling_file, width)]
    layers: list[Any] = _read_layers(path, modules[2:], names[2:])
    activation, linear = layers.pop(), layers.pop()
    if linear.out_features != 1:
        raise InputError(f"{path}: its last layer returns {linear.out_features} scores: expected one")
    head.widths.append((path, _width(layers[0] if layers else linear)))
    of_model = activation_of_model(path)
    if not isinstance(activation, nn.Identity):
        if of_model is not None and not isinstance(of_model, nn.Identity):
            raise InputError(
                f"{path}: has an activation in its last Dense and one for the model: only one can be loaded"
            )
        of_model = activation
    head.weight, head.bias = one_score(path, linear)
    head.projection = nn.Sequential(*layers) if layers else nn.Identity()
    head.activation = of_model if of_model is not None else nn.Sigmoid()  # sentence-transformers' default
    return head


def check_widths(head: Modules, width: int) -> None:
    """Raise InputError if a part takes another number of states than the encoder has."""
    for file, wanted in head.widths:
        if wanted == width:
            continue
        if file.is_dir():
            raise InputError(f"{file}: a Dense takes {wanted} numbers, but gets {width}: {COPY_AGAIN}")
        raise InputError(f"{file}: embedding_dimension={wanted}, but the encoder's states have {width} numbers")


def _read_layers(path: Path, modules: list[dict[str, str]], names: list[str]) -> list[nn.Module]:
    """Return the layers of Dense, an activation after each, and of LayerNorm; checks that each reads the one before."""
    layers: list[nn.Module] = []
    width, carried = None, STATE
    layer: Any
    for module, name in zip(modules, names, strict=True):
        folder = path / module["path"]
        if name == "LayerNorm":
            layer, reads, gives = _open_norm(folder), STATE, STATE
            layers.append(layer)
        else:
            layer, activation, reads, gives = _open_dense(folder)
            layers += [layer, activation]
        if reads != carried:
            raise InputError(f"{folder}: reads {reads}, but the module before it gives {carried}: cannot be loaded")
        if width not in (None, _width(layer)):
            raise InputError(f"{path}: a {name} takes {_width(layer)} numbers, but gets {width}: {COPY_AGAIN}")
        width, carried = layer.out_features if isinstance(layer, nn.Linear) else width, gives
    return layers


def _width(layer) -> int:
    """Return how many numbers a linear layer or a normalisation takes."""
    return layer.normalized_shape[0] if isinstance(layer, nn.LayerNorm) else layer.in_features


def _pooling(path: Path, config: dict) -> str:
    mode = config.get("pooling_mode")
    if mode is None:  # before version 6, one key for each mode
        modes = [key.removeprefix("pooling_mode_") for key in config if key.startswith("pooling_mode_") and config[key]]
        mode = {"cls_token": "cls", "mean_tokens": "mean"}.get(modes[0]) if len(modes) == 1 else None
    if mode not in ("cls", "mean"):
        raise InputError(f"{path}: pools by {mode or 'several modes'}: only cls or mean can be loaded")
    return mode


def _open_dense(path: Path) -> tuple[nn.Linear, nn.Module, str, str]:
    """Return a Dense's layer and activation, and the names of what it reads and of what it gives."""
    config = read_object(path / "config.json", DENSE)
    if config.get("use_residual"):
        raise InputError(f"{path}: has a residual connection, which cannot be loaded")
    sizes: dict[str, Any] = {
        key: read_count(config, key, path / "config.json") for key in ("in_features", "out_features")
    }
    linear = _filled(lambda: nn.Linear(**sizes, bias=config.get("bias", True)), path, "linear.")
    reads = str(config.get("module_input_name") or STATE)
    gives = str(config.get("module_output_name") or reads)
    return linear, named_activation(path, str(config.get("activation_function", "Tanh"))), reads, gives


def _open_norm(path: Path) -> nn.LayerNorm:
    config = read_object(path / "config.json")
    dimension = read_count(config, "dimension", path / "config.json")
    return _filled(lambda: nn.LayerNorm(dimension), path, "norm.")


def _filled(make, path: Path, prefix: str):
    with torch.device("meta"):  # takes no memory: the sizes are checked against the weights first
        layer = make()
    weights = read_weights(path / "model.safetensors")
    check_shapes(layer, weights, path, prefix)
    layer = layer.to_empty(device="cpu")
    fill(layer, weights, path, prefix)
    return layer


def named_activation(path: Path, name: str) -> nn.Module:
    """Return an activation by its name in a file of the directory."""
    short = name.rsplit(".", 1)[-1].removesuffix("()")
    if short not in ACTIVATIONS or ("." in name and not name.startswith("torch.nn.")):
        raise InputError(f"{path}: has the activation {name}: expected one of {', '.join(ACTIVATIONS)} of torch.nn")
    return ACTIVATIONS[short]()


def activation_of_model(path: Path) -> nn.Module | None:
    """Return the activation that sentence-transformers would apply to the scores, None if no file names one."""
    if (path / "config_sentence_transformers.json").is_file():
        name = read_object(path / "config_sentence_transformers.json", SENTENCE_TRANSFORMERS).get("activation_fn")
        if name:
            return named_activation(path, str(name))
    config = read_object(path / "config.json", CONFIG)
    name = (config.get("sentence_transformers") or {}).get("activation_fn")
    name = name or config.get("sbert_ce_default_activation_function")
    return named_activation(path, str(name)) if name else None
