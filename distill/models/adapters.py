"""The adapters and the head of a model without its backbone: a small directory, which the `peft` package opens, too.

    write_adapters(model, directory)                                        # model.lora.save=adapters
    model = CrossEncoder.from_pretrained(directory, base="BACKBONE")        # merged

Such a directory names its backbone, but nothing that it names is followed: whoever opens it gives the backbone, and its
weights must be those that were frozen in training.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.data.pairs import SCALES
from distill.errors import InputError
from distill.models.calibration import read_calibration
from distill.models.decoders import score_layer
from distill.models.freezing import frozen_checksum
from distill.models.heads import HEADS, NativeHead
from distill.models.interpolation import read_interpolation
from distill.models.json_files import COPY_AGAIN, SETTINGS, read_count, read_object
from distill.models.lora import NAME, add_adapters, merge
from distill.models.model_files import check_directory
from distill.models.parts import check_whole, read_weights
from distill.models.prompts import DECODER_PROMPTS
from distill.models.saved import ADAPTER_FILE, SETTINGS_FILE, save_tokenizer, write_settings
from distill.storage.json_numbers import is_finite
from distill.storage.writing import write_text, write_whole_directory

WEIGHTS, HEAD = "adapter_model.safetensors", "head.safetensors"
OPTIONS = {  # of what the training was started with, as distill.json has them
    "head": HEADS,
    "pooling": ("cls", "mean"),
    "prompt": (None, *DECODER_PROMPTS),
    "first_stage_score": (None, *SCALES),
}
WITHIN = f".{NAME}.weight"  # the end of an adapter's names while it is trained


def train_adapters(model, *, save: str, **options) -> None:
    """Put adapters into a CrossEncoder, to be trained.

    save: "merged" saves a whole model, "adapters" what is trained. options: as of `add_adapters`. Raises InputError
    like it, and for a head that cannot be saved with adapters.
    """
    if save == "adapters" and model.causal is not None and score_layer(model.backbone.config) is None:
        raise InputError(
            "model.lora.save=adapters: this model's score is made of rows of its output matrix, and transformers has "
            f"no other head for a {model.backbone.config.model_type}: set model.lora.save=merged"
        )
    add_adapters(model, **options)
    model.saves_adapters = save == "adapters"
    if model.saves_adapters:
        model.base |= base_checksums(model)  # of the backbone as it is: later the adapters are merged with it


def write_adapters(model, directory: Path, kept: re.Pattern[str] | None = None) -> None:
    """Write what is trained of a CrossEncoder with adapters, and distill.json; the backbone is only named.

    kept: as in `write_model`.
    """
    size = sum(parameter.numel() * parameter.element_size() for parameter in trained_weights(model).values())
    write_whole_directory(directory, lambda new: _write_files(model, new), size, kept)


def trained_weights(model) -> dict[str, Tensor]:
    """Return the weights of adapters and head, by their names in the model."""
    weights = model.state_dict()
    return {name: weights[name] for name in weights if name.endswith(WITHIN) or not name.startswith("backbone.")}


def base_checksums(model) -> dict[str, int]:
    """Return what the backbone of a CrossEncoder must agree in: its frozen weights and, if it has one, its prompt."""
    checksums, template = {"checksum": frozen_checksum(model)}, model.template
    if template.keeps_query:
        parts = (template.prefix, template.middle, template.suffix)
        checksums["prompt_checksum"] = zlib.crc32(json.dumps([part.tolist() for part in parts]).encode())
    return checksums


def _native(model) -> NativeHead | None:
    """Return the head of transformers that the saved weights are for; None if they are for an encoder without one.

    The rows of a language model's answers are saved as the layer `score`: their difference is its weight.
    """
    return score_layer(model.backbone.config) if model.causal is not None else model.native


def _places(model) -> dict[str, str]:
    """Return the names that peft gives to the trained weights, by their names here.

    A head of transformers is part of the model that peft adapts; any other head is not.
    """
    whole: str = "base_model.model."
    native: Any = _native(model)
    backbone = whole if native is None else f"{whole}{native.architecture.base_model_prefix}."
    places = {}
    for name in trained_weights(model):
        if name.endswith(WITHIN):
            places[name] = f"{backbone}{name.removeprefix('backbone.').removesuffix(WITHIN)}.weight"
        for module, place in (native.names if native is not None else {}).items():
            if name.startswith(f"{module}."):
                places[name] = f"{whole}{place}{name.removeprefix(module)}"
    return places


def _write_files(model, directory: Path) -> None:
    config, places, native = model.backbone.peft_config[NAME], _places(model), _native(model)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_weights(model).items()}
    save_file({place: weights.pop(name) for name, place in places.items()}, directory / WEIGHTS, {"format": "pt"})
    save_file(weights, directory / HEAD)
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": model.base["name"],
        "revision": model.base["revision"],
        "task_type": None if native is None else "SEQ_CLS",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": sorted(config.target_modules),
        "modules_to_save": sorted(native.names.values()) if native is not None else None,
        "bias": "none",
        "inference_mode": True,
    }
    write_text(directory / ADAPTER_FILE, json.dumps(content, indent=2) + "\n")
    save_tokenizer(model, directory)
    write_settings(model, directory)


def holds_adapters(directory: Path) -> bool:
    """Whether a directory was written by `write_adapters`."""
    if not ((directory / ADAPTER_FILE).is_file() and (directory / SETTINGS_FILE).is_file()):
        return False
    return "base" in read_object(directory / SETTINGS_FILE, SETTINGS)


def read_base(directory: Path, base: str | None) -> dict[str, Any]:
    """Return the arguments of CrossEncoder.from_backbone for the model that a directory's adapters belong to.

    base: directory, packaged model or Hub id of the backbone. Raises InputError without one, and for damaged files.
    """
    check_directory(directory, adapters=True)
    file = directory / SETTINGS_FILE
    settings = read_object(file, SETTINGS)
    saved = settings["base"]
    if base is None:
        raise InputError(
            f"{directory}: holds adapters and a head, not the weights of their backbone: give that, as in "
            f"base={saved.get('name')}, or export a whole model with format=sentence-transformers, where base is of "
            "another model"
        )
    for key, options in OPTIONS.items():
        if saved.get(key) not in options:
            raise InputError(f"{file}: base.{key}={str(saved.get(key))[:40]}: is none that is known: {COPY_AGAIN}")
    lengths = {key: read_count(settings, key, file) for key in ("query_length", "passage_length")}
    layers = read_count(saved, "num_layers", file, optional=True)
    revision = str(saved["revision"]) if saved.get("revision") else None
    return {**{key: saved.get(key) for key in OPTIONS}, **lengths, "num_layers": layers, "revision": revision}


@torch.no_grad()
def load_adapters(model, directory: Path, base: str) -> None:
    """Put the adapters and the head of a directory into a CrossEncoder with their backbone.

    Raises InputError for another backbone, and for damaged files.
    """
    settings, config = read_object(directory / SETTINGS_FILE, SETTINGS), read_object(directory / ADAPTER_FILE)
    rank, alpha = read_count(config, "r", directory / ADAPTER_FILE) or 0, config.get("lora_alpha")
    if not is_finite(alpha) or alpha <= 0:
        raise InputError(f"{directory / ADAPTER_FILE}: lora_alpha={str(alpha)[:40]}: must be above 0: {COPY_AGAIN}")
    add_adapters(model, rank, float(alpha), 0.0, [str(name) for name in config.get("target_modules") or []])
    found, expected = base_checksums(model), settings["base"]
    if found["checksum"] != expected.get("checksum"):
        raise InputError(f"base={base}: its weights are not those that {directory} was trained with")
    if found.get("prompt_checksum") != expected.get("prompt_checksum", found.get("prompt_checksum")):
        raise InputError(
            f"base={base}: its prompt is not the one that {directory} was trained with: its files or its name have "
            "changed: give it as it was then"
        )
    places, head = _places(model), read_weights(directory / HEAD)
    stored = read_weights(directory / WEIGHTS)
    weights = head | {name: stored[place] for name, place in places.items() if place in stored}
    own = trained_weights(model)
    check_whole(directory, own.keys() - weights.keys())
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            raise InputError(f"{directory}: {name} has the shape {tuple(weights[name].shape)}: {COPY_AGAIN}")
        tensor.copy_(weights[name])
    merge(model.backbone)
    model.interpolation = read_interpolation(settings, directory / SETTINGS_FILE)
    model.calibration = read_calibration(settings, directory / SETTINGS_FILE)
    model.is_partly_frozen = False
