"""BM25 over any passage source: an index on disk, built once by bm25s and memory-mapped from then on.

    run = bm25_run("passages.tsv", {"q1": "what is ..."}, depth=100)
    run = bm25_run("passages.tsv", queries, depth=100, bm25=Bm25(stemmer="german", stop_words="none"))

The defaults are those of Anserini. distill/retrieval/words.py cuts a text into words, and bm25s weighs each word of
each passage; how these weights are added, and how passages of equal score are ordered, is decided here, so every
version of bm25s gives the same run. An index is kept in the cache for one state of one source and one `Bm25`. N
passages, k of them kept.
"""

import itertools
import json
import logging
import sys
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distill.cores import usable_cores
from distill.errors import InputError
from distill.progress import Progress
from distill.retrieval.bm25_parts import (
    NO_WORD,
    Passages,
    Reader,
    has_parts,
    is_damaged,
    new_words,
    part_directories,
    repair_parts,
    write_parts,
)
from distill.retrieval.languages import choose_language, languages_of, sampled_languages
from distill.retrieval.stop_words import list_state, stop_words_of
from distill.retrieval.words import BIGRAMS, has_stemmer, lack_spaces, stemmer_version, word_reader
from distill.sources.fields import USUAL, Fields
from distill.sources.locate import source_state
from distill.sources.run_files import RankedList, Run
from distill.sources.texts import Texts, refuse_duplicate_ids
from distill.storage.arrays import offsets_of, text_at
from distill.storage.cache import REMEDY, entry, key_of, make_once
from distill.storage.locking import locked_in_turn
from distill.storage.parts import load_arrays

log = logging.getLogger(__name__)

FORMAT = 4  # of the index's files, and how texts are cut into words: an index in another format is rebuilt
AUTO = "auto"  # a stemmer: that of the passages' language
MANY = 10  # queries: their language is known
AT_ONCE = 1_000  # queries given to the threads: Ctrl-C waits for at most these


@dataclass(frozen=True)
class Bm25:
    """BM25's settings: the keys of the group `bm25`, which conf/bm25.yaml explains."""

    k1: float = 0.9
    b: float = 0.4
    stemmer: str = "porter"
    stop_words: str = "lucene"

    @classmethod
    def of(cls, cfg: DictConfig) -> "Bm25":
        """Return the settings of a task or of the command `retrieve`."""
        return cls(**cfg.bm25)


def bm25_run(source: str, queries: Texts, depth: int, bm25: Bm25 = Bm25(), fields: Fields = USUAL) -> Run:
    """Return the `depth` best passages of a source for each query; those that share no word with it are left out.

    Passages of equal score keep the order of the source, also where the depth cuts them. A query without any such
    passage is left out and counted. Raises InputError for a bad source, and where no query finds a passage.
    """
    if bm25.stemmer == AUTO:
        bm25 = in_own_language(source, bm25, fields)
    _warn_of_language(queries, bm25)
    run = found_lists(source, queries, depth, bm25, fields)
    if not run:
        raise InputError(f"{source}: no query shares a word with any passage: check that they belong together")
    if len(run) < len(queries):
        first = next(query_id for query_id in queries if query_id not in run)
        log.warning(
            "BM25 on %s: %d queries find no passage: left out (first: %s)", source, len(queries) - len(run), first
        )
    return run


def found_lists(source: str, queries: Texts, depth: int, bm25: Bm25, fields: Fields = USUAL) -> Run:
    """Return the best passages of each query that finds any; the stemmer must not be `auto`."""
    index = _Index(_open_index(source, bm25, fields))
    run: dict[str, RankedList] = {}
    query_ids, words_of = list(queries), word_reader(bm25.stemmer, bm25.stop_words)
    bar = Progress(total=len(queries), desc=f"BM25 on {source}", unit=" queries", shown=len(queries) > AT_ONCE)
    with bar, ThreadPoolExecutor(usable_cores()) as threads:
        for first in range(0, len(query_ids), AT_ONCE):
            some_ids = query_ids[first : first + AT_ONCE]
            words = [words_of(queries[query_id]) for query_id in some_ids]
            for query_id, (rows, scores) in zip(some_ids, index.best(words, depth, threads), strict=True):
                if len(rows):
                    run[query_id] = RankedList.in_order([index.id_of(row) for row in rows.tolist()], scores)
            bar.update(len(some_ids))
    return run


