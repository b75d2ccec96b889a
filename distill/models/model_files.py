"""What a model's directory may hold, checked before any library reads it.

    check_directory(Path("received/model"))            # InputError: a file outside, code, a damaged JSON file
    check_source("google-bert/bert-base-uncased")      # the same for a name: its small files are fetched first

No code that comes with a model is ever run: every call of transformers and of sentence-transformers says
trust_remote_code=False. A directory that names code (`auto_map`) is refused even if transformers has an architecture of
that name: its authors' code may compute something else, such as attention in both directions, and then what is loaded
would not be their model. Whoever knows that it is the same removes `auto_map` from the file.

Nothing outside of the directory is read: no link, path or name in its files may lead there. Only the Hub's cache has
links, into the folder `blobs` of the same model.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from distill.errors import InputError
from distill.models.json_files import (
    CONFIG,
    COPY_AGAIN,
    SENTENCE_TRANSFORMERS,
    SETTINGS,
    TOKENIZER_CONFIG,
    Types,
    is_inside,
    read_json,
    read_object,
)
from distill.models.saved import ADAPTER_FILE, check_files
from distill.models.tokenizer_files import check_tokenizer

MAX_FILES = 10_000  # in a model's directory: more is a directory of something else
OBJECTS: dict[str, Types] = {  # the files that libraries read, all of them JSON objects
    "config.json": CONFIG,
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "config_sentence_transformers.json": SENTENCE_TRANSFORMERS,
    "distill.json": SETTINGS,
    "sentence_bert_config.json": {},
    "special_tokens_map.json": {},
    "added_tokens.json": {},
    "generation_config.json": {"custom_generate": (str,)},
    "processor_config.json": {},
    "preprocessor_config.json": {},
    "chat_template.json": {},
}
IMPLEMENTATIONS = (  # of attention and experts: names, or places on the Hub
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation"),
)
MAX_PARTS = 5000  # layers, experts or labels that a configuration may name
COUNTS = re.compile(r"(^|_)(layers?|experts?|blocks?|stages?|labels?|codebooks?|groups?|heads?|branches)$|^n_layers?$")
NO_COUNTS = re.compile(r"every|per_|_type|loss")  # a step between layers, or a weight
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]


def check_source(name: str, revision: str | None = None) -> None:
    """Check a directory, or the small files of a model on the Hub, which are fetched into its cache.

    Raises InputError like `check_directory`, and for a name that is neither.
    """
    if os.path.isdir(name):
        check_directory(Path(name))
    else:
        check_directory(small_files(name, revision), whole=False)


def small_files(name: str, revision: str | None = None) -> Path:
    """Fetch the small files of a model on the Hub into its cache, and return the folder there."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=SMALL_FILES))


def check_directory(directory: Path, *, whole: bool = True, adapters: bool = False) -> None:
    """Raise InputError for a model's directory with code, with a way out, or with a damaged file.

    whole: it holds all files, not only the small ones. adapters: it may hold those of a backbone elsewhere, whose name
    in it is not followed.
    """
    _check_links(directory)
    folders = {directory / module["path"] for module in read_modules(directory)}
    for folder in sorted({directory, *folders}):
        for name, types in OBJECTS.items():
            if (folder / name).exists():
                content = read_object(folder / name, types if folder == directory else None)
                _check_code(folder / name, content)
                _check_counts(folder / name, content)
        if (folder / ADAPTER_FILE).exists() and not adapters:
            raise InputError(
                f"{folder}: is an adapter (adapter_config.json) of a model elsewhere: merge it with that one"
            )
        for index in folder.glob("*.index.json"):
            _check_index(index)
        check_tokenizer(folder)
    check_files(directory, whole=whole)  # last: what is wrong with a file says more than its checksum


def _check_links(directory: Path) -> None:
    """Raise InputError for a link that leads out of the directory, and for what is neither file nor directory."""
    inside = [directory.resolve()]
    if inside[0].parent.name == "snapshots":  # in the Hub's cache: models--OWNER--NAME/snapshots/COMMIT
        inside.append(inside[0].parent.parent / "blobs")
    for number, path in enumerate(_walk(directory)):
        if number >= MAX_FILES:
            raise InputError(f"{directory}: has more than {MAX_FILES} files: give the directory of a model")
        if path.is_symlink() and not any(path.resolve().is_relative_to(folder) for folder in inside):
            raise InputError(f"{path}: is a link to {path.resolve()}, outside of the model's directory: copy the file")
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{path}: is neither a file nor a directory: remove it")


def _walk(directory: Path) -> Iterator[Path]:
    """Yield what is in a directory, hidden folders such as .git apart; links are not followed."""
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in (*folders, *files))


def _check_code(file: Path, content: dict[str, Any]) -> None:
    """Raise InputError for a file that names code, or weights in other files."""
    for part in _objects(content):
        if part.get("auto_map"):
            raise InputError(
                f"{file.parent}: {file.name} asks for custom code (auto_map), which is never run here: use another "
                "model, or remove auto_map if transformers has the same architecture"
            )
        for key in IMPLEMENTATIONS:
            value = part.get(key)
            if value is not None and not (isinstance(value, str) and "/" not in value):
                raise InputError(f"{file}: {key}={str(value)[:40]} would be downloaded and run: remove it")
    for key in ("custom_generate", "transformers_weights"):
        if content.get(key):
            raise InputError(f"{file}: {key}={str(content[key])[:40]}: nothing elsewhere is read or run: remove it")


def _check_counts(file: Path, config: dict[str, Any]) -> None:
    """Raise InputError for a configuration that names very many layers, experts or labels."""
    for part in _objects(config):
        for key, value in part.items():
            counts = type(value) in (int, float) and COUNTS.search(key) and not NO_COUNTS.search(key)
            if counts and not value <= MAX_PARTS:
                raise InputError(f"{file}: {key}={str(value)[:40]}: at most {MAX_PARTS} are built: {COPY_AGAIN}")


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    """Yield an object and all objects within it."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _check_index(file: Path) -> None:
    """Raise InputError for an index of weights that names a file elsewhere, or one that is missing."""
    weight_map = read_object(file, {"weight_map": (dict,), "metadata": (dict,)}).get("weight_map")
    if not weight_map:
        raise InputError(f"{file}: has no weight_map: {COPY_AGAIN}")
    for name in {str(value) for value in weight_map.values()}:
        if not is_inside(name) or PurePosixPath(name).name != name:
            raise InputError(f"{file}: weight_map names {name}: must be a file beside it: {COPY_AGAIN}")


def read_modules(directory: Path) -> list[dict[str, str]]:
    """Return what modules.json holds, an object with type and path for each module; nothing if there is none."""
    file = directory / "modules.json"
    if not file.exists():
        return []
    modules = read_json(file)
    good = isinstance(modules, list) and all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and is_inside(module.get("path"))
        for module in modules
    )
    if not good or not modules:
        raise InputError(
            f"{file.parent}: modules.json must be a list of objects with a type and a path in this directory: "
            f"{COPY_AGAIN}"
        )
    return modules
