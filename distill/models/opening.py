"""Open cross-encoders that this and other libraries saved; the files in the directory tell which library it was.

    parts = open_directory(Path("cross-encoder/ms-marco-MiniLM-L6-v2"))     # backbone, tokenizer, layers, lengths

- this library and sentence-transformers: modules.json names Transformer, Pooling and Dense;
- sentence-transformers, classic: only Transformer, or no modules.json; the head is that of transformers;
- Hugging Face transformers: AutoModelForSequenceClassification with one label, or two (monoBERT);
- lightning-ir: `model_type` cross-encoder, mono or mono-electra and `backbone_model_type` in config.json;
- language models that score by the token they generate: monoT5, RankT5, Qwen3-Reranker (distill/models/generative.py);
- onnx/model.onnx without safetensors, as the export command writes it (distill/models/onnx.py).

Weights are read only from safetensors, and code in a directory is never run. A model that cannot be reproduced exactly
is refused.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from distill.data.pairs import SCALES
from distill.errors import InputError
from distill.models.carried import check_carried
from distill.models.generative import is_generative, open_generative
from distill.models.interpolation import read_interpolation
from distill.models.json_files import (
    CONFIG,
    COPY_AGAIN,
    DENSE,
    POOLING,
    SENTENCE_TRANSFORMERS,
    SETTINGS,
    TOKENIZER_CONFIG,
    read_count,
    read_object,
)
from distill.models.model_files import check_directory, read_modules
from distill.models.parts import (
    Parts,
    check_longest_text,
    check_shapes,
    check_tokenizer_files,
    explained,
    fill,
    load_tokenizer,
    load_whole,
    longest_input,
    quiet_transformers,
    read_weights,
)
from distill.models.saved import ONNX_FILE, SETTINGS_FILE, WITH_SCORE
from distill.models.sizes import check_size, match_vocabulary

NAME_WITH_SCORE = WITH_SCORE.rsplit(".", 1)[-1]
LIGHTNING_IR = ("cross-encoder", "mono", "mono-electra")
OTHERS_OF_LIGHTNING_IR = ("set-encoder", "bi-encoder", "dpr", "col", "splade", "coil", "unicoil", "mvr")
ACTIVATIONS = {  # by the last part of the class name; no class named in a file is ever imported
    "Identity": nn.Identity,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
}


def open_directory(path: Path, prompt: str | None = None) -> Parts:
    """Open a cross-encoder's directory; raises a one-line InputError if it is not one, or cannot be read exactly.

    prompt: for a language model, one of PROMPTS in distill/models/generative.py; None: the one its directory names.
    """
    quiet_transformers()
    config = read_object(path / "config.json", CONFIG)
    check_directory(path)
    model_type, architecture = str(config.get("model_type", "")), str((config.get("architectures") or [""])[0])
    if prompt is not None and not is_generative(architecture):
        raise InputError(f"{path}: prompt={prompt} is for language models, but this is a {architecture}: leave it out")
    if (path / ONNX_FILE).is_file() and not any(path.glob("*.safetensors*")):
        return _open_onnx(path, config)
    is_lightning_ir = "backbone_model_type" in config or model_type in (*LIGHTNING_IR, *OTHERS_OF_LIGHTNING_IR)
    modules = _modules(path)
    if is_lightning_ir and modules:
        raise InputError(
            f"{path}: config.json is from lightning-ir ({model_type}), but modules.json is from sentence-transformers: "
            "remove the one that does not belong to the model"
        )
    if is_lightning_ir:
        return _open_lightning_ir(path, config, model_type)
    if modules[1:] == ["LogitScore"] and is_generative(architecture):
        logit_score = read_object(path / read_modules(path)[1]["path"] / "config.json")
        parts = open_generative(path, config, prompt, logit_score)
        parts.activation = _sentence_transformers_activation(path) or nn.Sigmoid()
        return parts
    if is_generative(architecture) and not modules:
        return open_generative(path, config, prompt)
    classifies = architecture.endswith("ForSequenceClassification")
    if modules[:1] in (["Transformer"], [NAME_WITH_SCORE]) and modules[1:2] == ["Pooling"]:
        parts = _open_modules(path, modules)
        if classifies:
            check_carried(path, parts)
        return parts
    if modules not in ([], ["Transformer"]):
        raise InputError(
            f"{path}: modules.json names {', '.join(modules)}: only Transformer, Transformer and LogitScore, or "
            "Transformer, Pooling and Dense can be loaded"
        )
    if classifies:
        return _open_classifier(path, architecture)
    raise InputError(
        f"{path}: is not a saved cross-encoder ({architecture or 'an encoder'} without a head): give the `model` "
        "directory of a run, or a model of sentence-transformers, lightning-ir or AutoModelForSequenceClassification"
    )


def _modules(path: Path) -> list[str]:
    """Return the class names in modules.json, none if there is no such file."""
    return [module["type"].rsplit(".", 1)[-1] for module in read_modules(path)]


def _open_modules(path: Path, names: list[str]) -> Parts:
    """Open a directory of Transformer, Pooling and one or more Dense, as written here and by sentence-transformers."""
    from transformers import AutoModel

    modules = read_modules(path)
    if len(names) < 3 or set(names[2:]) != {"Dense"}:
        raise InputError(f"{path}: modules.json names {', '.join(names)}: expected only Dense after Pooling")
    pooling_file = path / modules[1]["path"] / "config.json"
    pooled = read_object(pooling_file, POOLING)
    pooling = _pooling(path, pooled)
    layers, linear = [], None
    for module in modules[2:]:
        linear, activation = _open_dense(path / module["path"])
        layers += [linear, activation]
    if linear.out_features != 1:
        raise InputError(f"{path}: its last layer returns {linear.out_features} scores: expected one")
    activation = layers.pop()
    layers.pop()
    of_model = _sentence_transformers_activation(path)
    if not isinstance(activation, nn.Identity):
        if of_model is not None and not isinstance(of_model, nn.Identity):
            raise InputError(
                f"{path}: has an activation in its last Dense and one for the model: only one can be loaded"
            )
        of_model = activation
    with explained(path):
        backbone = load_whole(AutoModel, path)
    width = backbone.config.hidden_size
    for key in ("embedding_dimension", "word_embedding_dimension"):  # the name in version 6, and in older versions
        if read_count(pooled, key, pooling_file, optional=True) not in (None, width):
            raise InputError(f"{pooling_file}: {key}={pooled[key]}, but the encoder's states have {width} numbers")
    for layer in (layer for layer in [*layers, linear] if isinstance(layer, nn.Linear)):
        if layer.in_features != width:
            raise InputError(f"{path}: a Dense takes {layer.in_features} numbers, but gets {width}: {COPY_AGAIN}")
        width = layer.out_features
    parts = Parts(backbone, load_tokenizer(path), *_one_score(path, linear), pooling)
    parts.projection = nn.Sequential(*layers) if layers else nn.Identity()
    parts.activation = of_model if of_model is not None else nn.Sigmoid()  # sentence-transformers' default
    if (path / SETTINGS_FILE).is_file():
        _read_settings(path, parts)
    else:
        parts.max_length = _pair_length(path, parts)
    if (names[0] == NAME_WITH_SCORE) != (parts.first_stage_score is not None):
        raise InputError(
            f"{path}: only one of modules.json and {SETTINGS_FILE} says that pairs hold the first stage's score: "
            f"{COPY_AGAIN}"
        )
    return parts


def _pooling(path: Path, config: dict) -> str:
    mode = config.get("pooling_mode")
    if mode is None:  # before version 6, one key for each mode
        modes = [key.removeprefix("pooling_mode_") for key in config if key.startswith("pooling_mode_") and config[key]]
        mode = {"cls_token": "cls", "mean_tokens": "mean"}.get(modes[0]) if len(modes) == 1 else None
    if mode not in ("cls", "mean"):
        raise InputError(f"{path}: pools by {mode or 'several modes'}: only cls or mean can be loaded")
    return mode


def _open_dense(path: Path) -> tuple[nn.Linear, nn.Module]:
    config = read_object(path / "config.json", DENSE)
    if config.get("use_residual"):
        raise InputError(f"{path}: has a residual connection, which cannot be loaded")
    sizes = {key: read_count(config, key, path / "config.json") for key in ("in_features", "out_features")}
    with torch.device("meta"):  # takes no memory: the sizes are checked against the weights first
        linear = nn.Linear(**sizes, bias=config.get("bias", True))
    weights = read_weights(path / "model.safetensors")
    check_shapes(linear, weights, path, "linear.")
    linear = linear.to_empty(device="cpu")
    fill(linear, weights, path, "linear.")
    return linear, _activation(path, str(config.get("activation_function", "Tanh")))


def _activation(path: Path, name: str) -> nn.Module:
    short = name.rsplit(".", 1)[-1].removesuffix("()")
    if short not in ACTIVATIONS or ("." in name and not name.startswith("torch.nn.")):
        raise InputError(f"{path}: has the activation {name}: expected one of {', '.join(ACTIVATIONS)} of torch.nn")
    return ACTIVATIONS[short]()


def _sentence_transformers_activation(path: Path) -> nn.Module | None:
    """Return the activation that sentence-transformers would apply to the scores, None if no file names one."""
    if (path / "config_sentence_transformers.json").is_file():
        name = read_object(path / "config_sentence_transformers.json", SENTENCE_TRANSFORMERS).get("activation_fn")
        if name:
            return _activation(path, str(name))
    config = read_object(path / "config.json", CONFIG)
    name = (config.get("sentence_transformers") or {}).get("activation_fn")
    name = name or config.get("sbert_ce_default_activation_function")
    return _activation(path, str(name)) if name else None


def _open_classifier(path: Path, architecture: str) -> Parts:
    """Open a model of AutoModelForSequenceClassification with one label, or with two.

    With two, the score is the second label's log-probability, log softmax(z)_1 = log sigmoid(z_1 - z_0): one linear
    layer, whose row is the second label's minus the first's.
    """
    from transformers import AutoModelForSequenceClassification

    with explained(path):
        model = load_whole(AutoModelForSequenceClassification, path)
    backbone = model.base_model
    classifier = getattr(model, "classifier", None)
    pooling = "cls"
    if hasattr(classifier, "out_proj") and hasattr(classifier, "dense"):  # ELECTRA, RoBERTa and similar models
        gelu = model.config.model_type == "electra"
        projection = nn.Sequential(classifier.dense, nn.GELU() if gelu else nn.Tanh())
        linear = classifier.out_proj
    elif hasattr(model, "head") and isinstance(classifier, nn.Linear):  # ModernBERT
        projection, linear, pooling = model.head, classifier, model.config.classifier_pooling
    elif isinstance(getattr(model, "score", None), nn.Linear):  # Qwen, Llama and other decoders
        projection, linear, pooling = nn.Identity(), model.score, "last"
    elif hasattr(model, "pre_classifier"):  # DistilBERT
        projection, linear = nn.Sequential(model.pre_classifier, nn.ReLU()), classifier
    elif hasattr(model, "pooler") and isinstance(classifier, nn.Linear):  # DeBERTa
        from transformers.activations import ACT2FN

        projection = nn.Sequential(model.pooler.dense, ACT2FN[model.config.pooler_hidden_act])
        linear = classifier
    elif getattr(backbone, "pooler", None) is not None and isinstance(classifier, nn.Linear):  # BERT
        projection, linear = nn.Sequential(backbone.pooler.dense, nn.Tanh()), classifier
        backbone.pooler = None  # the projection takes its place
    else:
        raise InputError(f"{path}: the head of {architecture} is not supported: cannot be loaded")
    parts = Parts(backbone, load_tokenizer(path), *_one_score(path, linear), pooling, projection)
    if linear.out_features == 2:
        parts.activation = nn.LogSigmoid()
    elif (activation := _sentence_transformers_activation(path)) is not None:
        parts.activation = activation
    parts.max_length = _pair_length(path, parts)
    return parts


def _open_onnx(path: Path, config: dict) -> Parts:
    """Open a graph that the export command wrote for onnxruntime; the graph computes the score."""
    from distill.models.onnx import OnnxScorer

    parts = Parts(OnnxScorer(path / ONNX_FILE), load_tokenizer(path), torch.ones(1, 1), torch.zeros(1))
    rows = read_count(config, "vocab_size", path / "config.json", optional=True)
    if rows is not None:
        match_vocabulary(path, parts.tokenizer, rows)
    _read_settings(path, parts)
    return parts


def _read_settings(path: Path, parts: Parts) -> None:
    """Read the lengths of query, passage and pair, the interpolation, and how the first stage's score is scaled."""
    file = path / SETTINGS_FILE
    settings = read_object(file, SETTINGS)
    parts.lengths = tuple(read_count(settings, key, file) for key in ("query_length", "passage_length"))
    parts.max_length = read_count(settings, "max_length", file, optional=True)
    parts.interpolation = read_interpolation(settings, file)
    parts.first_stage_score = settings.get("first_stage_score")
    if parts.first_stage_score not in (None, *SCALES):
        raise InputError(
            f"{file}: first_stage_score={str(parts.first_stage_score)[:40]}: must be one of {', '.join(SCALES)}: "
            f"{COPY_AGAIN}"
        )


