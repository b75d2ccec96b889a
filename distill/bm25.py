"""BM25 over any passage source, by bm25s: an index on disk, made once and mapped ever after.

    run = bm25_run("passages.tsv", {"q1": "what is ..."}, depth=100)

Words are lower-cased runs of two or more word characters without English stop words, not stemmed; k1 and b are those of
Anserini for MS MARCO. An index lies in the cache and belongs to one source, as it is now, and one k1 and b.
"""

import logging
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from distill.cache import cache_directory, key_of, make_once, source_state
from distill.collection import USUAL, Texts, iterate_texts, refuse_twice
from distill.errors import InputError
from distill.fields import Fields
from distill.tokens import look_up_table, offsets_of, silent
from distill.trec import RankedList, Run

log = logging.getLogger(__name__)

K1, B = 0.9, 0.4
STOP_WORDS = "en"
FORMAT = 1  # of the index's files: one of another format is made anew
AT_ONCE = 1_000  # texts or queries


def bm25_run(source: str, queries: Texts, depth: int, k1: float = K1, b: float = B, fields: Fields = USUAL) -> Run:
    """Return the `depth` best passages of a source for each query; those that share no word with it are left out.

    A query without any such passage is left out, too, and counted. Raises InputError for whatever is wrong with the
    source, and where no query finds a passage.
    """
    import bm25s

    directory = _open_index(source, k1, b, fields)
    index = bm25s.BM25.load(str(directory), mmap=True, show_progress=False)
    ids, offsets = np.load(directory / "ids.npy", mmap_mode="r"), np.load(directory / "id_offsets.npy", mmap_mode="r")
    run: Run = {}
    query_ids = list(queries)
    bar = tqdm(total=len(queries), desc=f"BM25 on {source}", unit="query", disable=silent(len(queries) > AT_ONCE))
    with bar:
        for first in range(0, len(query_ids), AT_ONCE):
            part = query_ids[first : first + AT_ONCE]
            texts = [queries[query_id] for query_id in part]
            words = bm25s.tokenize(texts, stopwords=STOP_WORDS, return_ids=False, show_progress=False)
            rows, scores = index.retrieve(
                words, k=min(depth, len(offsets) - 1), n_threads=os.cpu_count() or 1, show_progress=False
            )
            for query_id, found, values in zip(part, rows, scores, strict=True):
                found, values = found[values > 0], values[values > 0].astype(np.float64)
                if len(found):
                    doc_ids = [bytes(ids[offsets[row] : offsets[row + 1]]).decode() for row in found]
                    run[query_id] = RankedList.in_order(doc_ids, values)
            bar.update(len(part))
    if not run:
        raise InputError(f"{source}: no query shares a word with any passage: check that they belong together")
    if len(run) < len(queries):
        log.warning("BM25 on %s: %d queries find no passage: left out", source, len(queries) - len(run))
    return run


def _open_index(source: str, k1: float, b: float, fields: Fields) -> Path:
    key = key_of(source=source_state(source), k1=k1, b=b, fields=[fields.id, fields.texts], format=FORMAT)
    name = f"{Path(source).name}-{key}"
    return make_once(cache_directory() / "bm25" / name, lambda path: _write_index(path, source, k1, b, fields))


def _write_index(directory: Path, source: str, k1: float, b: float, fields: Fields) -> None:
    import bm25s
    from bm25s.tokenization import Tokenized, Tokenizer

    tokenizer = Tokenizer(stopwords=STOP_WORDS)
    lengths, words, ids, id_lengths = array("q"), array("i"), bytearray(), array("q")
    texts = _remembered(iterate_texts(source, "passages", fields), ids, id_lengths)
    stream = tokenizer.streaming_tokenize(texts)
    for found in tqdm(stream, f"BM25: reading {source}", unit=" passages", disable=silent(True)):
        words.extend(found)
        lengths.append(len(found))
    if not lengths:
        raise InputError(f"{source}: holds no passages: expected lines of `id<TAB>text` or JSON objects")
    id_offsets = offsets_of(np.frombuffer(id_lengths, np.int64))
    try:
        look_up_table(np.frombuffer(ids, np.uint8), id_offsets, source, "passages")
    except InputError:
        refuse_twice(source, "passages", fields)  # with the line
        raise
    index = bm25s.BM25(k1=k1, b=b)
    corpus = _Corpus(np.frombuffer(words, np.int32), offsets_of(np.frombuffer(lengths, np.int64)))
    index.index(Tokenized(corpus, tokenizer.get_vocab_dict()), show_progress=len(lengths) > 100_000)
    index.save(str(directory), show_progress=False)
    np.save(directory / "ids.npy", np.frombuffer(ids, np.uint8))
    np.save(directory / "id_offsets.npy", id_offsets)


def _remembered(texts: Iterator[tuple[str, str]], ids: bytearray, id_lengths: array) -> Iterator[str]:
    for text_id, text in texts:
        encoded = text_id.encode()
        ids.extend(encoded)
        id_lengths.append(len(encoded))
        yield text


class _Corpus:
    """Passages as lists of word numbers, kept in one flat array: a tenth of the memory that lists of Python take."""

    def __init__(self, words: np.ndarray, offsets: np.ndarray):
        self.words, self.offsets = words, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for start, end in zip(self.offsets, self.offsets[1:], strict=False):
            yield self.words[start:end].tolist()
