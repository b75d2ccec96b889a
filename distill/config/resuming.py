"""What a resumed run takes of the configuration in its directory, and what it may change of it.

cfg = resumed_config(cfg)                   # of `resume=DIR`: the configuration there, and what the command line says
changes(read_saved(directory), cfg)        # {"seed": (0, 1)}
"""

import copy
import dataclasses
import os
import shlex
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.config.composition import command_overrides, flatten
from distill.config.resumable import Command, check_command, command_of, read_saved
from distill.config.rules import check_value
from distill.config.saved import GIVEN_ANEW, as_plain
from distill.errors import InputError
from distill.sources.literals import as_literal, escaped

NAMED = 5  # differences that a message names
RENAMED = {"optimizer.warmup_steps": "optimizer.warmup"}  # keys of earlier versions
RENAMED_VALUES = {"loss.name": {"adr_mse": "adrmse", "margin_mse": "marginmse"}}
EARLIER_BM25 = {"k1": 0.9, "b": 0.4, "stemmer": "none", "stop_words": "bm25s"}  # before it had keys
EARLIER_HEAD = "linear"  # what every training had before there was model.head
ABSENT = object()  # the value of a key that a configuration does not have
CHOICE = ("name", "engine")  # keys that say which option of a group was chosen


def changes(old: DictConfig | dict, new: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Return {key: (old value, new value)} for every key that differs, except `resume`.

    A key that the old one's version did not have yet is no difference. Raises InputError for a new one with a value
    that cannot be had, such as an environment variable that is not set.
    """
    plain = copy.deepcopy(old) if isinstance(old, dict) else as_plain(old)
    filled = _fill(_renamed(plain, new), new, lambda node, key: ABSENT)
    try:
        before, after = flatten(filled), flatten(as_plain(new))
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    absent = tuple(key for key, value in before.items() if value is ABSENT)
    keys = [key for key in sorted(before.keys() | after.keys()) if key not in ("resume", *absent)]
    keys = [key for key in keys if not key.startswith(tuple(f"{group}." for group in absent))]
    keys = [key for key in keys if after.get(key) != "???"]  # not said, and filled in before it is written
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def refused(changed: dict[str, tuple[Any, Any]], command: Command, resumed: bool) -> dict[str, tuple[Any, Any]]:
    """Return the changes that a run must not have; more of them are allowed where it is resumed by name."""
    return {key: pair for key, pair in changed.items() if not _is_allowed(key, *pair, command, resumed)}


def _is_allowed(key: str, old: Any, new: Any, command: Command, resumed: bool) -> bool:
    if any(fnmatchcase(key, pattern) for pattern in command.free):
        return True
    if not resumed or old is None or new is None:
        return False
    if key in command.steps:
        are_numbers = not isinstance(old, str) and not isinstance(new, str)  # a variable's name is no number
        return new > old if are_numbers else bool(GIVEN_ANEW.search(str(old)))
    if key == "backbone.name":  # the checkpoint has the weights: a directory that was moved
        return os.path.isdir(new)
    return any(fnmatchcase(key, pattern) for pattern in command.moved)


def describe(changed: dict[str, tuple[Any, Any]], most: int = NAMED) -> str:
    """Return the first changes as "key: old -> new; ...; and 3 more"."""
    lines = [f"{key}: {old} -> {new}" for key, (old, new) in changed.items()]
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more


def resumed_config(cfg: DictConfig, default: DictConfig | None = None, named: tuple[str, ...] = ()) -> DictConfig:
    """Return the configuration of the run that cfg.resume names, with what the command line says in its place.

    default: the composition of the chosen options without any other override; what differs from it, and the named keys
    and groups, were said. Both are Hydra's where they are not given. Raises InputError for a directory without a run of
    this command.
    """
    if default is None:
        default, named = _what_was_named(cfg)
    command, directory = command_of(cfg), Path(cfg.resume)
    check_value(cfg, "resume")
    saved = read_saved(directory)
    check_command(saved, command, directory)
    saved = _renamed(saved, default)
    if isinstance(saved.get("model"), dict):
        saved["model"].setdefault("head", EARLIER_HEAD)
    plain = _fill(_following(escaped(saved), default), default, _default_value)
    given = _plain(cfg)
    said = {key: _at(given, key) for key in named if _is_value(given, key) or _is_other_choice(given, plain, key)}
    said = _said(cfg, default, named) | said
    for path, value in said.items():
        _put(plain, path, copy.deepcopy(value))
    _check_given_anew(saved, said, default, plain, directory)
    plain["resume"] = as_literal(directory)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(command.schema), OmegaConf.create(plain))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"resume={directory}: {reason}: see `--cfg job` for the keys") from None
    OmegaConf.set_struct(merged, True)
    return merged


def _following(plain: dict, default: DictConfig) -> dict:
    """Put the interpolations of conf/ where they give what was saved: a file that has moved is then named once."""
    trial = OmegaConf.create(plain)
    for path, raw in flatten(_plain(default)).items():
        if isinstance(raw, str) and "${" in raw and _has(plain, path):
            saved = OmegaConf.select(trial, path)
            OmegaConf.update(trial, path, raw)
            try:
                follows = OmegaConf.select(trial, path) == saved
            except OmegaConfBaseException:
                follows = False
            if follows:
                _put(plain, path, raw)
            OmegaConf.update(trial, path, as_literal(saved) if isinstance(saved, str) else saved)
    return plain


def _check_given_anew(saved: dict, said: dict, default: DictConfig, plain: dict, directory: Path) -> None:
    """Raise InputError for a value that was saved as a variable's name, or not at all, and that nothing gives now.

    What a directory says is never looked up in the environment: others may have written it.
    """
    for path, value in flatten(saved).items():
        if not (isinstance(value, str) and GIVEN_ANEW.search(value)):
            continue
        raw = _at(_plain(default), path)
        if any(path == one or path.startswith(f"{one}.") for one in said):
            continue
        if isinstance(raw, str) and "${oc.env:" in raw:  # conf/ itself looks it up
            _put(plain, path, raw)
            continue
        raise InputError(
            f"resume={directory}: {path} was {value}, which is not kept in the directory: give it again, as in "
            f"{shlex.quote(f'{path}={value}')}"
        )


def _is_value(given: dict, key: str) -> bool:
    return _has(given, key) and not isinstance(_at(given, key), dict)


def _is_other_choice(given: dict, saved: dict, group: str) -> bool:
    """Whether another option of a group was chosen than the saved one, which then gives all keys of the group."""
    keys = [f"{group}.{name}" for name in CHOICE if _has(given, f"{group}.{name}")]
    return any(_at(given, key) not in ("???", _at(saved, key)) for key in keys)


def _what_was_named(cfg: DictConfig) -> tuple[DictConfig, tuple[str, ...]]:
    """Return what the command line's options compose to without its other overrides, and its keys and groups."""
    loader, given = GlobalHydra.instance().config_loader(), _plain(cfg)
    named, options = [], []
    for override in OverridesParser.create(config_loader=loader).parse_overrides(command_overrides("task")):
        key = override.package or override.key_or_group
        if key != "resume":
            named.append(key)
        if isinstance(_at(given, key), dict) and isinstance(override.value(), str):  # an experiment is no such option
            options.append(override.input_line)
    default = loader.load_configuration(HydraConfig.get().job.config_name, options, RunMode.RUN)
    OmegaConf.set_struct(default, False)
    del default["hydra"]
    return default, tuple(named)


def _said(node: DictConfig, default: DictConfig, named: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Return {path: value} of what differs from the default.

    Dictionaries with other keys, a loss or a suite's tasks, are taken whole, unless all of their keys were named.
    """
    said: dict[str, Any] = {}
    plain, plain_default = _plain(node), _plain(default)
    if prefix and plain.keys() != plain_default.keys():
        return {} if set(flatten(plain, prefix)) <= set(named) else {prefix: plain}
    for name, value in plain.items():
        path = f"{prefix}.{name}".strip(".")
        if isinstance(value, dict) and isinstance(plain_default.get(name), dict):
            said |= _said(node[name], default[name], named, path)
        elif value != plain_default.get(name) and value != "???" and path != "resume":
            said[path] = value
    return said


def _fill(saved: dict, node: DictConfig, value_of) -> dict:
    """Give a configuration the keys that its version did not have, where a schema has them."""
    filled, plain = dict(saved), _plain(node)
    if not is_dataclass(OmegaConf.get_type(node)):
        return filled
    for key in plain:
        if key not in filled:
            filled[key] = value_of(node, key)
        elif isinstance(plain[key], dict) and isinstance(filled[key], dict):
            same = key != "loss" or filled[key].get("name") == plain[key].get("name")  # each loss has its own keys
            filled[key] = _fill(filled[key], node[key], value_of) if same else filled[key]
    return filled


def _default_value(node: DictConfig, key: str) -> Any:
    """Return the schema's default of a key, or else the value that conf/ has for it."""
    for part in fields(OmegaConf.get_type(node)) if is_dataclass(OmegaConf.get_type(node)) else ():
        if part.name == key and part.default is not dataclasses.MISSING and part.default != "???":
            return part.default
    return _plain(node)[key]


def _renamed(plain: dict, node: DictConfig) -> dict:
    """Give keys and values of earlier versions their new names, and a first stage made by BM25 its settings then."""
    for old, new in RENAMED.items():
        if _has(plain, old) and not _has(_plain(node), old) and _has(_plain(node), new):
            group, name = old.rsplit(".", 1)
            _put(plain, new, _at(plain, group).pop(name))
    for key, names in RENAMED_VALUES.items():
        if _has(plain, key) and _at(plain, key) in names:
            _put(plain, key, names[_at(plain, key)])
    for task in (plain[name] for name in ("validation", "task") if isinstance(plain.get(name), dict)):
        if "bm25" not in task and _made_by_bm25(task):
            task["bm25"] = dict(EARLIER_BM25)
    return plain


def _made_by_bm25(task: dict) -> bool:
    parts = task.get("tasks")
    runs = [part.get("run") for part in parts.values() if isinstance(part, dict)] if isinstance(parts, dict) else []
    return "bm25" in (task.get("run"), *runs)


def _plain(node: DictConfig) -> dict:
    return OmegaConf.to_container(node, resolve=False)


def _at(plain: dict, path: str) -> Any:
    value: Any = plain
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _has(plain: dict, path: str) -> bool:
    *groups, name = path.split(".")
    group = _at(plain, ".".join(groups)) if groups else plain
    return isinstance(group, dict) and name in group


def _put(plain: dict, path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        plain = plain.setdefault(group, {})
    plain[name] = value
