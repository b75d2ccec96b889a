"""The secrets of an endpoint: its key, and the user and password in its address. None of them is ever printed.

key = read_key("OPENAI_API_KEY")        # from the environment
secrets = Secrets(base_url, key)
secrets.url                             # http://***@host/v1
secrets.hide("no such key: sk-1234")    # no such key: ***
"""

import os
import re
from urllib.parse import unquote, urlsplit

from distill.errors import InputError, printable
from distill.secrets import HIDDEN_AS

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
LEAST = 4  # characters: what is shorter is no secret, and would be found in any text


def check_key_variable(name: str | None, option: str = "teacher.llm.api_key_variable") -> None:
    """Raise InputError, without the value, if a key was given in place of the name of its variable.

    option: the configuration's key that it comes from.
    """
    if name is not None and (not NAME.fullmatch(name) or re.match(r"(sk|hf|pk|gsk|xai)_?[A-Za-z0-9]*\d", name)):
        raise InputError(
            f"{option}: must be the name of an environment variable, such as OPENAI_API_KEY (what "
            "you gave is not shown, since it may be a key): export KEY=... and give its name"
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


class Secrets:
    """What must not be printed of one endpoint."""

    def __init__(self, base_url: str, key: str | None):
        """Take the address, of which `url` is what may be printed."""
        self.url = without_password(base_url)
        given = [key, *_user_and_password(base_url)]
        known = {form for secret in given if secret for form in (secret, unquote(secret))}
        self.hidden = sorted((one for one in known if len(one) >= LEAST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return a text of the server's as one line without secrets and control characters."""
        for secret in self.hidden:
            text = text.replace(secret, HIDDEN_AS)
        return printable(" ".join(text.split()))


def without_password(url: str) -> str:
    """Return an address with *** in place of user and password."""
    return re.sub(r"(?<=://)[^/?#]*@", f"{HIDDEN_AS}@", url)


def _user_and_password(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ()
    return tuple(part for part in (parts.password, parts.username if parts.password is None else None) if part)
