"""Rules of configuration values, written beside the fields that they belong to.

    @dataclass
    class Train:
        batch_size: int = at_least(1)
        max_steps: int | None = at_least(1, default=None)
        max_epochs: float | None = beside(above(0, default=None), not_beside("max_steps"))

    check_rules(cfg)        # walks over a composed configuration, whatever dataclasses it is made of

A rule is a function of a value; it returns what is wrong, as it follows `key=value`, or None. A bond is a rule between
a value and others in its group: a function of the group, its prefix (`train.`), and the value. The walk checks every
value by itself before it checks any bond.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from distill.errors import InputError
from distill.secrets import without_password

Rule = Callable[[Any], str | None]
Bond = Callable[[Any, str, Any], str | None]
LARGEST = 2**31 - 1  # of whole numbers: nothing that is counted here is more, and products of two stay below 2**63


def choice(*options: str, any_case: bool = False, default: Any = MISSING) -> Any:
    """A field whose value is one of the options; any_case: True is "true", as Hydra passes what looks like a bool."""

    def rule(value: str) -> str | None:
        if (value.lower() if any_case else value) in options:
            return None
        return f" is unknown: choose one of {', '.join(options)}"

    return field(default=default, metadata={"rule": rule, "options": options})


def stemmer(*others: str) -> Any:
    """A field of one of PyStemmer's algorithms, which are named after languages, or of another name."""

    def rule(value: str) -> str | None:
        import Stemmer  # here: most commands need no stemmer

        known = [*others, *(name for name in Stemmer.algorithms() if name not in others)]
        return None if value in known else f" is unknown: choose one of {', '.join(known)}"

    return _field(rule, MISSING)


def at_least(
    low: float, below: float | None = None, at_most: float | None = None, why: str = "", default: Any = MISSING
) -> Any:
    """A field of a finite number from `low` on; why: the reason, if it is not obvious."""
    bounds = [(f"at least {low}", lambda value: value >= low)]
    return _field(_number(bounds, below, at_most, why), default)


def auto_or_at_least(low: int, default: Any = MISSING) -> Any:
    """A field of a whole number from `low` on, the word "auto", or None for no bound."""
    holds = lambda value: value == "auto" or (type(value) is int and low <= value <= LARGEST)  # noqa: E731
    return must(f"be at least {low}, auto, or null for all", holds, default)


def above(low: float, below: float | None = None, default: Any = MISSING) -> Any:
    """A field of a finite number that is more than `low`."""
    return _field(_number([(f"above {low}", lambda value: value > low)], below, None, ""), default)


def between(low: float, high: float, default: Any = MISSING) -> Any:
    """A field of a finite number from `low` to `high`, both allowed."""
    bounds = [(f"between {low} and {high}", lambda value: low <= value <= high)]
    return _field(_number(bounds, None, high, ""), default)


def each(one: Any, length: int | None = None, least: int = 0, default: Any = MISSING) -> Any:
    """A field of a list whose values all follow the rule of another field: each(choice("a", "b")).

    length: how many values it must have; least: how many at least.
    """

    def rule(values: list) -> str | None:
        if len(values) < least:
            return f": must have at least {least} values, not {len(values)}"
        if length is not None and len(values) != length:
            return f": must have {length} values, not {len(values)}"
        faults = ((value, one.metadata["rule"](value)) for value in values)
        return next((f": {value}{fault}" for value, fault in faults if fault), None)

    return _field(rule, default)


def must(reason: str, holds: Callable[[Any], bool], default: Any = MISSING) -> Any:
    """A field whose value must do what `reason` says: must("hold {task}", lambda value: "{task}" in value)."""
    return _field(lambda value: None if holds(value) else f": must {reason}", default)


def field_names() -> Any:
    """A field of the names of the fields that make up a text; null: the usual ones."""
    return must("name at least one field", bool, default=None)


def source(default: Any = MISSING, or_directory: bool = False) -> Any:
    """A field of a file, an address or an `ir_datasets` id; or_directory: a directory will do as well.

    distill/config/local_files.py downloads what such fields name, and nothing else.
    """
    rule = missing_file_or_directory if or_directory else missing_file
    return field(default=default, metadata={"rule": rule, "source": True})


