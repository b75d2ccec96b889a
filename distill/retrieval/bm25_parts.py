"""BM25's index in parts, for a collection whose whole index would not fit in memory while it is built.

    reader = Reader("passages.tsv", fields, words_of)
    passages = reader.read()                                 # the next ones, until they have PART_WORDS words
    write_parts(directory, reader, passages, k1, b)          # part-000, ..., weights-000, ..., index.json
    repair_parts(directory, reader, k1, b)

A part holds the postings of passages that follow each other in the source: for each word, the rows of its passages, and
how often it occurs in each. Once all parts are counted, their weights follow from the statistics of the whole
collection, by the formula and in the precision of bm25s, which can only count a collection as a whole. Each part is
written whole or not at all: a stopped build resumes at the next one, and of a damaged index only the damaged parts are
made again. N passages of a part, V words known up to its end, P postings.
"""

import functools
import itertools
import json
import logging
import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from distill.progress import Progress
from distill.sources.fields import Fields
from distill.sources.texts import iterate_texts, refuse_duplicate_ids
from distill.storage.arrays import offsets_of
from distill.storage.parts import is_whole, load_arrays, save_arrays, write_part
from distill.storage.writing import write_text

log = logging.getLogger(__name__)

PART_WORDS = 2**25  # of a part, which takes about 1.2 GB to make; a collection with fewer gets one index, without parts
NO_WORD = ""  # what a passage without words has, so that its length is 1
AT_ONCE = 2**22  # postings weighed at once
INDEX = "index.json"


class Passages:
    """Passages as numbers of words, in flat arrays: a tenth of the memory of Python's lists."""

    def __init__(self, row: int, known: int):
        """Begin with none. row: of the first one in the source; known: how many words were known before it."""
        self.row, self.known = row, known
        self.words, self.lengths = array("i"), array("q")
        self.ids, self.id_lengths = bytearray(), array("q")

    def add(self, text_id: str, words: Iterable[int]) -> None:
        """Append a passage."""
        encoded, num_words = text_id.encode(), len(self.words)
        self.ids.extend(encoded)
        self.id_lengths.append(len(encoded))
        self.words.extend(words)
        self.lengths.append(len(self.words) - num_words)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[list[int]]:
        words = np.frombuffer(self.words, np.int32)
        for start, end in itertools.pairwise(offsets_of(np.frombuffer(self.lengths, np.int64))):
            yield words[start:end].tolist()


class Reader:
    """Reads a source from its beginning to its end, and numbers its words in the order of their first occurrence."""

    def __init__(self, source: str, fields: Fields, words_of: Callable[[str], list[str]]):
        """Read nothing yet. words_of: cuts a text into words."""
        self.source, self.fields, self.words_of = source, fields, words_of
        self.numbers: dict[str, int] = defaultdict(itertools.count().__next__)  # a new word gets the next number
        self.skip(0, [NO_WORD])
        self.is_at_end = False

    def skip(self, row: int, words: list[str]) -> None:
        """Continue at another row; words: those that are new in the passages before it."""
        self.row = row
        self.texts: Iterator[tuple[str, str]] | None = None
        for word in words:
            self.numbers[word]

    def read(self, num_passages: int | None = None) -> Passages:
        """Return the next passages: so many, or until they have PART_WORDS words; at the end of the source, fewer."""
        if self.texts is None:
            rest = itertools.islice(iterate_texts(self.source, "passages", self.fields), self.row, None)
            bar = Progress(rest, desc=f"BM25: reading {self.source}", unit=" passages", initial=self.row)
            self.texts = iter(bar)
        number_of, passages = self.numbers.__getitem__, Passages(self.row, len(self.numbers))
        while len(passages.words) < PART_WORDS if num_passages is None else len(passages) < num_passages:
            text_id, text = next(self.texts, (None, ""))
            if text_id is None:
                self.is_at_end = True
                break
            passages.add(text_id, map(number_of, self.words_of(text) or [NO_WORD]))
        self.row += len(passages)
        return passages


