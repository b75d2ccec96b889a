"""A folder of documents: Markdown, HTML and plain text, at any depth.

    for place, row in folder_rows("articles"): ...    # ("articles/a/bees.md", {"_id": "a/bees.md", "title": ..., ...})
    folder_state("articles")                          # what tells one state of a folder from another

An id is the path within the folder, with / between its parts; what an id may not hold is written as in addresses: %20
for a space, %25 for %. Files and folders whose names begin with a dot are not looked at. Other files are left out, and
counted with the first of them; so are symbolic links to folders, and folders that our own commands have written.
"""

import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

from distill.errors import InputError, refuse
from distill.sources.documents import HTML, MARKDOWN, TEXT, document_fields, read_document
from distill.sources.fields import NOT_IN_ID

log = logging.getLogger(__name__)

READ = MARKDOWN + HTML + TEXT
PDF_REMEDY = "extract its text first, as `pdftotext FILE.pdf FILE.txt` does"
OWN_KEYS = {b"train", b"max_tokens", b"window", b"round_trip", b"human_min_grade"}  # as in config/resumable.py
MAX_CONFIG = 2**20  # bytes
FORMAT = 2  # of what is read from a document: what is cached in another format is made anew
_quoted = re.compile(f"%|{NOT_IN_ID}")


def folder_rows(folder: str, refused: Callable[[InputError], None] = refuse) -> Iterator[tuple[str, dict]]:
    """Yield (place, row) of every document, in the order of their ids; raises InputError for one that cannot be read.

    refused: gets the error instead, and may return, to continue with the next document.
    """
    folder = folder.rstrip("/") or "/"
    names, others, unread = _files(folder)
    if others:
        _warn_of_others(folder, len(others), len(names) + len(others), others[0])
    if unread:
        _warn_of_unread(folder, len(unread), unread[0])
    for name in names:
        place = f"{folder}/{name}"
        try:
            fields = document_fields(place, read_document(place))
        except InputError as error:
            refused(error)
            continue
        own_id = {"_id": _quoted.sub(lambda found: quote(found[0], safe=""), name)}
        yield place, own_id | fields | own_id  # first and last: whatever the front matter calls an id


def folder_state(folder: str) -> dict:
    """Return the folder's path, how it is read, and a digest of its documents' names, sizes and times of change."""
    states = [(name, _stat(f"{folder}/{name}")) for name in _files(folder)[0]]
    listed = [[name, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for name, state in states]
    files = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return {"path": os.path.realpath(folder), "format": FORMAT, "files": files}


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:  # a link to nowhere, for one
        raise InputError(f"{path}: cannot be opened ({error.strerror}): check the path and its permissions") from None


def _is_output(directory: str) -> bool:
    """Whether a directory is what one of our commands has written, or is writing: by the keys of its config.yaml."""
    config, results, lock = (f"{directory}/{name}" for name in ("config.yaml", "results.json", "run.lock"))
    if not os.path.isfile(config) or not (os.path.isfile(results) or os.path.isfile(lock)):
        return False
    try:
        with open(config, "rb") as file:
            keys = set(re.findall(rb"^(\w+):", file.read(MAX_CONFIG), re.MULTILINE))
    except OSError:
        return False
    return b"resume" in keys and not keys.isdisjoint(OWN_KEYS)


def _files(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Return the documents, the other files and the folders left out, by their paths in a folder.

    Directories of our own runs are left out: a corpus in the working directory has them beside it. Raises InputError
    if there is no document.
    """
    names: list[str] = []
    unread: list[str] = []

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}): check its permissions")

    for directory, inner, files in os.walk(folder, onerror=unreadable):
        within = os.path.relpath(directory, folder)
        start = "" if within == "." else f"{within}/"
        inner[:] = [name for name in inner if name[:1] != "."]
        left_out = [name for name in inner if os.path.islink(path := f"{directory}/{name}") or _is_output(path)]
        inner[:] = [name for name in inner if name not in left_out]
        unread += [f"{start}{name}" for name in left_out]
        names += [f"{start}{name}" for name in files if name[:1] != "."]
    documents = sorted(name for name in names if name.lower().endswith(READ))
    others = sorted(name for name in names if not name.lower().endswith(READ))
    if not documents:
        pdf = next((name for name in others if name.lower().endswith(".pdf")), None)
        found = f"{pdf} is a PDF: {PDF_REMEDY}" if pdf else "name a file of passages, or a folder of such documents"
        if unread:
            found += f" ({min(unread)} is a symbolic link or an output of our commands: not read)"
        raise InputError(f"{folder}: holds no document with a name in {', '.join(READ)}: {found}")
    return documents, others, sorted(unread)


@functools.cache  # once for a folder, which is read several times
def _warn_of_others(folder: str, count: int, total: int, first: str) -> None:
    remedy = f": is a PDF: {PDF_REMEDY}" if first.lower().endswith(".pdf") else ""
    log.warning(
        "%s: %d of %d files are not Markdown, HTML or plain text: left out (first: %s%s)",
        *(folder, count, total, first, remedy),
    )


@functools.cache  # like the one above
def _warn_of_unread(folder: str, count: int, first: str) -> None:
    log.warning(
        "%s: %d folders are symbolic links or outputs of our commands: left out (first: %s)", folder, count, first
    )
