"""The lists that a teacher ranks: of a first-stage run, with their texts, which stay on disk.

    lists = read_lists_to_rank(cfg, with_local_files(cfg))
    lists.run["q1"].doc_ids, lists.texts["q1"]                  # (query, passages), read from a file each time

What is in memory does not grow with the passages of a list. A cross-encoder's texts are read into memory, since it
tokenises all of them.
"""

import os
import tempfile
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from omegaconf import DictConfig

from distill.data.teacher_lists import choose_queries
from distill.errors import InputError
from distill.sources.fields import Fields
from distill.sources.run_files import RankedList, Run
from distill.sources.runs import stored_run
from distill.sources.shards import Shard
from distill.sources.stored_passages import Passages, open_unnamed, store_passages
from distill.sources.texts import (
    Texts,
    check_passages,
    known_queries,
    log_empty,
    log_left_out,
    read_passages,
    read_queries,
)
from distill.storage.memory import give_back
from distill.storage.writing import writing
from distill.teachers.asking import Lists
from distill.teachers.worth import TeacherWorth


class ChosenLists(Mapping[str, RankedList]):
    """Some lists of a run, cut to a depth and without some passages, each made when it is asked for."""

    def __init__(self, run: Run, query_ids: list[str], depth: int | None = None, without: Collection[str] = ()):
        """Take the run, the queries in the order of the lists, and the passages to leave out."""
        self.run, self.query_ids, self.depth, self.without = run, dict.fromkeys(query_ids), depth, without

    def __getitem__(self, query_id: str) -> RankedList:
        """Return a list; raises KeyError for a query that was not chosen."""
        if query_id not in self.query_ids:
            raise KeyError(query_id)
        ranked = self.run[query_id].cut(self.depth)
        if not self.without:
            return ranked
        return ranked.keep([doc_id not in self.without for doc_id in ranked.doc_ids])

    def __iter__(self) -> Iterator[str]:
        return iter(self.query_ids)

    def __len__(self) -> int:
        return len(self.query_ids)


class StoredTexts(Mapping[str, tuple[str, list[str]]]):
    """The query and the passages of each list, in the list's order, in a temporary file without a name."""

    def __init__(self, file: IO[bytes], queries: Texts, places: dict[str, int], starts: array):
        """Take what `store_texts` has written; places: of the lists by query id; starts: where each begins."""
        self.file, self.queries, self.places, self.starts = file, queries, places, starts

    def __getitem__(self, query_id: str) -> tuple[str, list[str]]:
        """Return the query and the passages of a list; raises KeyError if there is none."""
        place = self.places[query_id]
        start, end = self.starts[place], self.starts[place + 1]
        lines = os.pread(self.file.fileno(), end - start, start).decode("utf-8", "surrogatepass")
        return self.queries[query_id], lines.split("\n")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def store_texts(run: Run, queries: Texts, passages: Passages) -> StoredTexts:
    """Write the passages of each list, one after the other."""
    file, starts = open_unnamed(), array("q", [0])
    with writing(Path(tempfile.gettempdir()) / "texts"):
        for ranked in run.values():
            lines = "\n".join([passages[doc_id] for doc_id in ranked.doc_ids]).encode("utf-8", "surrogatepass")
            file.write(lines)
            starts.append(starts[-1] + len(lines))
        file.flush()
    return StoredTexts(file, queries, {query_id: place for place, query_id in enumerate(run)}, starts)


@dataclass
class ListsToRank:
    """The lists of a first-stage run that a teacher ranks, with their texts."""

    run: Run
    queries: Texts
    passages: Texts = field(default_factory=dict)  # a cross-encoder's
    texts: Lists = field(default_factory=dict)  # an LLM's

    def __len__(self) -> int:
        return len(self.run)

    @property
    def num_pairs(self) -> int:
        """Number of query-passage pairs."""
        return sum(map(len, self.run.values()))


def read_lists_to_rank(cfg: DictConfig, local: DictConfig) -> ListsToRank:
    """Read the first-stage run, cut to cfg.depth, and its texts; lists that cannot be ranked are left out and counted.

    local: the configuration with local files. Raises InputError for unknown ids, for judgments or a reference that
    share nothing with the lists, and if no list is left.
    """
    run = stored_run(local.run)
    give_back()
    queries = read_queries(local.queries, Fields.of(cfg, "queries"))
    known = known_queries(run, cfg.run, queries, cfg.queries)
    chosen = choose_queries(known, cfg.num_queries, cfg.subset_seed, cfg.run)
    if cfg.shard is not None:
        by_model = cfg.teacher.llm.engine == "cross-encoder"
        sizes = [len(run[query_id].cut(cfg.depth)) for query_id in chosen] if by_model else None
        chosen = Shard.parse(cfg.shard).take(chosen, cfg.run, sizes)
    run = ChosenLists(run, chosen, cfg.depth)
    if cfg.teacher.llm.engine == "cross-encoder":
        doc_ids = {doc_id for ranked in run.values() for doc_id in ranked.doc_ids}
        passages = read_passages(local.passages, doc_ids, Fields.of(cfg))
        lists = ListsToRank(lists_to_rank(run, cfg, passages), queries, passages=passages)
    else:
        stored = store_passages(local.passages, run, Fields.of(cfg))
        run = lists_to_rank(run, cfg, stored)
        lists = ListsToRank(run, queries, texts=store_texts(run, queries, stored))
        del stored
        give_back()
    TeacherWorth.of(lists.run, lists.run, local)  # raises its errors before anything is paid for
    return lists


def lists_to_rank(run: Run, cfg: DictConfig, passages: Passages) -> Run:
    """Return the lists of two or more passages, without empty passages; raises InputError for unknown ids.

    Shorter lists are left out and counted.
    """
    check_passages(run, cfg.run, passages, cfg.passages)
    kept, short = list[str](), list[str]()
    empty, num_empty = dict[str, None](), 0
    for query_id, ranked in run.items():
        without = [doc_id for doc_id in ranked.doc_ids if not passages[doc_id]]
        num_empty += len(without)
        empty.update(dict.fromkeys(without))
        (kept if len(ranked) - len(without) > 1 else short).append(query_id)
    log_empty(cfg.run, num_empty, empty)
    if not kept:
        raise InputError(f"{cfg.run}: no query has two non-empty passages: nothing to rank")
    log_left_out(cfg.run, "queries have fewer than two passages to rank", short, len(run))
    return ChosenLists(run, kept, without=empty)
