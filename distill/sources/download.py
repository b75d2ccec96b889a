"""Files from the web and the Hugging Face Hub, fetched once into the cache.

    path = local_file("https://zenodo.org/records/11147862/files/bm25.run#md5=835372b2ab4d20acf10addeae526c559")
    path = local_file("hf://datasets/webis/rank-distillm/__colbert__msmarco-passage-train-judged.parquet")

The part after `#` is for us: `md5=` or `sha256=` gives the file's checksum, `file=` its name in the cache where the
address does not end with one, and `max_gb=` how large it may be. Each address has a directory in the cache's
downloads/; a file that you put there yourself is used. Over a download it counts as a damaged one, which is replaced
once the new one is whole, unless you delete `.record.json` beside it.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
import urllib.parse
from pathlib import Path
from urllib.parse import unquote

from distill.errors import PASSING, InputError, Unavailable
from distill.progress import Progress
from distill.sources.fetching import fetch, too_large
from distill.storage.cache import REMEDY, cache_directory, file_state, key_of, make_cache_directory
from distill.storage.checksums import checksum
from distill.storage.locking import locked_in_turn
from distill.storage.writing import write_text

log = logging.getLogger(__name__)

HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")
ALGORITHMS = ("md5", "sha256")
MAX_GB = 50  # of a file whose address has no max_gb=: MS MARCO v2, the largest public collection of passages, has 21
BLOCK = 2**20  # bytes read at once

_whole: dict[Path, dict] = {}  # downloads that this process has found whole, and the state of each then


def local_file(source: str) -> str:
    """Return the path of a downloaded file; download it if it is not there yet, or is damaged.

    A broken download is resumed, also by a later call; of two processes, the second waits for the first. Raises
    InputError, naming the file, where to get it and where to put it, if it cannot be downloaded, and if its checksum
    differs.
    """
    path = place_of(source)
    address, options = _parsed(source)
    options.pop("file", None)
    max_bytes = int(float(options.pop("max_gb")) * 1e9)
    if not _is_whole(path):
        make_cache_directory(path.parent)
        with locked_in_turn(path.with_name(".lock"), REMEDY):
            if not _is_whole(path):  # another process may have downloaded it meanwhile
                _download(address, path, options, max_bytes)
    for algorithm, expected in options.items():
        _check(path, algorithm, expected, source)
    return str(path)


def place_of(source: str) -> Path:
    """Return where the cache keeps an address's file: in a directory with a key of the whole address.

    Its name is plain ASCII without separators, and begins with no dot: those are names of our own files beside it.
    """
    address, options = _parsed(source)
    name = options.get("file") or unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])
    name = re.sub(r"[^A-Za-z0-9.+=_-]", "_", name).lstrip(".")[-100:] or "file"
    return cache_directory() / "downloads" / key_of(address=address) / name


def _parsed(source: str) -> tuple[str, dict[str, str]]:
    """Return the address, and what follows its #; raises InputError for what cannot follow."""
    address, _, fragment = source.partition("#")
    try:
        given = dict(urllib.parse.parse_qsl(fragment, keep_blank_values=True, strict_parsing=True)) if fragment else {}
    except ValueError:
        raise InputError(f"{source}: expected NAME=VALUE after #, as in #sha256=, not {fragment[:40]}") from None
    options = {"max_gb": str(MAX_GB)} | given
    for name, value in options.items():
        if not value:
            raise InputError(f"{source}: {name}= has no value: give one, or leave it out")
        if name not in (*ALGORITHMS, "file", "max_gb"):
            raise InputError(f"{source}: {name}= is unknown: use md5=, sha256=, file= or max_gb= after #")
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", options["max_gb"]):
        raise InputError(f"{source}: max_gb={options['max_gb']}: expected a number of gigabytes such as max_gb=100")
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError as error:
        raise InputError(f"{address}: is not an address ({error})") from None
    if "@" in parts.netloc:
        raise InputError(f"{address}: a user and a password are not sent: download the file, and give its path")
    return address, options


