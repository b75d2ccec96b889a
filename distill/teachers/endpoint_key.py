"""The key of an endpoint: in an environment variable, checked before it is sent, and never printed.

check_key_variable(cfg.teacher.llm.api_key_variable)      # InputError: a key in place of its variable's name
key = read_key("OPENAI_API_KEY")                          # InputError: not set, empty, or no key
check_llm(cfg)                                            # InputError: only a run's directory names who is to get it
"""

import contextlib
import os
import re
from urllib.parse import urlsplit

from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import command_overrides
from distill.errors import InputError
from distill.secrets import without_password
from distill.storage.cache import cache_directory, key_of, make_cache_directory

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
FOLDER = "endpoints"  # in the cache: an empty file for each address and variable that a command line here has named
LOCAL = ("localhost", "127.0.0.1", "::1")  # nobody else gets what is sent there


def check_key_variable(name: str | None, option: str = "teacher.llm.api_key_variable") -> None:
    """Raise InputError, without the value, if a key was given in place of the name of its variable.

    option: the key of the configuration that it comes from.
    """
    if name is not None and (not NAME.fullmatch(name) or re.match(r"(sk|hf|pk|gsk|xai)_?[A-Za-z0-9]*\d", name)):
        raise InputError(
            f"{option}: must be the name of an environment variable, such as OPENAI_API_KEY (what you gave is not "
            "shown, since it may be a key): export KEY=... and give its name"
        )


def read_key(name: str | None, option: str = "teacher.llm.api_key_variable") -> str | None:
    """Return the key in an environment variable, without the white space around it; None if none is named.

    Raises InputError if it is not set, empty, or holds what no HTTP header can.
    """
    check_key_variable(name, option)
    if name is None:
        return None
    if name not in os.environ:
        raise InputError(f"{name} is not set: put the endpoint's key into this variable")
    key = os.environ[name].strip()
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        fault = "is empty" if not key else "holds a character that no key has (white space, or not ASCII)"
        raise InputError(f"{name} {fault}: set it anew")
    return key


def check_llm(cfg: DictConfig) -> None:
    """Check the values of a configuration with teacher.llm, and that its key may be sent; raises InputError."""
    check_key_variable(cfg.teacher.llm.api_key_variable)  # first: other rules quote what they refuse
    check_values(cfg)
    named = {override.partition("=")[0] for override in command_overrides("task")}
    is_said = cfg.resume is None or bool(named & {"teacher.llm.base_url", "teacher.llm.api_key_variable"})
    check_receiver(cfg.teacher.llm, is_said=is_said)


def check_receiver(llm: DictConfig, *, is_said: bool) -> None:
    """Raise InputError if a run's directory says which key is sent where, and no command on this machine has said so.

    The directory may be somebody else's, and so would be the server. is_said: the command line says it, which is noted.
    """
    if llm.api_key_variable is None or llm.engine != "http":
        return
    address = without_password(llm.base_url)
    place = cache_directory() / FOLDER / key_of(address=address, variable=llm.api_key_variable)
    if is_said:
        with contextlib.suppress(InputError, OSError):  # it is said once more, then
            make_cache_directory(place.parent)
            place.touch()
    elif not place.exists() and urlsplit(address).hostname not in LOCAL:
        raise InputError(
            f"teacher.llm.base_url={address}: only the run's directory says that {llm.api_key_variable} is sent there: "
            f"if you trust this server, resume with teacher.llm.api_key_variable={llm.api_key_variable}"
        )
