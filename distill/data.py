"""Training lists from a teacher, and the batch of every step.

    lists = read_lists(cfg)                                  # which passages, with which targets
    loader = BatchLoader(lists, queries, passages, template, cfg)
    loader[step]                                             # the Batch of that step, always the same

A batch is a function of seed and step alone: a resumed run reads what the stopped one would have read, and the query
ids of any past step can be named.
"""

import logging
from dataclasses import dataclass

import numpy as np
from omegaconf import DictConfig

from distill.batch import Batch, make_batch
from distill.collection import Texts, check_queries, read_passages, read_queries
from distill.errors import InputError
from distill.token_cache import open_token_store
from distill.tokens import PairTemplate, TokenStore
from distill.trec import Qrels, RankedList, Run, find_line, read_qrels, read_run

log = logging.getLogger(__name__)

MAX_IN_MEMORY = 200_000  # passages of all lists: of more, the whole collection is tokenised on disk, once


@dataclass
class TrainingList:
    """The passages of one query with the target that the loss learns from."""

    query_id: str
    doc_ids: list[str]  # K passages
    target: np.ndarray  # [K] float64: ranks (1 = best), labels or teacher scores


@dataclass
class TrainingData:
    """All training lists with their texts."""

    lists: list[TrainingList]
    queries: Texts
    passages: Texts | None  # None where there are so many that their collection is tokenised on disk
    source: str  # of the lists, for messages


def read_training_data(cfg: DictConfig) -> TrainingData:
    """Read what the configuration names, cut the lists and count what was left out.

    Raises InputError for whatever DESIGN calls bad input: unknown ids, lists below two passages, too great a depth.
    """
    queries = read_queries(cfg.data.queries)
    teacher, data = cfg.teacher, cfg.data
    first_stage = read_run(teacher.first_stage) if teacher.first_stage else None
    by_label = cfg.loss.target == "label"
    source = teacher.path if teacher.path and not (by_label and first_stage) else teacher.first_stage
    run = read_run(source) if source != teacher.first_stage else first_stage
    check_queries(run, source, queries, "data.queries")
    _check_list_sizes(run, source)
    run = choose_queries(run, data.num_queries, data.subset_seed, source)
    if data.depth is not None:
        run = _cut_lists(run, first_stage if source != teacher.first_stage else None, data.depth, source, teacher)
    if by_label:
        lists = _label_lists(run, read_qrels(teacher.qrels), teacher.min_grade)
    else:
        lists = [
            TrainingList(query_id, ranked.doc_ids, ranked.ranks if cfg.loss.target == "rank" else ranked.scores)
            for query_id, ranked in run.items()
        ]
    if cfg.loss.target == "rank" and all(len(set(one.target)) == 1 for one in lists):
        raise InputError(
            f"{source}: all passages of every list tie, so there is no ranking to learn: give scores (in JSONL "
            "pos_scores and neg_scores), or learn from labels with loss=lce"
        )
    wanted = {doc_id for one in lists for doc_id in one.doc_ids}
    passages = read_passages(data.passages, wanted) if len(wanted) <= MAX_IN_MEMORY else None
    if passages is not None:
        known = {doc_id: bool(text) for doc_id, text in passages.items()}
        lists = _drop_empty_passages(lists, known, data.passages, source)
    num_passages = sum(len(one.doc_ids) for one in lists)
    log.info("training: %d lists, %d passages, %s", len(lists), num_passages, f"{num_passages / len(lists):.1f} a list")
    return TrainingData(lists, queries, passages, source)


def choose_queries(run: Run, num_queries: int | None, seed: int, source: str) -> Run:
    """Return a random subset of the run's queries; with one seed, smaller subsets lie within larger ones."""
    if num_queries is None:
        return run
    if num_queries > len(run):
        raise InputError(f"data.num_queries={num_queries} exceeds the {len(run)} queries of {source}: lower it")
    query_ids = sorted(run)  # a subset must not depend on the order of the file
    chosen = np.random.default_rng(seed).permutation(len(query_ids))[:num_queries]
    return {query_ids[index]: run[query_ids[index]] for index in sorted(chosen)}


def _check_list_sizes(run: Run, source: str) -> None:
    for query_id, ranked in run.items():
        if len(ranked) < 2:
            raise InputError(
                f"{find_line(source, query_id, ranked.doc_ids[0])}: query {query_id} has one passage: a list to "
                "learn from needs two; remove the line or add passages"
            )