def _is_whole(path: Path) -> bool:
    """Whether a file is there, and is what was downloaded; read once in each process, unless it changes."""
    if not path.is_file():
        return False
    state = file_state(str(path))
    if _whole.get(path) == state:
        return True
    record = path.with_name(".record.json")
    if record.is_file():  # else it was put there by hand
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            if known["size"] != state["size"] or known["crc32"] != checksum(path):
                return False
        except (OSError, ValueError, LookupError, TypeError):
            return False
    _whole[path] = state
    return True


def _download(address: str, path: Path, options: dict[str, str], max_bytes: int) -> None:
    """Download a file, and write down its size and checksum; one that is there stays until the new one is whole."""
    record, instead = path.with_name(".record.json"), ""
    if path.is_file():
        log.warning("%s: is not what was downloaded: downloading it again", path, extra=PASSING)
        instead = f", or, to use the file that is there, delete {record}"
    else:
        record.unlink(missing_ok=True)  # of a file that is gone: what is put there by hand need not be the same
    log.info("%s: downloading to %s, once", path.name, path.parent)
    try:
        if address.startswith("hf://"):
            _fetch_from_hub(address, path, max_bytes)
        elif fetch(address, path, has_checksum=bool(options), max_bytes=max_bytes) and _differs(path, options):
            log.warning(
                "%s: its parts do not fit together: downloading it from the beginning",
                path.name,
                extra=PASSING,
            )
            path.unlink()
            fetch(address, path, has_checksum=bool(options), max_bytes=max_bytes)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # UnicodeError of a host's name, for one
        reason = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"{path.name}: cannot be downloaded ({reason}): get it from {_page(address)} and put it at {path}{instead}"
        ) from None
    state = {"address": address, "size": path.stat().st_size, "crc32": checksum(path)}
    write_text(record, json.dumps(state, indent=1) + "\n")


def _fetch_from_hub(address: str, path: Path, max_bytes: int) -> None:
    """Download a file of a Hub data set; raises OSError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HFValidationError

    hub = HUB.fullmatch(address)
    if hub is None:
        raise InputError(f"{address}: expected hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE")
    repository, revision, name = hub.groups()
    if not {"", ".", ".."}.isdisjoint(unquote(name).replace("\\", "/").split("/")):
        raise InputError(f"{address}: leads out of the data set: expected the path of a file in it")
    revision = unquote(revision) if revision else None
    local = path.with_name(".hub")
    try:
        size = get_hf_file_metadata(hf_hub_url(repository, name, repo_type="dataset", revision=revision)).size
        if size is not None and size > max_bytes:
            raise too_large(path.name, f"it has {size / 1e9:.1f} GB, more than", max_bytes)
        downloaded = hf_hub_download(repository, name, repo_type="dataset", revision=revision, local_dir=local)
    except HFValidationError as error:
        raise InputError(f"{address}: {error}") from None
    Path(downloaded).replace(path)
    shutil.rmtree(local, ignore_errors=True)


def _page(address: str) -> str:
    """The address of a file for a browser."""
    hub = HUB.fullmatch(address)
    if hub is None:
        return address
    return f"https://huggingface.co/datasets/{hub[1]}/resolve/{hub[2] or 'main'}/{hub[3]}"


def _differs(path: Path, options: dict[str, str]) -> bool:
    return any(_digest(path, algorithm) != expected.lower() for algorithm, expected in options.items())


def _check(path: Path, algorithm: str, expected: str, source: str) -> None:
    """Compare a file's checksum, once for each state of the file; raises InputError where it differs."""
    note = path.with_name(".checked")
    state = json.dumps(file_state(str(path)) | {algorithm: expected})
    if note.is_file() and note.read_text(encoding="utf-8", errors="replace") == state:
        return
    digest = _digest(path, algorithm)
    if digest != expected.lower():
        raise InputError(
            f"{path}: its {algorithm} is {digest} instead of {expected}: delete it to download it again, or, if the "
            f"file has a new version, change what follows # in {source}"
        )
    with contextlib.suppress(InputError):  # a cache that cannot be written is checked each time
        write_text(note, state)


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file, Progress(desc=f"checking {path.name}", unit="B", unit_scale=True) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
