"""The batch of every training step.

    loader = BatchLoader(read_lists(cfg, tokenizer), PairTemplate.of(tokenizer), cfg)
    loader[step]                                             # the Batch of that step, always the same
    for batch in loader.batches(first, last, num_workers=2): ...

A batch is a function of only seed and step: a resumed run reads what the stopped one would have read, any number of
workers prepares the same batches, and ranks share the lists of a step out among themselves.
"""

import signal
import zlib
from collections.abc import Iterator
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from distill.data.batch import Batch, make_batch
from distill.data.lists import TrainingLists
from distill.data.pairs import PairTemplate
from distill.data.teacher_lists import needs_relevant, ranks_among
from distill.targets import split_target, targets_of

BATCHES_AHEAD = 4  # that each worker prepares


class Sample(NamedTuple):
    """What a step takes of a list: K of its passages."""

    list_index: int
    rows: np.ndarray  # [K], in the store of passages
    targets: dict[str, np.ndarray]  # of [K], by name
    numbers: np.ndarray | None  # [K], that are read for first-stage scores


class BatchLoader:
    """The batches of a training run: `loader[step]` is the Batch of that step.

    Step n takes the lists n·B … n·B + B − 1 of an endless stream of shuffled epochs, so that every batch is full and
    none of the lists is ever left out.
    """

    def __init__(
        self, lists: TrainingLists, template: PairTemplate, cfg: DictConfig, rank: int = 0, num_ranks: int = 1
    ):
        """Take lists and configuration; process `rank` of num_ranks gets a share of each step."""
        self.lists, self.template = lists, template
        self.batch_size = cfg.train.batch_size
        self.num_negatives = cfg.data.num_negatives
        self.list_size, self.list_choice = cfg.data.list_size, cfg.data.list_choice
        self.targets, self.needs_relevant = targets_of(cfg.loss), needs_relevant(cfg)
        self.seed = cfg.seed
        self.rank, self.num_ranks = rank, num_ranks
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        drawn = [(self, sample) for sample in self.samples(step)]
        return join_samples(own_share(drawn, self.rank, self.num_ranks), self.targets)

    def batches(self, first: int, last: int, num_workers: int) -> Iterator[Batch]:
        """Yield the batches of the steps first … last − 1, prepared by num_workers processes; 0: by this one."""
        return prepare(self, first, last, num_workers)

    def samples(self, step: int) -> list[Sample]:
        """Return what a step takes of each of its lists, of all ranks."""
        return [self.draw(position) for position in self._positions(step)]

    def query_ids(self, step: int) -> list[str]:
        """Return the query ids of a step, of all ranks."""
        return [self.lists.query_id(self._place(position)[1]) for position in self._positions(step)]

    def draw(self, position: int) -> Sample:
        """Return what is taken of the list at a place of the stream."""
        return self._sample(*self._place(position))

    def num_tokens(self, sample: Sample) -> int:
        """Return how many tokens the passages of a sample have."""
        return int(self.lists.passages.lengths(sample.rows).sum())

    def pairs_of(self, sample: Sample) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the pairs of a sample, as tokens and token types."""
        query = self.lists.queries[self.lists.query_rows[sample.list_index]]
        return self.template.join_all(query, [self.lists.passages[row] for row in sample.rows], sample.numbers)

    def _positions(self, step: int) -> range:
        return range(step * self.batch_size, (step + 1) * self.batch_size)

    def _place(self, position: int) -> tuple[int, int]:
        """(epoch, list index) at a place of the stream."""
        epoch, offset = divmod(position, len(self.lists))
        return epoch, int(self._order(epoch)[offset])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old == epoch - 1}
            everything = np.arange(len(self.lists), dtype=np.int32)
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(everything)
        return self._orders[epoch]

    def _sample(self, epoch: int, index: int) -> Sample:
        """Return what an epoch takes of a list, a function of seed, epoch and query."""
        (rows, targets), numbers = self.lists[index], self.lists.numbers_of(index)
        rng = np.random.default_rng((self.seed, epoch, zlib.crc32(self.lists.query_id(index).encode())))
        if self.num_negatives is None:
            chosen = choose_passages(len(rows), self.list_size, self.list_choice, rng, targets.get("score"))
            if self.needs_relevant:
                chosen = with_both_kinds(chosen, targets["label"], rng)
        else:
            relevant, others = np.flatnonzero(targets["label"] > 0), np.flatnonzero(targets["label"] <= 0)
            negatives = rng.choice(others, min(self.num_negatives, len(others)), replace=False)
            chosen = np.r_[rng.choice(relevant), negatives]
        targets = {name: values[chosen] for name, values in targets.items()}
        if self.list_size is not None or self.num_negatives is not None:
            targets |= {name: ranks_among(ranks) for name, ranks in targets.items() if split_target(name)[1] == "rank"}
        return Sample(index, rows[chosen], targets, None if numbers is None else numbers[chosen])


Drawn = tuple[BatchLoader, Sample]  # what is taken of a list, with the loader that has drawn it


def join_samples(samples: list[Drawn], targets: list[str]) -> Batch:
    """Return the batch of some samples, each with the loader that has drawn it."""
    query_ids = [loader.lists.query_id(sample.list_index) for loader, sample in samples]
    pairs = [loader.pairs_of(sample) for loader, sample in samples]
    return make_batch(query_ids, pairs, {name: [sample.targets[name] for _, sample in samples] for name in targets})


def own_share(drawn: list[Drawn], rank: int, num_ranks: int) -> list[Drawn]:
    """Return a rank's share of a step's lists: longest first, each goes to the rank with the fewest tokens."""
    if num_ranks == 1:
        return drawn
    num_tokens = [loader.num_tokens(sample) for loader, sample in drawn]
    loads, owners = np.zeros(num_ranks, np.int64), np.zeros(len(drawn), np.int64)
    for place in np.argsort(num_tokens, kind="stable")[::-1]:
        owners[place] = loads.argmin()
        loads[owners[place]] += num_tokens[place]
    return [drawn[place] for place in np.flatnonzero(owners == rank)]


def prepare(loader: Any, first: int, last: int, num_workers: int) -> Iterator[Batch]:
    """Yield a loader's batches of the steps first … last − 1, prepared by num_workers processes; 0: by this one."""
    batches: Any = iter(
        DataLoader(
            loader,
            batch_size=None,  # a step's lists are a whole batch already
            sampler=range(first, last),
            num_workers=num_workers,
            prefetch_factor=BATCHES_AHEAD if num_workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # or it would draw from the stream that dropout draws from
        )
    )
    if num_workers:  # at exit, multiprocessing waits for them after a SIGTERM, which they leave to the trainer
        Finalize(batches, _kill, args=(batches._workers,), exitpriority=1)
    return batches


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def choose_passages(
    num_passages: int, list_size: int | None, choice: str, rng: np.random.Generator, scores: np.ndarray | None = None
) -> np.ndarray:
    """Return the places, ascending, of `list_size` passages of a list in the teacher's order; all if it has no more.

    choice: "top" takes the first ones, "random" any, "stratified" one from each of `list_size` equal parts of the list,
    "quantiles" one from each equal part of the range of the teacher's scores [K], as `_spread` does.
    """
    if list_size is None or num_passages <= list_size:
        return np.arange(num_passages)
    if choice == "top":
        return np.arange(list_size)
    if choice == "random":
        return np.sort(rng.choice(num_passages, list_size, replace=False))
    if choice == "quantiles":
        assert scores is not None, "the lists hold the scores"
        return np.sort(_spread(scores.astype(np.float64), list_size, rng))
    bounds = np.arange(list_size + 1) * num_passages // list_size
    return rng.integers(bounds[:-1], bounds[1:])