def _cut_lists(run: Run, first_stage: Run | None, depth: int, source: str, teacher: DictConfig) -> Run:
    """Keep the passages within the first stage's top `depth` in the order they have; without one, the run's own top."""
    deepest = max(map(len, run.values()))
    if first_stage is None:
        log.info("data.depth=%d: lists are cut by their own order in %s", depth, source)
        cut = {query_id: ranked.cut(depth) for query_id, ranked in run.items()}
    else:
        log.info("data.depth=%d: lists are cut by the first-stage rank in %s", depth, teacher.first_stage)
        cut = {}
        for query_id, ranked in run.items():
            cut[query_id] = _cut_by_first_stage(query_id, ranked, first_stage, depth, source, teacher.first_stage)
    if depth > deepest:
        raise InputError(
            f"data.depth={depth} exceeds the {deepest} passages of the longest list in {source}: lower data.depth or "
            "use a deeper run"
        )
    short = [query_id for query_id, ranked in cut.items() if len(ranked) < 2]
    if short:
        log.warning(
            "data.depth=%d leaves %d of %d lists with fewer than two passages: left out", depth, len(short), len(run)
        )
    return {query_id: ranked for query_id, ranked in cut.items() if len(ranked) >= 2}


def _cut_by_first_stage(
    query_id: str, ranked: RankedList, first_stage: Run, depth: int, source: str, first_stage_source: str
) -> RankedList:
    known = first_stage[query_id].doc_ids if query_id in first_stage else []
    unknown = set(ranked.doc_ids).difference(known)
    if unknown:
        doc_id = next(doc_id for doc_id in ranked.doc_ids if doc_id in unknown)
        raise InputError(
            f"{find_line(source, query_id, doc_id)}: passage {doc_id} of query {query_id} is not in the first-stage "
            f"run {first_stage_source}: set teacher.first_stage to the run that the teacher re-ranked, or to null"
        )
    top = set(known[:depth])
    kept = np.array([doc_id in top for doc_id in ranked.doc_ids], dtype=bool)
    doc_ids = [doc_id for doc_id, keep in zip(ranked.doc_ids, kept, strict=True) if keep]
    return RankedList(doc_ids, ranked.scores[kept], _ranks_among(ranked.ranks[kept]))


def _ranks_among(ranks: np.ndarray) -> np.ndarray:
    """Return the ranks [K] that some passages of a list have among themselves, ties at their average rank."""
    below = (ranks[:, None] > ranks[None, :]).sum(axis=1)  # how many stand before each passage
    tied = (ranks[:, None] == ranks[None, :]).sum(axis=1)
    return below + (tied + 1) / 2


def _label_lists(run: Run, qrels: Qrels, min_grade: int) -> list[TrainingList]:
    """Lists of a run's passages with their labels; relevant passages that the run missed are added at the end."""
    lists = []
    for query_id, ranked in run.items():
        grades = {doc_id: grade for doc_id, grade in qrels.get(query_id, {}).items() if grade >= max(min_grade, 1)}
        doc_ids = ranked.doc_ids + [doc_id for doc_id in grades if doc_id not in set(ranked.doc_ids)]
        labels = np.array([grades.get(doc_id, 0) for doc_id in doc_ids], dtype=np.float64)
        if labels.any() and not labels.all():
            lists.append(TrainingList(query_id, doc_ids, labels))
    if len(lists) < len(run):
        log.warning(
            "%d of %d queries lack a relevant or an irrelevant passage: left out", len(run) - len(lists), len(run)
        )
    return lists


def _drop_empty_passages(
    lists: list[TrainingList], known: dict[str, bool], source: str, run_source: str
) -> list[TrainingList]:
    """Leave out passages without text; `known` says of each passage of the collection whether it has one."""
    num_empty, kept_lists = 0, []
    for one in lists:
        for doc_id in one.doc_ids:
            if doc_id not in known:
                raise InputError(
                    f"{find_line(run_source, one.query_id, doc_id)}: passage {doc_id} is not in {source}: use the "
                    "collection that belongs to the run"
                )
        kept = [index for index, doc_id in enumerate(one.doc_ids) if known[doc_id]]
        num_empty += len(one.doc_ids) - len(kept)
        if len(kept) >= 2:
            kept_lists.append(TrainingList(one.query_id, [one.doc_ids[index] for index in kept], one.target[kept]))
    if num_empty:
        log.warning("%s: %d empty passages left out of the training lists", source, num_empty)
    if not kept_lists:
        raise InputError(f"{run_source}: no training list is left: see the counts in the log above")
    return kept_lists


