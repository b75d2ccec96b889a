"""What a training starts with: an encoder, and the head that it has, or a new one.

    parts = load_for_training("cross-encoder/ms-marco-MiniLM-L6-v2", start, revision=None)

| model.head | |
| --- | --- |
| auto | the head of the directory, in any form that distill/models/opening.py reads; without one, as linear |
| linear | one new linear layer |
| native | the head that transformers' AutoModelForSequenceClassification puts on the encoder, drawn anew |
| mlp | new layers as in cross-encoder/ettin-reranker-*-v1: Dense, GELU, LayerNorm, Dense |
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distill.data.control_tokens import read_as_text
from distill.errors import InputError
from distill.models.heads import HEADS, draw_native, mlp, one_score
from distill.models.json_files import CONFIG, read_object
from distill.models.lightning_ir import is_lightning_ir, lightning_ir_tokenizer
from distill.models.locate import locate_model
from distill.models.model_files import small_files
from distill.models.modules import check_widths, module_names, read_head
from distill.models.opening import has_head, open_directory
from distill.models.parts import Parts, explained, load_tokenizer
from distill.models.saved import check_same_score, download
from distill.models.sizes import check_size, match_vocabulary, num_embeddings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """How to start: model.head, model.pooling, model.dropout, model.first_stage_score and those of backbone."""

    head: str = "auto"
    pooling: str = "cls"
    weights: str = "pretrained"
    dropout: float | None = None
    num_layers: int | None = None
    first_stage_score: str | None = None


def tokenizer_of(name: str, revision: str | None = None):
    """Load the tokenizer of what a training starts with; raises InputError if it has none."""
    source = locate_model(name)
    if os.path.isdir(source) and (Path(source) / "config.json").is_file():
        config = read_object(Path(source) / "config.json", CONFIG)
        if is_lightning_ir(config):
            return lightning_ir_tokenizer(Path(source), config)
    return load_tokenizer(source, revision)


def load_for_training(name: str, start: Start, revision: str | None = None) -> Parts:
    """Load an encoder in float32 with the head to train; the weight is None where a linear layer is to be drawn.

    name: directory, packaged model or Hub id. Raises InputError for what cannot be loaded, or not be trained.
    """
    if start.head not in HEADS:
        raise InputError(f"model.head={start.head} is unknown: choose one of {', '.join(HEADS)}")
    source = locate_model(name)
    with explained(name):
        tokenizer = read_as_text(tokenizer_of(source, revision))
        folder = Path(source) if os.path.isdir(source) else small_files(source, revision)
        found = has_head(folder)
        kept = found and start.head == "auto" and start.weights == "pretrained"
        if kept and not os.path.isdir(source):
            folder = download(source, revision)
        if kept and not module_names(folder)[1:]:
            parts = _open_whole(name, folder, start)
        else:
            parts = Parts(_load_encoder(name, source, start, revision), tokenizer, None, None, start.pooling)
            _check_attention(name, parts)
            if kept:
                _keep_modules(parts, folder)
            else:
                _draw(name, parts, start)
        parts.tokenizer = tokenizer
        match_vocabulary(name, tokenizer, num_embeddings(parts.backbone))
    if kept:
        check_same_score(source, revision, start.first_stage_score)
        _check_pooling(name, parts, start)
        if isinstance(parts.activation, nn.LogSigmoid):
            parts.activation = nn.Identity()  # of two labels, folded into one: the score is their log-odds
    elif found:
        log.warning("%s: its head is dropped, and a new one drawn; model.head=auto keeps it", name)
    if parts.native is not None and start.first_stage_score is not None:
        raise InputError(
            f"model.first_stage_score={start.first_stage_score}: other libraries would open a model with the head of "
            "transformers, and leave the score out: set model.head=linear or mlp"
        )
    _say(name, parts, start, kept)
    return parts


def _say(name: str, parts: Parts, start: Start, kept: bool) -> None:
    if kept:
        what = "its own linear layer" if parts.is_linear else f"its own head, {parts.describe_head()}"
    elif start.head == "auto":
        what = "a new linear layer, since it has no head" if start.weights == "pretrained" else "a new linear layer"
    else:
        what = f"a new head, {parts.describe_head()}" if not parts.is_linear else "a new linear layer"
    log.info("%s: %s weights, %s", name, start.weights, what)


def _open_whole(name: str, folder: Path, start: Start) -> Parts:
    """Open a model of another library, all of it; raises InputError for one that cannot be trained."""
    parts = open_directory(folder, change=lambda config: _change(config, start, name))
    if parts.pooling not in ("cls", "mean") or not isinstance(parts.backbone, nn.Module):
        raise InputError(f"{name}: is not an encoder with a head: it can be evaluated here, but not trained")
    return parts


def _keep_modules(parts: Parts, folder: Path) -> None:
    head = read_head(folder)
    check_widths(head, parts.backbone.config.hidden_size)
    parts.weight, parts.bias, parts.pooling = head.weight, head.bias, head.pooling
    parts.projection, parts.activation = head.projection, head.activation


def _draw(name: str, parts: Parts, start: Start) -> None:
    if start.head == "mlp":
        parts.projection = mlp(parts.backbone.config.hidden_size)
    if start.head == "native":
        parts.native, parts.projection, linear, parts.pooling = draw_native(parts.backbone, start.pooling)
        parts.weight, parts.bias = one_score(name, linear)


def _check_pooling(name: str, parts: Parts, start: Start) -> None:
    """A head keeps the pooling that it was trained with; raises InputError for another one that was asked for."""
    if start.pooling == parts.pooling:
        return
    if start.pooling != "cls":
        raise InputError(
            f"model.pooling={start.pooling}: the head of {name} reads the first token's state: leave it out, or draw a "
            "new head with model.head=linear"
        )
    log.info("%s: its head reads the mean over the tokens (model.pooling=cls is for new heads)", name)


def _load_encoder(name: str, source: str, start: Start, revision: str | None):
    """Load the encoder without its head; raises InputError for a model that is no encoder."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise InputError(f"{name}: is a {config.model_type}, whose scores come from its decoder: use an encoder")
    _change(config, start, name)
    if start.weights == "random":
        check_size(AutoModel, config, None)
        backbone = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    else:
        if os.path.isdir(source):
            check_size(AutoModel, config, Path(source))
        backbone = AutoModel.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    return backbone


