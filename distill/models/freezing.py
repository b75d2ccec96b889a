"""Freeze parts of a backbone: their weights are not trained, need no gradient, and keep every bit.

    freeze(model, embeddings=True, layers=6)
    frozen_names(model)                          # of the weights that training cannot change

A model with frozen parts says so in `model.is_partly_frozen`; its checkpoints then hold only what is trained.
"""

import zlib
from typing import Any

import torch
from torch import nn

from distill.errors import InputError


def freeze(model, *, embeddings: bool = False, layers: int = 0) -> None:
    """Freeze a CrossEncoder's embeddings (of tokens, positions and token types) and its first `layers` layers.

    Raises InputError for more layers than there are, and for layers that share their weights.
    """
    backbone = model.backbone
    frozen: list[nn.Module] = [module for module in backbone.modules() if isinstance(module, nn.Embedding)]
    frozen = frozen if embeddings else []
    if layers:
        every = layers_of(backbone)
        if every is None:
            raise InputError(
                f"model.freeze.layers={layers}: the layers of a {backbone.config.model_type} backbone share their "
                "weights: set it to 0"
            )
        if layers > len(every):
            raise InputError(f"model.freeze.layers={layers}: this backbone has {len(every)} layers: lower it")
        frozen += every[:layers]
    for module in frozen:
        module.requires_grad_(False)
    model.is_partly_frozen = model.is_partly_frozen or bool(frozen)


def layers_of(backbone: nn.Module) -> nn.ModuleList | None:
    """Return the list of a backbone's layers; None if there are not as many as its configuration says."""
    config: Any = backbone.config
    lists = (module for module in backbone.modules() if isinstance(module, nn.ModuleList))
    return next((some for some in lists if len(some) == config.num_hidden_layers), None)


def frozen_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters that are not trained, in order."""
    return sorted(name for name, parameter in model.named_parameters() if not parameter.requires_grad)


def frozen_checksum(model: nn.Module) -> int:
    """Return the CRC-32 of the frozen weights, in the order of their names, without the pooler that no score uses."""
    parameters, checksum = dict(model.named_parameters()), 0
    for name in frozen_names(model):
        if not name.startswith("backbone.pooler."):
            tensor = parameters[name].detach().cpu().contiguous()
            checksum = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, checksum)
    return checksum
