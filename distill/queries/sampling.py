"""Passages to write queries for: a seeded sample of different ones.

    sampled = sample_passages(iterate_texts("passages.jsonl", "passages"), 3000, 42, 20, distinct)
    sampled.texts                                       # {"d7#2": "Bees steer by the sun ...", ...}

The place of a passage in the sample is decided by its id and the seed only, so that a larger sample begins with the
smaller one, whatever the order of the source. Of an article that was cut into passages, one is taken. Passages that
are too short, or near to an earlier one, are left out and counted.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from distill.data.cutting import article_of
from distill.queries.answers import num_words
from distill.queries.distinct import Distinct
from distill.teachers.lengths import LONGEST_WORD

SPARE = 2  # times as many passages are kept while reading: some are near to others
Drawn = tuple[int, str, str]  # place in the order of the sample, id, text


@dataclass
class Sampled:
    """Passages in the order of the sample, and those that were left out."""

    num_passages: int = 0  # of the source
    too_short: list[str] = field(default_factory=list)  # ids
    near: list[str] = field(default_factory=list)  # ids of those near to one that comes before
    texts: dict[str, str] = field(default_factory=dict)


def sample_passages(
    rows: Iterable[tuple[str, str]], number: int, seed: int, min_words: int, distinct: Distinct
) -> Sampled:
    """Return a sample of at most so many passages (id, text)."""
    sampled, of_article = Sampled(), dict[str, Drawn]()
    kept = SPARE * number
    for doc_id, text in rows:
        sampled.num_passages += 1
        if is_short(text, min_words):
            sampled.too_short.append(doc_id)
            continue
        drawn, article = (_place(doc_id, seed), doc_id, text), article_of(doc_id) or doc_id
        if article not in of_article or drawn < of_article[article]:
            of_article[article] = drawn
        if len(of_article) > 2 * kept:  # what is dropped here has no place in the sample, whatever follows
            of_article = dict(sorted(of_article.items(), key=lambda one: one[1])[:kept])
    for _, doc_id, text in sorted(of_article.values())[:kept]:
        if len(sampled.texts) == number:
            break
        if distinct.near(text) is not None:
            sampled.near.append(doc_id)
        else:
            distinct.add(doc_id, text)
            sampled.texts[doc_id] = text
    return sampled


def is_short(text: str, min_words: int) -> bool:
    """Whether a text has fewer words; in scripts without spaces, fewer tokens than so many English words."""
    return len(text) < LONGEST_WORD * min_words and num_words(text) < min_words


def _place(doc_id: str, seed: int) -> int:
    """Return the place of a passage in the order of all possible passages."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {doc_id}".encode(), digest_size=8).digest())
