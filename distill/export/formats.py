"""Export a saved cross-encoder to the formats of other libraries, with the same scores.

    export(CrossEncoder.from_pretrained("outputs/.../model"), Path("exported"), "lightning-ir")

`model` directories already have the sentence-transformers format: exporting to it only copies the model and its card.
"""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from distill.errors import InputError
from distill.export.onnx import OPSET, quantise, write_onnx
from distill.export.rounding import round_weights
from distill.export.vocabulary import write_vocabulary
from distill.models.carried import can_carry, classifier_config, write_weights
from distill.models.cross_encoder import CrossEncoder
from distill.models.decoders import SCORE, score_layer
from distill.models.heads import name_activation, without_memory, write_native
from distill.models.saved import EXIT_FILE, ONNX_FILE, SETTINGS_FILE, save_tokenizer, write_settings
from distill.storage.writing import write_text, write_whole_directory

log = logging.getLogger(__name__)

LINEAR = "linear"  # the head of lightning-ir
NEEDS = {  # of the head, beside the encoder
    "lightning-ir": " with one linear layer",
    "bert": " with one linear layer",
    "transformers": " with one linear layer or the head of its architecture",
}


def export(
    model: CrossEncoder,
    directory: Path,
    target: str,
    card: str | None = None,
    dtype: str = "float32",
    opset: int = OPSET,
) -> None:
    """Write a model in one of FORMATS, to a temporary directory that is then renamed.

    card: the text of its README.md. dtype: of the weights in the files, float32, float16 or bfloat16; ONNX graphs have
    their own, and `opset`. Raises InputError for a directory that already exists, for a model that the format cannot
    express exactly, and for weights that are too large for the type. Warns of what the format has no place for, if no
    score depends on it.
    """
    if directory.exists():
        raise InputError(f"output={directory}: already exists: choose another, or remove it")
    if model.is_decoder and target not in OF_DECODERS:
        raise InputError(f"{target}: only an encoder can be exported: choose one of {', '.join(OF_DECODERS)}")
    fits = dict.fromkeys(("lightning-ir", "bert"), model.is_plain)
    fits["transformers"] = model.is_plain or model.native is not None
    if not model.is_decoder and not (model.is_encoder and fits.get(target, True)):
        raise InputError(f"{target}: only an encoder{NEEDS.get(target, '')} can be exported")
    if model.first_stage_score is not None:
        raise InputError(
            f"{target}: this model reads the first stage's scores, which other libraries would leave out: use "
            "evaluate.py or CrossEncoder.rank"
        )

    def write(new: Path) -> None:
        FORMATS[target](model, new, **({"opset": opset} if target.startswith("onnx") else {}))
        if dtype != "float32":
            native = () if model.native is None else model.native.names.values()
            round_weights(new, dtype, (*native, LINEAR, SCORE))
            if (new / SETTINGS_FILE).is_file():
                write_settings(model, new)  # with the checksums of the rounded weights
        if card is not None:
            write_text(new / "README.md", card)

    write_whole_directory(directory, write, is_new=True)
    kept = dict.fromkeys(("interpolation", "calibration"), (directory / SETTINGS_FILE).is_file())
    kept["exit"] = (directory / EXIT_FILE).is_file()  # an ONNX graph has only the full score
    lost = [what for attribute, what in OWN.items() if getattr(model, attribute) is not None and not kept[attribute]]
    if lost:
        log.warning("%s: has no place for %s: only the model you export from keeps that", target, " and ".join(lost))


def _write_onnx(model: CrossEncoder, directory: Path, opset: int) -> None:
    """Write graph, tokenizer and lengths; distill/models/onnx.py lists the names of inputs and outputs."""
    config = classifier_config(model.backbone.config)
    name_activation(config, model.activation)  # the graph ends before it
    whole = without_memory(config)
    if whole is not None:  # what the graph computes, whatever its own head is
        config.architectures = [type(whole).__name__]
    config.save_pretrained(directory)
    save_tokenizer(model, directory)
    write_onnx(model, directory, opset)
    write_settings(model, directory)


