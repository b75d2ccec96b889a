"""What a tokenizer's files may say: a known class, and steps that do not make a text many times as long.

    check_tokenizer(Path("received/model"))             # raises InputError

Before words are looked up, a tokenizer normalises a text. Its file says how, and a few replacements of one letter by
two could make a gigabyte of a passage, or of a word that the tokenizer normalises while it is loaded.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.models.json_files import COPY_AGAIN, TOKENIZER_CONFIG, read_object

MAX_GROWTH = 100  # times as many characters; NFKC alone may write 18 for one
MAX_ADDED = 1000  # characters that are put before a text, and special tokens around a pair
MAX_WORD = 10_000  # characters of a word that is looked up, which takes the square of them; usual: 100
UNICODE_GROWTH = 18  # of the longest, U+FDFA, in NFKC and NFKD
STEPS = 100  # in a sequence
FILES = (  # of which a tokenizer has one
    *("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spm.model", "spiece.model"),
    "sentencepiece.bpe.model",
)


def check_tokenizer(directory: Path) -> None:
    """Raise InputError for a tokenizer.json of a wrong shape, or one that makes texts much longer."""
    file = directory / "tokenizer.json"
    if not file.exists():
        return
    content = read_object(file, {"model": (dict,), "normalizer": (dict,), "post_processor": (dict,)})
    normalizer = content.get("normalizer")
    growth = _growth(normalizer, file)
    pre_tokenizer = content.get("pre_tokenizer")
    growth *= _growth(pre_tokenizer, file)
    if growth > MAX_GROWTH:
        raise InputError(
            f"{file}: its normalizer makes texts up to {growth:.3g} times as long: at most {MAX_GROWTH} is read: "
            f"{COPY_AGAIN}"
        )
    _check_template(content.get("post_processor"), file)
    longest = (content.get("model") or {}).get("max_input_chars_per_word")
    if longest is not None and not (type(longest) is int and 0 <= longest <= MAX_WORD):
        raise InputError(f"{file}: max_input_chars_per_word={str(longest)[:40]}: at most {MAX_WORD}: {COPY_AGAIN}")


def check_class(directory: Path) -> None:
    """Raise InputError for a directory that names a class of tokenizers which transformers lacks, or has in Python.

    transformers would take another class, which may give other tokens; or ask for packages that would not help.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    file = directory / "tokenizer_config.json"
    name = read_object(file, TOKENIZER_CONFIG).get("tokenizer_class") if file.exists() else None
    if name is None:
        return
    names = {name, name.removesuffix("Fast"), f"{name.removesuffix('Fast')}Fast"}
    known = [kind for kind in map(tokenizer_class_from_name, names) if kind is not None]
    is_fast = any(issubclass(kind, PreTrainedTokenizerFast) for kind in known)
    if known and not is_fast and not (directory / "tokenizer.json").is_file():
        raise in_python(directory, name)
    if not known:
        raise InputError(
            f"{file}: tokenizer_class={name}: transformers has no such tokenizer: save the model again with its "
            "tokenizer, or correct the name"
        )


def in_python(name: object, kind: str) -> InputError:
    """Return the error for a tokenizer that is no tokenizer of the tokenizers library."""
    return InputError(
        f"{name}: its tokenizer ({kind}) is written in Python, and has no tokenizer.json: only those of the tokenizers "
        "library can be loaded"
    )


def _growth(step: Any, file: Path) -> float:
    """Return how many characters a normaliser or pre-tokeniser makes of one, at most; 1 for an unknown step."""
    if step is None:
        return 1
    if not isinstance(step, dict):
        raise InputError(f"{file}: holds a step that is not an object: {COPY_AGAIN}")
    steps = [part for key in ("normalizers", "pretokenizers") for part in _list(step, key, file)]
    if len(steps) > STEPS:
        raise InputError(f"{file}: has {len(steps)} steps in a sequence: at most {STEPS} are read: {COPY_AGAIN}")
    growth, unicode = 1.0, 1
    for part in steps:
        if isinstance(part, dict) and part.get("type") in ("NFC", "NFD", "NFKC", "NFKD"):
            unicode = UNICODE_GROWTH  # again on its own result, it adds nothing
        else:
            growth *= _growth(part, file)
    return growth * unicode * _own_growth(step, file)


def _own_growth(step: dict, file: Path) -> float:
    kind = step.get("type")
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return UNICODE_GROWTH
    if kind == "BertNormalizer":
        return 3  # a space on each side of a Chinese character
    if kind == "Replace":
        content, pattern = str(step.get("content", "")), step.get("pattern")
        given = pattern.get("String") if isinstance(pattern, dict) else None
        # A regular expression may match one character, and an empty one may match beside each
        return max(1, len(content) / len(given) if isinstance(given, str) and given else 1 + len(content))
    if kind in ("Prepend", "Metaspace"):
        added = str(step.get("prepend", "")) + str(step.get("replacement", ""))
        if len(added) > MAX_ADDED:
            raise InputError(f"{file}: puts {len(added)} characters before a text: {COPY_AGAIN}")
        return 2 if kind == "Prepend" and len(added) == 1 else 1 + len(str(step.get("prepend", "")))
    return _precompiled_growth(str(step.get("precompiled_charsmap") or "")) if kind == "Precompiled" else 1


def _precompiled_growth(charsmap: str) -> int:
    """Return the length of the longest replacement in a map of SentencePiece: a trie, then texts that end in NUL."""
    try:
        content = base64.b64decode(charsmap)
    except (binascii.Error, ValueError):
        return 1  # tokenizers refuses it
    start = 4 + int.from_bytes(content[:4], "little")
    texts = content[start:].split(b"\0")
    return max(len(text.decode("utf-8", "replace")) for text in texts) if texts else 1


def _check_template(step: Any, file: Path) -> None:
    """Raise InputError for a template that puts very many special tokens around a text."""
    if not isinstance(step, dict):
        return
    for part in _list(step, "processors", file)[:STEPS]:
        _check_template(part, file)
    specials = step.get("special_tokens")
    for key in ("single", "pair"):
        number = 0
        pieces = step.get(key)
        for piece in pieces if isinstance(pieces, list) else []:
            name = piece.get("SpecialToken") if isinstance(piece, dict) else None
            name = name.get("id") if isinstance(name, dict) else None
            special = specials.get(name) if isinstance(specials, dict) and isinstance(name, str) else None
            ids = special.get("ids") if isinstance(special, dict) else None
            number += len(ids) if isinstance(ids, list) else 1
        if number > MAX_ADDED:
            raise InputError(f"{file}: puts {number} special tokens around a text: at most {MAX_ADDED}: {COPY_AGAIN}")


def _list(step: dict, key: str, file: Path) -> list:
    found = step.get(key)
    if found is not None and not isinstance(found, list):
        raise InputError(f"{file}: {key} must be a list: {COPY_AGAIN}")
    return found or []
