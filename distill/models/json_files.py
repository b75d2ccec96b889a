"""The JSON files of a model's directory, read with the types that they must have.

config = read_object(directory / "config.json", CONFIG)           # InputError: file, key, value, rule, remedy
length = read_count(config, "max_seq_length", file, optional=True)
"""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from distill.errors import InputError

LARGEST = 2**31 - 1  # allowed whole number in a model's JSON files
MAX_BYTES = 2**29  # of a JSON file: the largest tokenizer.json have 30 MB
COPY_AGAIN = "copy the file again from where the model was saved"

# Types of the keys that are read here, or whose wrong types other libraries accept; no other key is checked
Types = dict[str, tuple[type, ...]]
TEXT, OBJECT, FLAG = (str, type(None)), (dict, type(None)), (bool, type(None))
CONFIG: Types = {
    "model_type": TEXT,
    "backbone_model_type": TEXT,
    "architectures": (list, type(None)),
    "sentence_transformers": OBJECT,
    "sbert_ce_default_activation_function": TEXT,
    "pooling_strategy": TEXT,
    "id2label": OBJECT,
    "label2id": OBJECT,
    "tokenizer_class": TEXT,
    "position_biased_input": FLAG,
    "classifier_pooling": TEXT,
}
TOKENIZER_CONFIG: Types = {
    "tokenizer_class": TEXT,
    "backbone_tokenizer_class": TEXT,
    "chat_template": (str, list, dict, type(None)),
    "split_special_tokens": FLAG,
    "do_lower_case": FLAG,
    "model_input_names": (list, type(None)),
    "added_tokens_decoder": OBJECT,
    "padding_side": TEXT,
    "truncation_side": TEXT,
    **{f"{name}_token": (str, dict, type(None)) for name in ("cls", "sep", "pad", "unk", "mask", "bos", "eos")},
}
POOLING: Types = {
    "pooling_mode": TEXT,
    **{f"pooling_mode_{name}": FLAG for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")},
    "include_prompt": FLAG,
}
DENSE: Types = {"bias": FLAG, "use_residual": FLAG, "activation_function": TEXT}
SENTENCE_TRANSFORMERS: Types = {"prompts": OBJECT, "default_prompt_name": TEXT, "activation_fn": TEXT}
SETTINGS: Types = {
    "first_stage_score": TEXT,
    **dict.fromkeys(("interpolation", "calibration", "base", "crc32"), OBJECT),
}
NAMES = {bool: "true or false", str: "a text", dict: "an object", list: "a list"}


def read_json(path: Path) -> Any:
    """Return the JSON value in a file; raises InputError if it cannot be read, is no JSON, or too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: has more than {MAX_BYTES >> 20} MB: {COPY_AGAIN}")
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path.parent}: is not a saved cross-encoder: it has no {path.name}") from None
    except RecursionError:
        raise InputError(f"{path}: is not JSON of a model (nested too deeply): {COPY_AGAIN}") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        kind = "is not JSON" if isinstance(error, ValueError) else "cannot be read"
        raise InputError(f"{path}: {kind} ({getattr(error, 'strerror', None) or error}): {COPY_AGAIN}") from None


def read_object(path: Path, types: Types | None = None) -> dict[str, Any]:
    """Return the JSON object in a file; raises InputError like `read_json`, for any other JSON value or a wrong type.

    types: of some of its keys, which may all be absent.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}: expected a JSON object: {COPY_AGAIN}")
    for key, allowed in (types or {}).items():
        if not isinstance(content.get(key), (*allowed, type(None))):
            rule = " or ".join(NAMES[kind] for kind in allowed if kind is not type(None))
            raise InputError(f"{path}: {key}={_short(content[key])}: must be {rule}: {COPY_AGAIN}")
    return content


def read_count(config: dict, key: str, file: Path, low: int = 1, *, optional: bool = False) -> int | None:
    """Return a whole number from a JSON object; raises InputError for another value, or one out of range.

    optional: return None if the key is absent or null.
    """
    value = config.get(key)
    if value is None and optional:
        return None
    if type(value) is not int or not low <= value <= LARGEST:  # isinstance would accept True
        given = f"{key}={_short(value)}" if key in config else f"{key} is missing"
        raise InputError(f"{file}: {given}: must be a whole number from {low} to {LARGEST}: {COPY_AGAIN}")
    return value


def is_inside(path: object) -> bool:
    """Whether a path in a file stays within the file's directory, on every system."""
    if not isinstance(path, str):
        return False
    kinds = PurePosixPath(path), PureWindowsPath(path)
    return not any(kind.is_absolute() or kind.anchor or ".." in kind.parts for kind in kinds) and "\0" not in path


def _short(value: object) -> str:
    return json.dumps(value)[:40]
