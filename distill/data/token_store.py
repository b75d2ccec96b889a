"""Token stores on disk: a collection is tokenised once, and memory-mapped from then on.

    store = open_token_store("passages.tsv", tokenizer, max_length=256)       # built on first use

A store is a directory of flat arrays in row order: `tokens` (the smallest unsigned type that holds the vocabulary) with
`offsets` [N + 1], `ids` (UTF-8) with `id_offsets` [N + 1], and for the look-up by id `hashes` [N], sorted, with
`hashed_rows` [N]; `cut` [N] marks the texts that were longer; meta.json beside them says what it was built from.
Several processes build it; a stopped build is resumed.
"""

import collections
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import signal
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from distill.cores import usable_cores
from distill.data.tokens import Chunk, Encoder, TokenStore, chunks_of, portable, token_type
from distill.errors import PASSING, InputError, StoppedError
from distill.interrupt import kept_from_children
from distill.progress import Progress
from distill.sources.fields import USUAL, Fields
from distill.sources.locate import source_state
from distill.sources.texts import iterate_texts, refuse_duplicates
from distill.storage.arrays import FlatFile, look_up_table, offsets_of
from distill.storage.cache import entry, key_of, make_once
from distill.storage.checksums import checksum
from distill.storage.writing import write_text

log = logging.getLogger(__name__)

FORMAT = 4  # of the files of a store: a store in another format is rebuilt
ARRAYS: dict[str, type] = {
    "offsets": np.int64,
    "ids": np.uint8,
    "id_offsets": np.int64,
    "hashes": np.uint64,
    "hashed_rows": np.int32,
    "cut": np.uint8,
}

_encoder: Encoder  # of a process that tokenises


def open_token_store(
    source: str, tokenizer, max_length: int, kind: str = "passages", fields: Fields = USUAL, form: str = "{}"
) -> TokenStore:
    """Open the token store of all "passages" or "queries" of a source; build it on first use.

    A store belongs to one source (path, size and time of change; or an `ir_datasets` id), one tokenizer and one length:
    anything else gets a separate store. A damaged store is rebuilt.
    Raises InputError for whatever is wrong with the source.
    """
    definition = portable(tokenizer)
    key = store_key(source, tokenizer, max_length, kind, fields, form)
    directory = entry("tokens", source, key)

    def write(path: Path) -> None:
        try:
            _write_store(path, source, kind, fields, (definition, max_length, token_type(tokenizer), form))
        except StoppedError:
            raise
        except InputError:
            refuse_duplicates(source, kind, fields)  # the first bad line of the file, as a small file's reader finds it
            raise

    return TokenStore(**_map_arrays(make_once(directory, write, resumes=True)))


def store_key(source: str, tokenizer, max_length: int, kind: str, fields: Fields = USUAL, form: str = "{}") -> str:
    """Return what tells one token store from another, as 16 hexadecimal digits."""
    made_from = {"source": source_state(source), "tokenizer": _digest(portable(tokenizer)), "max_length": max_length}
    made_from |= {} if form == "{}" else {"form": form}
    return key_of(**made_from, kind=kind, fields=[fields.id, fields.texts], format=FORMAT)


def _write_store(directory: Path, source: str, kind: str, fields: Fields, encoder: tuple) -> None:
    """Tokenise a source into the arrays of a store, resuming from what an interrupted run has left.

    encoder: the arguments of an Encoder.
    """
    _, max_length, dtype, _ = encoder
    journal = directory / "journal.json"
    done = _resumed(directory, journal, kind, dtype)
    texts = itertools.islice(iterate_texts(source, kind, fields), done["texts"], None)
    with Progress(desc=f"tokenising {source}", unit=f" {kind}", initial=done["texts"]) as bar:
        for chunk in _encode_in_processes(chunks_of(texts), *encoder):
            for name, values in chunk._asdict().items():
                written = values.tobytes()
                with open(directory / name, "ab") as file:
                    file.write(written)
                done["crc32"][name] = zlib.crc32(written, done["crc32"][name])
            added = {"texts": len(chunk.lengths), "tokens": len(chunk.tokens), "ids": len(chunk.ids)}
            done |= {name: done[name] + count for name, count in added.items()}
            write_text(journal, json.dumps(done))
            bar.update(len(chunk.lengths))
    if not done["texts"]:
        raise InputError(f"{source}: is empty: expected lines of `id<TAB>text` or JSON objects")
    _index(directory, source, kind)
    journal.unlink()  # first: a run stopped from here on starts over
    for name in ("lengths", "id_lengths"):
        (directory / name).unlink()
    meta = {"source": source, "max_length": max_length, "texts": done["texts"], "dtype": dtype.name}
    write_text(directory / "meta.json", json.dumps(meta, indent=1) + "\n")