def source_or_sources(default: Any = MISSING) -> Any:
    """A field of a source, like those of `source`, or of a list of two or more of them."""

    def rule(value: Any) -> str | None:
        if isinstance(value, str):
            return missing_file(value)
        is_list = isinstance(value, list) or OmegaConf.is_list(value)
        if not is_list or len(value) < 2 or not all(isinstance(name, str) for name in value):
            return ": must be one source, or a list of two or more"
        return next((f": {name}{fault}" for name in value if (fault := missing_file(name))), None)

    return field(default=default, metadata={"rule": rule, "source": True})


def unchecked_source(default: Any = MISSING) -> Any:
    """A field of a file, an address or an `ir_datasets` id that is checked elsewhere."""
    return field(default=default, metadata={"source": True})


def output_of(noun: str, needs: str) -> Any:
    """A field of the output directory of an earlier run, which must hold a file: output_of("training", "model")."""
    article = "an" if noun[0] in "aeiou" else "a"

    def rule(value: str) -> str | None:
        if os.path.isfile(Path(value) / needs):  # False for a name that no file can have, too
            return None
        return f": no {needs} there: give the output directory of {article} {noun}"

    return _field(rule, None)


def missing_file(value: str) -> str | None:
    """Rule: what looks like a path is a file; anything else may be an `ir_datasets` id, which is looked up later."""
    from distill.sources.locate import is_missing_file  # here: the schema is imported before the first line is out

    if not (is_missing_file(value) or os.path.isdir(value)):
        return None
    return f": no such file: check the path (it is read from {Path.cwd()})"


def missing_file_or_directory(value: str) -> str | None:
    """Rule: like `missing_file`, but a directory will do as well."""
    return None if os.path.isdir(value) else missing_file(value)


def _field(rule: Rule, default: Any) -> Any:
    return field(default=default, metadata={"rule": rule})


def _number(
    bounds: list[tuple[str, Callable[[float], bool]]], below: float | None, at_most: float | None, why: str
) -> Rule:
    if below is not None:
        bounds = [*bounds, (f"below {below}", lambda value: value < below)]
    if at_most is not None:
        bounds = [*bounds, (f"at most {at_most}", lambda value: value <= at_most)]

    def rule(value: float) -> str | None:
        if not math.isfinite(value):  # of NaN the bounds would only say that it is too small
            return ": must be a finite number"
        fault = next((text for text, holds in bounds if not holds(value)), None)
        if fault is None and isinstance(value, int) and below is None and at_most is None and value > LARGEST:
            fault = f"at most {LARGEST}"
        return f": must be {fault}{f', since {why}' if why else ''}" if fault else None

    return rule


def beside(one: Any, *bonds: Bond) -> Any:
    """A field with bonds to others of its group, in addition to its own rule."""
    return field(default=one.default, metadata={**one.metadata, "bonds": bonds})


def not_beside(other: str) -> Bond:
    """Bond: at most one of two keys is given, and the other is null."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or group[other] is None:
            return None
        return f" and {prefix}{other}={shown(group[other])}: give only one, and set the other to null"

    return bond


def not_with(other: str, reason: str) -> Bond:
    """Bond: at most one of two keys is given; reason: what both do."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or group[other] is None:
            return None
        return f" and {prefix}{other}={group[other]} {reason}: set one of them to null"

    return bond


def without(other: str, option: str, why: str) -> Bond:
    """Bond: it is not given beside this option of another key."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or group[other] != option:
            return None
        return f" and {prefix}{other}={option}: {why}"

    return bond


def no_less_than(other: str, why: str) -> Bond:
    """Bond: a number is not below that of another key, if it is given."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or value >= group[other]:
            return None
        return f" is below {prefix}{other}={group[other]}: {why}: raise the one or lower the other"

    return bond


def no_more_than(other: str, why: str) -> Bond:
    """Bond: a number does not exceed that of another key."""
    return lambda group, prefix, value: (
        f" exceeds {prefix}{other}={group[other]}: {why}: lower the one or raise the other"
        if value > group[other]
        else None
    )


