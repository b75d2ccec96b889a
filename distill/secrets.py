"""What must not be written: passwords in addresses, keys and tokens; and, in what is for others, this machine's paths.

    redacted("https://me:hunter2@host/v1")      # "https://***@host/v1"
    for_others("teacher.path=/home/me/t.run")   # "teacher.path=t.run"
    is_secret_name("api_key")                   # True: whatever such a key of a configuration holds is a secret
    Secrets(base_url, key).hide("no such key: sk-1234")     # of one endpoint: "no such key: ***"

A value of the environment is a secret if its variable's name says so: OPENAI_API_KEY, HF_TOKEN, DB_PASSWORD.
"""

import logging
import os
import re
from urllib.parse import unquote, urlsplit

HIDDEN_AS = "***"
LEAST = 8  # characters of a variable's value: a shorter one would take common words out of every text
LEAST_OF_ENDPOINT = 4  # of an endpoint's key or password, which is taken out of its server's answers only
NAME = r"(?:(?:api|access|secret|private)[-_]?key|password|passwd|passphrase|secret|token|credentials?)"
SECRET_NAME = re.compile(rf"(?:^|[-_.]){NAME}$", re.IGNORECASE)
VARIABLE = re.compile(  # MONKEY is none, PGPASSWORD is one
    r"(?:(?:^|_|API|ACCESS|SECRET|PRIVATE)KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|(?:^|_)CREDENTIALS?)$",
    re.IGNORECASE,
)
SCHEME = r"\b[a-z][a-z0-9+.-]{0,30}\\?://"  # Hydra writes a job's overrides with \: for a colon
ADDRESS = re.compile(  # within a text, where quotes may end it; a password may hold an apostrophe
    rf"(?P<scheme>{SCHEME})(?P<user>[^\s/?#'\"<>:]{{0,200}}:[^\s/?#\"<>]{{1,500}}@|[^\s/?#'\"<>]{{1,500}}@)",
    re.IGNORECASE,
)
BEGINNING = re.compile(  # of a text that is an address, or begins with one, and so with no other quotes
    rf"^(?P<scheme>[\s'\"]?{SCHEME})(?P<user>[^\s/?#]{{1,500}}@)", re.IGNORECASE
)
PARAMETER = re.compile(  # ?token=..., X-Amz-Signature=..., "api_key": "...", {api_key:...}
    rf"(?P<name>[\w.-]{{0,40}}(?:{NAME}|signature)(?:=[\"']?|[\"']\s?:\s?[\"'])|[{{,]\s?[\w.-]{{0,40}}{NAME}\\?:\s?)"
    rf"(?P<value>[^\s&#;,'\"<>$*}}\]]{{6,}})",
    re.IGNORECASE,
)
HEADER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)(?P<value>[A-Za-z0-9._~+/=-]{8,})")
WORD = re.compile(r"[A-Z]?[a-z]+(?:-[a-z]+)*\.?")  # after Basic or Bearer in a text, as in "Basic comparison"
KEYS = re.compile(  # as their issuers shape them: Hugging Face, OpenAI and those like it, GitHub, GitLab, Google, …
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{16,}|gh[oprsu]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|(?:xai|pplx)-[A-Za-z0-9]{32,}|nvapi-[A-Za-z0-9_-]{40,})"
)
RANDOM = re.compile(r"(?=[A-Za-z]{0,15}[0-9])[A-Za-z0-9]{16}")  # what a key has, and a Slovak name after sk- has not

PLACE = re.compile(  # an absolute path
    r"""(?:^|(?<=[\s'"=(\[,`|:{>])|(?<=\bfile://)|(?<=\bfile\\://))(?:/|~/)[\w.~+@-][^\s'"`,|\])]*""", re.MULTILINE
)


def is_secret_name(name: str) -> bool:
    """Whether a key of a configuration holds a secret, by its name: `api_key`, but not `api_key_variable`."""
    return SECRET_NAME.search(name) is not None


def redacted(text: str) -> str:
    """Return a text without its secrets: ***, or the variable's name for the value of one of the environment."""
    for name, value in _known():
        if value in text:
            text = text.replace(value, f"${{oc.env:{name}}}")
    text = BEGINNING.sub(rf"\g<scheme>{HIDDEN_AS}@", text)
    text = ADDRESS.sub(rf"\g<scheme>{HIDDEN_AS}@", text)
    text = PARAMETER.sub(_without_value, text)
    text = HEADER.sub(lambda found: found[0] if WORD.fullmatch(found["value"]) else found["name"] + HIDDEN_AS, text)
    return KEYS.sub(_without_key, text)


def _without_value(found: re.Match) -> str:
    return found[0] if found["value"].isdigit() else f"{found['name']}{HIDDEN_AS}"  # token=512000 is a count


def _without_key(found: re.Match) -> str:
    return found[0] if found[0].startswith("sk-") and not RANDOM.search(found[0]) else HIDDEN_AS


def _known() -> list[tuple[str, str]]:
    """Return the secrets of the environment as (name, value), the longest first: one may be part of another."""
    named = [(name, value) for name, value in os.environ.items() if VARIABLE.search(name)]
    secret = [(name, value) for name, value in named if len(value) >= LEAST and not _is_path(value)]
    return sorted(secret, key=lambda pair: -len(pair[1]))


def _is_path(value: str) -> bool:
    """Whether a value is the path of a file with the secret; one in 64 secrets of base64 begins with a slash, too."""
    return value.startswith("/") and os.path.exists(value)


def for_others(text: str) -> str:
    """Return a text without secrets and without absolute paths.

    Of a path below the current directory, what follows it is left, of any other only the name.
    """
    return PLACE.sub(lambda found: _relative(found[0]), redacted(text))


def _relative(path: str) -> str:
    here = os.getcwd()
    if path.startswith(f"{here}/") and len(here) > 1:
        return path[len(here) + 1 :]
    return os.path.basename(path.rstrip("/")) or path


class Secrets:
    """The secrets of one endpoint: its key, and the user and password in its address."""

    def __init__(self, address: str, key: str | None):
        """Take the address, of which `url` is what may be printed."""
        self.url = without_password(address)
        given = [key, *_user_and_password(address)]
        known = {form for secret in given if secret for form in (secret, unquote(secret))}
        self.hidden = sorted((one for one in known if len(one) >= LEAST_OF_ENDPOINT), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return a text, such as the server's answer, without them."""
        for secret in self.hidden:
            text = text.replace(secret, HIDDEN_AS)
        return text


def without_password(address: str) -> str:
    """Return an address with *** in place of user and password, whatever characters they hold."""
    return re.sub(r"(?<=://)[^/?#]*@", f"{HIDDEN_AS}@", address)


def _user_and_password(address: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ()
    return tuple(part for part in (parts.password, parts.username if parts.password is None else None) if part)


class RedactedFormatter(logging.Formatter):
    """Formats a line of the log without its secrets; conf/hydra/job_logging/plain.yaml names it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return redacted(super().format(record))