def _write_int8(model: CrossEncoder, directory: Path, opset: int) -> None:
    _write_onnx(model, directory, opset)
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
    weights = model.backbone.state_dict() | {
        f"{LINEAR}.{name}": value for name, value in model.head.state_dict().items()
    }
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def _write_transformers(model: CrossEncoder, directory: Path) -> None:
    """Write a model of AutoModelForSequenceClassification, with the head of its architecture, or carrying ours."""
    if model.is_decoder:
        _write_decoder(model, directory)
        return
    if model.native is not None:
        model.save_pretrained(directory)
        write_vocabulary(directory)
        write_settings(model, directory)  # with the checksums of these files, too
        return
    if not can_carry(model):
        kind = model.backbone.config.model_type
        raise InputError(
            f"transformers: the head that AutoModelForSequenceClassification puts on {kind} ({model.pooling} pooling) "
            "cannot carry one linear layer: export to onnx or lightning-ir, or use sentence-transformers"
        )
    write_weights(model, directory)
    save_tokenizer(model, directory)
    write_vocabulary(directory)


def _write_decoder(model: CrossEncoder, directory: Path) -> None:
    """Write a decoder with the layer `score`; that of a language model has the rows of its answers as its weight."""
    same = copy.copy(model)  # with the same weights
    same.native, same.causal = model.native or score_layer(model.backbone.config), None
    if same.native is None:
        raise InputError(f"transformers: puts no linear head on {model.backbone.config.model_type} models")
    if model.causal is not None and model.causal.prompt.whole_template is not None:
        same.tokenizer = copy.copy(model.tokenizer)
        same.tokenizer.chat_template = model.causal.prompt.whole_template
    write_native(same, directory)
    save_tokenizer(same, directory)
    write_settings(same, directory)


def _write_bert(model: CrossEncoder, directory: Path) -> None:
    """Write an ELECTRA as a BERT, which more servers know, and which computes the same."""
    from transformers import BertConfig, BertModel

    config = model.backbone.config
    if config.model_type != "electra" or config.embedding_size != config.hidden_size:
        what = f"this is a {config.model_type}"
        if config.model_type == "electra":
            sizes = f"embeddings of {config.embedding_size} and states of {config.hidden_size} numbers"
            what = f"this ELECTRA has {sizes}"
        raise InputError(f"bert: only an ELECTRA whose embeddings are as wide as its states can be renamed, but {what}")
    if model.pooling != "cls":
        raise InputError("bert: no BERT classifier reads the mean over the tokens: export to onnx")
    known = BertConfig().to_dict().keys() - {"architectures", "model_type", "transformers_version"}
    with torch.device("meta"):
        backbone = BertModel(BertConfig(**{key: value for key, value in config.to_dict().items() if key in known}))
    weights = model.backbone.state_dict()
    missing = backbone.load_state_dict(weights, strict=False, assign=True).missing_keys
    assert all(name.startswith("pooler.") for name in missing), missing
    backbone.pooler = None
    lengths = model.query_length, model.passage_length
    renamed = CrossEncoder(backbone, model.tokenizer, model.pooling, *lengths, template=model.template)
    renamed.head, renamed.exit = model.head, model.exit
    renamed.interpolation, renamed.calibration = model.interpolation, model.calibration
    renamed.save_pretrained(directory)


def _change(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes, indent=2) + "\n")


# What only our own files hold, by the model's attributes
OWN = {
    "interpolation": "the weight of its interpolation",
    "calibration": "its calibration",
    "exit": "its early exit",
}
OF_DECODERS = ("sentence-transformers", "transformers")
FORMATS: dict[str, Callable[..., None]] = {
    "sentence-transformers": CrossEncoder.save_pretrained,
    "lightning-ir": _write_lightning_ir,
    "transformers": _write_transformers,
    "bert": _write_bert,
    "onnx": _write_onnx,
    "onnx-int8": _write_int8,
}
