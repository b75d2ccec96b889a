"""What is wrong with a command line that Hydra refuses, in one line: the key, and what was probably meant.

    mistake(error, "train", ["depth=50"])       # "depth: did you mean data.depth?"

Hydra's own words are for its developers. The overrides are composed once more, one after the other, until one fails.
"""

import re
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill.config.composition import COMMAND_SCHEMAS, ROOT, options_of
from distill.config.nearest import keys_of, nearest, unknown_key
from distill.config.schema import PART_KEYS
from distill.errors import InputError

# What composing raises: a bare ValueError where what is given to a group is no name, as in logger=null
REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
MOST = 20  # options that a message names
FULL_KEY = re.compile(r"full_key: (\S+)")  # in what Hydra quotes of OmegaConf's errors
PART = re.compile(r"(task|validation)\.tasks\.[^.]+\.")  # before a key of a suite's task


def check_options(name: str, overrides: list[str], sweep: bool) -> None:
    """Raise InputError where a group is given no name of an option, as in logger=null.

    It is found before Hydra starts, whose ValueError could not be told from one of the command itself.
    """
    if any(map(_names_no_option, overrides)):
        raise InputError(mistake(HydraException("refused"), name, overrides, sweep))


def _names_no_option(text: str) -> bool:
    """Whether an override is of a group and Hydra takes its value, or one that it sweeps over, for no name."""
    group = text.lstrip("+~").partition("=")[0].partition("@")[0]
    if "/" not in group and not options_of(group):
        return False
    try:
        [override] = OverridesParser.create().parse_overrides([text])
        if override.is_sweep_override():
            values = OverridesParser.create().parse_overrides(_single_values(override))
            return any(not isinstance(one.value(), str | list | dict) for one in values)
    except OverrideParseException:  # which Hydra refuses
        return False
    is_removed = override.is_delete() and override.value() is None
    return not (is_removed or isinstance(override.value(), str | list | dict))


def mistake(error: Exception, name: str, overrides: list[str], sweep: bool = False) -> str:
    """Return in one line why Hydra refuses these overrides of a configuration.

    error: what it raised, which is reported if no override is at fault.
    """
    if isinstance(error, InputError):
        return str(error)
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except OverrideParseException:
            return f"{text}: cannot be read: write key=value, and quote special characters, as in 'key=\"a, b\"'"
    kept: list[Any] = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for override in sorted(parsed, key=_order):
            if override.is_sweep_override() and not sweep:
                key, _, value = override.input_line.partition("=")
                return f"{key}={value}: several values need -m, for a sweep; a list is written as in {key}=[{value}]"
            values = _single_values(override)
            for text in values:
                try:
                    compose(name, overrides=[*kept, text])
                except REFUSALS as refused:
                    return _explain(refused, name, kept, text)
            kept += values[:1]
    return _first_line(error)


def _order(override: Override) -> int:
    """The search path decides on the options, and the options on the keys."""
    return 0 if override.key_or_group.startswith("hydra.") else 1 if options_of(override.key_or_group) else 2


def _single_values(override: Override) -> list[str]:
    """Return an override with each of the values that it sweeps over; the override itself if it does not sweep.

    An empty list for an interval, and for a pattern of options, which always matches some.
    """
    if not override.is_sweep_override():
        return [override.input_line]
    if override.is_interval_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return []
    key = override.input_line.partition("=")[0]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _explain(refused: Exception, name: str, kept: list[str], text: str) -> str:
    """Return what is wrong with an override, given the overrides before it, which are right."""
    cfg = compose(name, overrides=kept, return_hydra_config=True)
    key, _, value = text.lstrip("+~").partition("=")
    groups = [str(group) for group in cfg.hydra.runtime.choices]
    group = key.partition("@")[0]
    if isinstance(refused, MissingConfigException):
        missing = (refused.missing_cfg_file or f"{group}/{value}").removesuffix(".yaml")
        if missing == f"{group}/{value}":
            return _unknown_option(key, value, options_of(group))
        inside = next((one for one in sorted(groups, key=len, reverse=True) if missing.startswith(f"{one}/")), None)
        if inside is None:
            return f"{text}: {_first_line(refused)}"
        return f"{text}: {_unknown_option(inside, missing.removeprefix(f'{inside}/'), options_of(inside))}"
    is_no_name = type(refused) is ValueError
    if options_of(group) or is_no_name:
        if key not in groups and not (is_no_name and text.startswith("+")):  # which adds one
            return unknown_key(key, groups)
        if text.startswith("~"):
            return f"{text}: a group cannot be removed: choose one of its options: {', '.join(options_of(group))}"
        if is_no_name:
            return _no_option(name, key, value, options_of(group))
        in_file = FULL_KEY.search(str(refused))  # the option exists, and its file is wrong
        if in_file and in_file[1] not in _keys(cfg, in_file[1]):
            return f"{text}: {unknown_key(in_file[1], _keys(cfg, in_file[1]))}"
        return f"{text}: {f'{in_file[1]}: ' if in_file else ''}{_first_line(refused)}"
    keys = _keys(cfg, key)
    if key not in keys:
        return _other_commands(name, key) or unknown_key(key, [*groups, *keys])
    if text.startswith("~"):
        return f"{text}: a key cannot be removed: set it to null, if --help says what null does"
    if PART.match(key) and OmegaConf.select(cfg, key, default=None) is None:
        return f"{key}: not set in this task yet: add it, as in +{key}={value}"
    return f"{text}: {_first_line(refused)}"


def _other_commands(name: str, key: str) -> str | None:
    """Return what to say of a key in a group that only other commands have; None for any other key."""
    if "." not in key or key.startswith("hydra.") or PART.match(key):
        return None
    others = [other for other in COMMAND_SCHEMAS if other != name and key in keys_of(compose(other))]
    named = " and ".join(filter(None, [", ".join(others[:-1]), *others[-1:]]))
    return f"{key}: is a key of {named}, not of {name}" if others else None


def _keys(cfg: DictConfig, key: str) -> list[str]:
    """Return the known keys of the tree in which that key was looked for."""
    part = PART.match(key)
    if part:
        return [part[0] + one for one in PART_KEYS]
    return keys_of(cfg.hydra, "hydra.") if key.startswith("hydra.") else keys_of(cfg)


def _unknown_option(group: str, option: str, options: list[str]) -> str:
    near = nearest(option, options)
    if near:
        return f"{group}={option}: did you mean {group}={near}?"
    return f"{group}={option}: no such option: choose one of {_listed(options)}"


def _no_option(name: str, key: str, value: str, options: list[str]) -> str:
    """Return what to say of a value that is no name, and how to choose nothing where that can be."""
    remedy = f"choose one of {_listed(options)}" if options else "leave it out"
    if key == "experiment":
        remedy += "; leave it out for none"
    if key.partition("@")[0] == "task" and name == "train":
        remedy += f"; {key}=files measures nothing"
    return f"{key}={value}: {remedy}"


def _listed(options: list[str]) -> str:
    return ", ".join(options[:MOST]) + (", ..." if len(options) > MOST else "")


def _first_line(error: BaseException) -> str:
    """Return what an error says: of Hydra's, what it was raised from."""
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith("raised while composing config:")), type(error).__name__)
