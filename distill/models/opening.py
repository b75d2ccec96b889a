"""Open cross-encoders that this and other libraries saved; the files in the directory tell which library it was.

    parts = open_directory(Path("cross-encoder/ms-marco-MiniLM-L6-v2"))     # backbone, tokenizer, layers, lengths

- this library and sentence-transformers: modules.json names Transformer, Pooling, Dense and LayerNorm;
- sentence-transformers, classic: only Transformer, or no modules.json; the head is that of transformers;
- Hugging Face transformers: AutoModelForSequenceClassification with one label, or two (monoBERT);
- lightning-ir: `model_type` cross-encoder, mono or mono-electra and `backbone_model_type` in config.json;
- language models that score by the token they generate: monoT5, RankT5, Qwen3-Reranker (distill/models/generative.py);
- onnx/model.onnx without safetensors, as the export command writes it (distill/models/onnx.py).

Weights are read only from safetensors, and code in a directory is never run. A model that cannot be reproduced exactly
is refused.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.data.pairs import SCALES
from distill.errors import InputError
from distill.models.calibration import read_calibration
from distill.models.carried import check_carried
from distill.models.classifiers import open_classifier
from distill.models.decoders import may_have_prompt
from distill.models.early_exit import ExitHead, new_exit
from distill.models.generative import is_generative, open_generative
from distill.models.interpolation import read_interpolation
from distill.models.json_files import CONFIG, COPY_AGAIN, SETTINGS, read_count, read_object
from distill.models.lightning_ir import LIGHTNING_IR, is_lightning_ir, open_lightning_ir
from distill.models.model_files import check_directory, read_modules
from distill.models.modules import (
    TRANSFORMERS,
    activation_of_model,
    check_widths,
    is_cross_encoder,
    module_names,
    read_head,
)
from distill.models.parts import (
    Change,
    Parts,
    check_attention,
    explained,
    fill,
    load_tokenizer,
    load_whole,
    pair_length,
    quiet_transformers,
    read_weights,
)
from distill.models.saved import EXIT_FILE, ONNX_FILE, SETTINGS_FILE
from distill.models.sizes import match_vocabulary
from distill.models.text_options import check_default_prompt, check_text_options


def open_directory(path: Path, prompt: str | None = None, change: Change | None = None) -> Parts:
    """Open a cross-encoder's directory; raises a one-line InputError if it is not one, or cannot be read exactly.

    prompt: for a language model, one of PROMPTS in distill/models/generative.py; None: the one its directory names.
    change: of an encoder's configuration, before it is loaded.
    """
    quiet_transformers()
    config = read_object(path / "config.json", CONFIG)
    check_directory(path)
    model_type, architecture = str(config.get("model_type", "")), _architecture(config)
    modules = module_names(path)
    reads_prompt = (is_generative(architecture) or may_have_prompt(config)) and "Pooling" not in modules
    if prompt is not None and not reads_prompt:
        raise InputError(f"{path}: prompt={prompt} is for language models, but this is a {architecture}: leave it out")
    if _is_graph(path):
        return _open_onnx(path, config)
    check_text_options(path, lambda: load_tokenizer(path))
    if not reads_prompt:
        check_default_prompt(path)
    if is_lightning_ir(config) and modules:
        raise InputError(
            f"{path}: config.json is from lightning-ir ({model_type}), but modules.json is from sentence-transformers: "
            "remove the one that does not belong to the model"
        )
    if is_lightning_ir(config):
        if model_type not in LIGHTNING_IR:
            raise InputError(
                f"{path}: is a {model_type} of lightning-ir, which does not score one pair at a time with a plain "
                "encoder: only cross-encoder, mono and mono-electra can be loaded"
            )
        return open_lightning_ir(path, config, change)
    if modules[1:] == ["LogitScore"] and is_generative(architecture):
        logit_score = read_object(path / read_modules(path)[1]["path"] / "config.json")
        parts = open_generative(path, config, prompt, logit_score, change)
        parts.activation = activation_of_model(path) or nn.Sigmoid()
        return _with_settings(path, parts)
    if is_generative(architecture) and not modules:
        return _with_settings(path, open_generative(path, config, prompt, change=change))
    classifies = architecture.endswith("ForSequenceClassification")
    if modules[:1] in ([name] for name in TRANSFORMERS) and modules[1:2] == ["Pooling"]:
        parts = _open_modules(path, change)
        if classifies:
            check_carried(path, parts)
        return parts
    if modules not in ([], ["Transformer"]):
        raise InputError(
            f"{path}: modules.json names {', '.join(modules)}: only Transformer, Transformer and LogitScore, or "
            "Transformer, Pooling, Dense and LayerNorm can be loaded"
        )
    if classifies:
        parts = open_classifier(path, architecture, config, prompt, change)
        _read_lengths(path, parts)
        return parts
    raise InputError(
        f"{path}: is not a saved cross-encoder ({architecture or 'an encoder'} without a head): give the `model` "
        "directory of a run, or a model of sentence-transformers, lightning-ir or AutoModelForSequenceClassification"
    )


def has_head(path: Path) -> bool:
    """Whether a directory is a cross-encoder with layers of its own, rather than an encoder or a language model."""
    config = read_object(path / "config.json", CONFIG)
    if _is_graph(path) or is_lightning_ir(config):
        return True
    if module_names(path)[1:]:
        return is_cross_encoder(path)
    return _architecture(config).endswith("ForSequenceClassification")


def answers_in_words(path: Path) -> bool:
    """Whether a directory is a language model, which scores by the tokens that it would generate."""
    return is_generative(_architecture(read_object(path / "config.json", CONFIG)))


def _architecture(config: dict) -> str:
    return str((config.get("architectures") or [""])[0])


def _is_graph(path: Path) -> bool:
    return (path / ONNX_FILE).is_file() and not any(path.glob("*.safetensors*"))


def _open_modules(path: Path, change: Change | None) -> Parts:
    """Open a directory of Transformer, Pooling, Dense and LayerNorm, as written here and by sentence-transformers."""
    from transformers import AutoModel

    head = read_head(path)
    with explained(path):
        backbone = load_whole(AutoModel, path, change)
    check_attention(path, backbone.config)
    check_widths(head, backbone.config.hidden_size)
    parts = Parts(backbone, load_tokenizer(path), head.weight, head.bias, head.pooling, head.projection)
    parts.activation = head.activation
    _read_lengths(path, parts)
    if (module_names(path)[0] != "Transformer") != (parts.first_stage_score is not None):
        raise InputError(
            f"{path}: only one of modules.json and {SETTINGS_FILE} says that pairs hold the first stage's score: "
            f"{COPY_AGAIN}"
        )
    return parts


def _read_lengths(path: Path, parts: Parts) -> None:
    """Read how pairs are cut: as distill.json says, or else as the source library does."""
    if (path / SETTINGS_FILE).is_file():
        _read_settings(path, parts)
    else:
        parts.max_length = pair_length(path, parts)


def _with_settings(path: Path, parts: Parts) -> Parts:
    """Return the parts of a language model; if distill.json is there, pairs are cut as it says."""
    if (path / SETTINGS_FILE).is_file():
        _read_settings(path, parts)
    return parts


def _open_onnx(path: Path, config: dict) -> Parts:
    """Open a graph that the export command wrote for onnxruntime: it computes the score before its activation."""
    from distill.models.onnx import OnnxScorer

    parts = Parts(OnnxScorer(path / ONNX_FILE), load_tokenizer(path), torch.ones(1, 1), torch.zeros(1))
    parts.activation = activation_of_model(path) or parts.activation
    rows = read_count(config, "vocab_size", path / "config.json", optional=True)
    if rows is not None:
        match_vocabulary(path, parts.tokenizer, rows)
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0 and config.get("position_biased_input", True):
        parts.backbone.config.max_position_embeddings = positions
    parts.backbone.config.exported_type = config.get("model_type")
    _read_settings(path, parts)
    return parts


def _read_settings(path: Path, parts: Parts) -> None:
    """Read the lengths of query, passage and pair, the interpolation, the calibration, and the first stage's scale."""
    file = path / SETTINGS_FILE
    settings = read_object(file, SETTINGS)
    parts.lengths = tuple(read_count(settings, key, file) for key in ("query_length", "passage_length"))
    parts.max_length = read_count(settings, "max_length", file, optional=True)
    parts.interpolation, parts.calibration = read_interpolation(settings, file), read_calibration(settings, file)
    parts.first_stage_score = settings.get("first_stage_score")
    if parts.first_stage_score not in (None, *SCALES):
        raise InputError(
            f"{file}: first_stage_score={str(parts.first_stage_score)[:40]}: must be one of {', '.join(SCALES)}: "
            f"{COPY_AGAIN}"
        )


def saved_layer(directory: Path) -> int | None:
    """Return the layer after which the model in a directory has a score, None if after the last one only."""
    file = directory / SETTINGS_FILE
    return read_count(read_object(file, SETTINGS), "exit_layer", file, optional=True) if file.is_file() else None


def read_exit(directory: Path, backbone: Any) -> ExitHead | None:
    """Return the exit head in a saved model's directory, None if it has none; raises InputError for a damaged one."""
    layer = saved_layer(directory)
    if layer is None:
        return None
    try:
        head = new_exit(backbone, layer)
    except InputError as error:
        raise InputError(f"{directory / SETTINGS_FILE}: {error}") from None
    fill(head.linear, read_weights(directory / EXIT_FILE), directory / EXIT_FILE, "exit.")
    return head