def _tokenise_passages(data: TrainingData, tokenizer, cfg: DictConfig) -> tuple[list[TrainingList], TokenStore]:
    """Return the store that holds the lists' passages, and the lists without passages that have no text."""
    if data.passages is not None:
        return data.lists, TokenStore.of(tokenizer, data.passages, cfg.model.passage_length, "passages")
    store = open_token_store(cfg.data.passages, tokenizer, cfg.model.passage_length)
    wanted = list({doc_id for one in data.lists for doc_id in one.doc_ids})
    rows = store.rows(wanted)
    has_text = store.lengths(rows) > 0
    known = {doc_id: text for doc_id, text, row in zip(wanted, has_text, rows, strict=True) if row >= 0}
    return _drop_empty_passages(data.lists, known, cfg.data.passages, data.source), store


class BatchLoader:
    """The batches of a training run: `loader[step]` is the Batch of that step.

    Step n takes the lists n·B … n·B + B − 1 of an endless stream of shuffled epochs, so that every batch is full and
    none of the lists is ever left out.
    """

    def __init__(self, data: TrainingData, tokenizer, cfg: DictConfig):
        """Tokenise all texts of the lists once."""
        self.lists, self.passages = _tokenise_passages(data, tokenizer, cfg)
        used = {one.query_id: data.queries[one.query_id] for one in self.lists}
        self.queries = TokenStore.of(tokenizer, used, cfg.model.query_length, "queries")
        # From here on a passage is a row of the store, and no string is touched in a step
        bounds = np.cumsum([len(one.doc_ids) for one in self.lists])[:-1]
        self.rows = np.split(self.passages.rows([doc_id for one in self.lists for doc_id in one.doc_ids]), bounds)
        self.query_rows = self.queries.rows([one.query_id for one in self.lists])
        self.template = PairTemplate.of(tokenizer)
        self.batch_size = cfg.train.batch_size
        self.num_negatives = cfg.data.num_negatives
        self.list_size, self.list_choice = cfg.data.list_size, cfg.data.list_choice
        self.by_rank = cfg.loss.target == "rank"
        self.seed = cfg.seed
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        places = self._places(step)
        chosen = [self._sample(epoch, index) for epoch, index in places]
        pairs = []
        for (_, index), passages in zip(places, chosen, strict=True):
            query = self.queries[self.query_rows[index]]
            pairs.append([self.template.join(query, self.passages[row]) for row in self.rows[index][passages]])
        targets = [self.lists[index].target[passages] for (_, index), passages in zip(places, chosen, strict=True)]
        if self.by_rank and self.list_size is not None:
            targets = [_ranks_among(target) for target in targets]
        return make_batch([self.lists[index].query_id for _, index in places], pairs, targets)

    def query_ids(self, step: int) -> list[str]:
        """Return the query ids of a step's batch."""
        return [self.lists[index].query_id for _, index in self._places(step)]

    def _places(self, step: int) -> list[tuple[int, int]]:
        """(epoch, list index) of each list of a step."""
        stream = range(step * self.batch_size, (step + 1) * self.batch_size)
        places = [divmod(position, len(self.lists)) for position in stream]
        return [(epoch, int(self._order(epoch)[offset])) for epoch, offset in places]

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old == epoch - 1}
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(len(self.lists))
        return self._orders[epoch]

    def _sample(self, epoch: int, index: int) -> np.ndarray:
        """Places of the passages that an epoch takes of a list, a function of seed, epoch and list."""
        one = self.lists[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        if self.num_negatives is None:
            return choose_passages(len(one.doc_ids), self.list_size, self.list_choice, rng)
        relevant, others = np.flatnonzero(one.target > 0), np.flatnonzero(one.target <= 0)
        return np.r_[rng.choice(relevant), rng.choice(others, min(self.num_negatives, len(others)), replace=False)]


def choose_passages(num_passages: int, list_size: int | None, choice: str, rng: np.random.Generator) -> np.ndarray:
    """Return the places, ascending, of `list_size` passages of a list in the teacher's order; all where it has no more.

    choice: "top" takes the first ones, "random" any, "stratified" one from each of `list_size` equal parts of the list.
    """
    if list_size is None or num_passages <= list_size:
        return np.arange(num_passages)
    if choice == "top":
        return np.arange(list_size)
    if choice == "random":
        return np.sort(rng.choice(num_passages, list_size, replace=False))
    bounds = np.arange(list_size + 1) * num_passages // list_size
    return rng.integers(bounds[:-1], bounds[1:])
