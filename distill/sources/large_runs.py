"""Large runs: columns on disk, looked up by query.

    run = CachedRun(directory)                # a mapping like a small run: run["q1"] is a RankedList

A directory holds flat arrays, the queries in the order in which they begin in the file, each query's lines sorted best
first: `scores` and `ranks` (the file's column) as float64, `ids` (UTF-8) with `id_offsets`, and `starts` [Q + 1],
where each query's lines begin; `queries.json` holds the query ids. run_columns.py writes them.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from distill.sources.run_files import RankedList, average_ranks
from distill.storage.arrays import FlatFile

FORMAT = 4  # of the files: a cached run in another format is rebuilt
ARRAYS = {"scores": np.float64, "ranks": np.float64, "ids": np.uint8, "id_offsets": np.int64, "starts": np.int64}


class CachedRun(Mapping[str, RankedList]):
    """A run of Q queries in columns on disk, of which only slices are read."""

    def __init__(self, directory: Path):
        """Open what `write_columns` has made."""
        columns = {name: FlatFile(directory / name, np.dtype(ARRAYS[name])) for name in ARRAYS}
        self.scores, self.ranks, self.ids, self.id_offsets = (
            columns[name] for name in ("scores", "ranks", "ids", "id_offsets")
        )
        self.starts = columns["starts"].read()  # [Q + 1]
        query_ids = json.loads((directory / "queries.json").read_text())
        self.places = {query_id: place for place, query_id in enumerate(query_ids)}

    def __getitem__(self, query_id: str) -> RankedList:
        """Return the ranked passages of a query; KeyError where the run lacks it."""
        place = self.places[query_id]
        rows = slice(self.starts[place], self.starts[place + 1])
        bounds = self.id_offsets[rows.start : rows.stop + 1]
        text = self.ids[bounds[0] : bounds[-1]].tobytes()
        bounds = (bounds - bounds[0]).tolist()
        doc_ids = [text[first:last].decode() for first, last in itertools.pairwise(bounds)]
        scores = np.array(self.scores[rows])
        return RankedList(doc_ids, scores, average_ranks(scores, self.ranks[rows]))

    def __iter__(self) -> Iterator[str]:
        """Yield the query ids in the order of the file."""
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self.places
