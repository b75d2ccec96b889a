"""Measure the data pipeline: tokenising a collection, reading a large run, loading batches, and whole training starts.

    python -m benchmarks.data store  --passages 1000000 --tokenizer DIR_OR_HUB_ID
    python -m benchmarks.data run    --queries 100000
    python -m benchmarks.data loader --passages 1000000 --queries 20000 --workers 2 --tokenizer DIR_OR_HUB_ID
    python -m benchmarks.data scale  --passages 8841823 --queries 500000 --workers 2 --tokenizer DIR_OR_HUB_ID

Collections, queries, runs and qrels are generated (benchmarks/generate.py) into --directory and kept there. `store` and
`run` rebuild their caches. `scale` trains a tiny model twice, with labels and 7 negatives from the top 200 (stage 1 of
Rank-DistiLLM): first without caches (or with those of a stopped call), then with all of them. Peak RSS is that of the
process itself, torch included; it does not count the processes that tokenise or prepare batches. Extrapolations to MS
MARCO's 8 841 823 passages are proportional.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks.generate import passages, qrels_lines, queries, run_lines
from benchmarks.report import RESULTS, ROOT, environment, save
from distill.data.pairs import PairTemplate
from distill.data.token_store import open_token_store
from distill.sources.runs import cached_run
from distill.storage.cache import cache_directory

MSMARCO_PASSAGES = 8_841_823
DEPTH = 200  # lines per query in a generated run


def generated(path: Path, lines: Iterable[str]) -> Path:
    """Return a generated file; write it if it does not exist yet."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        with open(aside, "w") as file:
            file.writelines(lines)
        aside.rename(path)
    return path