def _open_lightning_ir(path: Path, config: dict, model_type: str) -> Parts:
    """Open a mono cross-encoder of lightning-ir, up to version 0.0.6."""
    from transformers import AutoConfig, AutoModel

    if model_type not in LIGHTNING_IR:
        raise InputError(
            f"{path}: is a {model_type} of lightning-ir, which does not score one pair at a time with a plain encoder: "
            "only cross-encoder, mono and mono-electra can be loaded"
        )
    for key in ("use_adapter", "tokenizer_pattern"):
        if config.get(key):
            raise InputError(f"{path}: {key}={config[key]} cannot be loaded: merge or export it in lightning-ir")
    pooling = {"first": "cls", "mean": "mean", "bert_pool": "cls"}.get(config.get("pooling_strategy", "first"))
    if pooling is None:
        raise InputError(f"{path}: pooling_strategy={config['pooling_strategy']}: only first and mean can be loaded")
    backbone_type = config.get("backbone_model_type") or ("electra" if model_type == "mono-electra" else "bert")
    with explained(path):
        plain = AutoConfig.for_model(backbone_type, **{k: v for k, v in config.items() if k != "model_type"})
        if plain.is_encoder_decoder:
            raise InputError(f"{path}: has a {backbone_type} backbone: only encoders can be loaded")
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
    parts = Parts(backbone, _lightning_ir_tokenizer(path, backbone_type), *_one_score(path, linear), pooling)
    if config.get("_bert_pool") or pool:
        parts.projection = nn.Sequential(nn.Linear(plain.hidden_size, plain.hidden_size), nn.Tanh())
        fill(parts.projection, pool, path)
    if linear.out_features == 2:
        parts.activation = nn.LogSigmoid()
    longest = longest_input(plain)
    given = (read_count(config, key, path / "config.json", optional=True) for key in ("query_length", "doc_length"))
    parts.lengths = tuple(longest if length is None else length for length in given)
    parts.max_length = min(longest, getattr(parts.tokenizer, "model_max_length", longest))
    return parts


def _lightning_ir_tokenizer(path: Path, backbone_type: str):
    """Load the plain tokenizer that lightning-ir's class wraps; that class cuts texts the same way as this library."""
    from transformers import PreTrainedTokenizerFast

    check_tokenizer_files(path)
    if not (path / "tokenizer.json").is_file():
        return load_tokenizer(path, model_type=backbone_type)
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


def _one_score(path: Path, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight [1, D] and bias [1] of one score; for two labels, of the second's logit minus the first's."""
    weight = linear.weight.detach()
    bias = linear.bias.detach() if linear.bias is not None else weight.new_zeros(len(weight))
    if len(weight) == 2:
        return weight[1:] - weight[:1], bias[1:] - bias[:1]
    if len(weight) != 1:
        raise InputError(f"{path}: its head returns {len(weight)} scores: only one or two labels can be loaded")
    return weight, bias


def _pair_length(path: Path, parts: Parts) -> int:
    """Return the length in tokens to which the source library truncates a pair."""
    given, file = None, path / "sentence_bert_config.json"
    if file.is_file():
        given = read_count(read_object(file), "max_seq_length", file, optional=True)
    return min(given or parts.tokenizer.model_max_length, longest_input(parts.backbone.config))
