"""Texts of which no two say nearly the same: by the words that BM25 sees.

    distinct = Distinct(word_reader("porter", "lucene"), max_similarity=0.8)
    distinct.add("q1", "how do bees find home")
    distinct.near("how do bees find their home?")       # "q1": the same words, without "their"

The similarity of two texts is the number of words that both have, divided by the number that either has (Jaccard). Two
texts that are so similar share one of their first words in any common order (prefix filtering, Bayardo et al. 2007):
only those that share one are compared. Here the rarest come first, and few other texts have these. How many texts have
a word is counted anew whenever there are twice as many texts.
"""

import math
from collections import Counter
from collections.abc import Callable

from distill.data.near_duplicates import Features, jaccard, marks_of

EXACT = 1e-9  # 0.8 · 10 is 8


class Distinct:
    """Texts by id, and whether another is near to one of them."""

    def __init__(self, words_of: Callable[[str], list[str]], max_similarity: float):
        """Begin with none. words_of: of a text; max_similarity: from which on two texts are near to each other."""
        self.words_of, self.least = words_of, max_similarity - EXACT
        self.apart = (1 - self.least) / (1 + self.least)  # share of their words that only one of them may have
        self.text_ids: list[str] = []
        self.words: list[Features] = []
        self.marks: list[int] = []
        self.with_word: dict[str, list[int]] = {}  # places of the texts that have it among their first words
        self.counts = Counter[str]()  # texts that have a word, when they were last counted
        self.num_counted = 0

    def near(self, text: str) -> str | None:
        """Return the id of the first text that is near to this one, None if there is none."""
        words = frozenset(self.words_of(text))
        marks = marks_of(words)
        for place in sorted({place for word in self._first(words) for place in self.with_word.get(word, ())}):
            most = self.apart * (len(words) + len(self.words[place])) + EXACT
            if (marks ^ self.marks[place]).bit_count() <= most and jaccard(words, self.words[place]) >= self.least:
                return self.text_ids[place]
        return None

    def add(self, text_id: str, text: str) -> None:
        """Add a text, near to others or not."""
        words = frozenset(self.words_of(text))
        self.text_ids.append(text_id)
        self.words.append(words)
        self.marks.append(marks_of(words))
        if len(self.words) < 2 * self.num_counted:
            self._index(len(self.words) - 1)
        else:
            self._count()

    def _count(self) -> None:
        """Count the texts that have each word, and order the words of all texts anew."""
        self.counts, self.num_counted = Counter(word for words in self.words for word in words), len(self.words)
        self.with_word.clear()
        for place in range(len(self.words)):
            self._index(place)

    def _index(self, place: int) -> None:
        for word in self._first(self.words[place]):
            self.with_word.setdefault(word, []).append(place)

    def _first(self, words: Features) -> list[str]:
        """Return the words of which two texts share one if they are near to each other."""
        number = len(words) - math.ceil(self.least * len(words)) + 1
        return sorted(words, key=lambda word: (self.counts[word], word))[:number]
