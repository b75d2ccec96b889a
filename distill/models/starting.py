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
from typing import Any

import torch
from torch import nn

from distill.data.control_tokens import read_as_text
from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.models.decoders import (
    attends_backwards_only,
    decoder_template,
    may_have_prompt,
    prompt_of,
    put_score_layer,
    take_template,
)
from distill.models.early_exit import ExitHead, new_exit
from distill.models.heads import HEADS, draw_native, mlp, one_score
from distill.models.json_files import CONFIG, read_object
from distill.models.lightning_ir import is_lightning_ir, lightning_ir_tokenizer
from distill.models.locate import locate_model
from distill.models.model_files import small_files
from distill.models.modules import check_widths, module_names, read_head
from distill.models.opening import answers_in_words, has_head, open_directory, read_exit, saved_layer
from distill.models.parts import Parts, check_whole, explained, is_of_transformers, load_tokenizer
from distill.models.prompts import ScoringPrompt
from distill.models.saved import check_same_score, download
from distill.models.sizes import check_size, match_vocabulary, num_embeddings
from distill.models.text_options import check_default_prompt, check_text_options

log = logging.getLogger(__name__)

DROPOUTS = ("dropout", "dropout_prob", "pdrop")  # ends of the names of probabilities in a configuration
NOT_OF_THE_START = ("freeze", "lora", "exit_weight")  # keys of `model` that are about the training


@dataclass(frozen=True)
class Start:
    """How to start: the keys of `model` that decide its layers, and those of `backbone`."""

    head: str = "auto"
    pooling: str = "cls"
    weights: str = "pretrained"
    dropout: float | None = None
    num_layers: int | None = None
    first_stage_score: str | None = None
    prompt: str | None = None
    exit_layer: int | None = None


@dataclass(frozen=True)
class Reader:
    """How the texts of a training are read: the model's tokenizer, and what a decoder reads around them."""

    tokenizer: Any
    prompt: ScoringPrompt | None = None
    template: PairTemplate | None = None  # None: the tokenizer's special tokens

    @property
    def forms(self) -> tuple[str, str]:
        """How queries and passages are tokenised, at the {} of these texts."""
        return (self.template.query_text, self.template.passage_text) if self.template else ("{}", "{}")


def start_options(cfg: Any) -> dict[str, Any]:
    """Return what `CrossEncoder.from_backbone` takes of a training's configuration, without the name."""
    backbone = {key: cfg.backbone[key] for key in ("weights", "revision", "num_layers")}
    return backbone | {key: value for key, value in cfg.model.items() if key not in NOT_OF_THE_START}


def reader_of(name: str, revision: str | None = None, prompt: str | None = None) -> Reader:
    """Return how a training reads its texts; raises InputError for a model that has no tokenizer, or is a T5.

    prompt: model.prompt. Control tokens in texts are text (distill/data/control_tokens.py). A prompt has some around
    the texts, and other libraries tokenise it as a whole: there they stay what they are.
    """
    source = locate_model(name)
    with explained(name):
        tokenizer = tokenizer_of(source, revision)
        folder = Path(source) if os.path.isdir(source) else small_files(source, revision)
        config = read_object(folder / "config.json", CONFIG)
        if config.get("is_encoder_decoder"):
            raise InputError(
                f"{name}: is a {config.get('model_type')}, which has both an encoder and a decoder: it may be "
                "evaluated here, as a monoT5 or a RankT5, but is not trained: use an encoder or a decoder"
            )
        given = prompt_of(folder, config, tokenizer, prompt)
        if given is None:
            tokenizer = read_as_text(tokenizer)
        if not may_have_prompt(config):
            return Reader(tokenizer)
        if given is None:
            tokenizer.chat_template = None  # other libraries would put it around the pair
        return Reader(tokenizer, given, decoder_template(folder, tokenizer, given))


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
        reader = reader_of(source, revision, start.prompt)
        folder = Path(source) if os.path.isdir(source) else small_files(source, revision)
        answers = reader.prompt is not None and answers_in_words(folder)
        found = has_head(folder) or answers
        kept = found and start.head == "auto" and start.weights == "pretrained"
        if kept and not os.path.isdir(source):
            folder = download(source, revision)
        if kept and (answers or not module_names(folder)[1:]):
            parts = _open_whole(name, folder, start)
        else:
            parts = Parts(_load_encoder(name, source, start, revision), reader.tokenizer, None, None, start.pooling)
            parts.template = reader.template
            if kept:
                _check_attention(name, parts)
                _keep_modules(parts, folder)
            else:
                _draw(name, parts, start)
        parts.exit = _exit_of(name, folder, parts, start.exit_layer) if kept else None
        parts.tokenizer, parts.template = reader.tokenizer, reader.template
        if parts.native is not None:
            take_template(parts, reader.prompt)
        match_vocabulary(name, parts.tokenizer, num_embeddings(parts.backbone))
        if parts.pooling == "last":
            parts.backbone.config.pad_token_id = parts.tokenizer.pad_token_id  # transformers finds the last token by it
    if kept:
        check_same_score(source, revision, start.first_stage_score)
        _check_pooling(name, parts, start)
        if isinstance(parts.activation, nn.LogSigmoid):
            parts.activation = nn.Identity()  # of two labels, folded into one: the score is their log-odds
    elif found:
        log.warning("%s: its head is dropped, and a new one drawn; model.head=auto keeps it", name)
    if parts.pooling == "last" and start.first_stage_score is not None:
        raise InputError(
            f"model.first_stage_score={start.first_stage_score}: the pairs of a decoder do not hold it: set it to null"
        )
    if parts.native is not None and start.first_stage_score is not None:
        raise InputError(
            f"model.first_stage_score={start.first_stage_score}: other libraries would open a model with the head of "
            "transformers, and leave the score out: set model.head=linear or mlp"
        )
    _say(name, parts, start, kept)
    return parts


