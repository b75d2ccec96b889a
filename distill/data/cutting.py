"""Long articles cut into overlapping passages, with ids that lead back to them.

    cut_text("Bees dance. They fly.", 3, 0, atoms_of, words_in, sentences=True)     # ["Bees dance.", "They fly."]
    passage_id("d7", 0), article_of("d7#0")                                         # "d7#0", "d7"

An atom is what is never parted: a word, or a character where there are no spaces between words. Sizes are sums of the
atoms' lengths, in words or tokens.
"""

import bisect
import itertools
import re
from collections.abc import Callable

from distill.errors import InputError

Span = tuple[int, int]  # from and to, in a text
Lengths = Callable[[str, list[Span]], list[float]]  # of a text's atoms

# The end of a sentence: a mark before white space, a full-width mark, or an empty line
SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]+[\"”’」』）]*|\n[^\S\n]*(?=\n)")
PASSAGE_ID = re.compile(r"(.+)#(0|[1-9][0-9]*)", re.ASCII | re.DOTALL)


def passage_id(article_id: str, number: int) -> str:
    """Return the id of an article's passage, counted from 0; those of different articles always differ."""
    return f"{article_id}#{number}"


def article_of(doc_id: str) -> str | None:
    """Return the article that a passage was cut from, by its id; None for the id of no such passage."""
    found = PASSAGE_ID.fullmatch(doc_id)
    return found[1] if found else None


def cut_text(
    text: str, size: float, overlap: float, atoms_of: Callable[[str], list[Span]], lengths_of: Lengths, sentences: bool
) -> list[str]:
    """Return the passages of a text, in order, with single spaces; none for a text without a word.

    A passage has as many whole sentences (atoms, if not `sentences`) as `size` allows, and at least one. The next one
    begins with the last of them that `overlap` allows, so long as it then has room for more. A sentence longer than
    `size` is cut at atoms.
    """
    atoms = atoms_of(text)
    lengths = lengths_of(text, atoms)
    sums = [0.0, *itertools.accumulate(lengths)]
    ends = _sentence_ends(text, atoms, sums, size) if sentences else range(1, len(atoms) + 1)
    starts = [0, *ends]  # of each unit, as an atom; the last is the end
    before = [sums[start] for start in starts]  # how much text is before each unit
    passages: list[str] = []
    first, last, num_units = 0, 0, len(starts) - 1
    while last < num_units:
        last = max(bisect.bisect_right(before, before[first] + size) - 1, first + 1)
        passages.append(" ".join(text[atoms[starts[first]][0] : atoms[starts[last] - 1][1]].split()))
        if last < num_units:
            first = _next_first(before, first, last, size, overlap)
    return passages


def _next_first(before: list[float], first: int, last: int, size: float, overlap: float) -> int:
    """Return the unit that the next passage begins with: all up to `last` is in this one."""
    following = first + 1
    while following < last and (
        before[last] - before[following] > overlap or before[last + 1] - before[following] > size
    ):
        following += 1
    return following


def _sentence_ends(text: str, atoms: list[Span], sums: list[float], size: float) -> list[int]:
    """Return the atoms before which a sentence ends; within one that is longer than `size`, every atom."""
    begins = [start for start, _ in atoms]
    marks = (bisect.bisect_left(begins, found.end()) for found in SENTENCE_END.finditer(text))
    ends: list[int] = []
    last = 0
    for end in itertools.chain(marks, [len(atoms)]):
        if end > last:
            ends += [end] if sums[end] - sums[last] <= size else range(last + 1, end + 1)
            last = end
    return ends


def check_passage(doc_id: str, place: str) -> str:
    """Return the article of a passage; raises InputError for an id that `cut` has not made."""
    article = article_of(doc_id)
    if article is None:
        raise InputError(
            f"{place}: passage {doc_id} is no part of an article: `cut` writes ids such as {doc_id}#0: give a run of "
            "cut passages, or set max_passage=false"
        )
    return article
