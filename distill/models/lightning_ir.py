"""Mono cross-encoders of lightning-ir: an encoder and one linear layer in one file of weights.

parts = open_lightning_ir(path, config)
"""

from pathlib import Path

from torch import nn

from distill.errors import InputError
from distill.models.heads import one_score
from distill.models.json_files import TOKENIZER_CONFIG, read_count, read_object
from distill.models.parts import (
    Change,
    Parts,
    check_longest_text,
    check_tokenizer_files,
    explained,
    fill,
    load_tokenizer,
    longest_input,
    read_weights,
)
from distill.models.sizes import check_size

LIGHTNING_IR = ("cross-encoder", "mono", "mono-electra")
OWN_KEYS = (  # of config.json, beside those of the encoder
    *("model_type", "backbone_model_type", "architectures", "query_length", "doc_length", "scoring_strategy"),
    *("pooling_strategy", "linear_bias", "tokenizer_pattern", "use_adapter", "_bert_pool"),
)
OTHERS_OF_LIGHTNING_IR = ("set-encoder", "bi-encoder", "dpr", "col", "splade", "coil", "unicoil", "mvr")


def is_lightning_ir(config: dict) -> bool:
    """Whether a config.json is one of lightning-ir, of any kind."""
    types = (*LIGHTNING_IR, *OTHERS_OF_LIGHTNING_IR)
    return "backbone_model_type" in config or str(config.get("model_type", "")) in types


def open_lightning_ir(path: Path, config: dict, change: Change | None = None) -> Parts:
    """Open a mono cross-encoder of lightning-ir, up to version 0.0.6; raises InputError if it cannot be read exactly.

    change: of the encoder's configuration, before it is built.
    """
    from transformers import AutoConfig, AutoModel

    for key in ("use_adapter", "tokenizer_pattern"):
        if config.get(key):
            raise InputError(f"{path}: {key}={config[key]} cannot be loaded: merge or export it in lightning-ir")
    pooling = {"first": "cls", "mean": "mean", "bert_pool": "cls"}.get(config.get("pooling_strategy", "first"))
    if pooling is None:
        raise InputError(f"{path}: pooling_strategy={config['pooling_strategy']}: only first and mean can be loaded")
    backbone_type = _backbone_type(config)
    with explained(path):
        plain = AutoConfig.for_model(backbone_type, **{k: v for k, v in config.items() if k not in OWN_KEYS})
        if plain.is_encoder_decoder:
            raise InputError(f"{path}: has a {backbone_type} backbone: only encoders can be loaded")
        if change is not None:
            change(plain)
        check_size(AutoModel, plain, path)
        backbone = AutoModel.from_config(plain, trust_remote_code=False)
    weights = read_weights(path / "model.safetensors")
    head = {key.removeprefix("linear."): weights.pop(key) for key in [*weights] if key.startswith("linear.")}
    pool = {key.removeprefix("bert_pool."): weights.pop(key) for key in [*weights] if key.startswith("bert_pool.")}
    prefix = f"{backbone.base_model_prefix}."
    if any(key.startswith(prefix) for key in weights):  # the layout of older versions
        weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
    fill(backbone, weights, path)
    if "weight" not in head:
        raise InputError(f"{path}: has no linear.weight: the checkpoint is incomplete")
    linear = nn.Linear(plain.hidden_size, len(head["weight"]), bias="bias" in head)
    fill(linear, head, path)
    parts = Parts(backbone, lightning_ir_tokenizer(path, config), *one_score(path, linear), pooling)
    if config.get("_bert_pool") or pool:
        parts.projection = nn.Sequential(nn.Linear(plain.hidden_size, plain.hidden_size), nn.Tanh())
        fill(parts.projection, pool, path)
    if linear.out_features == 2:
        parts.activation = nn.LogSigmoid()
    longest = longest_input(backbone)
    query, passage = (
        read_count(config, key, path / "config.json", optional=True) for key in ("query_length", "doc_length")
    )
    parts.lengths = longest if query is None else query, longest if passage is None else passage
    parts.max_length = min(longest, getattr(parts.tokenizer, "model_max_length", longest))
    return parts


def _backbone_type(config: dict) -> str:
    return config.get("backbone_model_type") or ("electra" if config.get("model_type") == "mono-electra" else "bert")


def lightning_ir_tokenizer(path: Path, config: dict):
    """Load the plain tokenizer that lightning-ir's class wraps; that class cuts texts the same way as this library."""
    from transformers import PreTrainedTokenizerFast

    check_tokenizer_files(path)
    if not (path / "tokenizer.json").is_file():
        return load_tokenizer(path, model_type=_backbone_type(config))
    # Where the file does not name the inputs, those of BERT, which its template fills
    names = read_object(path / "tokenizer_config.json", TOKENIZER_CONFIG).get("model_input_names")
    with explained(path):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            path,
            model_input_names=names or ["input_ids", "token_type_ids", "attention_mask"],
            trust_remote_code=False,
        )
    check_longest_text(path, tokenizer)
    return tokenizer
