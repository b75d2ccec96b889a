"""The nearest known key, for an unknown one.

unknown_key("depth", keys_of(cfg))          # "depth: did you mean data.depth?"
"""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import SequenceMatcher
from typing import Any

from omegaconf import OmegaConf

LEAST = 0.65  # similarity of the last parts of two keys, for one to be offered; two swapped letters in five leave 0.8
LEAST_OF_GROUPS = 0.5  # similarity of the groups before them


def unknown_key(key: str, keys: Iterable[str]) -> str:
    """Return what to say of an unknown key."""
    near = nearest(key, keys)
    return f"{key}: did you mean {near}?" if near else f"{key}: no such key: see --help for the keys"


def nearest(key: str, keys: Iterable[str]) -> str | None:
    """Return the key whose last part, and then whose group, is most similar; None if none is.

    The last part may be misspelt only in a similar group, or where no group is given. A group that is not similar must
    be as deep.
    """
    return max((one for one in keys if _is_near(key, one)), key=lambda one: _similarity(key, one), default=None)


def _is_near(one: str, other: str) -> bool:
    (group, _, last), (other_group, _, other_last) = one.rpartition("."), other.rpartition(".")
    if SequenceMatcher(None, last, other_last).ratio() < LEAST:
        return False
    same = last == other_last and group.count(".") == other_group.count(".")
    return not group or same or SequenceMatcher(None, group, other_group).ratio() >= LEAST_OF_GROUPS


def _similarity(one: str, other: str) -> float:
    (group, _, last), (other_group, _, other_last) = one.rpartition("."), other.rpartition(".")
    groups = 1.0 if group == other_group else SequenceMatcher(None, group, other_group).ratio()
    return 2 * SequenceMatcher(None, last, other_last).ratio() + groups


def keys_of(node: Any, prefix: str = "") -> list[str]:
    """Return the full paths of all keys that a configuration's schema has, groups included."""
    schema = OmegaConf.get_type(node)
    known = {one.name for one in fields(schema)} if is_dataclass(schema) else set(node)
    keys = []
    for name in (name for name in node if name in known):
        keys.append(f"{prefix}{name}")
        has_value = not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name)
        if has_value and OmegaConf.is_dict(node[name]):
            keys += keys_of(node[name], f"{prefix}{name}.")
    return keys