@torch.no_grad()
def _check_attention(name: str, parts: Parts) -> None:
    """Raise InputError for a model whose first token does not attend to the passage, as in a decoder.

    Pooled by that token, it would give all passages the same score.
    """
    was_training = parts.backbone.training
    states = [
        parts.backbone.eval()(input_ids=torch.tensor([parts.tokenizer("a", text)["input_ids"]])).last_hidden_state[0, 0]
        for text in ("a", "a a a")
    ]
    parts.backbone.train(was_training)
    if torch.allclose(*states, rtol=1e-6, atol=1e-7):
        raise InputError(
            f"{name}: is a {parts.backbone.config.model_type} whose first token does not attend to the passage, as "
            "in a decoder: use an encoder"
        )


def _change(config, start: Start, name: str) -> None:
    if start.dropout is not None:
        _set_dropout(config, start.dropout)
    if start.num_layers is not None:
        _keep_layers(config, start.num_layers, name)


def _set_dropout(config, probability: float) -> None:
    for name in config.to_dict():
        if name.endswith(("dropout", "dropout_prob")) and isinstance(getattr(config, name), float | int):
            setattr(config, name, probability)


def _keep_layers(config, number: int, name: str) -> None:
    if number > config.num_hidden_layers:
        raise InputError(f"backbone.num_layers={number}: {name} has {config.num_hidden_layers} layers: lower it")
    config.num_hidden_layers = number
    if getattr(config, "layer_types", None):  # ModernBERT: which layers attend only within a window
        config.layer_types = config.layer_types[:number]
