"""A dense encoder's vectors of all passages of a source, on disk: encoded once, part by part, and read in blocks.

    vectors = open_vectors("passages.tsv", fields, encoder.state(precision), "float32", encode)
    for block in vectors.blocks(): ...                       # [N, D], up to BLOCK passages in the order of the source
    vectors.of(rows), vectors.id_of(7)

They are kept in the cache for one state of one source, one encoder and one precision. A part is written whole or not
at all: a stopped encoding resumes at the next one, and a damaged part is encoded again by itself. N passages, D
dimensions.
"""

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.progress import Progress
from distill.sources.fields import Fields
from distill.sources.locate import source_state
from distill.sources.texts import iterate_texts
from distill.storage.arrays import offsets_of, text_at
from distill.storage.cache import PARTIAL, REMEDY, entry, key_of, make_once
from distill.storage.locking import locked_in_turn
from distill.storage.parts import is_whole, load_arrays, save_arrays, write_part
from distill.storage.writing import write_text

log = logging.getLogger(__name__)

FORMAT = 1  # of the files
BLOCK = 4096  # passages encoded and compared at once
PART = 16 * BLOCK  # passages of a part: what a stopped encoding loses at most
INDEX = "index.json"

Encode = Callable[[list[str], list[str]], np.ndarray]  # ids and texts of passages -> their vectors [N, D]


class Vectors:
    """The vectors of a source: row n is that of its passage n."""

    def __init__(self, directory: Path):
        """Take a complete directory."""
        self.directory, self.length = directory, _length(directory)
        self.ids = [load_arrays(_part(directory, number), "ids", "id_offsets") for number in _numbers(self.length)]

    def __len__(self) -> int:
        return self.length

    def id_of(self, row: int) -> str:
        """Return the id of a passage."""
        ids, id_offsets = self.ids[row // PART]
        return text_at(ids, id_offsets, row % PART)

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
        """Yield the vectors of all passages, or of some whole parts by their rows, a block at a time, as float32."""
        for number in _numbers(self.length if last is None else min(last, self.length))[first // PART :]:
            [vectors] = load_arrays(_part(self.directory, number), "vectors")
            for start in range(0, len(vectors), BLOCK):
                yield np.array(vectors[start : start + BLOCK], np.float32)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of some passages, [N, D] float32."""
        parts, places = np.divmod(rows, PART)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for number in np.unique(parts):
            here = np.flatnonzero(parts == number)
            found.append((here, load_arrays(_part(self.directory, number), "vectors")[0][places[here]]))
        order = np.argsort(np.concatenate([here for here, _ in found]))
        return np.concatenate([values for _, values in found])[order].astype(np.float32)


def open_vectors(source: str, fields: Fields, encoder: dict, dtype: str, encode: Encode) -> Vectors:
    """Open the vectors of a source's passages; those that are not there, or damaged, are encoded.

    encoder: what tells its vectors from another's. dtype: "float32" or "float16". Raises InputError for whatever is
    wrong with the source, and for vectors that float16 cannot hold.
    """

    def texts(first: int = 0) -> Iterator[tuple[str, str]]:
        return itertools.islice(iterate_texts(source, "passages", fields), first, None)

    def write(directory: Path) -> None:
        first = next(number for number in itertools.count() if not is_whole(_part(directory, number)))
        if first:
            log.info("%s: resumed after %d passages", directory, first * PART)
        total, number, added, rest = first * PART, first, PART, texts(first * PART)
        with Progress(desc=f"encoding {source}", unit=" passages", initial=total) as bar:
            while added == PART:
                part = _part(directory, number)
                if number > first and is_whole(part):  # one before it was damaged
                    added = sum(1 for _ in itertools.islice(rest, PART))
                else:
                    added = _encode_part(part, rest, dtype, encode, bar)
                total, number = total + added, number + 1
        write_text(directory / INDEX, json.dumps({"passages": total}) + "\n")

    directory = make_once(_place(source, fields, encoder, dtype), write, resumes=True)
    damaged = [number for number in _numbers(_length(directory)) if not is_whole(_part(directory, number))]
    if damaged:
        with locked_in_turn(directory.with_name(directory.name + ".lock"), REMEDY):
            for number in damaged:
                part = _part(directory, number)
                if not is_whole(part):  # else another process has made it meanwhile
                    log.warning("%s: is damaged: encoding it again", part)
                    with Progress(desc=f"encoding {part.name}", unit=" passages") as bar:
                        _encode_part(part, texts(number * PART), dtype, encode, bar)
    return Vectors(directory)


def are_begun(source: str, fields: Fields, encoder: dict, dtype: str) -> bool:
    """Whether the cache has these vectors, or a part of them."""
    place = _place(source, fields, encoder, dtype)
    return place.is_dir() or is_whole(_part(place.with_name(place.name + PARTIAL), 0))


def _place(source: str, fields: Fields, encoder: dict, dtype: str) -> Path:
    key = key_of(
        source=source_state(source),
        fields=[fields.id, fields.texts],
        encoder=encoder,
        dtype=dtype,
        format=[FORMAT, PART],
    )
    return entry("vectors", source, key)


def _encode_part(part: Path, texts: Iterator[tuple[str, str]], dtype: str, encode: Encode, bar: Progress) -> int:
    """Encode and write the next passages, as many as a part has, and return how many there were."""
    vectors, ids = [], []
    some = itertools.islice(texts, PART)
    while block := list(itertools.islice(some, BLOCK)):
        doc_ids = [doc_id for doc_id, _ in block]
        with np.errstate(over="ignore"):  # which is noticed below
            found = encode(doc_ids, [text for _, text in block]).astype(dtype)
        if not np.isfinite(found).all():
            raise InputError(
                f"vectors={dtype}: the encoder has values above {np.finfo(dtype).max:.0f}: set vectors=float32"
            )
        vectors.append(found)
        ids += [doc_id.encode() for doc_id in doc_ids]
        bar.update(len(block))
    if ids:
        arrays = {
            "vectors": np.concatenate(vectors),
            "ids": np.frombuffer(b"".join(ids), np.uint8),
            "id_offsets": offsets_of(np.array([len(one) for one in ids])),
        }
        write_part(part, lambda new: save_arrays(new, **arrays))
    return len(ids)


def _length(directory: Path) -> int:
    return json.loads((directory / INDEX).read_text(encoding="utf-8"))["passages"]


def _part(directory: Path, number: int) -> Path:
    return directory / f"part-{number:03d}"


def _numbers(num_passages: int) -> range:
    return range(math.ceil(num_passages / PART))