def _exit_of(name: str, folder: Path, parts: Parts, layer: int | None) -> ExitHead | None:
    """Return the head after an inner layer that a directory has, if it is after this one."""
    saved = saved_layer(folder)
    if saved is not None and saved != layer:
        log.warning("%s: its score after layer %d is dropped; model.exit_layer=%d keeps it", name, saved, saved)
    return read_exit(folder, parts.backbone) if saved is not None and saved == layer else None


def exit_to_train(parts: Parts, layer: int | None) -> ExitHead | None:
    """Return the head after an inner layer to train: the one that there is, or a new one; None without a layer.

    Raises InputError for a layer or a backbone that can have none.
    """
    return parts.exit if layer is None or parts.exit is not None else new_exit(parts.backbone, layer)


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
    parts = open_directory(folder, start.prompt, change=lambda config: _change(config, start, name))
    if not is_of_transformers(parts.backbone):
        raise InputError(f"{name}: is no encoder or decoder with a head: it can be evaluated here, but not trained")
    return parts


def _keep_modules(parts: Parts, folder: Path) -> None:
    check_text_options(folder, lambda: parts.tokenizer)
    check_default_prompt(folder)
    head = read_head(folder)
    check_widths(head, parts.backbone.config.hidden_size)
    parts.weight, parts.bias, parts.pooling = head.weight, head.bias, head.pooling
    parts.projection, parts.activation = head.projection, head.activation


def _draw(name: str, parts: Parts, start: Start) -> None:
    if attends_backwards_only(parts.backbone, parts.tokenizer):
        if start.pooling not in ("cls", "last"):  # cls is what a configuration has that says nothing
            raise InputError(
                f"model.pooling={start.pooling}: {name} is a decoder, whose score is read from the last token: leave "
                "it out"
            )
        if start.head == "mlp":
            raise InputError(
                "model.head=mlp: a decoder has one linear layer, as in transformers: set model.head=linear"
            )
        parts.template = parts.template or decoder_template(Path(name), parts.tokenizer, None)
        put_score_layer(name, parts)
        return
    if start.head == "mlp":
        parts.projection = mlp(parts.backbone.config.hidden_size)
    if start.head == "native":
        parts.native, parts.projection, linear, parts.pooling = draw_native(parts.backbone, start.pooling)
        parts.weight, parts.bias = one_score(name, linear)


def _check_pooling(name: str, parts: Parts, start: Start) -> None:
    """A head keeps the pooling that it was trained with; raises InputError for another one that was asked for."""
    if start.pooling == parts.pooling:
        return
    state = {"cls": "the first token's state", "mean": "the mean over the tokens", "last": "the last token's state"}
    if start.pooling != "cls":
        raise InputError(
            f"model.pooling={start.pooling}: the head of {name} reads {state[parts.pooling]}: leave it out, or draw a "
            "new head with model.head=linear"
        )
    log.info("%s: its head reads %s (model.pooling=cls is for new heads)", name, state[parts.pooling])


def _load_encoder(name: str, source: str, start: Start, revision: str | None):
    """Load the encoder without its head; raises InputError for a model that is no encoder."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    if config.is_encoder_decoder or getattr(config, "num_decoder_layers", None):  # of T5's encoder, T5 is built
        raise InputError(f"{name}: is a {config.model_type}, whose scores come from its decoder: use an encoder")
    if config.model_type == "xlnet":
        raise InputError(f"{name}: is an xlnet, whose [CLS] token stands last: use another encoder")
    _change(config, start, name)
    if start.weights == "random":
        check_size(AutoModel, config, None)
        backbone = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    else:
        if os.path.isdir(source):
            check_size(AutoModel, config, Path(source))
        backbone, info = AutoModel.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        check_whole(Path(name), info["missing_keys"])  # transformers would make them random
    return backbone


def _check_attention(name: str, parts: Parts) -> None:
    """Raise InputError for a decoder under a head that reads the first token: all passages would score the same."""
    if attends_backwards_only(parts.backbone, parts.tokenizer):
        raise InputError(
            f"{name}: is a {parts.backbone.config.model_type} whose first token does not attend to the passage, as in "
            "a decoder: its head cannot be used: set model.head=linear"
        )


def _change(config, start: Start, name: str) -> None:
    if config.model_type == "big_bird" and config.attention_type == "block_sparse":
        log.info("%s: trained with full attention: block-sparse attention scores a pair by the others beside it", name)
        config.attention_type = "original_full"
    if start.dropout is not None:
        _set_dropout(config, start.dropout, name)
    if start.num_layers is not None:
        _keep_layers(config, start.num_layers, name)


def _set_dropout(config, probability: float, name: str) -> None:
    """Set all probabilities of dropout; raises InputError for an architecture without any."""
    values = {key: getattr(config, key) for key in config.to_dict() if key.endswith(DROPOUTS)}
    keys = [key for key, value in values.items() if isinstance(value, float | int) and not isinstance(value, bool)]
    if not keys and probability > 0:
        raise InputError(f"model.dropout={probability}: a {config.model_type} such as {name} has none: set it to null")
    for key in keys:
        setattr(config, key, probability)


def _keep_layers(config, number: int, name: str) -> None:
    if number > config.num_hidden_layers:
        raise InputError(f"backbone.num_layers={number}: {name} has {config.num_hidden_layers} layers: lower it")
    config.num_hidden_layers = number
    if getattr(config, "layer_types", None):  # ModernBERT: which layers attend only within a window
        config.layer_types = config.layer_types[:number]
