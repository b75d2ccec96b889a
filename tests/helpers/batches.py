"""Ragged batches of random tokens."""

import numpy as np

from distill.data.batch import make_batch

LENGTHS = [3, 512, 17, 17, 64, 5, 65, 9, 10, 200, 3, 17, 128]
SIZES = [5, 1, 4, 3]


def random_batch(sizes=(5, 2, 7, 3), longest: int = 20, seed: int = 0, vocabulary: int = 20):
    """Ragged lists of pairs of 3 to `longest` tokens with the target "rank"."""
    rng = np.random.default_rng(seed)
    lists = []
    for size in sizes:
        lengths = rng.integers(3, longest + 1, size)
        lists.append(
            [
                (rng.integers(5, vocabulary, n).astype(np.int32), (np.arange(n) > n // 2).astype(np.int32))
                for n in lengths
            ]
        )
    targets = [rng.permutation(size) + 1 for size in sizes]
    return make_batch([f"q{i}" for i in range(len(sizes))], lists, {"rank": targets})


def ragged_batch(lengths, sizes, seed: int = 0):
    """Lists of pairs of random tokens; a fifth of each pair's tokens have type 0."""
    rng = np.random.default_rng(seed)
    pairs = [(rng.integers(5, 20, length), np.arange(length) > length // 5) for length in lengths]
    lists, start = [], 0
    for size in sizes:
        lists.append(pairs[start : start + size])
        start += size
    return make_batch([str(n) for n in range(len(sizes))], lists)
