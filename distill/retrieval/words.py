"""From a text to the words that BM25 compares: cut, lower-cased, without stop words, stemmed.

    words_of = word_reader("porter", "lucene")
    words_of("The bees are dancing")           # ["bee", "danc"]

Passages and queries are read in the same way.
"""

import functools
import re
from collections.abc import Callable

# EnglishAnalyzer.ENGLISH_STOP_WORDS_SET of Apache Lucene, which Anserini leaves out; also the list "en" of bm25s
ENGLISH = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
WORD = {  # by `bm25.stop_words`: what is a word
    "lucene": re.compile(r"\b(?!(?<=['’])s\b)\w+"),  # without the 's that its EnglishPossessiveFilter removes
    "bm25s": re.compile(r"\b\w\w+\b"),
    "none": re.compile(r"\w+"),
}


def word_reader(stemmer: str, stop_words: str) -> Callable[[str], list[str]]:
    """Return a function from a text to its words, in order and as often as they occur.

    stemmer: "none", or an algorithm of PyStemmer. stop_words: a key of `WORD`. The function is for one thread, and
    remembers every word that it has seen.
    """
    stem = _stem_function(stemmer)
    left_out = frozenset() if stop_words == "none" else ENGLISH

    @functools.cache
    def stem_of(word: str) -> str:
        return "" if word in left_out else stem(word)

    def words_of(text: str) -> list[str]:
        return [found for word in WORD[stop_words].findall(text.lower()) if (found := stem_of(word))]

    return words_of


def stemmer_version(stemmer: str) -> str | None:
    """Return the version of PyStemmer, since the stems depend on it; None without a stemmer."""
    if stemmer == "none":
        return None
    import Stemmer

    return Stemmer.version()


def _stem_function(name: str) -> Callable[[str], str]:
    if name == "none":
        return lambda word: word
    import Stemmer

    return Stemmer.Stemmer(name, 0).stemWord  # 0: without a cache of words, since word_reader has one
