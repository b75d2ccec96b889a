"""How the page names things: `loss=ranknet, data.depth=50`, paths by their last part, and the labels given by hand.

labels = read_labels(["loss=ranknet:RankNet"], configs)
labels.describe({"loss.name": "ranknet", "data.depth": 50}, ["loss.name", "data.depth"])     # "RankNet, data.depth=50"
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.errors import InputError
from distill.report.runs import loss_name
from distill.sources.locate import is_path, is_remote

SECTIONS = ("loss", "backbone", "teacher", "data", "validation", "task", "optimizer")  # groups whose option has a name


@dataclass
class Label:
    """What the user writes in place of some values: "loss=ranknet, data.depth=50", or in place of a row's name."""

    row: str
    text: str

    def keys(self, config: dict[str, Any]) -> list[str]:
        """Return the keys that the label replaces."""
        return [option_key(key, config) for key, _ in split_values(self.row)]


@dataclass
class Labels:
    """The labels given by hand, and the short form of each location (a path or address) among the runs."""

    given: list[Label] = field(default_factory=list)
    short: dict[str, str] = field(default_factory=dict)

    def describe(self, config: dict[str, Any], keys: Sequence[str]) -> str:
        """Return "key=value, key=value" as one would type it; a label takes the place of its first key."""
        parts = {key: f"{shown_key(key)}={self.value(config[key])}" for key in keys if key in config}
        for label in self.given:
            own = label.keys(config)
            if own and all(key in parts for key in own) and self.fits(config, label.row):
                parts[own[0]] = label.text
                for key in own[1:]:
                    del parts[key]
        return ", ".join(parts.values())

    def among(self, configs: Sequence[dict[str, Any]]) -> "Labels":
        """Return these labels with a short form of the locations in further configurations, too."""
        return Labels(self.given, shorten(_locations(configs)) | self.short)

    def treatment(self, config: dict[str, Any], key: str) -> str:
        """Return one key's value, or its label."""
        return self.describe(config, [key]).removeprefix(f"{shown_key(key)}=")

    def value(self, value: Any) -> str:
        """Return a value as one would type it; a location by its last part."""
        text = typed(value)
        return self.short.get(text, text)

    def fits(self, config: dict[str, Any], wanted: str) -> bool:
        """Whether a configuration has all values of "loss=ranknet, data.depth=50"."""
        pairs = split_values(wanted)
        return bool(pairs) and all(self._has_value(config, option_key(key, config), value) for key, value in pairs)

    def _has_value(self, config: dict[str, Any], key: str, value: str) -> bool:
        if key not in config:
            return False
        if key.endswith("loss.name"):
            value = loss_name(value)
        known = {typed(config[key]), self.value(config[key])}
        if key.endswith(".name"):  # loss=RankNet, say
            return value.casefold() in {choice.casefold() for choice in known}
        return value in known


def read_labels(given: Iterable[str], configs: Sequence[dict[str, Any]]) -> Labels:
    """Take the labels as they are configured, each "ROW:LABEL"; raises InputError for one without a colon.

    A part without a colon belongs to the next one: [loss=ranknet,data.depth=50:RankNet] is one label.
    """
    labels, parts = [], []
    for text in given:
        parts.append(text)
        if ":" in text:
            row, _, label = (part.strip() for part in ", ".join(parts).partition(":"))
            if row and label:
                labels.append(Label(row, label))
                parts = []
    if parts:
        raise InputError(f"labels=[{', '.join(parts)}]: expected ROW:LABEL, as in labels=[loss=ranknet:RankNet]")
    return Labels(labels, shorten(_locations(configs)))


def _locations(configs: Sequence[dict[str, Any]]) -> set[str]:
    return {value for config in configs for value in config.values() if _is_location(value)}


def _is_location(value: Any) -> bool:
    return isinstance(value, str) and (is_path(value) or is_remote(value) or value.endswith("/model"))


def shorten(locations: Iterable[str]) -> dict[str, str]:
    """Return the last part of each path or address, or as many of the last parts as tell it from the others."""
    parts = {location: _parts(location) for location in locations}
    short = {}
    for location, own in parts.items():
        others = [other for name, other in parts.items() if name != location]
        sizes = range(1, len(own) + 1)
        size = next((size for size in sizes if all(own[-size:] != other[-size:] for other in others)), 0)
        short[location] = "/".join(own[-size:]) if size else location
    return short


def _parts(location: str) -> list[str]:
    """The parts of a path; a model's directory is told by the run that holds it."""
    path = re.sub(r"[?#].*", "", location) if is_remote(location) else location
    parts = [part for part in path.split("/") if part]
    return parts[:-1] if len(parts) > 1 and parts[-1] == "model" else parts


def split_values(text: str) -> list[tuple[str, str]]:
    """Return the pairs of "loss=ranknet, data.depth=50"; none where a part is no such pair."""
    pairs = [part.partition("=") for part in re.split(r"[,\s]+", text.strip())]
    return [(key, value) for key, _, value in pairs] if all(sign for _, sign, _ in pairs) else []


def option_key(key: str, config: dict[str, Any]) -> str:
    """Return the key that holds a group's choice: loss -> loss.name."""
    return f"{key}.name" if key.split(".")[-1] in SECTIONS and key not in config else key


def shown_key(key: str) -> str:
    """Return a key as one would type it: loss.name -> loss."""
    section = key.removesuffix(".name")
    return section if section.split(".")[-1] in SECTIONS else key


def typed(value: Any) -> str:
    """Return a value as one would type it."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