def in_own_language(source: str, bm25: Bm25, fields: Fields = USUAL) -> Bm25:
    """Return the settings with the stemmer and the stop words of the language that most passages of a source are in.

    English: those of the default. A script without spaces: pairs of characters. A language without a stemmer, or
    unknown: words as they are. stop_words other than "lucene", which stands for the words of the language, are kept.
    """
    shares = sampled_languages(source, fields)
    language = choose_language(source, shares)
    if language == "english":
        stemmer, stop_words = "porter", "lucene"
    elif language == BIGRAMS:
        stemmer, stop_words = BIGRAMS, "none"
    elif language is not None and has_stemmer(language):
        stemmer, stop_words = language, "language" if stop_words_of(language) else "none"
    else:
        stemmer, stop_words = "none", "none"
    chosen = replace(bm25, stemmer=stemmer, stop_words=stop_words if bm25.stop_words == "lucene" else bm25.stop_words)
    name = {BIGRAMS: "a script without spaces between words", None: "no known language"}.get(language, language)
    share = f" in {shares[language]:.0%} of the sampled passages" if language is not None else ""
    log.info("%s: %s%s: bm25.stemmer=%s bm25.stop_words=%s", source, name, share, chosen.stemmer, chosen.stop_words)
    return chosen


def _warn_of_language(queries: Texts, bm25: Bm25) -> None:
    """Warn of queries in another script or language than words are cut and stemmed for."""
    if bm25.stemmer != BIGRAMS and lack_spaces(queries.values()):
        log.warning("most queries have no spaces between words, so that few find a passage: set bm25.stemmer=bigrams")
    elif bm25.stemmer == Bm25.stemmer and len(queries) >= MANY:
        language, share = next(iter(languages_of(queries.values()).items()), ("english", 0.0))
        if share > 0.5 and language not in ("english", BIGRAMS):
            log.warning("most queries are %s, and bm25.stemmer=porter is for English: set bm25.stemmer=auto", language)


Best = tuple[np.ndarray, np.ndarray]  # rows [k] of a query's best passages, best first, and their scores [k] float64


class _Index:
    """An index on disk, whole or in parts: memory-mapped but for its words."""

    def __init__(self, directory: Path):
        if has_parts(directory):
            places = part_directories(directory)
            words = itertools.chain([NO_WORD], *(new_words(postings) for _, postings, _ in places))
            self.words = {word: number for number, word in enumerate(words)}
        else:
            places = [(0, directory, directory)]
            self.words = json.loads((directory / "words.json").read_text(encoding="utf-8"))
        self.first_rows = [row for row, _, _ in places]
        self.parts = [_Part(postings, weights) for _, postings, weights in places]

    def best(self, queries: list[list[str]], depth: int, threads: ThreadPoolExecutor) -> list[Best]:
        """Return the best passages of each query, which is given as its words."""
        numbers = [[self.words[word] for word in words if word in self.words] for words in queries]
        best: list[Best] | None = None
        for first, part in zip(self.first_rows, self.parts, strict=True):
            found = [
                (rows + first, scores) for rows, scores in threads.map(part.best, numbers, itertools.repeat(depth))
            ]
            best = found if best is None else list(map(_merged, best, found, itertools.repeat(depth)))
        assert best is not None
        return best

    def id_of(self, row: int) -> str:
        """Return the id of a passage."""
        part = bisect_right(self.first_rows, row) - 1
        return text_at(self.parts[part].ids, self.parts[part].id_offsets, row - self.first_rows[part])


