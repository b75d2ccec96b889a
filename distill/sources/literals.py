"""Text that OmegaConf reads as it is: it would take `${` for the beginning of an interpolation, and look it up.

cfg.resume = as_literal(directory)
cfg = OmegaConf.create(escaped(plain))          # of values that are resolved already, or that others wrote
"""

import re
from pathlib import Path
from typing import Any


def as_literal(text: str | Path) -> str:
    """Return text for a node of OmegaConf, which would take `${` for the beginning of an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", str(text))


def escaped(value: Any) -> Any:
    """Return plain data whose text OmegaConf reads as it is."""
    if isinstance(value, dict):
        return {key: escaped(part) for key, part in value.items()}
    if isinstance(value, list):
        return [escaped(part) for part in value]
    return as_literal(value) if isinstance(value, str) else value
