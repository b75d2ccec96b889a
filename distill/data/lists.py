"""Training lists: which passages a query's list holds, and what the loss learns from them.

    lists = read_lists(cfg, tokenizer)
    rows, targets = lists[7]                                    # passages of list 7, as rows of lists.passages
    targets["rank"]                                             # what the loss learns from, by name
    lists.query_id(7)

The teacher's lists come one at a time (`TeacherLists`), so that a hundred million lines need little memory. Their ids
are replaced by rows of the token stores, once. Large lists are kept in the cache on disk, as are the stores that they
point into: a later run reads no source again.
"""

import itertools
import logging
import operator
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distill.data.joined_lists import TeacherLists
from distill.data.negatives import REPORT, by_score
from distill.data.teacher_lists import TeacherList, needs_relevant, ranks_among
from distill.data.token_store import open_token_store, store_key
from distill.data.tokens import TokenStore, unknown_share, warn_of_cut_queries
from distill.errors import InputError
from distill.progress import Progress
from distill.sources.fields import Fields
from distill.sources.locate import source_state
from distill.sources.runs import find_line
from distill.sources.texts import log_left_out, read_passages, read_queries, warn_of_unknown
from distill.storage.arrays import FlatFile, offsets_of
from distill.storage.cache import entry, key_of, make_once
from distill.storage.writing import write_whole
from distill.targets import kept_targets, split_target

log = logging.getLogger(__name__)

FORMAT = 4  # of the files of cached lists: those in another format are rebuilt
BLOCK = 1_000  # lists joined to the token stores at once
ARRAYS: dict[str, type] = {"query_rows": np.int32, "starts": np.int64, "rows": np.int32}  # and the targets, float32
NUMBERS: dict[str, type] = {"numbers": np.uint8}  # only of lists whose pairs hold the first stage's score
SUMMED_AT_ONCE = 2**20  # values of a column, in a checksum: bounds the memory that it takes
MAX_SUMMED = 100_000  # passages whose tokens are in a checksum: those of a large collection are gigabytes on disk


