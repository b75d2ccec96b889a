"""Training lists: which passages stand in a query's list, and what the loss learns from them.

    lists = read_lists(cfg, tokenizer)
    rows, targets = lists[7]                                    # passages of list 7, as rows of lists.passages
    lists.query_id(7)

The teacher's lists come one at a time (`RankedLists`, `TripleLists`), so that a hundred million lines go through little
memory; their ids are joined to the rows of the token stores, once. Lists of many lines, and the stores that they point
into, lie in the cache on disk; then nothing is read again in a later run.
"""

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from distill.config.checks import needs_first_stage
from distill.data.token_store import open_token_store, store_key
from distill.data.tokens import TokenStore, warn_of_cut_queries
from distill.errors import InputError
from distill.sources.fields import Fields, checked_id, read_number
from distill.sources.locate import source_state
from distill.sources.permutations import read_permuted_run
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList
from distill.sources.runs import LARGE_FILE, CachedRun, read_run
from distill.sources.texts import log_left_out, read_passages, read_queries
from distill.storage.arrays import FlatFile, offsets_of
from distill.storage.cache import entry, key_of, make_once
from distill.storage.files import as_text, find_line, numbered_lines

log = logging.getLogger(__name__)

FORMAT = 2  # of the files of cached lists: those of another format are made anew
MAX_IN_MEMORY = 250_000  # lines of all lists: of more, the whole collection is tokenised on disk, once
BLOCK = 1_000  # lists that are joined to the token stores at once
TRIPLE = "score+ score− query_id doc_id+ doc_id−"
ARRAYS = {"query_rows": np.int32, "starts": np.int64, "rows": np.int32, "targets": np.float32}


@dataclass
class TeacherList:
    """The passages of one query with the target that the loss learns from."""

    query_id: str
    doc_ids: list[str]  # K passages
    target: np.ndarray  # [K]: ranks (1 = best), labels or teacher scores
    num_added: int = 0  # so many at the end are relevant passages that the run has missed


