"""Documents, a file each: Markdown, HTML and plain text, each as a row with a title and a text.

    document_fields("bees.md", "# Bees\n\nThey steer by the sun.")   # {"title": "Bees", "text": "They steer by ..."}

A title comes from the front matter or the <title>, else from the first heading. Other entries of the front matter are
fields, too. Of HTML the text that a reader sees is kept, without navigation and footers; Markdown stays as it is.
"""

import codecs
import functools
import re
import tomllib
from html.parser import HTMLParser
from typing import Any

import yaml

from distill.errors import InputError
from distill.sources.dumps import flattened
from distill.storage.files import DAMAGE, MAX_LINE, open_bytes, too_long, unreadable

HTML = (".html", ".htm", ".xhtml")
MARKDOWN = (".md", ".markdown")
TEXT = (".txt", ".text")
UNSEEN = {"script", "style", "template", "noscript", "svg", "nav", "footer", "select"}
# They do not part words; all other elements do
WITHIN_WORDS = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd mark q s samp small span strike strong sub "
    "sup time tt u var wbr".split()
)
MAX_DEPTH = 100  # of elements that are not seen, or of lists and fields of front matter, in each other
MAX_FRONT_MATTER = 2**16  # characters: YAML of that size takes up to a second
MAX_DOTS = 1000  # in a line of TOML: one of 65 000 characters, all a.a.a…, takes 15 seconds
OPEN_ENDS = (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", ">"), ("<", ">"))
LONG_NUMBER = re.compile(r"&#0*([0-9]{8})[0-9]*")  # of no character; int() refuses 4301 digits
FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(.*?)^\1[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LARGER = {  # a declared encoding -> what pages mean by it (WHATWG Encoding Standard), both as Python names them
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
# Others are no encodings of pages: `undefined`, `idna` and `unicode_escape`, for some
ENCODINGS = re.compile(r"utf-8|cp\d+|iso8859-\d+|iso2022_jp|koi8-\w|mac-\w+|gb18030|big5(hkscs)?|euc_\w+")
OPENING = (yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken, yaml.FlowSequenceStartToken,
           yaml.FlowMappingStartToken)  # fmt: skip
CLOSING = (yaml.BlockEndToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)
NULL = "tag:yaml.org,2002:null"


def document_fields(path: str, text: str) -> dict[str, Any]:
    """Return title, text and other fields of a document; raises InputError for front matter that cannot be read."""
    name = path.lower()
    if name.endswith(HTML):
        page = _Page()
        page.feed(_without_open_ends(LONG_NUMBER.sub(r"&#\1", text)))
        page.close()
        return {"title": page.title, "text": page.text}
    return _markdown_fields(path, text) if name.endswith(MARKDOWN) else {"title": "", "text": text}


def read_document(path: str) -> str:
    """Return a file's text: UTF-8, UTF-16 with its mark, or for HTML what its <meta> names, as browsers understand it.

    Raises InputError where it is neither, damaged, or too large.
    """
    try:
        with open_bytes(path) as file:
            content = file.read(MAX_LINE + 1)
    except DAMAGE as error:
        raise unreadable(path, error) from None
    if len(content) > MAX_LINE:
        raise too_long(path)
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        declared = CHARSET.search(content[:4096]) if path.lower().endswith(HTML) else None
        if declared is None:
            raise unreadable(path, error) from None
    try:
        return _decoded(content, declared[1].decode())
    except (UnicodeError, LookupError) as error:
        raise unreadable(path, error) from None


def _decoded(content: bytes, label: str) -> str:
    """Return the text of a page whose <meta> names its encoding so.

    Raises UnicodeError where it is in another one, and LookupError for one that is not known.
    """
    name = label.lower().removeprefix("x-").removesuffix("-i").replace("windows-", "cp")
    codec = codecs.lookup(name).name
    codec = LARGER.get(codec, codec)
    if not ENCODINGS.fullmatch(codec):
        raise LookupError(f"unknown encoding: {label}")
    if not re.fullmatch(r"cp(125\d|874)", codec):
        return content.decode(codec)
    return codecs.charmap_decode(content, "strict", _characters_of(codec))[0]


@functools.cache
def _characters_of(codec: str) -> str:
    """Return the 256 characters of a code page of Windows, U+FFFE for those that it lacks.

    The standard gives the bytes 80 to 9F a meaning where Windows, and Python, have none.
    """
    characters = [bytes([byte]).decode(codec, "ignore") for byte in range(256)]
    return "".join(known or (chr(byte) if byte < 0xA0 else "\ufffe") for byte, known in enumerate(characters))


def _markdown_fields(path: str, text: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    found = FRONT_MATTER.match(text)
    fields = _front_matter(path, found[1], found[2]) if found else None
    if found and fields is not None:
        given, text = fields, text[found.end() :]
    title = given.pop("title", "")
    first, _, rest = text.lstrip().partition("\n")
    below, _, after = rest.partition("\n")
    if not title and first.startswith(("# ", "#\t")):
        title, text = _heading(first), rest
    elif not title and first.strip() and below.strip() and not below.strip("= \t\r"):
        title, text = first.strip(), after
    return {"title": title, "text": text} | {name: value for name, value in given.items() if name != "text"}


def _heading(line: str) -> str:
    """Return the text of a line `# Title` or `# Title #`; the # of `# About C#` is part of it."""
    title = line[1:].strip()
    unclosed = title.rstrip("#")
    return title if unclosed.strip() and not unclosed[-1].isspace() else unclosed.strip()


def _front_matter(path: str, mark: str, content: str) -> dict[str, Any] | None:
    """Return the fields of front matter, YAML or TOML; a value that is no text and no number as text.

    None for text between two rules, which is part of the document.
    """
    try:
        if len(content) > MAX_FRONT_MATTER:
            raise ValueError(f"it has more than {MAX_FRONT_MATTER} characters")
        found = _read_yaml(content) if mark == "---" else _read_toml(content)
        if not isinstance(found, dict):
            return {} if found is None else None
        fields = flattened({str(name): value for name, value in found.items()})
        return {name: "" if value is None else str(value) for name, value in fields.items()}
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:  # of numbers, too
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path}:1: its front matter cannot be read ({reason}): correct or remove it") from None


def _read_yaml(content: str) -> Any:
    depth = 0
    for token in yaml.scan(content):
        if isinstance(token, yaml.AliasToken):
            raise ValueError("it refers to values by *name, which could repeat them without end")
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
    return yaml.load(content, _Texts)


class _Texts(yaml.BaseLoader):
    """All values as text, except null, ~ and nothing, which are None."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag == NULL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {NULL: lambda loader, node: None}  # noqa: RUF012


def _read_toml(content: str) -> dict[str, Any]:
    if any(line.count(".") > MAX_DOTS for line in content.split("\n")):
        raise ValueError(f"a line has more than {MAX_DOTS} dots")
    return tomllib.loads(content)


def _without_open_ends(text: str) -> str:
    """Return HTML without beginnings that have no end: the parser would search for it anew from each of them."""
    for start, end in OPEN_ENDS:
        place = text.rfind(end) + 1
        text = text[:place] + text[place:].replace(start, " ")
    return text


class _Page(HTMLParser):
    """The title and the visible text of a page; a heading that is its title is left out of the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []  # of the text
        self.titles: dict[str, list[str]] = {"title": [], "h1": []}
        self.inside: str | None = None  # title or the first h1
        self.unseen: list[str] = []  # open elements that hide what they hold

    def parse_html_declaration(self, i: int) -> int:
        """Skip `<![…>` like browsers, for which it is a comment; HTMLParser fails on those that it does not know."""
        if not self.rawdata.startswith("<![", i):
            return super().parse_html_declaration(i)
        end = "]]>" if self.rawdata.startswith("<![CDATA[", i) else ">"
        place = self.rawdata.find(end, i)
        return -1 if place < 0 else place + len(end)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Note what is hidden, and where a title begins."""
        if self.inside == "h1" and tag not in WITHIN_WORDS and tag not in ("br", "img"):
            self.inside = None  # it has no end
        if tag == "title" and "svg" not in self.unseen and not self.titles["title"]:
            self.inside = "title"
        elif tag in UNSEEN and len(self.unseen) < MAX_DEPTH:
            self.unseen.append(tag)
        elif tag == "h1" and not self.unseen and not self.titles["h1"]:
            self.inside = "h1"
        if tag not in WITHIN_WORDS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """Note what is seen again, and where a title ends."""
        if tag == self.inside:
            self.inside = None
        if tag in self.unseen:
            del self.unseen[len(self.unseen) - 1 - self.unseen[::-1].index(tag) :]
        if tag not in WITHIN_WORDS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        """Keep what a reader sees."""
        if self.inside:
            self.titles[self.inside].append(data)
        elif not self.unseen:
            self.parts.append(data)

    @property
    def title(self) -> str:
        """The <title>, else the first heading."""
        return " ".join("".join(self.titles["title"] or self.titles["h1"]).split())

    @property
    def text(self) -> str:
        """What a reader sees, the first heading before the rest unless it is the title."""
        heading = " ".join("".join(self.titles["h1"]).split())
        text = " ".join("".join(self.parts).split())
        return text if heading == self.title else f"{heading} {text}".strip()