def less_than(other: str, why: str) -> Bond:
    """Bond: a number is below that of another key."""
    return lambda group, prefix, value: (
        f" is not below {prefix}{other}={group[other]}: {why}: lower the one or raise the other"
        if value >= group[other]
        else None
    )


def only(option: str, other: str, values: tuple[str | None, ...], why: str) -> Bond:
    """Bond: with these values of another key, only one option is possible."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value == option or group[other] not in values:
            return None
        return f" with {prefix}{other}={shown(group[other])}: {why}: set it to {option}"

    return bond


def as_many_as(other: str) -> Bond:
    """Bond: a list has as many values as that of another key, if it is given."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or len(value) == len(group[other]):
            return None
        return f": must have one value for each of {prefix}{other}, which has {len(group[other])}"

    return bond


def ascending() -> Bond:
    """Bond: the values of a list go up, or stay."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        return None if value is None or value == sorted(value) else ": must go up"

    return bond


def needs(option: str, **what: str) -> Bond:
    """Bond: with this option the other keys must be given; what: what each of them is."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        lacking = [key for key in what if group[key] is None] if value == option else []
        return f" needs {prefix}{lacking[0]}, {what[lacking[0]]}" if lacking else None

    return bond


def needs_given(other: str, why: str) -> Bond:
    """Bond: if it is given, so is another key."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or group[other] is not None:
            return None
        return f" with {prefix}{other}=null: {why}: give it, or set this to null"

    return bond


def needs_some(*others: str) -> Bond:
    """Bond: if it is given, one of the other numbers is above 0."""

    def bond(group: Any, prefix: str, value: Any) -> str | None:
        if value is None or any(group[other] > 0 for other in others):
            return None
        return f" needs {' or '.join(prefix + other for other in others)}"

    return bond


def check_rules(cfg: Any, prefix: str = "") -> None:
    """Check every value of a composed configuration by the rules of its field; raises InputError for a fault."""
    for _, key, value, options in _ruled_values(cfg, prefix):
        if value is not None and "rule" in options:
            _refuse(key, value, options["rule"](value))
    for group, key, value, options in _ruled_values(cfg, prefix):
        for bond in options.get("bonds", ()):
            _refuse(key, value, bond(group, key.removesuffix(key.split(".")[-1]), value))


def check_value(cfg: Any, key: str) -> None:
    """Check a single value at the top of a configuration by the rule of its field; raises InputError."""
    [options] = [one.metadata for one in fields(OmegaConf.get_type(cfg)) if one.name == key]
    if cfg[key] is not None:
        _refuse(key, cfg[key], options["rule"](cfg[key]))


def options_of_key(cfg: Any, key: str) -> tuple[str, ...]:
    """Return the options of a choice, by its full key; none for a key that is no choice."""
    group, _, name = key.rpartition(".")
    rules = _rules_of(OmegaConf.get_type(OmegaConf.select(cfg, group) if group else cfg))
    return rules.get(name, {}).get("options", ())


def _rules_of(schema: Any) -> dict[str, Mapping]:
    """Return the rules of every field of a dataclass; none for another type."""
    return {one.name: one.metadata for one in fields(schema)} if is_dataclass(schema) else {}


def _refuse(key: str, value: Any, fault: str | None) -> None:
    if fault is not None:
        value = without_password(f"://{value}")[3:] if key.endswith("_url") and "://" not in value else shown(value)
        raise InputError(f"{key}={value}{fault}")


def shown(value: Any) -> Any:
    """Return a value as it is written on the command line."""
    return "null" if value is None else value


def _ruled_values(node: Any, prefix: str) -> Iterator[tuple[Any, str, Any, Mapping]]:
    """Yield group, key, value and rules of every field that has rules and a value, which may be null."""
    rules = _rules_of(OmegaConf.get_type(node))
    for name in node:
        if OmegaConf.is_missing(node, name):
            continue
        value = node[name]
        if OmegaConf.is_dict(value) and not rules.get(name):
            yield from _ruled_values(value, f"{prefix}{name}.")
        elif rules.get(name):
            plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            yield node, f"{prefix}{name}", plain, rules[name]