def write_parts(directory: Path, reader: Reader, passages: Passages | None, k1: float, b: float) -> None:
    """Write an index in parts, or what a stopped build has left to write.

    passages: those that the reader has read already. Raises InputError for a duplicate id.
    """
    rows, known, resumed = [0], [1], 0
    for number in itertools.count():
        part = _postings(directory, number)
        if passages is None and _continues(part, reader):
            lengths, words = _read(part)
            reader.skip(reader.row + len(lengths), words)
            resumed = reader.row
        else:
            if resumed and resumed == reader.row:
                log.info("%s: resumed after %d passages", directory, resumed)
            passages = passages or reader.read()
            if not passages:
                break
            _write_postings(part, passages, reader)
            passages = None
        rows.append(reader.row)
        known.append(len(reader.numbers))
    num_parts = len(rows) - 1
    _refuse_duplicates(directory, num_parts, reader)
    _weigh(directory, num_parts, k1, b)
    write_text(directory / INDEX, json.dumps({"rows": rows, "known": known}) + "\n")


def has_parts(directory: Path) -> bool:
    """Whether an index, or what a stopped build has left of it, is in parts."""
    return (directory / INDEX).is_file() or _postings(directory, 0).is_dir()


def is_damaged(directory: Path) -> bool:
    """Whether a part of an index is damaged."""
    return not all(is_whole(part) for _, *parts in part_directories(directory) for part in parts)


def repair_parts(directory: Path, reader: Reader, k1: float, b: float) -> None:
    """Make the damaged parts of an index again; reader: at the beginning of its source."""
    index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    num_parts = len(index["rows"]) - 1
    for number, (first, last) in enumerate(itertools.pairwise(index["rows"])):
        part = _postings(directory, number)
        if is_whole(part):
            reader.skip(last, _read(part)[1])
        else:
            log.warning("%s: is damaged: making it again", part)
            reader.skip(first, [])
            _write_postings(part, reader.read(last - first), reader)
            assert len(reader.numbers) == index["known"][number + 1], "the source is the same, and so are its words"
    _weigh(directory, num_parts, k1, b)


def part_directories(directory: Path) -> list[tuple[int, Path, Path]]:
    """Return the row of the first passage of each part of an index, and where its postings and weights are."""
    rows = json.loads((directory / INDEX).read_text(encoding="utf-8"))["rows"][:-1]
    return [(row, _postings(directory, number), _weights(directory, number)) for number, row in enumerate(rows)]


def _postings(directory: Path, number: int) -> Path:
    return directory / f"part-{number:03d}"


def _weights(directory: Path, number: int) -> Path:
    return directory / f"weights-{number:03d}"


def _continues(part: Path, reader: Reader) -> bool:
    """Whether a part that is there is whole, and begins where the reader is."""
    if not is_whole(part):
        return False
    begins = json.loads((part / "words.json").read_text(encoding="utf-8"))
    return (begins["row"], begins["known"]) == (reader.row, len(reader.numbers))


def _read(part: Path) -> tuple[np.ndarray, list[str]]:
    """Return the lengths of a part's passages, [N], and the words that are new in it."""
    return load_arrays(part, "lengths")[0], new_words(part)


def new_words(part: Path) -> list[str]:
    """Return the words of a part that no part before it has, in the order of their numbers."""
    return json.loads((part / "words.json").read_text(encoding="utf-8"))["words"]


