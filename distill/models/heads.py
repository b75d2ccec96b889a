"""The layers between a pooled state and a score: s = activation(head(projection(pooled))).

    native = native_head(model, path)              # of AutoModelForSequenceClassification: which layers these are
    weight, bias = one_score(path, linear)         # two labels are folded into one score
    projection = mlp(hidden_size)                  # Dense, GELU, LayerNorm, before the last Dense
    layers = module_files(projection, head)        # what sentence-transformers has in its modules' directories

The last layer is always a linear one with one score, `head`; what comes before it is `projection`: nothing in the
models of the papers. A head is saved in the form it came in, or was drawn in: as a model of
AutoModelForSequenceClassification (`native`), or as modules of sentence-transformers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import InputError

HEADS = ("auto", "linear", "native", "mlp")  # model.head
ACTIVATIONS = {  # by the last part of the class name; no class named in a file is ever imported
    "Identity": nn.Identity,
    "Sigmoid": nn.Sigmoid,
    "LogSigmoid": nn.LogSigmoid,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
}
DENSE_TYPE = "sentence_transformers.base.modules.dense.Dense"
NORM_TYPE = "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm"
# These models' own heads can be drawn anew, and are saved as transformers saves them
NATIVE = (
    *("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta", "deberta-v2", "modernbert", "albert"),
    *("mpnet", "distilbert", "convbert", "roformer", "squeezebert", "layoutlm", "ernie", "xlm-roberta-xl"),
)
BY_HIDDEN_ACT = ("convbert", "roformer", "big_bird", "nystromformer", "mra", "yoso")  # no tanh between the two layers


@dataclass(frozen=True)
class NativeHead:
    """Where the layers of a head are in the model of AutoModelForSequenceClassification that it belongs to."""

    architecture: type  # the class of the whole model
    # Of modules with weights, by ours: {"projection.1": "classifier.dense", "head": "classifier.out_proj"}
    names: dict[str, str]


def native_head(model, name: Path | str) -> tuple[NativeHead, nn.Sequential, nn.Linear, str]:
    """Return the head of a model of AutoModelForSequenceClassification: where it is, its layers and its pooling.

    The layers are what comes before the last one, with its dropout, and the last one. name: of the model, for errors.
    Raises InputError for a head that is not built as that of BERT, RoBERTa, DeBERTa, ALBERT, DistilBERT or ModernBERT.
    """
    backbone: Any = model.base_model
    classifier: Any = getattr(model, "classifier", None)
    pooler: Any = getattr(backbone, "pooler", None)
    place, pooling, last = model.base_model_prefix, "cls", "classifier"
    if hasattr(classifier, "out_proj") and hasattr(classifier, "dense"):
        last, drop = "classifier.out_proj", classifier.dropout
        layers = [("", drop), ("classifier.dense", classifier.dense), ("", _between(model)), ("", drop)]
    elif hasattr(model, "head") and hasattr(model.config, "classifier_pooling"):  # ModernBERT
        layers, pooling = [("head", model.head), ("", model.drop)], model.config.classifier_pooling
    elif hasattr(model, "pre_classifier"):  # DistilBERT
        layers = [("pre_classifier", model.pre_classifier), ("", nn.ReLU()), ("", model.dropout)]
    elif isinstance(getattr(getattr(model, "pooler", None), "dense", None), nn.Linear):  # DeBERTa
        activation = _named(model.config.pooler_hidden_act)
        layers = [("", model.pooler.dropout), ("pooler.dense", model.pooler.dense), ("", activation)]
        layers.append(("", model.dropout))
    elif isinstance(getattr(pooler, "dense", None), nn.Linear):  # BERT
        activation = getattr(pooler, "activation", None) or nn.Tanh()
        layers = [(f"{place}.pooler.dense", pooler.dense), ("", activation), ("", model.dropout)]
    elif isinstance(pooler, nn.Linear):  # ALBERT
        layers = [(f"{place}.pooler", pooler), ("", backbone.pooler_activation), ("", model.dropout)]
    else:
        layers = []
    named = dict(model.named_modules())
    if not layers or not isinstance(named.get(last), nn.Linear):
        raise InputError(f"{name}: the head of {type(model).__name__} is not supported: cannot be loaded")
    names = {f"projection.{place}": name for place, (name, _) in enumerate(layers) if name}
    projection = nn.Sequential(*(layer for _, layer in layers))
    return NativeHead(type(model), names | {"head": last}), projection, named[last], pooling


def _between(model) -> nn.Module:
    """Return the function between the two layers of a head like RoBERTa's."""
    activation = getattr(model.classifier, "activation", None)  # ELECTRA has one
    if isinstance(activation, nn.Module):
        return activation
    return _named(model.config.hidden_act) if model.config.model_type in BY_HIDDEN_ACT else nn.Tanh()


def _named(activation: str) -> nn.Module:
    from transformers.activations import ACT2FN

    return ACT2FN[activation]


def take_pooler(backbone) -> None:
    """Leave an encoder's pooler out of it: its layer is part of the head."""
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = nn.Identity()  # some encoders call it in any case; no score uses its output


