"""Where a source is: in a file, at an address, or behind an `ir_datasets` id.

is_remote("hf://datasets/OWNER/NAME/FILE"), is_path("queries.tsv")
file_of("queries.tsv"), file_of("msmarco-passage/train")      # "queries.tsv", None
"""

import json
import os
from collections.abc import Iterator

from distill.errors import InputError, Unavailable
from distill.sources.download import local_file
from distill.sources.folders import folder_state
from distill.storage.cache import file_state

SCHEMES = ("https://", "http://", "hf://")
FILE_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".txt", ".run", ".parquet", ".trec", ".qrels")


def is_remote(source: str | None) -> bool:
    """Whether a source is an address that `local_file` fetches."""
    return source is not None and source.startswith(SCHEMES)


def is_path(source: str) -> bool:
    """Whether a source looks like a path, and not like an `ir_datasets` id."""
    return source.startswith(("/", ".", "~")) or source.removesuffix(".gz").endswith(FILE_SUFFIXES)


def is_missing_file(source: str) -> bool:
    """Whether a source looks like a path, but no file is there."""
    # os.path answers False for a name that no file can have; Path.is_file raises OSError
    return not is_remote(source) and is_path(source) and not os.path.isfile(source)


def file_of(source: str) -> str | None:
    """Return the path of a source, downloaded where it is an address; None for a folder or an `ir_datasets` id."""
    if source.startswith(SCHEMES):
        return local_file(source)
    return source if os.path.isfile(source) else None


def source_state(source: str) -> dict:
    """Return what tells one version of a source from another: a file's or folder's state, or an `ir_datasets` id."""
    path = file_of(source)
    if path is None and os.path.isdir(source):
        return folder_state(source)
    return {"ir_datasets": source} if path is None else file_state(path)


def ir_datasets_records(source: str, kind: str, doc_ids: list[str] | None = None) -> Iterator:
    """Yield the "docs", "queries", "qrels" or "scoreddocs" of an `ir_datasets` id; of its docs, all or these.

    Raises InputError when the source is neither a file nor such an id, when the id has no such records, and when they
    cannot be downloaded.
    """
    import ir_datasets

    try:
        dataset = ir_datasets.load(source)
    except KeyError:
        raise InputError(f"{source}: no such file, and not an ir_datasets id: check the path or id") from None
    if not getattr(dataset, f"has_{kind}")():
        raise InputError(f"{source}: this ir_datasets id has no {kind}: choose an id that has them, or give a file")
    try:
        if doc_ids is None:
            yield from getattr(dataset, f"{kind}_iter")()
        else:
            yield from dataset.docs_store().get_many_iter(doc_ids)
    except (OSError, RuntimeError) as error:
        url = getattr(getattr(error, "request", None), "url", None)
        place = ir_datasets.util.home_path() / "downloads"
        raise Unavailable(
            f"{source}: ir_datasets cannot download its {kind} ({' '.join(str(error).split())[:150]}): "
            + (f"get {url} and put it at {place / _md5_of(url)}" if url else f"see its messages above, and {place}")
        ) from None


def _md5_of(url: str) -> str:
    """The name that `ir_datasets` gives a downloaded file."""
    import pkgutil

    known = json.loads(pkgutil.get_data("ir_datasets", "etc/downloads.json") or b"{}")
    while known:
        name, entry = known.popitem()
        if entry.get("url") == url:
            return entry.get("expected_md5", name)
        known |= {f"{name}/{key}": value for key, value in entry.items() if isinstance(value, dict)}
    return ""
