"""Generate collections and runs of any size, line by line: the same seed gives the same lines on any machine.

    python -m benchmarks.generate passages 1000000 > passages.tsv
    python -m benchmarks.generate run 100000 --depth 200 --passages 8841823 > first_stage.run

Passages are as long as MS MARCO's: log-normal with a mean of 56 words, from 10 to 200. Words follow Zipf's law
over 50 000 made-up words of one to four syllables. Queries have 2 to 10 words. A run ranks `depth` random passages per
query. Qrels judge one passage per query as relevant, which is in the run for two out of three queries.
"""

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np

BLOCK = 10_000  # lines generated at once
MEAN_WORDS, SPREAD = 56, 0.45  # mean and log-scale standard deviation of a passage's length
NUM_WORDS = 50_000
SYLLABLES = [first + vowel + last for first in "bdfgklmnprstv" for vowel in "aeiou" for last in ("", "n", "r", "s")]


def words(seed: int = 0) -> np.ndarray:
    """Return the vocabulary, the most frequent word first; frequent words are short."""
    rng = np.random.default_rng(seed)
    vocabulary: dict[str, None] = {}
    while len(vocabulary) < NUM_WORDS:
        num_syllables = min(4, 1 + int(math.log10(len(vocabulary) / 100 + 1)) + int(rng.integers(0, 2)))
        vocabulary["".join(rng.choice(SYLLABLES, num_syllables))] = None
    return np.array(list(vocabulary))


def passages(num_passages: int, seed: int = 0) -> Iterator[str]:
    """Yield lines `id<TAB>text`; ids count from 0."""
    vocabulary = words(seed)
    cumulated = np.cumsum(1 / np.arange(1, NUM_WORDS + 1))
    cumulated /= cumulated[-1]
    for start in range(0, num_passages, BLOCK):
        rng = np.random.default_rng((seed, start))
        size = min(BLOCK, num_passages - start)
        lengths = np.exp(rng.normal(math.log(MEAN_WORDS) - SPREAD**2 / 2, SPREAD, size)).clip(10, 200).astype(int)
        text = vocabulary[np.searchsorted(cumulated, rng.random(lengths.sum()))].tolist()
        ends = np.cumsum(lengths).tolist()
        for number, (first, last) in enumerate(zip([0, *ends], ends, strict=False), start):
            yield f"{number}\t{' '.join(text[first:last])}\n"


def queries(num_queries: int, seed: int = 0) -> Iterator[str]:
    """Yield lines `id<TAB>text`; ids are q0, q1, …"""
    vocabulary, rng = words(seed), np.random.default_rng((seed, 1))
    for query in range(num_queries):
        text = vocabulary[np.minimum(rng.zipf(1.2, rng.integers(2, 11)), NUM_WORDS) - 1]
        yield f"q{query}\t{' '.join(text)}\n"


def _ranked(query: int, depth: int, num_passages: int, seed: int) -> tuple[list[int], np.random.Generator]:
    """Return the passages that a run ranks for a query, and the generator to draw more from."""
    rng = np.random.default_rng((seed, query))
    return rng.choice(num_passages, depth, replace=False, shuffle=False).tolist(), rng


def qrels_lines(num_queries: int, num_passages: int, depth: int = 200, seed: int = 0) -> Iterator[str]:
    """Yield one relevant passage per query: one of its run or, for every third query, a random one."""
    for query in range(num_queries):
        chosen, rng = _ranked(query, depth, num_passages, seed)
        relevant = rng.integers(num_passages) if query % 3 == 0 else chosen[query % depth]
        yield f"q{query} 0 {relevant} 1\n"


def run_lines(num_queries: int, depth: int, num_passages: int, seed: int = 0) -> Iterator[str]:
    """Yield the lines of a TREC run: `depth` different passages for every query."""
    for query in range(num_queries):
        chosen, rng = _ranked(query, depth, num_passages, seed)
        scores = np.sort(rng.normal(20, 5, depth))[::-1].round(4).tolist()
        for rank, (passage, score) in enumerate(zip(chosen, scores, strict=True), start=1):
            yield f"q{query} Q0 {passage} {rank} {score} generated\n"


def main() -> None:
    """Write the lines to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["passages", "queries", "run", "qrels"])
    parser.add_argument("number", type=int, help="number of passages, or of queries to write, to rank or to judge")
    parser.add_argument("--depth", type=int, default=200)
    parser.add_argument("--passages", type=int, default=8_841_823, help="size of the collection that a run draws from")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    number, seed = arguments.number, arguments.seed
    lines = {
        "passages": passages(number, seed),
        "queries": queries(number, seed),
        "run": run_lines(number, arguments.depth, arguments.passages, seed),
        "qrels": qrels_lines(number, arguments.passages, arguments.depth, seed),
    }
    sys.stdout.writelines(lines[arguments.what])


if __name__ == "__main__":
    main()