def draw_native(backbone, pooling: str) -> tuple[NativeHead, nn.Module, nn.Linear, str]:
    """Draw the head that AutoModelForSequenceClassification puts on an encoder; returns what `native_head` returns.

    A pooler that the encoder has (BERT, ALBERT) becomes part of it. Raises InputError for an encoder whose head is not
    known, or pools in another way.
    """
    if hasattr(backbone.config, "classifier_pooling"):  # ModernBERT
        backbone.config.classifier_pooling = pooling
    elif pooling != "cls":
        raise InputError(
            f"model.pooling={pooling}: the head of transformers reads the first token's state: set it to cls"
        )
    config = one_label(backbone.config)
    if config.model_type not in NATIVE:
        raise InputError(
            f"model.head=native: the head of {config.model_type} models is not known here: set model.head=linear or mlp"
        )
    whole: Any = without_memory(config)  # only the head is needed
    native, projection, linear, _ = native_head(whole, config.model_type)
    own, prefix = dict(backbone.named_modules()), f"{whole.base_model_prefix}."
    for name, place in native.names.items():
        if place.startswith(prefix) and place.removeprefix(prefix) in own:
            projection[int(name.rpartition(".")[2])] = own[place.removeprefix(prefix)]
    parts: list[Any] = [linear, *reversed([*projection.modules()])]  # a layer before the module that holds it
    for part in [part for part in parts if any(weight.is_meta for weight in part.parameters())]:
        if any(True for _ in part.parameters(recurse=False)):
            part.to_empty(device="cpu", recurse=False).reset_parameters()
        whole._init_weights(part)
    whole._init_weights(whole)
    take_pooler(backbone)
    return native, projection, linear, pooling


def mlp(hidden_size: int) -> nn.Module:
    """Return the layers before the last one of cross-encoder/ettin-reranker-*-v1: Dense, GELU, LayerNorm."""
    return nn.Sequential(nn.Linear(hidden_size, hidden_size, bias=False), nn.GELU(), nn.LayerNorm(hidden_size))


def one_score(path: Path | str, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight [1, D] and bias [1] of one score; for two labels, of the second's logit minus the first's."""
    weight = linear.weight.detach()
    bias = linear.bias.detach() if linear.bias is not None else weight.new_zeros(len(weight))
    if len(weight) == 2:
        return weight[1:] - weight[:1], bias[1:] - bias[:1]
    if len(weight) != 1:
        raise InputError(f"{path}: its head returns {len(weight)} scores: only one or two labels can be loaded")
    return weight, bias


def one_label(config):
    """Return a copy of a configuration with one label, without how attention is computed here."""
    config = type(config).from_dict(config.to_dict())
    config.num_labels = 1
    return config


def without_memory(config):
    """Return the sequence classifier of a configuration on torch's device "meta"; None if transformers has none."""
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return None
    with torch.device("meta"), torch.random.fork_rng([]):  # this changes no number that a training draws
        return AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)


def write_native(model, directory: Path) -> None:
    """Write weights and config.json of a CrossEncoder with a native head, as transformers does, with one label."""
    config = one_label(model.backbone.config)
    if config.pad_token_id is None:  # transformers finds a decoder's last token by it
        config.pad_token_id = model.tokenizer.pad_token_id
    name_activation(config, model.activation)
    with torch.device("meta"):
        whole = model.native.architecture(config)
    state = {f"{whole.base_model_prefix}.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
    for name, place in model.native.names.items():
        state |= {f"{place}.{key}": tensor for key, tensor in model.get_submodule(name).state_dict().items()}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    whole.load_state_dict(state, assign=True)
    whole.save_pretrained(directory)


def name_activation(config, activation: nn.Module) -> None:
    """Name the activation of the score in config.json; without it, other libraries would apply a sigmoid."""
    config.sentence_transformers = {"activation_fn": class_name(activation)}
    config.sbert_ce_default_activation_function = class_name(activation)  # the key before version 4


def module_files(model) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Tensor]]]:
    """Yield name, class, config.json and weights of each module of sentence-transformers after the pooling."""
    layers = [*model.projection] if isinstance(model.projection, nn.Sequential) else []
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.LayerNorm):
            yield "LayerNorm", NORM_TYPE, {"dimension": layer.normalized_shape[0]}, _weights("norm", layer)
        elif isinstance(layer, nn.Linear):
            following = layers[place + 1] if place + 1 < len(layers) else nn.Identity()
            known = type(following) in ACTIVATIONS.values()
            yield _dense(layer, following if known else nn.Identity(), "sentence_embedding")
    yield _dense(model.head, nn.Identity(), "scores")


def _dense(layer: nn.Linear, activation: nn.Module, output: str) -> tuple[str, str, dict[str, Any], dict[str, Tensor]]:
    config = {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": layer.bias is not None,
        "activation_function": class_name(activation),
        "module_input_name": "sentence_embedding",
        "module_output_name": output,
    }
    return "Dense", DENSE_TYPE, config, _weights("linear", layer)


def _weights(prefix: str, layer: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in layer.state_dict().items()}


def class_name(activation: nn.Module) -> str:
    """Return the full name of an activation's class, as sentence-transformers writes it."""
    return f"{type(activation).__module__}.{type(activation).__qualname__}"
