"""One file by HTTP: whole or not at all, resumed only if the server still has the same file, bounded in size and time.

    resumed = fetch("https://example.org/a.run", path, has_checksum=False, max_bytes=50 * 10**9)

A thread reads from the server, so that no server can hold the caller up: one that sends headers, chunks or trailers for
ever, a byte at a time, is left behind. The retries are not tenacity's: each resumes where the last broke off, or starts
over if the server says so.
"""

import contextlib
import http.client
import json
import logging
import queue
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill.errors import InputError
from distill.progress import Progress
from distill.storage.writing import write_text, writing

log = logging.getLogger(__name__)

TRIES = 5  # before a broken connection is reported
PAUSE = 0.3  # seconds before the second try; doubled after each. What a server's Retry-After asks for is not waited for
BLOCK = 2**20  # bytes
SILENCE = 30  # seconds until a server that sends nothing counts as broken
OPEN_SECONDS = 120  # for redirects and headers, which a server could send byte by byte
SLOW_SECONDS, SLOW_BYTES = 60, 60_000  # a connection that brings fewer bytes in so many seconds counts as broken
VALIDATOR = re.compile(r'"[!-~]{0,200}"|[A-Z][a-z]{2}, [\w :]{10,40}')  # a strong ETag, or a date
MAX_SECONDS = 24 * 3600  # of all tries: 50 GB at 0.6 MB/s; a later call resumes


