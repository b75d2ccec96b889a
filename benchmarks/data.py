"""The way of the data: tokenising a collection once, reading a large run once, and batches from the store.

    python -m benchmarks.data store  --passages 1000000 --tokenizer DIR_OR_HUB_ID
    python -m benchmarks.data loader --passages 1000000 --tokenizer DIR_OR_HUB_ID
    python -m benchmarks.data run    --queries 100000

Collections and runs are generated (benchmarks/generate.py) into --directory and kept there; `store` and `run` make
their caches anew. Peak RSS is that of the whole process, torch included; processes that tokenise are not counted in.
The extrapolation is to MS MARCO's 8 841 823 passages, by simple proportion.
"""

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks.generate import passages, run_lines
from benchmarks.report import RESULTS, environment, save
from distill.cache import cache_directory
from distill.data import BatchLoader, TrainingData, TrainingList
from distill.run_cache import open_run
from distill.token_cache import open_token_store

MSMARCO_PASSAGES = 8_841_823
DEPTH = 200  # lines of a query in a generated run


def generated(path: Path, lines: Iterable[str]) -> Path:
    """Return a generated file; write it where it is not there yet."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        with open(aside, "w") as file:
            file.writelines(lines)
        aside.rename(path)
    return path


def peak_rss() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_store(source: Path, tokenizer, num_passages: int) -> dict:
    """Make the store, open it again, and return times and sizes."""
    start = time.perf_counter()
    store = open_token_store(str(source), tokenizer, 256)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    open_token_store(str(source), tokenizer, 256)
    (directory,) = (cache_directory() / "tokens").glob("*-????????????????")
    num_bytes = sum(path.stat().st_size for path in directory.iterdir())
    scale = MSMARCO_PASSAGES / num_passages
    return {
        "passages": num_passages,
        "tokens_per_passage": len(store.tokens) / num_passages,
        "seconds": seconds,
        "passages_per_second": num_passages / seconds,
        "bytes_per_passage": num_bytes / num_passages,
        "open_seconds": time.perf_counter() - start,
        "peak_rss_bytes": peak_rss(),
        "msmarco_minutes": seconds * scale / 60,
        "msmarco_bytes": num_bytes * scale,
    }


def measure_loader(source: Path, tokenizer, num_passages: int) -> dict:
    """Return pairs and tokens a second from the store to batches of 32 lists of 100 passages, in one process."""
    from omegaconf import OmegaConf

    rng = np.random.default_rng(0)
    ranks = np.arange(1.0, 101.0)
    lists = [
        TrainingList(f"q{query}", rng.integers(num_passages, size=100).astype(str).tolist(), ranks)
        for query in range(5000)
    ]
    queries = {one.query_id: "what is the way of a bee home" for one in lists}
    cfg = OmegaConf.create(
        {
            "seed": 0,
            "data": {"passages": str(source), "num_negatives": None, "list_size": None, "list_choice": "top"},
            "loss": {"target": "rank"},
            "model": {"query_length": 32, "passage_length": 256},
            "train": {"batch_size": 32},
        }
    )
    loader = BatchLoader(TrainingData(lists, queries, None, "generated"), tokenizer, cfg)
    loader[0]
    num_pairs = num_tokens = 0
    start = time.perf_counter()
    for step in range(1, 41):
        batch = loader[step]
        num_pairs, num_tokens = num_pairs + len(batch.lengths), num_tokens + len(batch.tokens)
    seconds = time.perf_counter() - start
    return {"pairs_per_second": num_pairs / seconds, "tokens_per_second": num_tokens / seconds}


def measure_run(source: Path, num_queries: int) -> dict:
    """Read a run into the cache, open it again, look up queries at random, and return times and memory."""
    start = time.perf_counter()
    open_run(str(source))
    seconds, peak = time.perf_counter() - start, peak_rss()
    start = time.perf_counter()
    run = open_run(str(source))
    open_seconds = time.perf_counter() - start
    chosen = np.random.default_rng(0).integers(num_queries, size=2000)
    start = time.perf_counter()
    num_lines = sum(len(run[f"q{query}"]) for query in chosen)
    return {
        "lines": num_queries * DEPTH,
        "bytes": source.stat().st_size,
        "seconds": seconds,
        "lines_per_second": num_queries * DEPTH / seconds,
        "open_seconds": open_seconds,
        "queries_looked_up_per_second": len(chosen) / (time.perf_counter() - start),
        "mean_list": num_lines / len(chosen),
        "peak_rss_bytes": peak,
        "peak_rss_after_look_ups_bytes": peak_rss(),  # with pages of the cache, which the kernel takes back at need
    }


def main() -> None:
    """Measure one part, print it and leave a JSON file."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["store", "loader", "run"])
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--tokenizer", default="sample/backbone", help="directory or Hub id of an encoder")
    parser.add_argument("--directory", type=Path, default=Path("outputs/benchmark-data"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    os.environ["DISTILL_CACHE"] = str(arguments.directory.absolute() / "cache")
    if arguments.what == "run":
        lines = run_lines(arguments.queries, DEPTH, MSMARCO_PASSAGES)
        source = generated(arguments.directory / f"run-{arguments.queries}.run", lines)
        shutil.rmtree(cache_directory() / "runs", ignore_errors=True)
        found = measure_run(source, arguments.queries)
    else:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        source = generated(arguments.directory / f"passages-{arguments.passages}.tsv", passages(arguments.passages))
        if arguments.what == "store":
            shutil.rmtree(cache_directory() / "tokens", ignore_errors=True)
            found = measure_store(source, tokenizer, arguments.passages)
        else:
            found = measure_loader(source, tokenizer, arguments.passages)
    found = environment(torch.device("cpu")) | found
    print(json.dumps(found, indent=1))
    print(save(f"data-{arguments.what}", found, arguments.results))


if __name__ == "__main__":
    main()
