"""Where a source is: in a file, at an address, or behind an `ir_datasets` id.

is_remote("hf://datasets/OWNER/NAME/FILE"), is_path("queries.tsv")
local = with_local_files(cfg)                     # addresses downloaded, once
file_of("queries.tsv"), file_of("msmarco-passage/train")      # "queries.tsv", None
"""

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf

from distill.errors import InputError, Unavailable
from distill.sources.download import local_file
from distill.sources.folders import folder_state
from distill.sources.literals import as_literal, escaped
from distill.storage.cache import file_state

SCHEMES = ("https://", "http://", "hf://")
FILE_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".txt", ".run", ".parquet", ".trec", ".qrels")


def is_remote(source: str | None) -> bool:
    """Whether a source is an address that `local_file` fetches."""
    return source is not None and source.startswith(SCHEMES)


def is_path(source: str) -> bool:
    """Whether a source looks like a path, and not like an `ir_datasets` id."""
    return source.startswith(("/", ".", "~")) or source.removesuffix(".gz").endswith(FILE_SUFFIXES)


def with_local_files(cfg: DictConfig, unused: tuple[str, ...] = (), schema: type | None = None) -> DictConfig:
    """Return a copy of the configuration that names a local file wherever a source of this one is an address.

    Sources are the fields that the schema marks so: an address to cite is left alone. unused: keys whose files are not
    downloaded but set to null. schema: of a configuration that has lost its own. Raises InputError like `local_file`.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    local = OmegaConf.create(escaped(plain))
    for path, node in _nodes(cfg):
        there = OmegaConf.select(local, path) if path else local
        for key in sources_of(OmegaConf.get_type(node) if path or schema is None else schema):
            if OmegaConf.is_missing(node, key) or f"{path}.{key}".strip(".") in unused:
                continue
            value = node[key]
            if isinstance(value, str) and is_remote(value):
                there[key] = as_literal(local_file(value))
            elif OmegaConf.is_list(value):
                there[key] = [as_literal(local_file(name) if is_remote(name) else name) for name in value]
    for key in unused:
        OmegaConf.update(local, key, None)
    return local


def _nodes(node: DictConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield a configuration and all groups of keys in it, by their paths."""
    yield path, node
    for name in node:
        if not OmegaConf.is_missing(node, name) and OmegaConf.is_dict(node[name]):
            yield from _nodes(node[name], f"{path}.{name}".strip("."))


def sources_of(schema: type | None) -> tuple[str, ...]:
    """Return the keys of a schema that name sources: only those are downloaded where they are addresses."""
    return tuple(one.name for one in fields(schema) if "source" in one.metadata) if is_dataclass(schema) else ()


def is_missing_file(source: str) -> bool:
    """Whether a source looks like a path, but no file is there."""
    # os.path answers False for a name that no file can have; Path.is_file raises OSError
    return not is_remote(source) and is_path(source) and not os.path.isfile(source)


def file_of(source: str) -> str | None:
    """Return the path of a source, downloaded where it is an address; None for a folder or an `ir_datasets` id."""
    if source.startswith(SCHEMES):
        return local_file(source)
    return source if os.path.isfile(source) else None


def source_state(source: str) -> dict:
    """Return what tells one version of a source from another: a file's or folder's state, or an `ir_datasets` id."""
    path = file_of(source)
    if path is None and os.path.isdir(source):
        return folder_state(source)
    return {"ir_datasets": source} if path is None else file_state(path)


def ir_datasets_records(source: str, kind: str, doc_ids: list[str] | None = None) -> Iterator:
    """Yield the "docs", "queries", "qrels" or "scoreddocs" of an `ir_datasets` id; of its docs, all or these.

    Raises InputError when the source is neither a file nor such an id, when the id has no such records, and when they
    cannot be downloaded.
    """
    import ir_datasets

    try:
        dataset = ir_datasets.load(source)
    except KeyError:
        raise InputError(f"{source}: no such file, and not an ir_datasets id: check the path or id") from None
    if not getattr(dataset, f"has_{kind}")():
        raise InputError(f"{source}: this ir_datasets id has no {kind}: choose an id that has them, or give a file")
    try:
        if doc_ids is None:
            yield from getattr(dataset, f"{kind}_iter")()
        else:
            yield from dataset.docs_store().get_many_iter(doc_ids)
    except (OSError, RuntimeError) as error:
        url = getattr(getattr(error, "request", None), "url", None)
        place = ir_datasets.util.home_path() / "downloads"
        raise Unavailable(
            f"{source}: ir_datasets cannot download its {kind} ({' '.join(str(error).split())[:150]}): "
            + (f"get {url} and put it at {place / _md5_of(url)}" if url else f"see its messages above, and {place}")
        ) from None


def _md5_of(url: str) -> str:
    """The name that `ir_datasets` gives a downloaded file."""
    import pkgutil

    known = json.loads(pkgutil.get_data("ir_datasets", "etc/downloads.json") or b"{}")
    while known:
        name, entry = known.popitem()
        if entry.get("url") == url:
            return entry.get("expected_md5", name)
        known |= {f"{name}/{key}": value for key, value in entry.items() if isinstance(value, dict)}
    return ""