def _merged(one: Best, other: Best, depth: int) -> Best:
    """Return the best passages of two parts; of equal score, those of the first come first."""
    rows, scores = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(-scores, kind="stable")[:depth]
    return rows[order], scores[order]


class _Part:
    """For each word, the rows of the passages that hold it, and its weight in each."""

    def __init__(self, postings: Path, weights: Path):
        self.rows, self.starts, self.ids, self.id_offsets = load_arrays(postings, "rows", "starts", "ids", "id_offsets")
        [self.weights] = load_arrays(weights, "weights")

    def best(self, words: list[int], depth: int) -> Best:
        """Return the best passages of this part for a query, which is given as its words' numbers."""
        scores = np.zeros(len(self.id_offsets) - 1)  # [N] float64: sums of float32 weights in it are exact
        for word in words:
            if word < len(self.starts) - 1:  # else no passage of this part has it
                postings = slice(*self.starts[word:][:2])
                scores[self.rows[postings]] += self.weights[postings]
        rows = np.flatnonzero(scores)
        if len(rows) > depth:
            least = np.partition(scores[rows], -depth)[-depth]  # the score at the cut: all passages with it take part
            rows = rows[scores[rows] >= least]
        rows = rows[np.argsort(-scores[rows], kind="stable")][:depth]
        return rows, scores[rows]


def _open_index(source: str, bm25: Bm25, fields: Fields) -> Path:
    key = key_of(
        source=source_state(source),
        fields=[fields.id, fields.texts],
        weights=[bm25.k1, bm25.b],
        stemmer=[bm25.stemmer, stemmer_version(bm25.stemmer)],
        stop_words=[list_state(bm25.stemmer)] if bm25.stop_words == "language" else bm25.stop_words,
        format=FORMAT,
    )
    reader = Reader(source, fields, word_reader(bm25.stemmer, bm25.stop_words))
    place = entry("bm25", source, key)
    directory = make_once(place, lambda path: _write_index(path, reader, bm25), resumes=True)
    if has_parts(directory) and is_damaged(directory):
        with locked_in_turn(directory.with_name(directory.name + ".lock"), REMEDY):
            repair_parts(directory, Reader(source, fields, reader.words_of), bm25.k1, bm25.b)
    return directory


def _write_index(directory: Path, reader: Reader, bm25: Bm25) -> None:
    passages = None
    if not has_parts(directory):
        passages = reader.read()
        if not passages:
            raise InputError(f"{reader.source}: holds no passages: expected lines of `id<TAB>text` or JSON objects")
        if reader.is_at_end:
            _write_whole(directory, passages, reader, bm25)
            return
    write_parts(directory, reader, passages, bm25.k1, bm25.b)


def _write_whole(directory: Path, passages: Passages, reader: Reader, bm25: Bm25) -> None:
    import bm25s
    from bm25s.tokenization import Tokenized

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG
    ids, id_offsets = np.frombuffer(passages.ids, np.uint8), offsets_of(np.frombuffer(passages.id_lengths, np.int64))
    refuse_duplicate_ids(ids, id_offsets, reader.source, reader.fields)
    index = bm25s.BM25(k1=bm25.k1, b=bm25.b)
    show = len(passages) > 100_000 and sys.stderr.isatty()
    index.index(Tokenized(passages, reader.numbers), show_progress=show)
    # Our own files: the format of bm25s's depends on its version
    (directory / "words.json").write_text(json.dumps(reader.numbers), encoding="utf-8")
    np.save(directory / "weights.npy", np.asarray(index.scores["data"], np.float32))
    np.save(directory / "rows.npy", np.asarray(index.scores["indices"], np.int32))
    np.save(directory / "starts.npy", np.asarray(index.scores["indptr"], np.int64))
    np.save(directory / "ids.npy", ids)
    np.save(directory / "id_offsets.npy", id_offsets)
