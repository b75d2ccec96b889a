"""What a field of a file may hold, and which fields of a row hold its id and its text.

    doc_id = checked_id(value, "passages.jsonl:7")                # text or whole number; raises InputError
    Fields("sku", ("title", "body")).read(row, "articles.csv:7")    # ("4711", "Bees Bees steer by the sun.")

One rule for all formats and sizes. An id is written into white-space separated files later, so it has no white space; a
number is written as C and JSON write numbers, in ASCII.
"""

import functools
import math
import re
from dataclasses import dataclass

from distill.errors import InputError

MAX_ID = 2048  # characters
MAX_GRADE = 1000  # trec_eval keeps a counter for each grade up to the highest one
# White space, control characters and what changes the direction of text, in the syntax of re and RE2 alike
NOT_IN_ID = "[\\x00-\\x20\\x7f-\xa0\u1680\u2000-\u200b\u2028-\u202f\u205f\u2066-\u2069\u3000\ufeff]"
_not_in_id = re.compile(NOT_IN_ID)
_number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_whole_number = re.compile(r"[+-]?\d+", re.ASCII)

ID_NAMES = tuple("_id id docid doc_id docno pid passage_id corpus_id document_id qid query_id topic_id".split())
TEXT_NAMES = {
    "queries": ("text", "query", "question", "title"),
    "passages": ("text", "contents", "passage", "body", "content", "abstract"),
}


def checked_id(value: object, place: str, name: str = "id") -> str:
    """Return an id as text; whole numbers are taken as they are.

    Raises InputError for anything else, and where it is empty, too long, or holds white space or control characters.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = _digits(value, place, name)
    if not isinstance(value, str):
        raise InputError(f"{place}: {name} is {_kind(value)}: an id must be text or a whole number")
    if value.isascii() and value.isprintable() and " " not in value and 0 < len(value) <= MAX_ID:
        return value  # nearly all are; the others are checked below
    if not value:
        raise InputError(f"{place}: {name} is empty: give it a value or remove the line")
    if len(value) > MAX_ID:
        raise InputError(f"{place}: {name} has {len(value)} characters: an id may have {MAX_ID}")
    forbidden = _not_in_id.search(value)
    if forbidden:
        raise InputError(
            f"{place}: {name} {value!r} holds {_named(forbidden[0])}: ids are written between spaces, so they may not "
            "contain white space or control characters: replace it"
        )
    _check_unicode(value, place, name)
    return value


def _digits(number: int, place: str, name: str) -> str:
    if number.bit_length() > 1000:  # str() refuses 4301 digits, and is slow well before that
        raise InputError(f"{place}: {name} is a number of more than 300 digits: write it as text")
    return str(number)


def _kind(value: object) -> str:
    kinds = {type(None): "missing", bool: "true or false", float: "a number with a fraction", bytes: "bytes"}
    kinds |= {list: "a list", dict: "an object", int: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _named(character: str) -> str:
    names = {" ": "a space", "\t": "a tab", "\n": "a line's end", "\r": "a carriage return", "\0": "a NUL character"}
    return names.get(character, f"the character U+{ord(character):04X}")


def _check_unicode(text: str, place: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{place}: `{name}` holds half a character (a lone surrogate): write UTF-8") from None


def checked_text(value: object, place: str, name: str) -> str:
    """Return a text; None is an empty one. Raises InputError for anything else."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value, place, name)
    if not isinstance(value, str):
        raise InputError(f"{place}: `{name}` is {_kind(value)}: expected a text")
    _check_unicode(value, place, name)
    return value


def read_number(value: object, column: str, place: str) -> float:
    """Return the number that a column holds, as text, bytes or a number; raises InputError where it is not finite."""
    try:
        if isinstance(value, str | bytes):
            text = value if isinstance(value, str) else value.decode("utf-8", "replace")
            number = float(text) if _number.fullmatch(text) else None
            if number is None and text.lstrip("+-").lower() in ("nan", "inf", "infinity"):
                number = math.nan
        else:
            number = None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.inf
    shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if number is None:
        raise InputError(f"{place}: {column} {_shown(shown)} is not a number: correct or remove the line")
    if not math.isfinite(number):
        raise InputError(f"{place}: {column} {_shown(shown)} is not finite: a ranking needs ordinary numbers")
    return number


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # a whole number of more than 4300 digits
        return "of more than 4300 digits"


