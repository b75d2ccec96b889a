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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from distill.data.teacher_lists import RankedLists, TeacherList, TripleLists, ranks_among
from distill.data.token_store import open_token_store, store_key
from distill.data.tokens import TokenStore, warn_of_cut_queries
from distill.errors import InputError
from distill.sources.fields import Fields
from distill.sources.locate import source_state
from distill.sources.texts import log_left_out, read_passages, read_queries
from distill.storage.arrays import FlatFile, offsets_of
from distill.storage.cache import entry, key_of, make_once
from distill.storage.files import find_line

log = logging.getLogger(__name__)

FORMAT = 2  # of the files of cached lists: those of another format are made anew
BLOCK = 1_000  # lists that are joined to the token stores at once
ARRAYS = {"query_rows": np.int32, "starts": np.int64, "rows": np.int32, "targets": np.float32}


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