@dataclass
class TrainingLists:
    """L lists with N passages in all, in flat columns: list l has the passages starts[l] to starts[l + 1]."""

    queries: TokenStore
    passages: TokenStore
    query_rows: np.ndarray  # [L] int32: the row of each list's query
    starts: np.ndarray  # [L + 1] int64
    rows: np.ndarray | FlatFile  # [N] int32: the row of each passage
    targets: dict[str, np.ndarray] | dict[str, FlatFile]  # of [N] float32: ranks (1 = best), labels or teacher scores
    numbers: np.ndarray | FlatFile | None = None  # [N] uint8: what is read for first-stage scores; None: nothing

    def __len__(self) -> int:
        return len(self.query_rows)

    @property
    def longest(self) -> int:
        """Number of passages in the longest list."""
        return int(np.diff(self.starts).max())

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the passages of a list, [K] rows, and their targets [K] by name; NaN where a teacher has none."""
        entries = slice(self.starts[index], self.starts[index + 1])
        return self.rows[entries], {name: values[entries] for name, values in self.targets.items()}

    def numbers_of(self, index: int) -> np.ndarray | None:
        """Return the numbers [K] that are read for the first-stage scores of a list, None if none are."""
        return None if self.numbers is None else self.numbers[self.starts[index] : self.starts[index + 1]]

    def query_id(self, index: int) -> str:
        """Return the id of a list's query."""
        return self.queries.text_id(self.query_rows[index])

    def checksum(self) -> int:
        """Return a CRC-32 of all ids and targets, and of the tokens of evenly spread lists, up to MAX_SUMMED passages.

        Where in the stores the texts are does not count: it depends on what else their files hold, and in which order.
        """
        queries, passages = _hashed_ids(self.queries), _hashed_ids(self.passages)
        value = zlib.crc32(self.starts, zlib.crc32(queries[self.query_rows]))
        for rows in _in_parts(self.rows):
            value = zlib.crc32(passages[rows], value)
        for column in (*self.targets.values(), *([] if self.numbers is None else [self.numbers])):
            for values in _in_parts(column):
                value = zlib.crc32(values, value)
        for index in range(0, len(self), -(-len(self.rows) // MAX_SUMMED)):
            rows, _ = self[index]
            texts = [self.queries[self.query_rows[index]], *(self.passages[row] for row in rows)]
            value = zlib.crc32(np.concatenate(texts), value)
        return value


def _hashed_ids(store: TokenStore) -> np.ndarray:
    """Return the hash of each row's id, [N] uint64."""
    hashes = np.empty(len(store), np.uint64)
    hashes[store.hashed_rows] = store.hashes
    return hashes


def _in_parts(column: np.ndarray | FlatFile) -> Iterator[np.ndarray]:
    for first in range(0, len(column), SUMMED_AT_ONCE):
        yield column[first : min(first + SUMMED_AT_ONCE, len(column))]


def read_lists(
    cfg: DictConfig, tokenizer, forms: tuple[str, str] = ("{}", "{}"), report: Path | None = None
) -> TrainingLists:
    """Read the configured sources, cut the lists, tokenise their texts, and log what was left out.

    forms: how queries and passages are tokenised (`PairTemplate.query_text`, `passage_text`). report: the file to list
    false negatives in, if data.negatives looks for any.

    Raises InputError for unknown passages and too great a depth. Incomplete input is left out and counted: lists of
    fewer than two passages, empty passages, queries without a text.
    """
    taught = TeacherLists(cfg)
    report = report if by_score(cfg.data.negatives) else None
    lists = (_lists_on_disk if taught.is_large else _lists_in_memory)(cfg, tokenizer, taught, forms, report)
    query_rows = np.unique(lists.query_rows)
    warn_of_cut_queries(lists.queries.cut_ids(query_rows), len(query_rows), cfg.model.query_length, "training")
    for store, what in ((lists.queries, "queries"), (lists.passages, "passages")):
        warn_of_unknown(unknown_share(store, tokenizer), f"training {what}")
    num_lists, num_passages = len(lists.query_rows), len(lists.rows)
    log.info("training: %d lists, %d passages, %.1f a list", num_lists, num_passages, num_passages / num_lists)
    _warn_of_short_lists(cfg.data, lists, taught.path)
    return lists


def _warn_of_short_lists(data: DictConfig, lists: TrainingLists, path: str) -> None:
    """Warn of lists that have fewer negatives than a step asks for, and of a list size that shortens no list."""
    if data.num_negatives is not None:
        few = np.flatnonzero(_count_negatives(lists) < data.num_negatives)
        if len(few):
            log.warning(
                "data.num_negatives=%d: %d of %d lists of %s have fewer negatives, and give all of theirs (first: %s)",
                *(data.num_negatives, len(few), len(lists), path, lists.query_id(few[0])),
            )
    if data.list_size is not None and data.list_size > lists.longest:
        log.warning(
            "data.list_size=%d: is longer than every list of %s: all are taken whole, the longest of %d passages",
            *(data.list_size, path, lists.longest),
        )


def _count_negatives(lists: TrainingLists) -> np.ndarray:
    """Return how many passages of each list are not relevant, [L]; the labels are read in parts, once."""
    before = np.zeros(len(lists) + 1, np.int64)  # how many there are before each list, and in all
    first = total = 0
    for labels in _in_parts(lists.targets["label"]):
        counts = total + np.append(0, np.cumsum(labels <= 0))  # before each passage of the part, and behind the last
        within = slice(*np.searchsorted(lists.starts, (first, first + len(counts))))
        before[within] = counts[lists.starts[within] - first]
        first, total = first + len(labels), int(counts[-1])
    return np.diff(before)


def _lists_in_memory(
    cfg: DictConfig, tokenizer, taught: TeacherLists, forms: tuple[str, str], report: Path | None
) -> TrainingLists:
    """Read the lists and tokenise the texts that they name."""
    taught.list_false_negatives(report)
    data, lists = cfg.data, list(taught)
    wanted = {doc_id for each in lists for doc_id in each.doc_ids}
    passages = read_passages(data.passages, wanted, Fields.of(data))
    queries = read_queries(data.queries, Fields.of(data, "queries"))
    queries = {each.query_id: queries[each.query_id] for each in lists if each.query_id in queries}
    query_store = TokenStore.of(tokenizer, queries, cfg.model.query_length, "queries", forms[0])
    passage_store = TokenStore.of(tokenizer, passages, cfg.model.passage_length, "passages", forms[1])
    blocks = list(_Join(cfg, taught.path, query_store, passage_store).blocks(lists))
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    targets = {name: columns.pop(column) for name, column in target_columns(cfg).items()}
    starts = offsets_of(columns.pop("sizes"))
    return TrainingLists(query_store, passage_store, starts=starts, targets=targets, **columns)


def _lists_on_disk(
    cfg: DictConfig, tokenizer, taught: TeacherLists, forms: tuple[str, str], report: Path | None
) -> TrainingLists:
    """Open the lists in the cache, with the stores of both collections; build what is missing."""
    data, model = cfg.data, cfg.model
    texts = [
        (data.queries, tokenizer, model.query_length, "queries", Fields.of(data, "queries"), forms[0]),
        (data.passages, tokenizer, model.passage_length, "passages", Fields.of(data), forms[1]),
    ]
    stores = [open_token_store(*each) for each in texts]
    made_from = {
        "stores": [store_key(*each) for each in texts],
        "sources": [source_state(name) for name in taught.sources],
        "options": taught.options,
        "format": FORMAT,
    }
    blocks = _Join(cfg, taught.path, *stores).blocks(taught)
    directory = entry("lists", cfg.teacher.name, key_of(**made_from))
    targets = target_columns(cfg)
    arrays = ARRAYS | dict.fromkeys(targets.values(), np.float32)
    arrays |= {} if model.first_stage_score is None else NUMBERS

    def write(aside: Path) -> None:
        taught.list_false_negatives(aside / REPORT)
        _write(aside, blocks, arrays)

    make_once(directory, write)
    if report is not None:
        write_whole(report, lambda aside: shutil.copyfile(directory / REPORT, aside))
    columns = {name: FlatFile(directory / name, np.dtype(dtype)) for name, dtype in arrays.items()}
    columns |= {name: columns[name].read() for name in ("query_rows", "starts")}
    by_name = {name: columns.pop(column) for name, column in targets.items()}
    return TrainingLists(*stores, targets=by_name, **columns)


def target_columns(cfg: DictConfig) -> dict[str, str]:
    """Return the name of the column that holds each target of the lists: `targets` if there is only one."""
    names = kept_targets(cfg)
    return {name: "targets" if len(names) == 1 else f"targets.{name}" for name in names}


@dataclass
class _Join:
    """Replaces ids by the rows of the token stores, and drops passages and lists without text."""

    cfg: DictConfig
    path: str  # of the lists, for messages
    queries: TokenStore
    passages: TokenStore
    num_lists: int = 0
    num_kept: int = 0
    empty: list[str] = field(default_factory=list)  # passages without a text
    missing: list[str] = field(default_factory=list)  # relevant passages that the collection lacks
    num_unscored: int = 0  # passages kept that the first stage lacks, where its scores are read
    no_query: list[str] = field(default_factory=list)  # query ids of the lists that were dropped for lack of a text
    shrunk: list[str] = field(default_factory=list)  # of those that the passages left teach nothing

    def blocks(self, lists: Iterable[TeacherList]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the columns of some lists at a time, with `sizes` in place of `starts`; log what was dropped."""
        total = operator.length_hint(lists) or None
        with Progress(desc=f"reading {self.path}", total=total, unit=" lists") as bar:
            lists = iter(lists)
            while block := list(itertools.islice(lists, BLOCK)):
                yield self._join(block)
                bar.update(len(block))
        passages, queries = self.cfg.data.passages, self.cfg.data.queries
        if self.empty:
            log.warning(
                "%s: %d empty passages left out of the training lists (first: %s)",
                *(passages, len(self.empty), self.empty[0]),
            )
        if self.missing:
            log.warning(
                "%s: lacks %d of the relevant passages missing from %s: left out (first: %s)",
                *(passages, len(self.missing), self.path, self.missing[0]),
            )
        if self.num_unscored:
            log.info(
                "%s: lacks %d of the training passages: 0 is read as their first-stage score",
                *(self.cfg.teacher.first_stage, self.num_unscored),
            )
        if self.no_query:
            log_left_out(self.path, f"lists are of queries without a text in {queries}", self.no_query, self.num_lists)
        both = ", or none that is relevant and one that is not" if needs_relevant(self.cfg) else ""
        log_left_out(self.path, f"lists have fewer than two passages with a text{both}", self.shrunk, self.num_lists)
        if not self.num_kept:
            raise InputError(f"{self.path}: no training list is left: see the counts in the log above")

    def _join(self, lists: list[TeacherList]) -> dict[str, np.ndarray]:
        """Join L lists with N passages."""
        query_rows = self.queries.rows([each.query_id for each in lists])
        has_query = (query_rows >= 0) & (self.queries.lengths(query_rows) > 0)
        doc_ids = [doc_id for each in lists for doc_id in each.doc_ids]
        rows = self.passages.rows(doc_ids)  # [N]
        targets = {name: self._as_float32(name, lists) for name in lists[0].targets}  # of [N]
        owner = np.repeat(np.arange(len(lists)), [len(each.doc_ids) for each in lists])  # [N] the list of each passage
        unknown = rows < 0
        if unknown.any():
            self._check_known(lists, unknown, owner)
        empty = ~unknown & (self.passages.lengths(rows) == 0)
        kept = ~unknown & ~empty
        self.num_lists += len(lists)
        self.missing += [doc_ids[place] for place in np.flatnonzero(unknown)]
        self.empty += [doc_ids[place] for place in np.flatnonzero(empty)]
        self.no_query += [lists[place].query_id for place in np.flatnonzero(~has_query)]
        sizes = np.bincount(owner[kept], minlength=len(lists))  # [L]
        usable = has_query & (sizes >= 2)  # [L]
        if needs_relevant(self.cfg):
            for part in (targets["label"] > 0, targets["label"] <= 0):
                usable &= np.bincount(owner[kept & part], minlength=len(lists)) > 0
        self.shrunk += [lists[place].query_id for place in np.flatnonzero(has_query & ~usable)]
        if not kept.all():
            for name in (name for name in targets if split_target(name)[1] == "rank"):
                _close_gaps(targets[name], owner, kept)
        kept &= usable[owner]
        self.num_kept += int(usable.sum())
        return {
            "query_rows": query_rows[usable].astype(np.int32),
            "sizes": sizes[usable],
            "rows": rows[kept].astype(np.int32),
            **{column: targets[name][kept] for name, column in target_columns(self.cfg).items()},
        } | self._numbers(lists, kept)

    def _as_float32(self, name: str, lists: list[TeacherList]) -> np.ndarray:
        """Return a target of the N passages; raises InputError for a score that is too large."""
        values = np.concatenate([each.targets[name] for each in lists])
        too_large = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
        if len(too_large):
            place, teacher = int(too_large[0]), split_target(name)[0]
            path = self.cfg.teachers[teacher].path if teacher else self.path
            query_id, doc_id = [(each.query_id, doc_id) for each in lists for doc_id in each.doc_ids][place]
            raise InputError(
                f"{find_line(path, query_id, doc_id)}: score {values[place]:g} is more than float32 holds, in "
                "which training computes: rescale the teacher's scores"
            )
        return values.astype(np.float32)

    def _numbers(self, lists: list[TeacherList], kept: np.ndarray) -> dict[str, np.ndarray]:
        """Return the column of numbers that are read for first-stage scores, of the N passages that are kept."""
        if self.cfg.model.first_stage_score is None:
            return {}
        numbers = np.concatenate([each.numbers for each in lists])[kept]
        self.num_unscored += int((numbers == 0).sum())
        return {"numbers": numbers}

    def _check_known(self, lists: list[TeacherList], unknown: np.ndarray, owner: np.ndarray) -> None:
        """Raise InputError where the collection lacks a passage of the run; judged passages may be missing."""
        ends = np.cumsum([len(each.doc_ids) for each in lists])
        added = np.arange(len(unknown)) >= (ends - [each.num_added for each in lists])[owner]
        if (unknown & ~added).any():
            place = int(np.argmax(unknown & ~added))
            bad = lists[owner[place]]
            doc_id = bad.doc_ids[place - int(ends[owner[place]]) + len(bad.doc_ids)]
            raise InputError(
                f"{find_line(self.path, bad.query_id, doc_id)}: passage {doc_id} is not in {self.cfg.data.passages}: "
                "use the collection that belongs to the run"
            )


def _close_gaps(ranks: np.ndarray, owner: np.ndarray, kept: np.ndarray) -> None:
    """Rank the kept passages of each list among themselves, in place; all arrays are [N]."""
    for shorter in np.unique(owner[~kept]):
        among = kept & (owner == shorter)
        ranks[among] = ranks_among(ranks[among])


def _write(directory: Path, blocks: Iterator[dict[str, np.ndarray]], arrays: dict[str, type]) -> None:
    """Write the columns of lists to files, a block at a time."""
    names = [name for name in arrays if name != "starts"]
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
