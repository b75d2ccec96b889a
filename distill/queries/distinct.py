"""Texts of which no two say nearly the same: by the words that BM25 sees.

    distinct = Distinct(word_reader("porter", "lucene"), max_similarity=0.8)
    distinct.add("q1", "how do bees find home")
    distinct.near("how do bees find their home?")       # "q1": the same words, without "their"

The similarity of two texts is the number of words that both have, divided by the number that either has (Jaccard). Two
texts that are so similar share one of their first words in any common order (prefix filtering, Bayardo et al. 2007):
only those that share one are compared. Here long words come first, since they are rare.
"""

import math
from collections.abc import Callable

from distill.data.near_duplicates import jaccard

EXACT = 1e-9  # 0.8 · 10 is 8


class Distinct:
    """Texts by id, and whether another is near to one of them."""

    def __init__(self, words_of: Callable[[str], list[str]], max_similarity: float):
        """Begin with none. words_of: of a text; max_similarity: from which on two texts are near to each other."""
        self.words_of, self.max_similarity = words_of, max_similarity
        self.words: dict[str, frozenset[str]] = {}
        self.with_word: dict[str, list[str]] = {}  # ids of the texts that have it among their first words

    def near(self, text: str) -> str | None:
        """Return the id of the first text that is near to this one, None if there is none."""
        words = frozenset(self.words_of(text))
        for other in dict.fromkeys(other for word in self._first(words) for other in self.with_word.get(word, ())):
            if jaccard(words, self.words[other]) >= self.max_similarity - EXACT:
                return other
        return None

    def add(self, text_id: str, text: str) -> None:
        """Add a text, near to others or not."""
        self.words[text_id] = words = frozenset(self.words_of(text))
        for word in self._first(words):
            self.with_word.setdefault(word, []).append(text_id)

    def _first(self, words: frozenset[str]) -> list[str]:
        """Return the words of which two texts share one if they are near to each other."""
        number = len(words) - math.ceil(self.max_similarity * len(words) - EXACT) + 1
        return sorted(words, key=lambda word: (-len(word), word))[:number]