@dataclass
class TrainingLists:
    """L lists with N passages in all, in flat columns: list l has the passages starts[l] to starts[l + 1]."""

    queries: TokenStore
    passages: TokenStore
    query_rows: np.ndarray  # [L] int32: the row of each list's query
    starts: np.ndarray  # [L + 1] int64
    rows: np.ndarray | FlatFile  # [N] int32: the row of each passage
    targets: np.ndarray | FlatFile  # [N] float32: ranks (1 = best), labels or teacher scores

    def __len__(self) -> int:
        return len(self.query_rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the passages of a list, [K] rows, and their targets [K]."""
        entries = slice(self.starts[index], self.starts[index + 1])
        return self.rows[entries], self.targets[entries]

    def query_id(self, index: int) -> str:
        """Return the id of a list's query."""
        return self.queries.text_id(self.query_rows[index])


def read_lists(cfg: DictConfig, tokenizer) -> TrainingLists:
    """Read what the configuration names, cut the lists, tokenise their texts, and log what was left out.

    Raises InputError for what is wrong: unknown passages, too great a depth. What is incomplete is left out and
    counted: lists of fewer than two passages, empty passages, queries without a text.
    """
    source = TripleLists(cfg) if cfg.teacher.format == "triples" else RankedLists(cfg)
    data, model = cfg.data, cfg.model
    texts = [
        (data.queries, model.query_length, "queries", Fields.of(data, "queries")),
        (data.passages, model.passage_length, "passages", Fields.of(data)),
    ]
    if source.is_large:
        stores = [open_token_store(path, tokenizer, *how) for path, *how in texts]
        made_from = {
            "stores": [store_key(path, tokenizer, *how) for path, *how in texts],
            "sources": [source_state(path) for path in source.sources],
            "options": source.options,
            "format": FORMAT,
        }
        directory = entry("lists", cfg.teacher.name, key_of(**made_from))
        make_once(directory, lambda path: _write(path, _Join(cfg, source.path, *stores).blocks(source)))
        columns = {name: FlatFile(directory / name, np.dtype(dtype)) for name, dtype in ARRAYS.items()}
        columns |= {name: columns[name].read() for name in ("query_rows", "starts")}
    else:
        lists = list(source)
        passages = read_passages(data.passages, {doc_id for one in lists for doc_id in one.doc_ids}, texts[1][3])
        queries = read_queries(data.queries, texts[0][3])
        queries = {one.query_id: queries[one.query_id] for one in lists if one.query_id in queries}
        stores = [
            TokenStore.of(tokenizer, found, length, what)
            for found, (_, length, what, _) in zip((queries, passages), texts, strict=True)
        ]
        columns = _concatenate(list(_Join(cfg, source.path, *stores).blocks(lists)))
    lists = TrainingLists(*stores, **columns)
    rows = np.unique(lists.query_rows)
    warn_of_cut_queries(lists.queries.cut_ids(rows), len(rows), model.query_length, "training")
    num_passages = len(lists.rows)
    log.info("training: %d lists, %d passages, %.1f a list", len(lists), num_passages, num_passages / len(lists))
    return lists


class RankedLists:
    """The lists of a run: a teacher's ranking, or the first stage's with labels."""

    def __init__(self, cfg: DictConfig):
        """Open the runs; raises InputError for bad ones, and too great a depth."""
        teacher, data = cfg.teacher, cfg.data
        self.cfg, self.depth, self.target = cfg, data.depth, cfg.loss.target
        first_stage = read_run(teacher.first_stage) if teacher.first_stage and needs_first_stage(cfg) else None
        if teacher.path is None or (self.target == "label" and first_stage is not None):
            self.path, self.run, self.first_stage = teacher.first_stage, first_stage, None
        elif teacher.format == "permutations":
            self.path, self.first_stage = teacher.path, first_stage
            self.run = read_permuted_run(teacher.path, first_stage, teacher.first_stage)
        else:
            self.path, self.run, self.first_stage = teacher.path, read_run(teacher.path), first_stage
        self._check_sizes()
        self.query_ids = choose_queries(self.run, data.num_queries, data.subset_seed, self.path)

    @property
    def is_large(self) -> bool:
        """Whether there are too many lines to keep their texts in memory."""
        return self.num_lines > MAX_IN_MEMORY

    @property
    def sources(self) -> list[str]:
        """The files and ids that the lists come from."""
        teacher = self.cfg.teacher
        qrels = teacher.qrels if self.target == "label" else None
        return [
            path for path in (self.path, teacher.first_stage if needs_first_stage(self.cfg) else None, qrels) if path
        ]

    @property
    def options(self) -> dict:
        """What the lists depend on besides."""
        teacher, data = self.cfg.teacher, self.cfg.data
        options = {"target": self.target, "format": teacher.format, "min_grade": teacher.min_grade}
        return options | {key: data[key] for key in ("depth", "num_queries", "subset_seed")}

    def __len__(self) -> int:
        return len(self.query_ids)

    def __iter__(self) -> Iterator[TeacherList]:
        """Yield the lists; afterwards log what was left out."""
        qrels = read_qrels(self.cfg.teacher.qrels) if self.target == "label" else None
        if self.depth is not None:
            by = (
                f"the first-stage rank in {self.cfg.teacher.first_stage}"
                if self.first_stage
                else f"their own order in {self.path}"
            )
            log.info("data.depth=%d: lists are cut by %s", self.depth, by)
        short, unlabelled, tied = [], [], []
        for query_id in self.query_ids:
            ranked = self._cut(query_id, self.run[query_id])
            if len(ranked) < 2:
                short.append(query_id)
            elif qrels is not None:
                one = _label_list(query_id, ranked, qrels.get(query_id, {}), self.cfg.teacher.min_grade)
                if one is None:
                    unlabelled.append(query_id)
                else:
                    yield one
            else:
                if self.target == "rank" and ranked.ranks[0] == ranked.ranks[-1]:
                    tied.append(query_id)
                yield TeacherList(query_id, ranked.doc_ids, ranked.ranks if self.target == "rank" else ranked.scores)
        at_depth = f" at data.depth={self.depth}" if self.depth is not None else ""
        log_left_out(self.path, f"lists have fewer than two passages{at_depth}", short, len(self))
        log_left_out(self.path, "queries lack a relevant or an irrelevant passage", unlabelled, len(self))
        if tied and len(tied) == len(self) - len(short):
            raise InputError(
                f"{self.path}: all passages of every list tie, so there is no ranking to learn: give scores (in JSONL "
                "pos_scores and neg_scores), or learn from labels with loss=lce"
            )
        if tied:
            log.warning(
                "%s: in %d of %d lists all passages tie, which teaches no order (first: %s)",
                *(self.path, len(tied), len(self), tied[0]),
            )

    def _check_sizes(self) -> None:
        sizes = (
            np.diff(self.run.starts) if isinstance(self.run, CachedRun) else np.array([*map(len, self.run.values())])
        )
        self.num_lines = int(sizes.sum())
        if sizes.max() < 2:
            query_id = next(iter(self.run))
            raise InputError(
                f"{find_line(self.path, query_id)}: query {query_id} has one passage, as have all {len(sizes)} "
                "queries: a list to learn from needs two: use a deeper run"
            )
        if self.depth is not None and self.depth > sizes.max():
            raise InputError(
                f"data.depth={self.depth} exceeds the {sizes.max()} passages of the longest list in {self.path}: lower "
                "data.depth or use a deeper run"
            )

    def _cut(self, query_id: str, ranked: RankedList) -> RankedList:
        """Keep the passages of the first stage's top `depth` in the order they have; without one, the run's own top."""
        if self.depth is None or self.first_stage is None:
            return ranked.cut(self.depth)
        known = self.first_stage[query_id].doc_ids if query_id in self.first_stage else []
        unknown = set(ranked.doc_ids).difference(known)
        if unknown:
            doc_id = next(doc_id for doc_id in ranked.doc_ids if doc_id in unknown)
            raise InputError(
                f"{find_line(self.path, query_id, doc_id)}: passage {doc_id} of query {query_id} is not in the "
                f"first-stage run {self.cfg.teacher.first_stage}: set teacher.first_stage to the run that the teacher "
                "re-ranked, or to null"
            )
        top = set(known[: self.depth])
        kept = ranked.keep([doc_id in top for doc_id in ranked.doc_ids])
        return replace(kept, ranks=ranks_among(kept.ranks))


class TripleLists:
    """Lists of two, from lines of two scores, a query and two passages (Hofstätter et al., 2020).

    A triple gives any target: its teacher scores, their order, or the labels 1 and 0.
    """

    def __init__(self, cfg: DictConfig):
        """Keep the path; nothing is read yet unless queries are to be chosen."""
        self.cfg, self.path = cfg, cfg.teacher.path
        self.target = cfg.loss.target
        self.sources = [self.path]
        self.options = {"target": self.target} | {key: cfg.data[key] for key in ("num_queries", "subset_seed")}
        if not os.path.isfile(self.path):
            raise InputError(f"teacher.path={self.path}: no such file: teacher.format=triples reads a file of them")
        self.is_large = os.path.getsize(self.path) > LARGE_FILE

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
                if self.target == "label":
                    target = np.array([1.0, 0.0])
                elif self.target == "rank":
                    target = ranks_among(-scores)
                else:
                    target = scores
                yield TeacherList(query_id, doc_ids, target)
        if empty:
            raise InputError(f"{self.path}: holds no triple: expected lines of `{TRIPLE}`")

    def _triples(self) -> Iterator[tuple[str, list[str], np.ndarray]]:
        for place, line in numbered_lines(self.path):
            as_text(line, place)
            columns = [column.decode() for column in line.split()]
            if len(columns) != 5:
                raise InputError(f"{place}: {len(columns)} columns instead of five: expected `{TRIPLE}`")
            scores = np.array([read_number(text, "score", place) for text in columns[:2]])
            columns = [*columns[:2], *(checked_id(text, place) for text in columns[2:])]
            if columns[3] == columns[4]:
                raise InputError(f"{place}: passage {columns[3]} stands on both sides: a triple needs two passages")
            yield columns[2], columns[3:], scores


def choose_queries(query_ids: Iterable[str], num_queries: int | None, seed: int, source: str) -> list[str]:
    """Return a random subset of the queries; with one seed, smaller subsets lie within larger ones."""
    query_ids = list(query_ids)
    if num_queries is None:
        return query_ids
    if num_queries > len(query_ids):
        raise InputError(f"num_queries={num_queries} exceeds the {len(query_ids)} queries of {source}: lower it")
    query_ids.sort()  # a subset must not depend on the order of the file
    chosen = np.random.default_rng(seed).permutation(len(query_ids))[:num_queries]
    return [query_ids[index] for index in sorted(chosen)]


def ranks_among(ranks: np.ndarray) -> np.ndarray:
    """Return the ranks [K] that some passages of a list have among themselves, ties at their average rank."""
    below = (ranks[:, None] > ranks[None, :]).sum(axis=1)  # how many stand before each passage
    tied = (ranks[:, None] == ranks[None, :]).sum(axis=1)
    return below + (tied + 1) / 2


def _label_list(query_id: str, ranked: RankedList, judged: dict[str, int], min_grade: int) -> TeacherList | None:
    """A run's passages with their labels, relevant ones that it missed at the end; None if all labels are alike.

    Relevant is what is judged min_grade or better; everything else of the run is a negative.
    """
    grades = {doc_id: grade for doc_id, grade in judged.items() if grade >= max(min_grade, 1)}
    listed = set(ranked.doc_ids)
    added = [doc_id for doc_id in grades if doc_id not in listed]
    labels = np.array([grades.get(doc_id, 0) for doc_id in ranked.doc_ids] + [grades[doc_id] for doc_id in added])
    if not labels.any() or labels.all():
        return None
    return TeacherList(query_id, ranked.doc_ids + added, labels, len(added))


@dataclass
class _Join:
    """Replaces ids by the rows of the token stores, and drops passages and lists without text."""

    cfg: DictConfig
    path: str  # of the lists, for messages
    queries: TokenStore
    passages: TokenStore
    num_empty: int = 0
    num_missing: int = 0
    no_query: list[str] = field(default_factory=list)  # ids of the lists that were dropped for it
    num_lists: int = 0

    def blocks(self, lists: Iterable[TeacherList]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the columns of some lists at a time, with `sizes` in place of `starts`; log what was dropped."""
        data, any_list = self.cfg.data, False
        total = len(lists) if hasattr(lists, "__len__") else None
        with tqdm(desc=f"reading {self.path}", total=total, unit=" lists", disable=None) as bar:
            lists = iter(lists)
            while block := list(itertools.islice(lists, BLOCK)):
                columns = self._join(block)
                any_list |= len(columns["sizes"]) > 0
                yield columns
                bar.update(len(block))
        if self.num_empty:
            log.warning("%s: %d empty passages left out of the training lists", data.passages, self.num_empty)
        if self.num_missing:
            log.warning(
                "%s: lacks %d of the relevant passages that %s has missed: left out",
                *(data.passages, self.num_missing, self.path),
            )
        log_left_out(self.path, f"lists are of queries without a text in {data.queries}", self.no_query, self.num_lists)
        if not any_list:
            raise InputError(f"{self.path}: no training list is left: see the counts in the log above")

    def _join(self, block: list[TeacherList]) -> dict[str, np.ndarray]:
        query_rows = self.queries.rows([one.query_id for one in block])
        has_query = (query_rows >= 0) & (self.queries.lengths(query_rows) > 0)
        self.num_lists += len(block)
        self.no_query += [one.query_id for one, has in zip(block, has_query, strict=True) if not has]
        rows = self.passages.rows([doc_id for one in block for doc_id in one.doc_ids])
        target = np.concatenate([one.target for one in block]).astype(np.float32)
        ends = np.cumsum([len(one.doc_ids) for one in block])
        index = np.repeat(np.arange(len(block)), [len(one.doc_ids) for one in block])  # the list of each passage
        added = np.arange(len(rows)) >= (ends - [one.num_added for one in block])[index]
        unknown = rows < 0
        if (unknown & ~added).any():
            one = block[index[np.argmax(unknown & ~added)]]
            doc_id = next(
                doc_id for doc_id, row in zip(one.doc_ids, self.passages.rows(one.doc_ids), strict=True) if row < 0
            )
            raise InputError(
                f"{find_line(self.path, one.query_id, doc_id)}: passage {doc_id} is not in {self.cfg.data.passages}: "
                "use the collection that belongs to the run"
            )
        empty = ~unknown & (self.passages.lengths(rows) == 0)
        self.num_missing += int(unknown.sum())
        self.num_empty += int(empty.sum())
        kept = ~unknown & ~empty
        sizes = np.bincount(index[kept], minlength=len(block))
        usable = has_query & (sizes >= 2)
        if self.cfg.loss.target == "label":
            num_relevant = np.bincount(index[kept & (target > 0)], minlength=len(block))
            usable &= (num_relevant > 0) & (num_relevant < sizes)
        elif self.cfg.loss.target == "rank":
            for shorter in np.unique(index[~kept]):
                among = kept & (index == shorter)
                target[among] = ranks_among(target[among])
        kept &= usable[index]
        return {
            "query_rows": query_rows[usable].astype(np.int32),
            "sizes": sizes[usable],
            "rows": rows[kept].astype(np.int32),
            "targets": target[kept],
        }


def _concatenate(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return columns | {"starts": offsets_of(columns.pop("sizes"))}


def _write(directory: Path, blocks: Iterator[dict[str, np.ndarray]]) -> None:
    """Write the columns of lists to files, a block at a time."""
    names = [name for name in ARRAYS if name != "starts"]
    sizes = []
    files = {name: open(directory / name, "wb") for name in names}  # noqa: SIM115
    try:
        for block in blocks:
            sizes.append(block["sizes"])
            for name in names:
                block[name].tofile(files[name])
    finally:
        for file in files.values():
            file.close()
    offsets_of(np.concatenate(sizes)).tofile(directory / "starts")
