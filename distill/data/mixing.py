"""Batches from several data sets, each with its own texts and teacher.

    loader = MixedLoader({"main": main, "qa": other}, cfg.sampling, cfg.seed)           # BatchLoaders
    loader[step]                                            # the Batch of that step, always the same

A round is 1,000 lists. Every round takes the same number of lists from each data set, in an order shuffled by seed and
round. So the place of a list in the stream tells which data set it comes from and how many came from there before: a
batch is a function of only seed and step, as with one data set. Each data set has its own epochs.
"""

from collections.abc import Iterator

import numpy as np
from omegaconf import DictConfig

from distill.data.batch import Batch
from distill.data.lists import TrainingLists
from distill.data.loader import BatchLoader, Drawn, join_samples, own_share, prepare
from distill.data.pairs import PairTemplate
from distill.distributed import Ranks
from distill.errors import InputError
from distill.targets import MAIN

ROUND = 1_000  # lists


def make_loader(
    lists: dict[str, TrainingLists], sets: dict[str, DictConfig], template: PairTemplate, ranks: Ranks
) -> "BatchLoader | MixedLoader":
    """Return the loader of one or several data sets, with the configuration of each."""
    loaders = {name: BatchLoader(lists[name], template, own, ranks.rank, ranks.size) for name, own in sets.items()}
    main = sets[MAIN]
    return loaders[MAIN] if len(loaders) == 1 else MixedLoader(loaders, main.sampling, main.seed)


class MixedLoader:
    """The batches of a training on several data sets."""

    def __init__(self, loaders: dict[str, BatchLoader], sampling: DictConfig, seed: int):
        """Take one loader for each data set; raises InputError if one of them is too small a share."""
        self.loaders, self.seed = loaders, seed
        self.main = next(iter(loaders.values()))
        sizes = {name: len(loader.lists) for name, loader in loaders.items()}
        self.counts = np.array([*lists_of_a_round(sizes, sampling).values()])
        self._rounds: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        return join_samples(own_share(self._drawn(step), self.main.rank, self.main.num_ranks), self.main.targets)

    def batches(self, first: int, last: int, num_workers: int) -> Iterator[Batch]:
        """Yield the batches of the steps first … last − 1, prepared by num_workers processes; 0: by this one."""
        return prepare(self, first, last, num_workers)

    def query_ids(self, step: int) -> list[str]:
        """Return the query ids of a step, of all ranks."""
        return [loader.lists.query_id(sample.list_index) for loader, sample in self._drawn(step)]

    def _drawn(self, step: int) -> list[Drawn]:
        """Return the lists of a step, of all ranks, each with the loader of its data set."""
        loaders, size = [*self.loaders.values()], self.main.batch_size
        drawn = []
        for position in range(step * size, (step + 1) * size):
            number, offset = divmod(position, ROUND)
            owners, earlier = self._round(number)
            owner = int(owners[offset])
            drawn.append((loaders[owner], loaders[owner].draw(int(number * self.counts[owner] + earlier[offset]))))
        return drawn

    def _round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which data set each list of a round comes from, and how many before it come from the same one."""
        if number not in self._rounds:
            owners = np.random.default_rng((self.seed, number)).permutation(
                np.repeat(range(len(self.counts)), self.counts)
            )
            earlier = np.zeros(ROUND, np.int64)
            for owner in range(len(self.counts)):
                earlier[owners == owner] = range(self.counts[owner])
            self._rounds = {old: kept for old, kept in self._rounds.items() if old == number - 1}
            self._rounds[number] = owners, earlier
        return self._rounds[number]


def lists_of_a_round(sizes: dict[str, int], sampling: DictConfig) -> dict[str, int]:
    """Return how many lists of a round come from each data set, given how many lists each has.

    In proportion to the weights, if given, else to size ** (1 / temperature); remainders go to the largest ones. Raises
    InputError for a data set that would get none.
    """
    if sampling.weights:
        weights = np.array([sampling.weights[name] for name in sizes], np.float64)
    else:
        logs = np.log([*sizes.values()]) / sampling.temperature
        weights = np.exp(logs - logs.max())
    exact = weights / weights.sum() * ROUND
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: ROUND - counts.sum()]:
        counts[place] += 1
    found = dict(zip(sizes, counts.tolist(), strict=True))
    for name, count in found.items():
        if not count:
            raise InputError(
                f"sampling: {name} would get fewer than 1 of {ROUND} lists: raise sampling.weights.{name}, or "
                f"sampling.temperature={sampling.temperature:g}"
            )
    return found
