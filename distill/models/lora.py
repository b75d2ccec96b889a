"""LoRA: train two small matrices beside each linear layer of a frozen backbone, W + α/r·B·A (Hu et al., 2021).

    add_adapters(model, rank=16, alpha=32, dropout=0.05, targets=None)
    with merged(model.backbone): ...            # its linear layers are plain ones here, with the sum as their weight
    merge(model.backbone)                       # and stay so

The matrices are those of the package `peft`, put into the backbone in place. The head is trained whole. Since B starts
at 0, the first scores are those of the backbone. Source: https://arxiv.org/abs/2106.09685
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from distill.errors import InputError
from distill.models.freezing import layers_of

NAME = "default"  # of the adapter, within peft
PACKAGE = "install it with: pip install peft"


def add_adapters(model, rank: int, alpha: float, dropout: float, targets: Sequence[str] | None = None) -> None:
    """Freeze a CrossEncoder's backbone, and put adapters beside its linear layers.

    targets: ends of the layers' names, such as ["query", "value"]; None: all linear layers of the backbone's layers.
    Raises InputError if peft is missing, or if no linear layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError(f"model.lora.rank={rank} needs {error.name}: {PACKAGE}") from None
    names = linear_layers(model.backbone, targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none")
    inject_adapter_in_model(config, model.backbone, NAME)
    model.is_partly_frozen = True


def linear_layers(backbone: nn.Module, targets: Sequence[str] | None = None) -> list[str]:
    """Return the names of the linear layers that get adapters; raises InputError if there are none.

    By default, these are all in the backbone's layers: attention and feed-forward networks. Embeddings, and the pooler
    that BERT has for another purpose, are left out.
    """
    layers = layers_of(backbone)  # None for ALBERT, whose layers are one that is applied several times
    found = {module for module in (layers or backbone).modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in backbone.named_modules() if module in found]
    if layers is None:
        names = [name for name in names if not any(part in name for part in ("embed", "pooler"))]
    if targets is None:
        kept = names
    else:
        unknown = [target for target in targets if not any(_ends(name, target) for name in names)]
        if unknown:
            ends = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise InputError(
                f"model.lora.targets names {unknown[0]}, but the linear layers of this backbone are {', '.join(ends)}: "
                "choose among them, or set it to null for all"
            )
        kept = [name for name in names if any(_ends(name, target) for target in targets)]
    if not kept:
        raise InputError("model.lora.rank: this backbone has no linear layers in its layers: set it to null")
    return kept


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def has_adapters(backbone: nn.Module) -> bool:
    """Whether adapters were put into a backbone, and not merged since."""
    return bool(getattr(backbone, "peft_config", None))


@contextlib.contextmanager
def merged(backbone: nn.Module) -> Iterator[None]:
    """Let the adapted layers be plain linear layers within the context, with the merged weights.

    Afterwards they are what they were, to the bit: nothing is subtracted again.
    """
    adapted = _adapted(backbone)
    kept = [layer.base_layer.weight for _, _, layer in adapted]
    try:
        _put_plain(adapted)
        yield
    finally:
        for (parent, name, layer), weight in zip(adapted, kept, strict=True):
            layer.base_layer.weight = weight
            setattr(parent, name, layer)


def merge(backbone: nn.Module) -> None:
    """Merge the adapters, if there are any, into the backbone for good; its weights then have their old names."""
    _put_plain(_adapted(backbone))
    if has_adapters(backbone):
        del backbone.peft_config


def _adapted(backbone: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Return the adapted layers, each with the module that holds it and its name there."""
    if not has_adapters(backbone):
        return []
    from peft.tuners.lora import LoraLayer

    found: list[tuple[nn.Module, str, Any]] = []
    for path, module in backbone.named_modules():
        if isinstance(module, LoraLayer):
            parent, _, name = path.rpartition(".")
            found.append((backbone.get_submodule(parent), name, module))
    return found


@torch.no_grad()
def _put_plain(adapted: list[tuple[nn.Module, str, Any]]) -> None:
    for parent, name, layer in adapted:
        plain = layer.base_layer
        plain.weight = nn.Parameter(plain.weight + layer.get_delta_weight(NAME), requires_grad=False)
        setattr(parent, name, plain)
