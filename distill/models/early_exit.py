"""A score after an inner layer: learned beside the last one, so that only the best passages need all layers.

    model.exit = new_exit(model.backbone, layer=2)              # a linear layer on the pooled states after layer 2
    states = states_after(2, model.run, backbone, chunk)        # [1, T, D] or [p, L, D]
    output = from_layer(2, states, model.run, backbone, chunk)  # what the whole backbone returns

The head is in a file of its own, which other libraries do not read: they give the full score. distill.json names the
layer. Shapes: p pairs of a chunk, T tokens, L tokens of the longest pair, D hidden size.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from distill.errors import InputError
from distill.models.freezing import layers_of
from distill.models.packed import BERT_LIKE
from distill.models.saved import EXIT_FILE

TYPES = (*BERT_LIKE, "modernbert")  # model types whose layers can be run in two parts
Run = Callable[..., Any]  # CrossEncoder.run


def in_float32(linear: nn.Linear, states: Tensor) -> Tensor:
    """Return the float32 scores [p] of states [p, D], also where the model was cast to half precision."""
    weight, bias = linear.weight, linear.bias
    if weight.dtype == torch.float64:
        return linear(states).squeeze(-1)
    return F.linear(states.float(), weight.float(), None if bias is None else bias.float()).squeeze(-1)


class ExitHead(nn.Module):
    """The score after an inner layer: s = W·e + b, where e is pooled from the states after that layer."""

    def __init__(self, layer: int, hidden_size: int):
        """Draw the linear layer as that of the last score is drawn; layer: counted from 1."""
        super().__init__()
        self.layer = layer
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the float32 scores [p] of pooled states [p, D]."""
        with torch.autocast(pooled.device.type, enabled=False):  # as for the last score
            return in_float32(self.linear, pooled.to(self.linear.weight.dtype))

    def save(self, directory: Path) -> None:
        """Write the weights into a model's directory."""
        state = self.linear.state_dict().items()
        weights = {f"exit.{name}": weight.detach().cpu().contiguous() for name, weight in state}
        (directory / EXIT_FILE).parent.mkdir(exist_ok=True)
        save_file(weights, directory / EXIT_FILE)


def new_exit(backbone: Any, layer: int) -> ExitHead:
    """Return a head after one of a backbone's layers, counted from 1; raises InputError if it can have none there."""
    layers, kind = layers_of(backbone), backbone.config.model_type
    if kind not in TYPES or layers is None:
        raise InputError(
            f"model.exit_layer={layer}: the layers of a {kind} backbone cannot be run in two parts, only those of "
            f"{', '.join(TYPES)}: set it to null"
        )
    if not 1 <= layer < len(layers):
        allowed = f"give 1 to {len(layers) - 1}" if len(layers) > 1 else "set it to null"
        raise InputError(f"model.exit_layer={layer}: this backbone has {len(layers)} layers: {allowed}")
    return ExitHead(layer, backbone.config.hidden_size)


class _Between(nn.Module):
    """Takes the place of a layer that is not run: keeps the states that it is given, and passes them or others on."""

    def __init__(self, layer: nn.Module, instead: Tensor | None = None):
        """Take the layer's place; instead: the states that are passed on."""
        super().__init__()
        if hasattr(layer, "attention_type"):  # ModernBERT chooses a mask by it
            self.attention_type = layer.attention_type
        self.instead = instead
        self.kept: Tensor | None = None

    def forward(self, hidden_states: Tensor, *_, **__) -> Tensor:
        self.kept = hidden_states
        return hidden_states if self.instead is None else self.instead


def states_after(layer: int, run: Run, backbone: Any, chunk) -> Tensor:
    """Return the states of all of a chunk's tokens after the first layers; later layers are not run."""
    layers = list(layers_of(backbone) or [])
    left_out = [_Between(one) for one in layers[layer:]]
    run(_with_layers(backbone, [*layers[:layer], *left_out]), chunk)
    kept = left_out[0].kept
    assert kept is not None
    return kept


def from_layer(layer: int, states: Tensor, run: Run, backbone: Any, chunk) -> Any:
    """Return what the backbone returns for a chunk whose states after the first layers are known."""
    layers = list(layers_of(backbone) or [])
    left_out = [_Between(one, states) for one in layers[:layer]]
    return run(_with_layers(backbone, [*left_out, *layers[layer:]]), chunk)


def _with_layers(backbone: nn.Module, layers: list[nn.Module]) -> nn.Module:
    """Return a backbone with the same weights and other layers; the given one, which threads may share, stays as is."""
    own = layers_of(backbone)
    path = next(name for name, module in backbone.named_modules() if module is own)
    return _with_part(backbone, path.split("."), nn.ModuleList(layers))


def _with_part(module: nn.Module, path: list[str], part: nn.Module) -> nn.Module:
    copied = copy.copy(module)  # it loses a compiled forward pass, which has the layers that it was compiled with
    copied._modules = dict(module._modules)
    name, *rest = path
    copied._modules[name] = _with_part(module.get_submodule(name), rest, part) if rest else part
    return copied
