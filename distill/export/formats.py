"""Export a saved cross-encoder to the formats of other libraries, with the same scores.

    export(CrossEncoder.from_pretrained("outputs/.../model"), Path("exported"), "lightning-ir")

`model` directories already have the sentence-transformers format: exporting to it only copies the model and its card.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from distill.errors import InputError
from distill.export.onnx import quantise, write_onnx
from distill.export.rounding import round_weights
from distill.models.cross_encoder import CrossEncoder
from distill.models.saved import ONNX_FILE, SETTINGS_FILE, write_settings
from distill.storage.writing import write_text, write_whole_directory

NEEDS = {  # of the head, beside the encoder
    "lightning-ir": " with one linear layer",
    "transformers": " with one linear layer or the head of its architecture",
}


def export(model: CrossEncoder, directory: Path, target: str, card: str | None = None, dtype: str = "float32") -> None:
    """Write a model in one of FORMATS, to a temporary directory that is then renamed.

    card: the text of its README.md. dtype: of the weights in the files, float32, float16 or bfloat16; ONNX graphs have
    their own. Raises InputError for a directory that already exists, for a model that the format cannot express
    exactly, and for weights that are too large for the type.
    """
    if directory.exists():
        raise InputError(f"output={directory}: already exists: choose another, or remove it")
    fits = {"lightning-ir": model.is_plain, "transformers": model.is_plain or model.native is not None}
    if not (model.is_encoder and fits.get(target, True)):
        raise InputError(f"{target}: only an encoder{NEEDS.get(target, '')} can be exported")
    if model.first_stage_score is not None:
        raise InputError(
            f"{target}: this model reads the first stage's scores, which other libraries would leave out: use "
            "evaluate.py or CrossEncoder.rank"
        )

    def write(new: Path) -> None:
        FORMATS[target](model, new)
        if dtype != "float32":
            round_weights(new, dtype)
            if (new / SETTINGS_FILE).is_file():
                write_settings(model, new)  # with the checksums of the rounded weights
        if card is not None:
            write_text(new / "README.md", card)

    write_whole_directory(directory, write)


def _write_onnx(model: CrossEncoder, directory: Path) -> None:
    """Write graph, tokenizer and lengths; distill/models/onnx.py lists the names of inputs and outputs."""
    model.backbone.config.save_pretrained(directory)
    model.tokenizer.model_max_length = model.max_length
    model.tokenizer.save_pretrained(directory)
    write_onnx(model, directory)
    write_settings(model, directory)


def _write_int8(model: CrossEncoder, directory: Path) -> None:
    _write_onnx(model, directory)
    quantise(directory / ONNX_FILE)
    write_settings(model, directory)  # with the checksum of the quantised graph


def _write_lightning_ir(model: CrossEncoder, directory: Path) -> None:
    """Write a `mono` checkpoint of lightning-ir 0.0.6, with the model's query and passage lengths."""
    if model.template.max_length is not None:
        raise InputError("lightning-ir: cuts query and passage separately, but this model cuts them as one pair")
    config = model.backbone.config
    config.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    lengths = {"query_length": model.query_length, "doc_length": model.passage_length, "scoring_strategy": "rank"}
    name = type(config).__name__.removesuffix("Config")
    _change(
        directory / "config.json",
        **lengths,
        architectures=[f"Mono{name}Model"],
        model_type="mono",
        backbone_model_type=config.model_type,
        pooling_strategy="first" if model.pooling == "cls" else "mean",
        linear_bias=True,
        tokenizer_pattern=None,
        _bert_pool=False,
        use_adapter=False,
    )
    fast = f"{name}TokenizerFast" if config.model_type != "modernbert" else "PreTrainedTokenizerFast"
    _change(
        directory / "tokenizer_config.json",
        **lengths,
        tokenizer_class="CrossEncoderTokenizer",
        backbone_tokenizer_class=fast,
        model_input_names=model.tokenizer.model_input_names,
        model_max_length=model.max_length,
    )
    weights = model.backbone.state_dict() | {f"linear.{name}": value for name, value in model.head.state_dict().items()}
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def _write_transformers(model: CrossEncoder, directory: Path) -> None:
    """Write a model of AutoModelForSequenceClassification, whose head must have a GELU or ReLU between two layers.

    If g is such a function, g(s) - g(-s) = s: the first layer outputs s and -s in its first two places, and the second
    layer takes their difference. A tanh between the layers (BERT, RoBERTa) or a normalisation (ModernBERT) would change
    every score. A model with the head of its architecture is written as it is.
    """
    from transformers import AutoModelForSequenceClassification

    if model.native is not None:
        model.save_pretrained(directory)
        return
    config = model.backbone.config
    whole = AutoModelForSequenceClassification.from_config(
        _with_one_label(config), dtype=torch.float32, trust_remote_code=False
    )
    kind = config.model_type
    if model.pooling == "cls" and kind == "electra":
        inner, last = whole.classifier.dense, whole.classifier.out_proj
    elif model.pooling == "cls" and kind == "deberta-v2" and config.pooler_hidden_act in ("gelu", "relu"):
        inner, last = whole.pooler.dense, whole.classifier
    elif model.pooling == "cls" and kind == "distilbert":
        inner, last = whole.pre_classifier, whole.classifier
    else:
        raise InputError(
            f"transformers: the head that AutoModelForSequenceClassification puts on {kind} ({model.pooling} pooling) "
            "cannot express one linear layer: export to lightning-ir, or load the model with sentence-transformers"
        )
    whole.base_model.load_state_dict(model.backbone.state_dict())
    for tensor in (*inner.parameters(), *last.parameters()):
        nn.init.zeros_(tensor)
    with torch.no_grad():
        inner.weight[:2] = torch.cat([model.head.weight, -model.head.weight])
        inner.bias[:2] = torch.cat([model.head.bias, -model.head.bias])
        last.weight[0, :2] = torch.tensor([1.0, -1.0])
    # Without this, sentence-transformers would add an activation
    whole.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    whole.save_pretrained(directory)
    model.tokenizer.model_max_length = model.max_length
    model.tokenizer.save_pretrained(directory)


def _with_one_label(config):
    config = type(config).from_dict(config.to_dict())
    config.num_labels = 1
    return config


def _change(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes, indent=2) + "\n")


FORMATS: dict[str, Callable[[CrossEncoder, Path], None]] = {
    "sentence-transformers": CrossEncoder.save_pretrained,
    "lightning-ir": _write_lightning_ir,
    "transformers": _write_transformers,
    "onnx": _write_onnx,
    "onnx-int8": _write_int8,
}
