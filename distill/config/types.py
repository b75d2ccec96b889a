"""Whether a saved configuration has the types of its schema, as far as it has its keys.

fault = fault_of(plain, TrainConfig)        # "train.batch_size is [1]: expected a number", or None
"""

import functools
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from distill.config.losses import LOSS_SCHEMAS, Mixture
from distill.config.schema import TaskConfig

NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "keys"}


def fault_of(plain: dict, schema: type, prefix: str = "") -> str | None:
    """Return what is wrong with the first value of another type than its field; None if all fit.

    Keys that the schema does not know, of another version, may have any value, and so may text with an interpolation.
    """
    for key, kind in _hints(schema).items():
        if key not in plain:
            continue
        value = plain[key]
        fault = _fault(value, kind, f"{prefix}{key}")
        if fault is None and key == "loss" and prefix == "":
            fault = _loss_fault(value)
        if fault is None and schema is TaskConfig and key == "tasks":
            fault = _parts_fault(value or {}, f"{prefix}{key}.")
        if fault is not None:
            return fault
    return None


@functools.cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _fault(value: Any, kind: Any, key: str) -> str | None:
    if isinstance(kind, type) and is_dataclass(kind):
        return fault_of(value, kind, f"{key}.") if isinstance(value, dict) else _expected(key, value, dict)
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if kind is Any or value is None or (isinstance(value, str) and ("${" in value or value == "???")):
        return None
    for one in kinds:
        origin = get_origin(one) or one
        if origin is list and isinstance(value, list):
            return next((fault for part in value if (fault := _fault(part, get_args(one)[0], key))), None)
        if origin is float and isinstance(value, int) and not isinstance(value, bool):
            return None
        if origin is str and isinstance(value, int | float | bool):  # a directory called 7
            return None
        if isinstance(value, origin) and not (origin is int and isinstance(value, bool)):
            return None
    first = next(one for one in kinds if one is not NoneType)
    return _expected(key, value, get_origin(first) or first)


def _expected(key: str, value: Any, kind: type) -> str:
    return f"{key} is {value!r}: expected {NAMES.get(kind, kind.__name__)}"


def _loss_fault(loss: Any) -> str | None:
    if not isinstance(loss, dict) or not isinstance(loss.get("name"), str):
        return _expected("loss", loss, dict)
    schema = Mixture if "parts" in loss else LOSS_SCHEMAS.get(loss["name"])
    return fault_of(loss, schema, "loss.") if schema else None


def _parts_fault(parts: dict, prefix: str) -> str | None:
    faults = (_fault(part, TaskConfig, f"{prefix}{name}") for name, part in parts.items())
    return next(filter(None, faults), None)