def _resumed(directory: Path, journal: Path, kind: str, dtype: np.dtype) -> dict:
    """Return how much an interrupted run has written, by its journal, with checksums of it; zeros where it is damaged.

    What was written after the journal's last line is discarded.
    """
    if journal.is_file():
        try:
            done = json.loads(journal.read_text(encoding="utf-8"))
            for name, size in _sizes(done, dtype).items():
                os.truncate(directory / name, size)
                if checksum(directory / name) != done["crc32"][name]:
                    raise ValueError(f"{name} is damaged")
            log.info("%s: resumed after %d %s", directory, done["texts"], kind)
            return done
        except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            text = "%s: what was written of it cannot be used (%s): starting over"
            log.warning(text, directory, error, extra=PASSING)
    done = {"texts": 0, "tokens": 0, "ids": 0, "crc32": {}}
    for name in _sizes(done, dtype):
        (directory / name).write_bytes(b"")
        done["crc32"][name] = 0
    return done


def _sizes(done: dict, dtype: np.dtype) -> dict[str, int]:
    """Return the bytes of each file that so many texts, tokens and bytes of ids take."""
    lengths = done["texts"] * np.dtype(np.int64).itemsize
    sizes = {"tokens": done["tokens"] * dtype.itemsize, "lengths": lengths}
    return sizes | {"ids": done["ids"], "id_lengths": lengths, "cut": done["texts"]}


def _encode_in_processes(
    chunks: Iterator[list[tuple[str, str]]], definition: str, max_length: int, dtype: np.dtype, form: str
) -> Iterator[Chunk]:
    """Yield the chunks' tokens in order, from as many processes as there are cores; only a few chunks wait at once."""
    num_processes = usable_cores()
    context = multiprocessing.get_context("spawn")  # a forked process would inherit locks held by threads it lacks
    arguments = (definition, max_length, dtype, form)
    pool = ProcessPoolExecutor(num_processes, context, initializer=_start_process, initargs=arguments)
    waiting: collections.deque[Future[Chunk]] = collections.deque()
    try:
        for chunk in chunks:
            with kept_from_children():  # each of the first ones starts a process
                waiting.append(pool.submit(_encode, chunk))
            if len(waiting) > 3 * num_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise StoppedError(
            "a tokenising process was killed, probably for lack of memory: free some, or bind the command to fewer "
            "cores, as in `taskset -c 0`; repeated, it goes on from there"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_process(*arguments) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many processes as cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to them too: the process above ends them
    global _encoder
    _encoder = Encoder(*arguments)


def _encode(chunk: list[tuple[str, str]]) -> Chunk:
    return _encoder(chunk)


def _index(directory: Path, source: str, kind: str) -> None:
    """Write the offsets of texts and ids, and the look-up by id; raises InputError for a duplicate id."""
    offsets, id_offsets = (offsets_of(np.fromfile(directory / name, np.int64)) for name in ("lengths", "id_lengths"))
    hashes, rows = look_up_table(_map(directory / "ids", np.dtype(np.uint8)), id_offsets, source, kind)
    arrays = {"offsets": offsets, "id_offsets": id_offsets, "hashes": hashes, "hashed_rows": rows}
    for name, values in arrays.items():
        values.tofile(directory / name)


def _map_arrays(directory: Path) -> dict:
    meta = json.loads((directory / "meta.json").read_text())
    tokens = FlatFile(directory / "tokens", np.dtype(meta["dtype"]))
    return {"tokens": tokens} | {name: _map(directory / name, np.dtype(dtype)) for name, dtype in ARRAYS.items()}


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
