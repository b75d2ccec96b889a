"""Download the sources of a configuration that are addresses.

local = with_local_files(cfg)                     # addresses downloaded, once
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf

from distill.sources.download import local_file
from distill.sources.literals import as_literal, escaped
from distill.sources.locate import is_remote


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
