"""A run's configuration as a file: resolved and without secrets when written, plain data when read.

    write_text(path, saved_text(cfg))
    plain = read_plain(path)               # {"loss": {"name": "ranknet"}, ...}; raises InputError
    as_plain(cfg)                          # what read_plain would return of it

A value that came from the environment is written as its variable: `${oc.env:NAME}`. So are files of this project, which
are elsewhere on another machine: `${sample:NAME}`, `${prompt:NAME}`. A secret becomes ***. Who reads a file that others
have sent runs nothing: no resolver of OmegaConf is called, and `${oc.env:NAME}` stays text.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from distill.config.composition import prompt_file, sample_file
from distill.config.interpolations import expanded
from distill.errors import InputError
from distill.secrets import HIDDEN_AS, is_secret_name, redacted
from distill.sources.literals import as_literal
from distill.storage.small_files import read_small

MAX_BYTES = 2**20  # of a file: ours have about 8 kB, those of suites with a hundred tasks 100 kB
MAX_DEPTH = 20  # of what is nested: ours reach 5
MAX_VALUES = 50_000
MARKED = re.compile("\x00([^\x00]*)\x00")  # around what is written as an interpolation: no value has a null character
GIVEN_ANEW = re.compile(rf"\$\{{oc\.env:|{re.escape(HIDDEN_AS)}")  # in a value that its file does not have
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|nan)$", re.I)


def saved_text(cfg: DictConfig) -> str:
    """Return a configuration as it is written."""
    return OmegaConf.to_yaml(OmegaConf.create(_saved(cfg)))


def as_plain(cfg: DictConfig) -> dict:
    """Return a configuration as it will be read, once it is written."""
    return expanded(_saved(cfg), sample_file, prompt_file)


def _saved(cfg: DictConfig) -> dict:
    resolved = OmegaConf.to_container(cfg, resolve=True)
    untyped = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))  # a mark is no number
    with _marking():
        return _written(resolved, untyped, "")


def _written(resolved: Any, node: Any, name: str) -> Any:
    if isinstance(resolved, dict):
        return {key: _written(value, _part(node, key), str(key)) for key, value in resolved.items()}
    if isinstance(resolved, list):
        return [_written(value, _part(node, place), name) for place, value in enumerate(resolved)]
    if isinstance(node, str) and MARKED.search(node):
        return _with_marks(node)
    if isinstance(resolved, str):
        hidden = redacted(resolved)
        if is_secret_name(name) and hidden == resolved and resolved:
            return HIDDEN_AS
        return hidden if hidden.startswith("${oc.env:") else as_literal(hidden)
    return resolved


def _part(node: Any, key: Any) -> Any:
    """Return a value of a configuration with its marks; None where computing with a mark fails, as in 2 * a mark."""
    if not OmegaConf.is_config(node):
        return None
    try:
        return node[key]
    except (OmegaConfBaseException, TypeError, ValueError):
        raw = OmegaConf.to_container(node, resolve=False)[key]
        names = re.findall(r"\$\{(oc\.env:[^{}]*)\}", raw) if isinstance(raw, str) else []
        return f"\x00{names[0]}\x00" if names else None


def _with_marks(text: str) -> str:
    parts = MARKED.split(text)
    return "".join(f"${{{part}}}" if place % 2 else as_literal(redacted(part)) for place, part in enumerate(parts))


@contextlib.contextmanager
def _marking() -> Iterator[None]:
    """Let the resolvers of the environment and of this project's files return marks."""
    resolvers = {"oc.env": oc.env, "sample": sample_file, "prompt": prompt_file}
    for name in resolvers:  # the name of a variable, without the value that it has if it is not set
        marked = lambda key, *_, name=name: f"\x00{name}:{key}\x00"  # noqa: E731
        OmegaConf.register_new_resolver(name, marked, replace=True)
    try:
        yield
    finally:
        for name, resolver in resolvers.items():
            OmegaConf.register_new_resolver(name, resolver, replace=True)


def read_plain(path: Path) -> dict:
    """Read a saved configuration as plain data; raises InputError if it is none, too large or nested too deeply."""
    plain = read_data(path)
    try:
        return expanded(plain, sample_file, prompt_file)
    except InputError as error:
        raise InputError(f"{path}: {error}: restore the file, or remove the run") from None


def read_data(path: Path) -> dict:
    """Read a YAML file of keys and values as it is, like `read_plain`."""
    return parse_data(read_small(path, MAX_BYTES), str(path))


def parse_data(text: str, place: str) -> dict:
    """Return keys and values in YAML as plain data; raises InputError with the place and the line."""
    remedy = "restore the file, or remove the run"
    try:
        plain = yaml.load(text, PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{place}:{line}: is not YAML ({error.problem}): {remedy}") from None
    except yaml.reader.ReaderError as error:
        raise InputError(f"{place}:1: is not YAML ({error.reason}): {remedy}") from None
    except (ValueError, OverflowError) as error:  # a number of thousands of digits
        raise InputError(f"{place}:1: cannot be read ({str(error).splitlines()[0]}): {remedy}") from None
    if not isinstance(plain, dict):
        what = "is empty" if plain is None else "holds no keys and values"
        raise InputError(f"{place}:1: {what}: {remedy}")
    return plain


class PlainLoader(yaml.SafeLoader):
    """Loads text, numbers, lists and dictionaries only, of a bounded size; the same numbers as OmegaConf."""

    depth = 0
    number = 0  # of values, those of an alias counted each time

    def __init__(self, stream: str):
        """Take the text."""
        super().__init__(stream)
        self.sizes: dict[int, tuple[int, int]] = {}  # id of a composed node -> number and levels of its values
        self.deepest = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, unless it has a tag, is part of itself, or is one too many."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            size, levels = self.sizes.get(id(self.anchors.get(event.anchor)), (MAX_VALUES, 0))
            self._count(event, size, levels)
            return super().compose_node(parent, index)
        if event.tag is not None:
            raise _refused(event, "a configuration has no tags")
        self._count(event, 1, 1)
        before, deepest, self.deepest = self.number, self.deepest, 0
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        self.sizes[id(node)] = (1 + self.number - before, max(self.deepest - self.depth, 1))
        self.deepest = max(deepest, self.deepest)
        if isinstance(node, yaml.MappingNode):
            keys = [key.value if isinstance(key, yaml.ScalarNode) else "" for key, _ in node.value]
            if len({*keys}) < len(keys):
                raise _refused(event, "a key appears twice")
            if any(not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge") for key, _ in node.value):
                raise _refused(event, "a key is no text")
        return node

    def _count(self, event: Any, size: int, levels: int) -> None:
        self.number += size
        self.deepest = max(self.deepest, self.depth + levels)
        if self.number > MAX_VALUES:
            raise _refused(event, "it has too many values")
        if self.deepest > MAX_DEPTH:
            raise _refused(event, "it is nested too deeply")


def _refused(event: Any, reason: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, reason, event.start_mark)


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
