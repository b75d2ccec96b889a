"""The key of an endpoint: in an environment variable, checked before it is sent, and never printed.

check_key_variable(cfg.teacher.llm.api_key_variable)      # InputError: a key in place of its variable's name
key = read_key("OPENAI_API_KEY")                          # InputError: not set, empty, or no key
"""

import os
import re

from distill.errors import InputError

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def check_key_variable(name: str | None) -> None:
    """Raise InputError, without the value, if a key was given in place of the name of its variable."""
    if name is not None and (not NAME.fullmatch(name) or re.match(r"(sk|hf|pk|gsk|xai)_?[A-Za-z0-9]*\d", name)):
        raise InputError(
            "teacher.llm.api_key_variable: must be the name of an environment variable, such as OPENAI_API_KEY (what "
            "you gave is not shown, since it may be a key): export KEY=... and give its name"
        )


def read_key(name: str | None) -> str | None:
    """Return the key in an environment variable, without the white space around it; None if none is named.

    Raises InputError if it is not set, empty, or holds what no HTTP header can.
    """
    check_key_variable(name)
    if name is None:
        return None
    if name not in os.environ:
        raise InputError(f"{name} is not set: put the endpoint's key into this variable")
    key = os.environ[name].strip()
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        fault = "is empty" if not key else "holds a character that no key has (white space, or not ASCII)"
        raise InputError(f"{name} {fault}: set it anew")
    return key
