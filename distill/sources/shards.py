"""Shards: shares of a first stage's queries, for jobs that each take one; `distill join` makes them one again.

    shard = Shard.parse("0/4")                              # the first of four
    query_ids = shard.take(query_ids, "first.run")          # its share, in the same order
    query_ids = shard.take(query_ids, "first.run", sizes)   # the same, at the borders of batches

The shares follow each other, so that joined files have the order of the whole.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from distill.errors import InputError

WRITTEN = re.compile(r"(\d{1,9})/(\d{1,9})")
PAIRS_AT_ONCE = 4096  # pairs sorted by length together: enough for even chunks, few enough to fit in memory


class Shard(NamedTuple):
    """One of several shares."""

    place: int  # from 0
    number: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard that is written PLACE/NUMBER."""
        match = WRITTEN.fullmatch(text)
        assert match, "the schema has checked it"
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.place}/{self.number}"

    def take(self, query_ids: Sequence[str], source: str, sizes: Sequence[int] | None = None) -> list[str]:
        """Return its share of the queries.

        sizes: passages of each query's list, where a model scores them. Scores depend a little on what is in the same
        batch, so shares then consist of whole batches of the whole run, if there are enough for all shards. Raises
        InputError if a shard would be empty.
        """
        if len(query_ids) < self.number:
            raise InputError(
                f"shard={self}: {source} has only {len(query_ids)} queries to rank: use {len(query_ids)} shards at most"
            )
        borders = list(range(len(query_ids) + 1))
        if sizes is not None and len(starts := starts_of_batches(sizes)) >= self.number:
            borders = [*starts, len(query_ids)]
        pieces = len(borders) - 1
        first, last = (borders[place * pieces // self.number] for place in (self.place, self.place + 1))
        return list(itertools.islice(query_ids, first, last))


def is_shard(text: str) -> bool:
    """Whether a text names one of several shards, as 0/4 does."""
    match = WRITTEN.fullmatch(text)
    return match is not None and int(match[1]) < int(match[2])


def starts_of_batches(sizes: Iterable[int]) -> list[int]:
    """Return the places at which batches of lists begin: each of whole lists, of PAIRS_AT_ONCE pairs if they fit."""
    starts, size = list[int](), 0
    for place, more in enumerate(sizes):
        if not starts or (size and size + more > PAIRS_AT_ONCE):
            starts.append(place)
            size = 0
        size += more
    return starts
