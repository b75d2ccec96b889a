"""The directory of a saved model: its files, written and fetched."""

import json
import os
import re
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors.torch import save_file

from distill.errors import InputError
from distill.models.carried import write_weights
from distill.models.causal import causal_files, write_causal
from distill.models.heads import class_name, module_files, write_native
from distill.models.json_files import COPY_AGAIN, SETTINGS, is_inside, read_object
from distill.models.locate import known_instead
from distill.storage.checksums import checksum, checksum_once
from distill.storage.writing import write_text, write_whole_directory

SETTINGS_FILE = "distill.json"  # lengths, interpolation and other things that no sentence-transformers file can hold
CHECKSUMS = "crc32"  # its key in distill.json: {file: CRC-32}, or null for a file that its user has changed
KEYS = (
    *("query_length", "passage_length", "max_length", "first_stage_score"),
    *("interpolation", "calibration", "base", "exit_layer", CHECKSUMS),
)
CARD = "README.md"  # has no checksum: it decides no score, and people rewrite it
IF_CHANGED = f"if you changed it on purpose, set its {CHECKSUMS} in {SETTINGS_FILE} to null"
ADAPTER_FILE = "adapter_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
ONNX_FILE = "onnx/model.onnx"
# In a folder that no other library reads: vLLM loads all weights beside config.json
EXIT_FILE = "exit/model.safetensors"
# The files of a saved model, by the names that libraries give them
OF_A_MODEL = re.compile(
    r"(?:\d+_\w+/|exit/)?(?:model\.safetensors|config\.json)|(?:adapter_model|head|model-\d+-of-\d+)\.safetensors"
    r"|(?:adapter|generation|tokenizer|sentence_bert|preprocessor|processor)_config\.json"
    r"|(?:config_sentence_transformers|modules|distill|tokenizer|special_tokens_map|added_tokens|vocab|chat_template"
    r"|model\.safetensors\.index)\.json|vocab\.txt|merges\.txt"
    r"|(?:spiece|spm|tokenizer|sentencepiece(?:\.bpe)?)\.model|(?:additional_chat_templates/\w+|chat_template)\.jinja"
)
OF_ITS_USER = re.compile(r"README\.md|LICENSE[\w.-]*|\.gitattributes")  # beside them: kept when it is saved again
MODULES = [  # sentence-transformers reads these names and classes, and those of the head after them
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
]
# In place of the first if the pairs hold the first stage's score: sentence-transformers does not know this class, and
# refuses the directory. It would leave the score out.
WITH_SCORE = "distill.TransformerWithFirstStageScore"


def check_same_score(name: str, revision: str | None, first_stage_score: str | None) -> None:
    """Raise InputError if a saved cross-encoder reads the first stage's score, and this training would not."""
    file = _find(name, SETTINGS_FILE, revision)
    saved = read_object(file, SETTINGS).get("first_stage_score") if file is not None else None
    if saved not in (None, first_stage_score):
        given = "null" if first_stage_score is None else first_stage_score
        raise InputError(
            f"{name}: was trained with model.first_stage_score={saved}, but here it is {given}: set it to {saved}"
        )


def _find(name: str, part: str, revision: str | None) -> Path | None:
    """Return a file of a directory or Hub repository, None if it has no such file."""
    if os.path.isdir(name):
        file = Path(name) / part
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, part, revision=revision))
    except EntryNotFoundError:
        return None


def download(name: str, revision: str | None = None) -> Path:
    """Download a saved model from the Hub into its cache: its text files and its safetensors, or else its graph."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith((".", "/", "~")):
        raise InputError(f"{name}: no such directory")
    try:
        patterns = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]
        path = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        if not any(path.glob("*.safetensors")):  # an export with format=onnx; many graphs may lie beside weights
            snapshot_download(name, revision=revision, allow_patterns=f"{ONNX_FILE}*")
        return path
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise InputError(
            f"{name}: no such directory, and not available on the Hub: {reason}{known_instead(name)}"
        ) from error


def check_replaceable(directory: Path) -> None:
    """Raise InputError for a directory that a model cannot take the place of: it is no model, or holds other files."""
    if not directory.exists():
        return
    files = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(directory).as_posix() for path in files)
    known = [OF_A_MODEL, OF_ITS_USER] if _is_model(directory) else []
    other = next((name for name in names if not any(form.fullmatch(name) for form in known)), None)
    if other is not None or not directory.is_dir():
        which = f", such as {other}" if other is not None else ""
        raise InputError(
            f"{directory}: holds other files than a model's{which}: save it to a new or an empty directory"
        )


def _is_model(directory: Path) -> bool:
    configs = ("config.json", ADAPTER_FILE)
    others = ("modules.json", SETTINGS_FILE, "model.safetensors", "model.safetensors.index.json")
    return all(any((directory / name).is_file() for name in names) for names in (configs, others))


def write_model(model, directory: Path, kept: re.Pattern[str] | None = None) -> None:
    """Write a CrossEncoder as a sentence-transformers v6 CrossEncoder directory, completely or not at all.

    One with a native head becomes a directory of transformers, which sentence-transformers opens, too. A model whose
    pairs hold the first stage's score gets a directory that only this library opens. kept: names of files in the old
    directory that the new one gets.
    Raises InputError for a model that is no encoder with a head.
    """
    if not (model.is_encoder or model.is_decoder):
        raise InputError(f"{directory}: only an encoder or a decoder can be saved")
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    write_whole_directory(directory, lambda new: _write_files(model, new), size, kept)


def _write_files(model, directory: Path) -> None:
    if model.causal is not None:
        write_causal(model, directory)
        for name, content in causal_files(model).items():
            _write_json(directory / name, content)
    elif model.native is not None:
        write_native(model, directory)
    else:
        write_weights(model, directory)
        _write_sentence_transformers_files(model, directory)
    if model.exit is not None:
        model.exit.save(directory)
    save_tokenizer(model, directory)
    write_settings(model, directory)


def save_tokenizer(model, directory: Path) -> None:
    """Write a model's tokenizer, which cuts a pair where the model does and is the same in transformers 4 and 5."""
    model.tokenizer.model_max_length = model.max_length
    model.tokenizer.save_pretrained(directory)
    config = read_object(directory / TOKENIZER_CONFIG_FILE)
    for key in ("is_local", "local_files_only"):  # where it was loaded from
        config.pop(key, None)
    if "max_length" in config:  # fastembed cuts pairs there if it is lower; some published encoders have 128
        config["max_length"] = model.max_length
    if config.get("tokenizer_class") == "TokenizersBackend":  # version 5's name of the same class
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):  # in version 4, this key holds an object
        config.setdefault("additional_special_tokens", config.pop("extra_special_tokens"))
    names = [name for name in model.tokenizer.model_input_names if name != "token_type_ids"]
    config["model_input_names"] = [*names[:1], *(["token_type_ids"] if model.takes_token_types else []), *names[1:]]
    _write_json(directory / TOKENIZER_CONFIG_FILE, config)
    file = directory / "tokenizer.json"
    if file.is_file() and not model.takes_token_types:
        _write_json(file, _without_types(read_object(file)))


