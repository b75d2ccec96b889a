"""Text as a value on Hydra's command line and in a configuration, where quotes, commas, `=` and `${` mean something.

as_override("resume", directory)        # resume='/runs/lr=1e-3,seed=0': parsed back to exactly that directory
quoted("baseline=loss=ranknet")         # baseline='loss=ranknet': as a user may give it, and as Hydra parses it
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.sources.literals import as_literal

CONSTANTS = ("null", "true", "false", "inf", "nan")  # of Hydra's grammar
# Keys whose text may have commas, which Hydra would take for a sweep: so it is one of LLMs, but not of cross-encoders
WITH_COMMAS, OF_CROSS_ENCODERS = ("teacher.llm.model", "teacher.llm.base"), "llm@teacher.llm=cross-encoder"


def as_override(key: str, text: str | Path | Sequence[str]) -> str:
    """Return `key=value` for Hydra's command line, which parses to exactly the text; for a shell, quote it once more.

    Unquoted only if it looks like a path or a name, and not like a number or a constant of Hydra's grammar. Several
    texts become a list.
    """
    if not isinstance(text, str | Path):
        return f"{key}=[{','.join(as_override('', one)[1:] for one in text)}]"
    text = str(text)
    path, name = r"[\w.-]*/[\w/.-]*", r"[A-Za-z][\w.-]*"
    if re.fullmatch(f"{path}|{name}", text, re.ASCII) and text.lower() not in CONSTANTS:
        return f"{key}={text}"
    return f"{key}={_in_quotes(as_literal(text))}"


def field_overrides(cfg: Mapping[str, Any], prefix: str = "", kinds: Sequence[str] = ("", "query_")) -> list[str]:
    """Return the overrides that name the fields of a command's passages and queries for another command."""
    keys = [f"{kind}{what}" for kind in kinds for what in ("id_field", "text_fields")]
    return [as_override(prefix + key, cfg[key]) for key in keys if cfg[key] is not None]


def all_quoted(arguments: Sequence[str], *, is_sweep: bool) -> list[str]:
    """Quote the arguments of a command line, but not the commas of a sweep over LLMs."""
    keeps_commas = is_sweep and OF_CROSS_ENCODERS not in arguments
    return [one if keeps_commas and one.partition("=")[0] in WITH_COMMAS else quoted(one) for one in arguments]


def quoted(argument: str) -> str:
    """Quote what a user means as text and Hydra's grammar refuses: `=` or `{` in a value; `=`, `(`, `)` in a list's.

    Commas are quoted too, for a key whose text may have them.
    """
    key, sign, value = argument.partition("=")
    if not sign or argument.startswith("-") or value[:1] in ("", "'", '"', "{"):
        return argument
    if "," in value and key in WITH_COMMAS:
        return f"{key}={_in_quotes(value)}"
    if not re.search(r"[=({]", value) or _is_grammatical(argument):
        return argument
    if value[0] == "[":
        quoted_or_sign = r"""'[^']*'|"[^"]*"|\\.|[=()]"""
        return f"{key}={re.sub(quoted_or_sign, lambda found: _escaped(found[0]), value)}"
    return f"{key}={_in_quotes(value)}"


def _in_quotes(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def _escaped(text: str) -> str:
    return f"\\{text}" if text in ("=", "(", ")") else text


def _is_grammatical(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        OverridesParser.create().parse_overrides([override])
    except OverrideParseException:
        return False
    return True


def unquoted(argument: str) -> str:
    """Return what `quoted` was given."""
    key, _, value = argument.partition("=")
    given = (f"{key}={value[1:-1]}".replace(r"\'", "'"), f"{key}=" + re.sub(r"\\([=()])", r"\1", value))
    return next((one for one in given if quoted(one) == argument), argument)
