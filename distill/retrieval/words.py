"""From a text to the words that BM25 compares: cut, lower-cased, without stop words, stemmed.

    words_of = word_reader("porter", "lucene")
    words_of("The bees are dancing")           # ["bee", "danc"]
    word_reader("bigrams", "none")("蜜蜂导航 GPS")      # ["蜜蜂", "蜂导", "导航", "gps"]

Passages and queries are read in the same way. Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between
words; there, pairs of neighbouring characters take the place of words, as in Lucene's CJKAnalyzer.
"""

import functools
import re
from collections.abc import Callable, Iterable

from distill.errors import InputError
from distill.retrieval.stop_words import stop_words_of

# EnglishAnalyzer.ENGLISH_STOP_WORDS_SET of Apache Lucene, which Anserini leaves out; also the list "en" of bm25s
ENGLISH = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
WORD = {  # by `bm25.stop_words`: what is a word
    "lucene": re.compile(r"\b(?!(?<=['’])s\b)\w+"),  # without the 's that its EnglishPossessiveFilter removes
    "bm25s": re.compile(r"\b\w\w+\b"),
    "none": re.compile(r"\w+"),
    # With the signs that Indian scripts, Arabic and Hebrew write at letters, and Persian's narrow space within words
    "language": re.compile(r"[\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u200c\u200d]+"),
}

BIGRAMS = "bigrams"  # a stemmer: none, and pairs of characters where words have no spaces
WITHOUT_SPACES = re.compile(
    r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u1000-\u1049\u1780-\u17d3]+"
)


def word_reader(stemmer: str, stop_words: str) -> Callable[[str], list[str]]:
    """Return a function from a text to its words, in order and as often as they occur.

    stemmer: "none", "bigrams", or an algorithm of PyStemmer. stop_words: a key of `WORD`. The function is for one
    thread, and remembers every word that it has seen. Raises InputError where a language has no list of stop words.
    """
    stem = _stem_function(stemmer)
    left_out: frozenset[str] | None = frozenset() if stop_words == "none" else ENGLISH
    if stop_words == "language":
        left_out = stop_words_of(stemmer)
    if left_out is None:
        raise InputError(f"bm25.stop_words=language: there is no list for bm25.stemmer={stemmer}: set it to none")

    @functools.cache
    def stem_of(word: str) -> str:
        return "" if word in left_out else stem(word)

    def words_of(text: str) -> list[str]:
        return [found for word in WORD[stop_words].findall(text.lower()) if (found := stem_of(word))]

    def words_and_pairs_of(text: str) -> list[str]:
        found, end = [], 0
        for run in WITHOUT_SPACES.finditer(text):
            found += words_of(text[end : run.start()]) + _pairs(run[0])
            end = run.end()
        return found + words_of(text[end:])

    return words_and_pairs_of if stemmer == BIGRAMS else words_of


def _pairs(run: str) -> list[str]:
    return [run[place : place + 2] for place in range(max(len(run) - 1, 1))]


def lack_spaces(texts: Iterable[str]) -> bool:
    """Whether more than half of the texts have words without spaces, of three characters or more."""
    found = [any(len(run) > 2 for run in WITHOUT_SPACES.findall(text)) for text in texts]
    return sum(found) * 2 > len(found)


def has_stemmer(language: str) -> bool:
    """Whether PyStemmer, in the version here, knows a language."""
    import Stemmer

    return language in Stemmer.algorithms()


def stemmer_version(stemmer: str) -> str | None:
    """Return the version of PyStemmer, since the stems depend on it; None without a stemmer."""
    if stemmer in ("none", BIGRAMS):
        return None
    import Stemmer

    return Stemmer.version()


def _stem_function(name: str) -> Callable[[str], str]:
    if name in ("none", BIGRAMS):
        return lambda word: word
    import Stemmer

    return Stemmer.Stemmer(name, 0).stemWord  # 0: without a cache of words, since word_reader has one
