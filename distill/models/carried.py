"""Weights that other libraries open as a sequence classifier, whose head carries our one linear layer.

    write_weights(model, directory)                   # config.json and model.safetensors of a saved cross-encoder
    check_carried(directory, parts)                   # raises InputError if they hold the head of another model

The head of a sequence classifier has two layers, the first with D outputs, and something between them that bends its
input: s = v·g(Ux) + b.

- g is GELU, ReLU or SiLU: g(s) - g(-s) = s, so two units, s and -s, give the score exactly.
- g is tanh: each unit gets EPSILON times one number of the state, where tanh is straight, and the second layer has the
  weights divided by EPSILON. A number x is off by a relative (EPSILON·x)²/3: 5e-9 at x = 1, 2e-6 at x = 20. EPSILON is
  a power of two, so that multiplying by it rounds nothing. A smaller one would be closer in float32, but in float16, in
  which some servers compute, EPSILON·x would be too small. Where a library leaves out the first layer and tanh, the
  order is still the same.
- ModernBERT normalises the units after g. A third unit with a large constant, from the first layer's bias, makes their
  deviation nearly constant, and the second layer undoes the division by it: the score is off by a relative
  (SHARE·s)²/2. text-embeddings-inference leaves that bias out, and would give other scores; it refuses the directory,
  since it does not know GELU by the name that config.json has.

A head that reads the [CLS] state cannot carry the mean over the tokens. Such a directory, or one whose pairs hold the
first stage's score, has a head of no numbers, which transformers refuses to load, and the name of an architecture that
no server knows: without these, some would open it with a random head or as an encoder of single texts.
Shapes: D hidden size.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from distill.errors import InputError
from distill.models.heads import name_activation, one_label, without_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig

EPSILON = 2.0**-13
CONSTANT, SHARE = 8.0, 2.0**-12  # in float32, GELU(8) = 8; a score's share of it
GELU = "gelu_python"  # computes the same as "gelu"
EXACT = ("gelu", "gelu_new", "gelu_python", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish")
DENSE = ("classifier.dense", "classifier.out_proj")
HEADS = {  # by model type: the first layer, the second, and what is between them
    "bert": ("bert.pooler.dense", "classifier", "tanh"),
    "albert": ("albert.pooler", "classifier", "tanh"),
    "roberta": (*DENSE, "tanh"),
    "xlm-roberta": (*DENSE, "tanh"),
    "camembert": (*DENSE, "tanh"),
    "mpnet": (*DENSE, "tanh"),
    "electra": (*DENSE, "gelu"),
    "distilbert": ("pre_classifier", "classifier", "relu"),
    "deberta": ("pooler.dense", "classifier", None),  # config.pooler_hidden_act
    "deberta-v2": ("pooler.dense", "classifier", None),
    "modernbert": ("head.dense", "classifier", "norm"),
}


def write_weights(model, directory: Path) -> None:
    """Write a CrossEncoder's config.json and weights: a sequence classifier if its head can carry the linear layer."""
    config = classifier_config(model.backbone.config)
    if can_carry(model):
        _set_head(config, model.pooling)
    whole = without_memory(config)
    if whole is None:
        model.backbone.save_pretrained(directory)
    else:
        names = whole.state_dict()
        own = {f"{whole.base_model_prefix}.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
        kept = {name: tensor for name, tensor in own.items() if name in names}
        if can_carry(model):
            head = carry(config, model.head.weight, model.head.bias)
        else:
            prefix = f"{whole.base_model_prefix}."
            head = {next(name for name in names if not name.startswith(prefix)): torch.zeros(0)}
        whole.save_pretrained(directory, state_dict=kept | head)
    if not can_carry(model):
        file = directory / "config.json"
        name = type(config).__name__.removesuffix("Config") + "CrossEncoder"
        content = json.loads(file.read_text(encoding="utf-8")) | {"architectures": [name]}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def can_carry(model) -> bool:
    """Whether transformers' classifier can give a CrossEncoder's scores."""
    return (
        model.is_plain
        and model.first_stage_score is None
        and _between(model.backbone.config, model.pooling) is not None
    )


def classifier_config(config: "PretrainedConfig") -> "PretrainedConfig":
    """Return the configuration of an encoder's classifier with one label, and without an activation on its score."""
    config = one_label(config)
    name_activation(config, nn.Identity())
    return config


def _set_head(config: "PretrainedConfig", pooling: str) -> None:
    """Make the configuration of a ModernBERT that of the head which carries a linear layer."""
    if config.model_type == "modernbert":
        config.classifier_pooling, config.classifier_bias, config.classifier_activation = pooling, True, GELU
        thetas = {kind: values["rope_theta"] for kind, values in config.rope_parameters.items()}
        config.global_rope_theta = thetas["full_attention"]  # their names in transformers 4
        config.local_rope_theta = thetas["sliding_attention"]


def _between(config: "PretrainedConfig", pooling: str) -> str | None:
    """Return what is between the head's layers; None if the head cannot carry one."""
    if config.model_type not in HEADS:
        return None
    between = HEADS[config.model_type][2] or config.pooler_hidden_act
    reads = ("cls", "mean") if between == "norm" else ("cls",)
    return between if pooling in reads and between in (*EXACT, "tanh", "norm") else None


def carry(config: "PretrainedConfig", weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return the float32 tensors, by name, of a classifier's head that carries s = weight·x + bias.

    weight: [1, D]. bias: [1].
    """
    inner_name, last_name, between = HEADS[config.model_type]
    between = between or config.pooler_hidden_act
    weight, bias = (tensor.detach().float().cpu() for tensor in (weight, bias))
    size = weight.shape[1]
    inner, inner_bias = torch.zeros(size, size), torch.zeros(size)
    last, last_bias = torch.zeros(1, size), torch.zeros(1)
    head = {f"{inner_name}.weight": inner, f"{inner_name}.bias": inner_bias}
    head |= {f"{last_name}.weight": last, f"{last_name}.bias": last_bias}
    if between == "tanh":
        inner.fill_diagonal_(EPSILON)
        last[:], last_bias[0] = weight / EPSILON, bias[0]
    elif between == "norm":
        inner[:2] = torch.cat([weight, -weight]) * (SHARE * CONSTANT)
        inner_bias[2] = CONSTANT
        deviation = math.sqrt(CONSTANT**2 / size * (1 - 1 / size) + config.norm_eps)
        last[0, :2] = torch.tensor([1.0, -1.0]) * (deviation / (SHARE * CONSTANT))
        last_bias[0] = bias[0]
        head["head.norm.weight"] = torch.ones(size)
        if config.norm_bias:
            head["head.norm.bias"] = torch.zeros(size)
    else:
        inner[:2], inner_bias[:2] = torch.cat([weight, -weight]), torch.cat([bias, -bias])
        last[0, :2] = torch.tensor([1.0, -1.0])
    return head


def head_layers(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the layers in a head that may carry a linear one, from its config.json; else none."""
    classifies = str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
    if not classifies or config.get("model_type") not in HEADS:
        return ()
    inner, last, between = HEADS[config["model_type"]]
    return (inner, last, "head.norm") if between == "norm" else (inner, last)


def check_carried(path: Path, parts) -> None:
    """Raise InputError if a directory's classifier has another head than one that carries its parts' linear layer."""
    config, expected = parts.backbone.config, {"": torch.zeros(0)}
    if isinstance(parts.projection, nn.Identity) and _between(config, parts.pooling) is not None:
        expected = carry(config, parts.weight, parts.bias)
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in expected.keys() & set(opened.keys()):
                held = opened.get_tensor(name).float()
                wanted = expected[name]
                if held.shape == wanted.shape and torch.allclose(held, wanted, rtol=1e-2, atol=1e-6, equal_nan=True):
                    del expected[name]
    if expected:
        raise InputError(
            f"{path}: config.json names one head ({config.architectures[0]}), and modules.json another: remove the one "
            "that does not belong to the model"
        )
