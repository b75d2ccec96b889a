"""Texts that say nearly the same: in groups, by the letters or words that they share.

    groups_of({"q1": "reset my password", "q2": "Reset my pasword?", "q3": "opening hours"}, 0.7)
    # [["q1", "q2"], ["q3"]]

Two texts are near-duplicates if the Jaccard similarity of their features, what both have divided by what either has, is
at least a threshold; a chain of near-duplicates is one group. The features of a query are the trigrams of characters
of its words, so that a typo changes a few of them, and the order of the words none; case, marks and width do not count.
Those of a passage are its words. All similar pairs are found, and few others are compared: sets that are so similar
share one of their rarest features (prefix filtering, Bayardo et al. 2007).
"""

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from distill.progress import Progress

WORD = re.compile(r"[^\W_]+")
BITS = 512  # that sum up a set of features, so that most others are told apart at once
CLOSE = 1e-9  # 0.7 · 10 is 7
SHOWN = 20_000  # texts from which on a bar shows how far they are compared
Features = frozenset[str]


def words(text: str) -> Features:
    """Return the words of a text; of one without any, the text itself."""
    found = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(found or [text.strip()])


def trigrams(text: str) -> Features:
    """Return the trigrams of a text's words, each with a space before and behind it: " wo", "wor", "ord", "rd "."""
    padded = [f" {word} " for word in words(text)]
    return frozenset(word[place : place + 3] for word in padded for place in range(len(word) - 2))


class Groups:
    """Things that belong together, directly or over others (union-find)."""

    def __init__(self) -> None:
        """Begin with none."""
        self.parents: dict[Hashable, Hashable] = {}

    def of(self, one: Hashable) -> Hashable:
        """Return what stands for the group of a thing; a new thing is a group by itself."""
        root = one
        while (parent := self.parents.setdefault(root, root)) != root:
            root = parent
        while (parent := self.parents[one]) != root:
            self.parents[one], one = root, parent
        return root

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make one group of those of two things."""
        self.parents[self.of(other)] = self.of(one)


def join_near_duplicates(
    groups: Groups,
    texts: Mapping[Hashable, str] | Mapping[str, str],
    similarity: float,
    features_of: Callable[[str], Features] = trigrams,
) -> None:
    """Join the texts, by id, whose features are at least so similar."""
    first_with: dict[Features, Hashable] = {}
    for text_id, text in texts.items():
        groups.join(first_with.setdefault(features_of(text), text_id), text_id)
    text_ids, features = list(first_with.values()), list(first_with)

    def are_joined(one: int, other: int) -> bool:
        return groups.of(text_ids[one]) == groups.of(text_ids[other])

    for one, other in similar_pairs(features, similarity, are_joined):
        groups.join(text_ids[one], text_ids[other])


def groups_of(texts: Mapping[str, str], similarity: float) -> list[list[str]]:
    """Return the ids of texts in groups of near-duplicates, in the order of the texts."""
    groups = Groups()
    join_near_duplicates(groups, texts, similarity)
    return members(groups, texts)


def members(groups: Groups, text_ids: Iterable[str]) -> list[list[str]]:
    """Return the groups of some ids, each in their order, and in the order of their first ones."""
    found: dict[Hashable, list[str]] = {}
    for text_id in text_ids:
        found.setdefault(groups.of(text_id), []).append(text_id)
    return list(found.values())


def similar_pairs(
    sets: Sequence[Features], similarity: float, are_joined: Callable[[int, int], bool] = lambda one, other: False
) -> Iterator[tuple[int, int]]:
    """Yield the places of all pairs of sets, none of them empty, whose Jaccard similarity is at least so much.

    Of two sets with similarity t, the larger shares at least t·n of its n features with the other, and the smaller
    2t/(1 + t)·n. So one of the first n - ceil(t·n) + 1 of the larger is among the first n - ceil(2t/(1 + t)·n) + 1 of
    the smaller, in any common order: here the rarest come first, and few other sets have these.
    are_joined: pairs that need no comparison, since both are known to be in one group.
    """
    counts = Counter(feature for one in sets for feature in one)
    with_feature: dict[str, list[int]] = {}  # places of the sets before, by the features at their beginning
    marks, apart = [0] * len(sets), (1 - similarity) / (1 + similarity)
    order = sorted(range(len(sets)), key=lambda place: len(sets[place]))
    for place in Progress(order, "comparing texts", unit=" texts", shown=len(sets) > SHOWN):
        size = len(sets[place])
        least = _ceil(similarity * size)
        ordered = sorted(sets[place], key=lambda feature: (counts[feature], feature))
        mine = marks[place] = marks_of(sets[place])
        for other in {one for feature in ordered[: size - least + 1] for one in with_feature.get(feature, ())}:
            most = apart * (size + len(sets[other])) + CLOSE  # features that only one of them may have
            if (
                len(sets[other]) >= least
                and not are_joined(place, other)
                and (mine ^ marks[other]).bit_count() <= most
                and jaccard(sets[place], sets[other]) >= similarity - CLOSE
            ):
                yield min(place, other), max(place, other)
        for feature in ordered[: size - _ceil(2 * similarity / (1 + similarity) * size) + 1]:
            with_feature.setdefault(feature, []).append(place)


def _ceil(number: float) -> int:
    return math.ceil(number - CLOSE)


def marks_of(one: Features) -> int:
    """Return a number with a bit for each feature: two sets differ in at least as many features as bits."""
    bits = 0
    for feature in one:
        bits |= 1 << (zlib.crc32(feature.encode("utf-8", "replace")) % BITS)
    return bits


def jaccard(one: Features, other: Features) -> float:
    """Return what both have, divided by what either has."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