def peak_rss() -> int:
    """Return the peak memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_store(source: Path, tokenizer, num_passages: int) -> dict:
    """Build the token store, open it again, and return times and sizes."""
    start = time.perf_counter()
    store = open_token_store(str(source), tokenizer, 256)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    open_token_store(str(source), tokenizer, 256)
    (directory,) = (path for path in (cache_directory() / "tokens").iterdir() if path.is_dir())
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


def measure_loader(files: dict[str, Path], tokenizer, num_workers: int) -> dict:
    """Return pairs and tokens per second, from the store to batches of 32 lists of 100 passages, without padding."""
    from benchmarks.composed import compose_config
    from distill.data.lists import read_lists
    from distill.data.loader import BatchLoader

    overrides = ["data=files", "teacher=run", "loss=ranknet", "model.query_length=32", "model.passage_length=256"]
    overrides += [f"data.{key}={files[key]}" for key in ("passages", "queries")]
    overrides += [f"teacher.path={files['run']}", "data.depth=100", "train.batch_size=32"]
    cfg = compose_config("train", overrides)
    loader = BatchLoader(read_lists(cfg, tokenizer), PairTemplate.of(tokenizer), cfg)
    batches = loader.batches(0, 220, num_workers)
    for _ in range(20):  # after these, workers have started and are ahead
        next(batches)
    num_pairs = num_tokens = 0
    start = time.perf_counter()
    for batch in batches:
        num_pairs, num_tokens = num_pairs + len(batch.lengths), num_tokens + len(batch.tokens)
    seconds = time.perf_counter() - start
    return {
        "workers": num_workers,
        "pairs_per_second": num_pairs / seconds,
        "tokens_per_second": num_tokens / seconds,
        "tokens_per_pair": num_tokens / num_pairs,
    }


def measure_scale(files: dict[str, Path], backbone: Path, directory: Path, num_workers: int, num_steps: int) -> dict:
    """Train twice on the files, as a user would, and return the time and memory of both starts."""
    command = [sys.executable, "train.py", "backbone=hf", f"backbone.name={backbone}", "backbone.weights=random"]
    command += [
        "data=files",
        f"data.passages={files['passages']}",
        f"data.queries={files['queries']}",
        "data.depth=200",
    ]
    command += ["teacher=labels", f"teacher.first_stage={files['run']}", f"teacher.qrels={files['qrels']}", "loss=lce"]
    command += ["data.num_negatives=7", "train.max_epochs=null", f"train.max_steps={num_steps}", "train.log_every=1"]
    command += ["model.dropout=0", f"train.num_workers={num_workers}"]
    starts = {}
    for name in ("first", "warm"):
        output = directory / f"scale-{name}"
        shutil.rmtree(output, ignore_errors=True)
        starts[name] = _watch([*command, f"hydra.run.dir={output}"], output / "metrics.jsonl")
    sizes = {path.name: sum(file.stat().st_size for file in path.rglob("*")) for path in cache_directory().iterdir()}
    return starts | {"cache_bytes": sizes, "steps": num_steps, "workers": num_workers}


def _watch(command: list[str], metrics: Path) -> dict:
    """Run a training command; return its time until the first step is logged, its total time, and its peak RSS."""
    start, first_step, peak = time.perf_counter(), None, 0
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None:
        if first_step is None and metrics.is_file() and metrics.stat().st_size:
            first_step = time.perf_counter() - start
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line)])
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"first_step_seconds": first_step, "seconds": time.perf_counter() - start, "peak_rss_bytes": peak}


def small_backbone(directory: Path, tokenizer) -> Path:
    """Write an encoder of one layer with the tokenizer, so that nearly all memory of the process is for data."""
    from transformers import BertConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def measure_run(source: Path, num_queries: int) -> dict:
    """Read a run into the cache, open it again, look up queries at random, and return times and memory."""
    start = time.perf_counter()
    cached_run(str(source))
    seconds, peak = time.perf_counter() - start, peak_rss()
    start = time.perf_counter()
    run = cached_run(str(source))
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
        "peak_rss_after_look_ups_bytes": peak_rss(),  # with pages of the cache, which the kernel can reclaim
    }


def main() -> None:
    """Measure one part, print the result and write it to a JSON file."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["store", "run", "loader", "scale"])
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="of training, for scale")
    parser.add_argument("--tokenizer", default="sample/backbone", help="directory or Hub id of an encoder")
    parser.add_argument("--directory", type=Path, default=Path("outputs/benchmark-data"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    directory = arguments.directory.absolute()
    os.environ["DISTILL_CACHE"] = str(directory / "cache")
    num_passages, num_queries = arguments.passages, arguments.queries
    lines = {
        "passages": (f"passages-{num_passages}.tsv", passages(num_passages)),
        "queries": (f"queries-{num_queries}.tsv", queries(num_queries)),
        "run": (f"run-{num_queries}-of-{num_passages}.run", run_lines(num_queries, DEPTH, num_passages)),
        "qrels": (f"qrels-{num_queries}-of-{num_passages}.txt", qrels_lines(num_queries, num_passages)),
    }
    needed = {"store": ["passages"], "run": ["run"], "loader": ["passages", "queries", "run"], "scale": list(lines)}
    files = {key: generated(directory / lines[key][0], lines[key][1]) for key in needed[arguments.what]}
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer, trust_remote_code=False)
    if arguments.what == "store":
        shutil.rmtree(cache_directory() / "tokens", ignore_errors=True)
        result = measure_store(files["passages"], tokenizer, num_passages)
    elif arguments.what == "run":
        shutil.rmtree(cache_directory() / "runs", ignore_errors=True)
        result = measure_run(files["run"], num_queries)
    elif arguments.what == "loader":
        result = measure_loader(files, tokenizer, arguments.workers)
    else:
        backbone = small_backbone(directory / "backbone", tokenizer)
        result = measure_scale(files, backbone, directory, arguments.workers, arguments.steps)
        result |= {"passages": num_passages, "queries": num_queries}
    result = environment(torch.device("cpu")) | result
    print(json.dumps(result, indent=1))
    print(save(f"data-{arguments.what}", result, arguments.results))


if __name__ == "__main__":
    main()