class _Changed(OSError):
    """The server's file is not the one of which a part is here."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows http and https, and never from https to http; `file:` and the like are refused."""

    def redirect_request(self, request, answer, code, message, headers, newurl):
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or request.type == "https"):
            raise urllib.error.HTTPError(newurl, code, f"it redirects to {newurl}, which is not safe", headers, answer)
        return super().redirect_request(request, answer, code, message, headers, newurl)

    def http_error_302(self, request, answer, code, message, headers):
        target = headers.get("Location") or ""
        scheme = urlsplit(target).scheme
        if scheme not in ("", "http", "https"):  # before urllib, which has words of its own for some of them
            raise urllib.error.HTTPError(target, code, f"it redirects to {target}, which is not safe", headers, answer)
        answer.read = lambda *_: b""  # urllib would read all of a body that may never end
        return super().http_error_302(request, answer, code, message, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def fetch(address: str, path: Path, *, has_checksum: bool, max_bytes: int) -> bool:
    """Download a file, and return whether an earlier part of it was used.

    What an earlier try has left beside it is continued if the server can say that the file is the same (ETag or
    Last-Modified), or if the caller compares a checksum afterwards. Raises OSError where it cannot be downloaded, and
    InputError for a file that is too large, and where the disk has no room.
    """
    partial, note = path.with_name(".part"), path.with_name(".part.json")
    resumed, end = False, time.monotonic() + MAX_SECONDS
    for attempt in range(TRIES):
        try:
            had = _fetch_rest(address, partial, note, path.name, has_checksum, max_bytes, end)
            partial.replace(path)
            note.unlink(missing_ok=True)
            return resumed or had > 0
        except _Changed as error:
            log.info("%s: %s: downloading it from the beginning", path.name, error)
            partial.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:
                partial.unlink(missing_ok=True)  # nothing comes after it, so it is not the beginning of this file
            elif attempt == TRIES - 1 or _is_final(error) or time.monotonic() > end:
                raise OSError(getattr(error, "reason", None) or error) from error
            resumed = True
            time.sleep(PAUSE * 2**attempt)
    raise OSError("the server changes it, or does not accept the earlier partial download as its beginning")


def _fetch_rest(
    address: str, partial: Path, note: Path, name: str, has_checksum: bool, max_bytes: int, end: float
) -> int:
    """Download what is missing, and return how many bytes were there before."""
    known = _read_note(note)
    have = partial.stat().st_size if partial.is_file() and (known.get("validator") or has_checksum) else 0
    headers = {"User-Agent": "distill", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        headers |= {"If-Range": known["validator"]} if known.get("validator") else {}
    with contextlib.closing(_received(urllib.request.Request(address, headers=headers), end)) as received:
        response: Any = next(received)
        if response.headers.get_content_type() == "text/html" and not address.endswith((".html", ".htm")):
            raise InputError(
                f"{address}: returns a web page instead of a file: open it in a browser and download there"
            )
        have, total = _agreed(response, have, known, name)
        _check_size(name, partial, have, total, max_bytes)
        with open(partial, "ab" if have else "wb") as file:
            if not have:
                write_text(note, json.dumps({"validator": _validator(response), "total": total}))
            size = have
            with Progress(desc=name, total=total, initial=have, unit="B", unit_scale=True) as bar:
                for block in received:
                    size += len(block)
                    if size > max_bytes:
                        file.truncate(0)
                        raise too_large(name, "it goes on after", max_bytes)
                    with writing(partial):
                        file.write(block)
                    bar.update(len(block))
            with writing(partial):
                file.flush()
    if total is not None and size != total:
        raise OSError(f"the connection broke off after {size} of {total} bytes")
    if size == 0:  # it would be kept, and read as an empty file from then on
        raise OSError("the server sent an empty file")
    if total is None and not response.chunked and not has_checksum:
        log.warning("%s: the server does not say how long it is: add #md5=... or #sha256=... to be sure of it", name)
    return have


def _read_note(note: Path) -> dict:
    """Return what is known of the file of which a part is here: its validator and its length."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_usable = isinstance(known, dict) and VALIDATOR.fullmatch(str(known.get("validator")))
    return known if is_usable else {}


def _agreed(response: Any, have: int, known: dict, name: str) -> tuple[int, int | None]:
    """Return after how many bytes the answer continues, and the length of the whole file, if the server says it.

    Raises _Changed for an answer that does not continue the part that is here.
    """
    if response.status != 206:
        return 0, _length(response)  # the server cannot resume, or has another file
    said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers["Content-Range"] or "")
    if said is None or int(said[1]) != have:
        raise _Changed("the server sends another part of it than was asked for")
    total = int(said[3]) if said[3] != "*" else None
    validator = _validator(response)
    if known.get("validator") and validator and validator != known["validator"]:
        raise _Changed("the server has another version of it")
    if total is not None and known.get("total") not in (None, total):
        raise _Changed(f"the server's is of {total} bytes now")
    length = _length(response)
    return have, have + length if total is None and length is not None else total


def _validator(response: Any) -> str | None:
    """Return what identifies a version of a file: a strong ETag, else the time of its last change."""
    tag, changed = response.headers["ETag"] or "", response.headers["Last-Modified"] or ""
    return next((text for text in (tag, changed) if VALIDATOR.fullmatch(text)), None)


def _length(response: Any) -> int | None:
    """Return the bytes of an answer's body, None if the server does not say it."""
    said = response.headers["Content-Length"] or ""  # response.length shrinks while it is read
    return int(said) if re.fullmatch(r"\d{1,18}", said) and not response.chunked else None


def _check_size(name: str, partial: Path, have: int, total: int | None, max_bytes: int) -> None:
    """Raise InputError for a file that is too large, before it is read."""
    if total is None:
        return
    if total > max_bytes:
        raise too_large(name, f"it has {total / 1e9:.1f} GB, more than", max_bytes)
    free = shutil.disk_usage(partial.parent).free
    if total - have > free:
        raise InputError(
            f"{name}: needs {(total - have) / 1e9:.3f} GB in {partial.parent}, where {free / 1e9:.3f} GB are free: "
            "make room, or set DISTILL_CACHE to another disk"
        )


def too_large(name: str, what: str, max_bytes: int) -> InputError:
    return InputError(
        f"{name}: {what} {max_bytes / 1e9:g} GB: if the file is so large, put max_gb=NUMBER behind the # of its address"
    )


def _received(request: urllib.request.Request, end: float) -> Generator[Any, None, None]:
    """Yield the response, then the blocks of its body; raises OSError where the server is too slow."""
    items: queue.Queue = queue.Queue(4)
    left = threading.Event()
    threading.Thread(target=_read, args=(request, items, left), daemon=True).start()
    try:
        deadline = time.monotonic() + OPEN_SECONDS
        yield _next(items, min(deadline, end), f"no answer in {OPEN_SECONDS} s")
        window, size = time.monotonic() + SLOW_SECONDS, 0
        while (block := _next(items, min(window, end), "the server is too slow")) is not None:
            yield block
            size += len(block)
            if time.monotonic() >= min(window, end) or size >= SLOW_BYTES:
                if size < SLOW_BYTES or time.monotonic() >= end:
                    raise TimeoutError("the server is too slow")
                window, size = time.monotonic() + SLOW_SECONDS, 0
    finally:
        left.set()


def _next(items: queue.Queue, deadline: float, reason: str) -> Any:
    try:
        item = items.get(timeout=max(deadline - time.monotonic(), 0.01))
    except queue.Empty:
        raise TimeoutError(reason) from None
    if isinstance(item, Exception):
        raise item
    return item


def _read(request: urllib.request.Request, items: queue.Queue, left: threading.Event) -> None:
    """Put the response and the blocks of its body into a queue, then None, or the error; until the caller has left."""

    def put(item: Any) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                return items.put(item, timeout=1)

    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=SILENCE) as response:
            put(response)
            while not left.is_set() and (block := response.read1(BLOCK)):
                put(block)
        put(None)
    except Exception as error:  # of any kind: the caller raises it
        put(error)


def _is_final(error: Exception) -> bool:
    """Whether another try would fail alike: no such host, a permanent refusal, or an address that is none."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code != 429
    if isinstance(error, http.client.InvalidURL):
        return True
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, socket.gaierror)
