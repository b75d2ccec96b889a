"""Text that OmegaConf reads as it is: it would take `${` for the beginning of an interpolation, and look it up.

cfg.resume = as_literal(directory)
cfg = OmegaConf.create(escaped(plain))          # of values that are resolved already, or that others wrote
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def as_literal(text: str | Path) -> str:
    """Return text for a node of OmegaConf, which would take `${` for the beginning of an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", str(text))


def escaped(value: Any) -> Any:
    """Return plain data whose text OmegaConf reads as it is."""
    return with_texts(value, as_literal)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with each text changed, but for the keys of dictionaries."""
    if isinstance(value, dict):
        return {key: with_texts(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [with_texts(part, change) for part in value]
    return change(value) if isinstance(value, str) else value
