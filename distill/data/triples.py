"""Training lists of two passages, from a file of triples.

for taught in TripleLists(cfg):
    taught.query_id, taught.doc_ids, taught.targets["score"]
"""

from collections.abc import Iterator

import numpy as np
from omegaconf import DictConfig

from distill.data.teacher_lists import TeacherList, choose_queries, ranks_among
from distill.errors import InputError
from distill.sources.fields import checked_id, read_number
from distill.sources.opening import open_source
from distill.storage.files import as_text
from distill.targets import own_targets

TRIPLE = "score+ score− query_id doc_id+ doc_id−"


class TripleLists:
    """Lists of two, from lines of two scores, a query and two passages (Hofstätter et al., 2020).

    A triple gives any target: its teacher scores, their order, or the labels 1 and 0.
    """

    def __init__(self, cfg: DictConfig):
        """Open the file without reading it; raises InputError if it does not exist."""
        self.cfg, self.path = cfg, cfg.teacher.path
        self.targets = own_targets(cfg.loss)
        self.sources = [self.path]
        target = self.targets[0] if len(self.targets) == 1 else self.targets
        self.options = {"target": target} | {key: cfg.data[key] for key in ("num_queries", "subset_seed")}
        self.source = open_source(self.path, "triples")
        self.is_large = self.source.is_large

    def __iter__(self) -> Iterator[TeacherList]:
        """Yield one list for each line; raises InputError for a bad one."""
        chosen = None
        if self.cfg.data.num_queries is not None:
            query_ids = {query_id for query_id, _, _ in self._triples()}
            chosen = set(choose_queries(query_ids, self.cfg.data.num_queries, self.cfg.data.subset_seed, self.path))
        empty = True
        for query_id, doc_ids, scores in self._triples():
            empty = False
            if chosen is None or query_id in chosen:
                yield TeacherList(query_id, doc_ids, {name: _pair_target(scores, name) for name in self.targets})
        if empty:
            raise InputError(f"{self.path}: holds no triple: expected lines of `{TRIPLE}`")

    def _triples(self) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """Yield (query_id, [doc_id+, doc_id−], [score+, score−]) of every line."""
        for place, line in self.source.rows():
            as_text(line, place)
            columns = [column.decode() for column in line.split()]
            if len(columns) != 5:
                raise InputError(f"{place}: {len(columns)} columns instead of five: expected `{TRIPLE}`")
            scores = np.array([read_number(text, "score", place) for text in columns[:2]])
            query_id, relevant, other = (checked_id(text, place) for text in columns[2:])
            if relevant == other:
                raise InputError(f"{place}: passage {relevant} appears on both sides: a triple needs two passages")
            yield query_id, [relevant, other], scores


def _pair_target(scores: np.ndarray, target: str) -> np.ndarray:
    """Return what a loss learns from a relevant passage and another, given their scores."""
    if target == "label":
        return np.array([1.0, 0.0])
    return ranks_among(-scores) if target == "rank" else scores
