"""Files from the web and the Hugging Face Hub, fetched once into the cache.

    path = local_file("https://zenodo.org/records/11147862/files/bm25.run#md5=835372b2ab4d20acf10addeae526c559")
    path = local_file("hf://datasets/webis/rank-distillm/__colbert__msmarco-passage-train-judged.parquet")

The part after `#` is for us: `md5=` or `sha256=` gives the file's checksum, and `file=` its name in the cache where the
address does not end with one. A file that you put into the cache's downloads/ yourself is used.

The retries are not tenacity's: each resumes where the last broke off, or starts over if the server says so.
"""

import hashlib
import http.client
import json
import logging
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from urllib.parse import unquote

from distill.errors import InputError, Unavailable
from distill.progress import Progress
from distill.storage.cache import cache_directory, file_state

log = logging.getLogger(__name__)

HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")
TRIES = 5  # before a broken connection is reported
PAUSE = 0.3  # seconds before the second try; doubled after each
BLOCK = 2**20


def local_file(source: str) -> str:
    """Return the path of a downloaded file; download it if it is not there yet.

    A broken download is resumed, also by a later call. Raises InputError, naming the file, where to get it and where to
    put it, if it cannot be downloaded, and if its checksum differs.
    """
    address, _, fragment = source.partition("#")
    options = dict(urllib.parse.parse_qsl(fragment))
    name = options.pop("file", unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2]))
    path = cache_directory() / "downloads" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        log.info("%s: downloading to %s, once", name, path.parent)
        try:
            if address.startswith("hf://"):
                _fetch_from_hub(address, path)
            else:
                _fetch(address, path)
        except OSError as error:
            reason = " ".join(str(error).split())[:200]
            raise Unavailable(
                f"{name}: cannot be downloaded ({reason}): get it from {_page(address)} and put it at {path}"
            ) from None
    for algorithm, expected in options.items():
        _check(path, algorithm, expected, source)
    return str(path)


def _fetch_from_hub(address: str, path: Path) -> None:
    """Download a file of a Hub data set; raises OSError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    hub = HUB.fullmatch(address)
    if hub is None:
        raise InputError(f"{address}: expected hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE")
    repository, revision, name = hub.groups()
    revision = unquote(revision) if revision else None
    try:
        downloaded = hf_hub_download(
            repository, name, repo_type="dataset", revision=revision, local_dir=path.parent / "hub"
        )
    except HFValidationError as error:
        raise InputError(f"{address}: {error}") from None
    Path(downloaded).replace(path)


def _fetch(address: str, path: Path) -> None:
    """Download a file by HTTP, resuming what an earlier try has left beside it; raises OSError."""
    partial = path.with_name(path.name + ".part")
    for attempt in range(TRIES):
        try:
            _fetch_rest(address, partial)
            partial.replace(path)
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:
                partial.unlink()  # the server has nothing after it, so it is not the beginning of this file
            elif attempt == TRIES - 1 or _is_final(error):
                raise OSError(getattr(error, "reason", None) or error) from error
            time.sleep(PAUSE * 2**attempt)
    raise OSError("the server does not accept the earlier partial download as the beginning of this file")


def _fetch_rest(address: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": "distill", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as response:
        if response.headers.get_content_type() == "text/html" and not address.endswith((".html", ".htm")):
            raise InputError(
                f"{address}: returns a web page instead of a file: open it in a browser and download there"
            )
        if response.status != 206:
            have = 0  # the server cannot resume
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        bar = Progress(desc=partial.stem, total=total, initial=have, unit="B", unit_scale=True)
        with open(partial, "ab" if have else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and partial.stat().st_size < total:
        raise OSError(f"the connection broke off after {partial.stat().st_size} of {total} bytes")


def _is_final(error: Exception) -> bool:
    """Whether another try would fail alike: no such host, or a permanent refusal."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code != 429
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, socket.gaierror)


def _page(address: str) -> str:
    """The address of a file for a browser."""
    hub = HUB.fullmatch(address)
    if hub is None:
        return address
    return f"https://huggingface.co/datasets/{hub[1]}/resolve/{hub[2] or 'main'}/{hub[3]}"


def _check(path: Path, algorithm: str, expected: str, source: str) -> None:
    """Compare a file's checksum, once for each state of the file; raises InputError where it differs."""
    if algorithm not in ("md5", "sha256"):
        raise InputError(f"{source}: {algorithm}= is unknown: use md5=, sha256= or file= after #")
    note = path.with_name(path.name + ".checked")
    state = json.dumps(file_state(str(path)) | {algorithm: expected})
    if note.is_file() and note.read_text() == state:
        return
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file, Progress(desc=f"checking {path.name}", unit="B", unit_scale=True) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != expected:
        raise InputError(
            f"{path}: its {algorithm} is {digest.hexdigest()} instead of {expected}: delete it to download it again, "
            f"or, if the file has a new version, change what follows # in {source}"
        )
    note.write_text(state)
