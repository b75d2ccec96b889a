"""BM25 over any passage source: an index on disk, built once by bm25s and memory-mapped from then on.

    run = bm25_run("passages.tsv", {"q1": "what is ..."}, depth=100)

Words are lower-cased runs of two or more word characters without English stop words, not stemmed; k1 and b are those of
Anserini for MS MARCO. bm25s weighs each word of each passage; how these weights are added, and how passages of
equal score are ordered, is decided here, so every version of bm25s gives the same run. An index is kept in the cache
for one state of one source and one pair of k1 and b. N passages, k of them kept.
"""

import json
import logging
import os
import sys
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.progress import Progress
from distill.sources.fields import USUAL, Fields
from distill.sources.locate import source_state
from distill.sources.run_files import RankedList, Run
from distill.sources.texts import Texts, iterate_texts, refuse_duplicates
from distill.storage.arrays import look_up_table, offsets_of, text_at
from distill.storage.cache import entry, key_of, make_once, remove

log = logging.getLogger(__name__)

K1, B = 0.9, 0.4
STOP_WORDS = "en"
FORMAT = 2  # of the index's files: an index in another format is rebuilt
AT_ONCE = 1_000  # queries given to the threads: Ctrl-C waits for at most these


def bm25_run(source: str, queries: Texts, depth: int, k1: float = K1, b: float = B, fields: Fields = USUAL) -> Run:
    """Return the `depth` best passages of a source for each query; those that share no word with it are left out.

    Passages of equal score keep the order of the source, also where the depth cuts them. A query without any such
    passage is left out and counted. Raises InputError for a bad source, and where no query finds a passage.
    """
    directory = _open_index(source, k1, b, fields)
    try:
        index = _Index(directory)
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s: cannot be read (%s): rebuilding it", directory, error)
        remove(directory)
        index = _Index(_open_index(source, k1, b, fields))
    run: dict[str, RankedList] = {}
    query_ids = list(queries)
    bar = Progress(total=len(queries), desc=f"BM25 on {source}", unit=" queries", shown=len(queries) > AT_ONCE)
    with bar, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for first in range(0, len(query_ids), AT_ONCE):
            some_ids = query_ids[first : first + AT_ONCE]
            best = threads.map(lambda query_id: index.best(queries[query_id], depth), some_ids)
            for query_id, (rows, scores) in zip(some_ids, best, strict=True):
                if len(rows):
                    run[query_id] = RankedList.in_order(
                        [text_at(index.ids, index.id_offsets, row) for row in rows], scores
                    )
            bar.update(len(some_ids))
    if not run:
        raise InputError(f"{source}: no query shares a word with any passage: check that they belong together")
    if len(run) < len(queries):
        log.warning("BM25 on %s: %d queries find no passage: left out", source, len(queries) - len(run))
    return run


class _Index:
    """An index on disk: for each word, the rows of the passages that hold it, and its weight in each."""

    def __init__(self, directory: Path):
        self.words = json.loads((directory / "words.json").read_text(encoding="utf-8"))
        names = ("weights", "rows", "starts", "ids", "id_offsets")
        self.weights, self.rows, self.starts, self.ids, self.id_offsets = (
            np.load(directory / f"{name}.npy", mmap_mode="r") for name in names
        )

    def best(self, text: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows [k] of the best passages, best first, and their scores [k] float64."""
        scores = np.zeros(len(self.id_offsets) - 1)  # [N] float64: sums of float32 weights in it are exact
        for word in _words_of(text):
            if word in self.words:
                postings = slice(*self.starts[self.words[word] :][:2])
                scores[self.rows[postings]] += self.weights[postings]
        rows = np.flatnonzero(scores)
        if len(rows) > depth:
            least = np.partition(scores[rows], -depth)[-depth]  # the score at the cut: all passages with it take part
            rows = rows[scores[rows] >= least]
        rows = rows[np.argsort(-scores[rows], kind="stable")][:depth]
        return rows, scores[rows]


def _words_of(text: str) -> list[str]:
    """Return a query's words, as often as they occur."""
    import bm25s

    (words,) = bm25s.tokenize([text], stopwords=STOP_WORDS, return_ids=False, show_progress=False)
    return [word for word in words if word]  # a query of only stop words is the empty word, as an empty passage is


def _open_index(source: str, k1: float, b: float, fields: Fields) -> Path:
    key = key_of(source=source_state(source), k1=k1, b=b, fields=[fields.id, fields.texts], format=FORMAT)
    return make_once(entry("bm25", source, key), lambda path: _write_index(path, source, k1, b, fields))


def _write_index(directory: Path, source: str, k1: float, b: float, fields: Fields) -> None:
    import bm25s
    from bm25s.tokenization import Tokenized, Tokenizer

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG
    tokenizer = Tokenizer(stopwords=STOP_WORDS)
    lengths, words, ids, id_lengths = array("q"), array("i"), bytearray(), array("q")
    texts = _remembered(iterate_texts(source, "passages", fields), ids, id_lengths)
    stream = tokenizer.streaming_tokenize(texts)
    for numbers in Progress(stream, f"BM25: reading {source}", unit=" passages"):
        words.extend(numbers)
        lengths.append(len(numbers))
    if not lengths:
        raise InputError(f"{source}: holds no passages: expected lines of `id<TAB>text` or JSON objects")
    id_offsets = offsets_of(np.frombuffer(id_lengths, np.int64))
    try:
        look_up_table(np.frombuffer(ids, np.uint8), id_offsets, source, "passages")
    except InputError:
        refuse_duplicates(source, "passages", fields)  # with the line
        raise
    index = bm25s.BM25(k1=k1, b=b)
    corpus = _Corpus(np.frombuffer(words, np.int32), offsets_of(np.frombuffer(lengths, np.int64)))
    show = len(lengths) > 100_000 and sys.stderr.isatty()
    index.index(Tokenized(corpus, tokenizer.get_vocab_dict()), show_progress=show)
    # Our own files: the format of bm25s's depends on its version
    (directory / "words.json").write_text(json.dumps(tokenizer.get_vocab_dict()), encoding="utf-8")
    np.save(directory / "weights.npy", np.asarray(index.scores["data"], np.float32))
    np.save(directory / "rows.npy", np.asarray(index.scores["indices"], np.int32))
    np.save(directory / "starts.npy", np.asarray(index.scores["indptr"], np.int64))
    np.save(directory / "ids.npy", np.frombuffer(ids, np.uint8))
    np.save(directory / "id_offsets.npy", id_offsets)


def _remembered(texts: Iterator[tuple[str, str]], ids: bytearray, id_lengths: array) -> Iterator[str]:
    for text_id, text in texts:
        encoded = text_id.encode()
        ids.extend(encoded)
        id_lengths.append(len(encoded))
        yield text


class _Corpus:
    """Passages as lists of word numbers, kept in one flat array: a tenth of the memory of Python lists."""

    def __init__(self, words: np.ndarray, offsets: np.ndarray):
        self.words, self.offsets = words, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for start, end in zip(self.offsets, self.offsets[1:], strict=False):
            yield self.words[start:end].tolist()
