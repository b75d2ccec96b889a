"""Rules of single configuration values, written beside the fields that they belong to.

    @dataclass
    class Model:
        pooling: str = choice("cls", "mean")
        query_length: int = at_least(1)
        dropout: float | None = at_least(0, below=1, default=None)

    check_rules(cfg)        # walks over a composed configuration, whatever dataclasses it is made of

A rule is a function of the value that returns what is wrong with it, as it follows `key=value`, or None.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, OmegaConf

from distill.errors import InputError

Rule = Callable[[Any], str | None]
LARGEST = 2**31 - 1  # of whole numbers: nothing that is counted here is more, and products of two stay below 2**63


def choice(*options: str, any_case: bool = False, default: Any = MISSING) -> Any:
    """A field whose value is one of the options; any_case: True is "true", as Hydra hands on what looks like a bool."""

    def rule(value: str) -> str | None:
        if (value.lower() if any_case else value) in options:
            return None
        return f" is unknown: choose one of {', '.join(options)}"

    return _field(rule, default)


def at_least(
    low: float, below: float | None = None, at_most: float | None = None, why: str = "", default: Any = MISSING
) -> Any:
    """A field of a finite number from `low` on; why: what the reason is, where it does not go without saying."""
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


def each(one: Any, length: int | None = None, default: Any = MISSING) -> Any:
    """A field of a list whose values all follow the rule of another field: each(choice("a", "b"))."""

    def rule(values: list) -> str | None:
        if length is not None and len(values) != length:
            return f": must have {length} values, not {len(values)}"
        faults = ((value, one.metadata["rule"](value)) for value in values)
        return next((f": {value}{fault}" for value, fault in faults if fault), None)

    return _field(rule, default)


def must(reason: str, holds: Callable[[Any], bool], default: Any = MISSING) -> Any:
    """A field whose value must do what `reason` says: must("hold {task}", lambda value: "{task}" in value)."""
    return _field(lambda value: None if holds(value) else f": must {reason}", default)


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


def check_rules(cfg: Any, prefix: str = "") -> None:
    """Check every value of a composed configuration by the rule of its field; raises InputError for the first fault."""
    for key, value, rule in _ruled_values(cfg, prefix):
        fault = rule(value)
        if fault is not None:
            raise InputError(f"{key}={value}{fault}")


def _ruled_values(node: Any, prefix: str) -> Iterator[tuple[str, Any, Rule]]:
    """Yield key, value and rule of all fields that have both a value and a rule."""
    schema = OmegaConf.get_type(node)
    rules = {one.name: one.metadata.get("rule") for one in fields(schema)} if is_dataclass(schema) else {}
    for name in node:
        value = None if OmegaConf.is_missing(node, name) else node[name]
        if OmegaConf.is_dict(value) and rules.get(name) is None:
            yield from _ruled_values(value, f"{prefix}{name}.")
        elif value is not None and rules.get(name) is not None:
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            yield f"{prefix}{name}", value, rules[name]
