"""Text as a value on Hydra's command line and in a configuration, where quotes, commas, `=` and `${` mean something.

as_override("resume", directory)        # resume='/runs/lr=1e-3,seed=0': parsed back to exactly that directory
cfg.resume = as_literal(directory)      # read back as it is, also with a ${ in it
"""

import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString


def as_override(key: str, text: str | Path) -> str:
    """Return `key=value` for Hydra's command line, which parses to exactly the text; for a shell, quote it once more.

    Bare only where the text holds a slash and nothing that Hydra's grammar knows: 1e5 alone would become a number.
    """
    text = str(text)
    if re.fullmatch(r"[\w.-]*/[\w/.-]*", text, re.ASCII):
        return f"{key}={text}"
    return f"{key}={QuotedString(as_literal(text), Quote.single).with_quotes()}"


def as_literal(text: str | Path) -> str:
    """Return text for a node of OmegaConf, which would take `${` for the beginning of an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", str(text))