def _write_postings(part: Path, passages: Passages, reader: Reader) -> None:
    lengths = np.frombuffer(passages.lengths, np.int64)
    # A passage is below its word, so that sorting brings each word's passages together, in order
    keys = np.frombuffer(passages.words, np.int32).astype(np.int64) << 32
    keys |= np.repeat(np.arange(len(passages), dtype=np.int32), lengths)
    keys.sort()
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))  # of each posting, [P]
    counts = np.diff(first, append=len(keys))
    keys = keys[first]
    starts = np.searchsorted(keys, np.arange(len(reader.numbers) + 1, dtype=np.int64) << 32)
    arrays = {
        "rows": (keys & 0xFFFFFFFF).astype(np.int32),  # [P]
        "counts": counts.astype(np.min_scalar_type(counts.max())),  # [P]
        "starts": starts.astype(np.int32),  # [V + 1]
        "lengths": lengths.astype(np.int32),  # [N]
        "ids": np.frombuffer(passages.ids, np.uint8),
        "id_offsets": offsets_of(np.frombuffer(passages.id_lengths, np.int64)),  # [N + 1]
    }
    words = list(itertools.islice(reader.numbers, passages.known, None))
    begins = {"row": passages.row, "known": passages.known, "words": words}

    def write(new: Path) -> None:
        save_arrays(new, **arrays)
        (new / "words.json").write_text(json.dumps(begins), encoding="utf-8")

    write_part(part, write)


def _refuse_duplicates(directory: Path, num_parts: int, reader: Reader) -> None:
    """Raise InputError, with its line, for the first passage with the id of another."""
    stored = [load_arrays(_postings(directory, number), "ids", "id_offsets") for number in range(num_parts)]
    ids = np.concatenate([ids for ids, _ in stored])
    id_offsets = offsets_of(np.concatenate([np.diff(offsets) for _, offsets in stored]))
    refuse_duplicate_ids(ids, id_offsets, reader.source, reader.fields)


def _weigh(directory: Path, num_parts: int, k1: float, b: float) -> None:
    """Write the weights of the parts that have none, or damaged ones."""
    parts = [(_postings(directory, number), _weights(directory, number)) for number in range(num_parts)]
    lacking = [(part, weights) for part, weights in parts if not _is_weighed(part, weights)]
    if not lacking:
        return
    containing = np.zeros(0, np.int64)  # [V] passages of the collection that hold a word
    num_passages = num_words = 0
    for part, _ in parts:
        starts, lengths = load_arrays(part, "starts", "lengths")
        containing = np.concatenate([containing, np.zeros(len(starts) - 1 - len(containing), np.int64)])
        containing += np.diff(starts)
        num_passages, num_words = num_passages + len(lengths), num_words + int(lengths.sum(dtype=np.int64))
    rarity = _rarity(containing, num_passages)
    for part, weights in lacking:
        values = _weights_of(part, rarity, num_words / num_passages, k1, b)
        write_part(weights, functools.partial(save_arrays, weights=values))


def _is_weighed(part: Path, weights: Path) -> bool:
    return is_whole(weights) and len(load_arrays(weights, "weights")[0]) == len(load_arrays(part, "rows")[0])


def _rarity(containing: np.ndarray, num_passages: int) -> np.ndarray:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)) of words in n of N passages each, [V] float32."""
    numbers, places = np.unique(containing, return_inverse=True)
    # math.log, not np.log: their last bits differ
    values = [math.log(1 + (num_passages - number + 0.5) / (number + 0.5)) for number in numbers.tolist()]
    return np.array(values, np.float32)[places]


def _weights_of(part: Path, rarity: np.ndarray, average: float, k1: float, b: float) -> np.ndarray:
    """Return the weights of a part's postings, [P] float32.

    rarity · c / (c + k1 · (1 - b + b · l / average)) of a word that occurs c times in a passage of l words, computed in
    float64 of a float32 rarity: what bm25s computes.
    """
    rows, counts, starts, lengths = load_arrays(part, "rows", "counts", "starts", "lengths")
    least = k1 * ((1 - b) + b * lengths.astype(np.float64) / average)  # [N]
    factors = np.repeat(rarity[: len(starts) - 1], np.diff(starts))  # [P]
    weights = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        weights[some] = factors[some] * (counts[some] / (least[rows[some]] + counts[some]))
    return weights