def json_number(value: object, name: str, place: str) -> float:
    """Return a number of a JSON object; raises InputError where it is not finite, and where it is text."""
    if isinstance(value, str):
        raise InputError(f"{place}: {name} {value!r} is not a number: write it without quotes")
    return read_number(value, name, place)


def read_grade(value: object, place: str) -> int:
    """Return a relevance grade; raises InputError if it is not a whole number, or too large for trec_eval."""
    if isinstance(value, str) and _whole_number.fullmatch(value):
        grade = int(value) if len(value) < 20 else MAX_GRADE + 1
    elif isinstance(value, int) and not isinstance(value, bool):
        grade = value
    else:
        raise InputError(f"{place}: grade {_shown(value)} is not a whole number: use grades such as 0 to 3")
    if abs(grade) > MAX_GRADE:
        raise InputError(f"{place}: grade {_shown(value)} is beyond ±{MAX_GRADE}: use small grades, such as 0 to 3")
    return grade


@dataclass(frozen=True)
class Fields:
    """Which fields of a row hold its id and its text; None: those with a common name (a passage's title first)."""

    id: str | None = None
    texts: tuple[str, ...] | None = None

    @classmethod
    def of(cls, cfg, kind: str = "passages") -> "Fields":
        """Take the keys of a configuration: id_field and text_fields, for queries query_id_field and …text_fields."""
        prefix = "query_" if kind == "queries" else ""
        texts = cfg[f"{prefix}text_fields"]
        return cls(cfg[f"{prefix}id_field"], None if texts is None else tuple(texts))

    def names(self, known: list[str], place: str, kind: str) -> tuple[str, tuple[str, ...]]:
        """Return which of the fields of a row or header hold the id and the text.

        Raises InputError where no field has a common name, or the named id field is missing.
        """
        id_field, texts = _chosen(self, tuple(known), kind)
        if id_field not in known or texts is None:
            prefix = "query_" if kind == "queries" else ""
            missing, key = (
                (self.id or "an id", "id_field=NAME") if id_field not in known else ("a text", "text_fields=[NAME]")
            )
            listed = ", ".join(map(str, known)) or "none"
            raise InputError(
                f"{place}: lacks {missing}: its fields are {listed}: name yours by {prefix}{key} "
                f"(data.{prefix}{key} in training, task.{prefix}{key} in evaluation)"
            )
        return id_field, texts

    def read(self, row: dict, place: str, kind: str = "passages") -> tuple[str, str]:
        """Return the id and the text of a row, its text fields joined by spaces; an absent text is empty.

        Raises InputError for an invalid id or text.
        """
        text_id, texts = self.parts(row, place, kind)
        return text_id, " ".join(texts.values())

    def parts(self, row: dict, place: str, kind: str = "passages") -> tuple[str, dict[str, str]]:
        """Return the id of a row, and its texts that are not empty by the names of their fields, in order.

        Raises InputError like `read`.
        """
        id_field, names = self.names([*row], place, kind)
        texts = {name: checked_text(row.get(name), place, name) for name in names}
        return checked_id(row[id_field], place, id_field), {name: text for name, text in texts.items() if text}


USUAL = Fields()


@functools.lru_cache(maxsize=1000)
def _chosen(fields: Fields, known: tuple[str, ...], kind: str) -> tuple[str | None, tuple[str, ...] | None]:
    """The id and text fields among the known ones, each None if absent."""
    lower = {usual_name(name): name for name in reversed(known) if isinstance(name, str)}
    id_field = fields.id or next((lower[name] for name in ID_NAMES if name in lower), None)
    if fields.texts is not None:
        return id_field, fields.texts
    text_field = next((lower[name] for name in TEXT_NAMES[kind] if name in lower), None)
    if text_field is None:
        return id_field, None
    has_title = kind == "passages" and "title" in lower
    return id_field, (lower["title"], text_field) if has_title else (text_field,)


def usual_name(name: str) -> str:
    """Return a field's name as it is looked up: doc-id, Doc_ID and #doc_id are the same."""
    return name.strip().lstrip("#").lower().replace("-", "_")
