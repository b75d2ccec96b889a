"""Count the arithmetic of a training step, for its model FLOPs utilisation (MFU).

Only matrix products on real tokens count, with 2 operations per multiply-add. With N weights in the matrices of the
layers, T tokens, S pairs of lengths l, and D the width of attention,

    forward = 2·N·T + 4·D·Σ l²  summed over layers (with a sliding window, one factor l becomes min(l, window))

minus what the last layer skips for tokens after the first (distill/models/first_states.py). In a decoder, whose tokens
attend to earlier ones only, half of the products of attention count. Backward is twice that. Frozen weights count as
if they were trained, and activations that are computed again do not count.
Embeddings, normalisation, activations and the loss do not count. MFU = operations per second / the device's peak.
"""

import re

import torch
from torch import Tensor, nn

PEAK = {  # dense bfloat16 operations per second of one device, from the manufacturers' data sheets
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


class FlopCounter:
    """Counts the operations of training one model on pairs of given lengths."""

    def __init__(self, model):
        """Read the shapes of a CrossEncoder."""
        config, backbone = model.backbone.config, model.backbone
        layers = _layers(backbone)
        self.weights = [_matrix_weights(layer) for layer in layers]  # of each layer
        width = config.hidden_size
        self.every_token = sum(self.weights)
        self.first_token = 0
        if model.first_only:  # keys and values for all tokens, the rest only for the first
            self.first_token = self.weights[-1] - 2 * width * width
            self.every_token -= self.first_token
        windows = [getattr(getattr(layer, "attn", None), "sliding_window", None) for layer in layers]
        self.windows = [None if window is None else 2 * window - 1 for window in windows]
        self.width, self.first_only = width, model.first_only
        if model.is_decoder:
            heads = config.num_attention_heads
            self.width = heads * (getattr(config, "head_dim", None) or width // heads)
        self.seen = 0.5 if model.is_decoder else 1.0  # share of a pair's tokens that one attends to

    def __call__(self, lengths: Tensor) -> float:
        """Return the number of operations of a forward and backward pass over pairs of these lengths [S]."""
        lengths = lengths.double()
        forward = 2 * self.every_token * lengths.sum() + 2 * self.first_token * len(lengths)
        for number, window in enumerate(self.windows):
            seen = lengths if window is None else lengths.clamp(max=window)
            last = self.first_only and number == len(self.windows) - 1
            forward += 4 * self.width * self.seen * (lengths.sum() if last else (lengths * seen).sum())
        return 3 * forward.item()


def peak_flops(device: torch.device) -> float | None:
    """Return the device's peak bfloat16 operations per second, or None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for model, peak in PEAK.items() if re.search(rf"\b{model}\b", name)), None)


def _layers(backbone) -> list[nn.Module]:
    """Return the layers: those of the first list of modules, as often as an encoder that shares them runs them."""
    layers = next([*module] for module in backbone.modules() if isinstance(module, nn.ModuleList) and len(module))
    times = backbone.config.num_hidden_layers // len(layers)  # of ALBERT, which has one in all places
    return layers * max(times, 1)


def _matrix_weights(layer: nn.Module) -> int:
    return sum(module.weight.numel() for module in layer.modules() if isinstance(module, nn.Linear))