def _without_types(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Give every token of a pair the type 0: servers that read only tokenizer.json hand its types to the model."""
    step = tokenizer.get("post_processor") or {}
    for part in [step, *step.get("processors", [])]:
        for piece in part.get("pair") or []:
            for token in piece.values():
                token["type_id"] = 0
    return tokenizer


def write_settings(model, directory: Path) -> None:
    """Write distill.json: how a model cuts its texts, its interpolation, and the checksums of the directory's files."""
    settings = model.settings
    if not (directory / EXIT_FILE).is_file():  # of an ONNX graph, which has only the full score
        settings.pop("exit_layer", None)
    checksums = {SETTINGS_FILE: _checksum_of(settings)}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and path.name not in (CARD, SETTINGS_FILE) and not name.startswith("."):
            checksums[name] = checksum(path)
    write_text(directory / SETTINGS_FILE, json.dumps(settings | {CHECKSUMS: checksums}, indent=2) + "\n")


def check_files(directory: Path, *, whole: bool = True) -> None:
    """Raise InputError if a file of a saved model is missing or differs from its checksum in distill.json.

    Directories of earlier versions have checksums of weights, or none, and those of other libraries have no such file.
    whole: the directory holds all files, not only the small ones of a model on the Hub.
    """
    file = directory / SETTINGS_FILE
    if not file.is_file():
        return
    settings = read_object(file, SETTINGS)
    unknown = next((key for key in settings if key not in KEYS), None)
    if unknown is not None:  # it may change scores
        raise InputError(f"{file}: unknown key {unknown}: {COPY_AGAIN}, or open it with the version that saved it")
    for name, expected in (settings.pop(CHECKSUMS, None) or {}).items():
        path = directory / name
        if name == SETTINGS_FILE:
            now = _checksum_of(settings)
        elif PurePosixPath(name).as_posix() != name or not is_inside(name):
            raise InputError(f"{file}: {CHECKSUMS} names {name}: must be a file in this directory: {COPY_AGAIN}")
        elif path.is_file():
            now = checksum_once(path)
        elif whole:
            raise InputError(f"{path}: is missing: copy the model again, or, {IF_CHANGED}")
        else:
            continue
        if expected is not None and now != expected:
            raise InputError(f"{path}: differs from its checksum: copy the model again, or, {IF_CHANGED}")


def _checksum_of(settings: dict) -> int:
    """Return the checksum of what distill.json holds beside checksums."""
    return zlib.crc32(json.dumps(settings, sort_keys=True).encode())


def _write_sentence_transformers_files(model, directory: Path) -> None:
    layers = list(module_files(model))
    places = MODULES + [
        (f"{place}_{name}", kind) for place, (name, kind, _, _) in enumerate(layers, start=len(MODULES))
    ]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(places)
    ]
    if model.first_stage_score is not None:
        modules[0]["type"] = WITH_SCORE
    _write_json(directory / "modules.json", modules)
    _write_json(
        directory / "config_sentence_transformers.json",
        {
            "activation_fn": class_name(model.activation),
            "model_type": "CrossEncoder",
            "prompts": {},
            "default_prompt_name": None,
        },
    )
    _write_json(
        directory / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
            "max_seq_length": model.max_length,  # text-embeddings-inference reads no other length
        },
    )
    _write_json(
        directory / "1_Pooling" / "config.json",
        {
            "embedding_dimension": model.backbone.config.hidden_size,
            "pooling_mode": model.pooling,
            "include_prompt": True,
        },
    )
    for (path, _), (_, _, config, weights) in zip(places[len(MODULES) :], layers, strict=True):
        _write_json(directory / path / "config.json", config)
        save_file(weights, directory / path / "model.safetensors")


def _write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