def with_both_kinds(chosen: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the chosen places of a list, ascending, one of them replaced if all are relevant or none is.

    chosen: two or more, of which the last makes way for one of the other kind, without which losses on labels learn
    nothing. labels: [K] of the whole list, which has both kinds.
    """
    for is_of_kind in (labels > 0, labels <= 0):
        if not is_of_kind[chosen].any():
            return np.sort(np.r_[chosen[:-1], rng.choice(np.flatnonzero(is_of_kind))])
    return chosen


def _spread(scores: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the places of passages that cover the range of the scores [K] evenly, from the highest down.

    A level is drawn from each of `number` equal parts of the range. The passage whose score is nearest to it is taken,
    or where it has been taken, the next nearest; a part without a score then gets a neighbour's. Equal scores are drawn
    from. NaN counts as the lowest score.
    """
    scores = np.nan_to_num(scores, nan=0.0 if np.isnan(scores).all() else np.nanmin(scores))
    share = (number - np.arange(number) - rng.random(number)) / number  # within (0, 1], descending
    levels = scores.min() + share * (scores.max() - scores.min())
    shuffled = rng.permutation(len(scores))  # the first of equally near passages is then any of them
    taken = np.zeros(len(scores), dtype=bool)
    places = []
    for level in levels:
        gaps = np.where(taken, np.inf, np.abs(scores - level))[shuffled]
        places.append(int(shuffled[gaps.argmin()]))
        taken[places[-1]] = True
    return np.array(places)


def _leave_signals_to_the_trainer(_: int) -> None:
    """A stop request reaches the whole process group; the training process handles it and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
