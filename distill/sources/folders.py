"""A folder of documents: Markdown, HTML and plain text, at any depth.

    for place, row in folder_rows("articles"): ...    # ("articles/a/bees.md", {"_id": "a/bees.md", "title": ..., ...})
    folder_state("articles")                          # what tells one state of a folder from another

An id is the path within the folder, with / between its parts; what an id may not hold is written as in addresses: %20
for a space, %25 for %. Files and folders whose names begin with a dot are not looked at. Other files are left out, and
counted with the first of them.
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
_quoted = re.compile(f"%|{NOT_IN_ID}")


def folder_rows(folder: str, refused: Callable[[InputError], None] = refuse) -> Iterator[tuple[str, dict]]:
    """Yield (place, row) of every document, in the order of their ids; raises InputError for one that cannot be read.

    refused: gets the error instead, and may return, to continue with the next document.
    """
    folder = folder.rstrip("/") or "/"
    names, others = _files(folder)
    if others:
        _warn_of_others(folder, len(others), len(names) + len(others), others[0])
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
    """Return the folder's path, and a digest of the names, sizes and times of change of its documents."""
    states = [(name, _stat(f"{folder}/{name}")) for name in _files(folder)[0]]
    listed = [[name, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for name, state in states]
    return {"path": os.path.realpath(folder), "files": hashlib.sha256(json.dumps(listed).encode()).hexdigest()}


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:  # a link to nowhere, for one
        raise InputError(f"{path}: cannot be opened ({error.strerror}): check the path and its permissions") from None


def _is_output(directory: str) -> bool:
    """Whether a directory is what one of our commands has written, or is writing."""
    config, results, lock = (f"{directory}/{name}" for name in ("config.yaml", "results.json", "run.lock"))
    return os.path.isfile(config) and (os.path.isfile(results) or os.path.isfile(lock))


def _files(folder: str) -> tuple[list[str], list[str]]:
    """Return the documents and the other files of a folder, by their paths in it; raises InputError if none is read.

    Directories of our own runs are left out: a corpus in the working directory has them beside it.
    """
    names: list[str] = []

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}): check its permissions")

    for directory, inner, files in os.walk(folder, onerror=unreadable):
        inner[:] = [name for name in inner if name[:1] != "." and not _is_output(f"{directory}/{name}")]
        within = os.path.relpath(directory, folder)
        names += [name if within == "." else f"{within}/{name}" for name in files if name[:1] != "."]
    documents = sorted(name for name in names if name.lower().endswith(READ))
    others = sorted(name for name in names if not name.lower().endswith(READ))
    if not documents:
        pdf = next((name for name in others if name.lower().endswith(".pdf")), None)
        found = f"{pdf} is a PDF: {PDF_REMEDY}" if pdf else "name a file of passages, or a folder of such documents"
        raise InputError(f"{folder}: holds no document with a name in {', '.join(READ)}: {found}")
    return documents, others


@functools.cache  # once for a folder, which is read several times
def _warn_of_others(folder: str, count: int, total: int, first: str) -> None:
    remedy = f": is a PDF: {PDF_REMEDY}" if first.lower().endswith(".pdf") else ""
    log.warning(
        "%s: %d of %d files are not Markdown, HTML or plain text: left out (first: %s%s)",
        *(folder, count, total, first, remedy),
    )
