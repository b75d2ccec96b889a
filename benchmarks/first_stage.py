"""Measure how first-stage retrieval grows with the collection: time, peak memory and disk, in a process for each step.

    python -m benchmarks.first_stage bm25 --sizes 100000 300000 1000000
    python -m benchmarks.first_stage dense --sizes 100000 300000 1000000 --index exact

Passages and queries are generated (benchmarks/generate.py) into --directory and kept there; every third passage gets a
word of its own, since a real collection never stops bringing new ones. `dense` uses an encoder of random word vectors,
so that most of its time is not the encoder's. Each size takes two calls of `distill retrieve`: one query without an
index, and --queries of them with it. CPU seconds are not lengthened by other work on the machine. The peak counts what
is memory-mapped of the index, which the system takes back when it needs it; the process's own memory does not.
"""

import argparse
import itertools
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.data import generated
from benchmarks.generate import passages, queries, words
from benchmarks.processes import measure
from benchmarks.report import RESULTS, ROOT, environment, save

DIMENSIONS = 384  # of the encoder's vectors: those of MiniLM


def with_rare_words(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines of passages, every third one with one more word, which no other passage has."""
    for number, line in enumerate(lines):
        yield line if number % 3 else f"{line[:-1]} rare{number}\n"


def random_encoder(directory: Path) -> Path:
    """Write an encoder of sentence-transformers whose vectors are means of random vectors of words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    if not directory.is_dir():
        torch.manual_seed(0)
        numbers = {word: number for number, word in enumerate(["[UNK]", *words().tolist()])}
        tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        model = SentenceTransformer(
            modules=[StaticEmbedding(tokenizer, embedding_dim=DIMENSIONS), Normalize()],
            device="cpu",
            trust_remote_code=False,
        )
        model.save(str(directory))
    return directory


def measure_size(method: str, num_passages: int, num_queries: int, directory: Path, options: list[str]) -> dict:
    """Measure the building of an index of so many passages, and queries with it."""
    texts = generated(directory / f"passages-{num_passages}.tsv", with_rare_words(passages(num_passages)))
    asked = {n: generated(directory / f"queries-{n}.tsv", queries(n)) for n in (1, num_queries)}
    cache = directory / f"cache-{method}-{num_passages}"
    shutil.rmtree(cache, ignore_errors=True)
    measured = {}
    for step, number in (("build", 1), ("query", num_queries)):
        run = directory / f"{method}-{num_passages}-{number}.run"
        run.unlink(missing_ok=True)
        files = [f"passages={texts}", f"queries={asked[number]}", f"output={run}", f"method={method}"]
        command = [sys.executable, "-m", "distill", "retrieve", *files, *options]
        measured[step] = measure(command, cwd=ROOT, cache=cache, fresh=False).numbers()
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    return {"passages": num_passages, "text_bytes": texts.stat().st_size, "index_bytes": size, **measured}


def growth(rows: list[dict]) -> list[dict]:
    """Return the exponents of time and memory from each size to the next."""
    found = []
    for less, more in itertools.pairwise(rows):
        steps = math.log(more["passages"] / less["passages"])
        found.append({"from": less["passages"], "to": more["passages"]})
        for step, name in itertools.product(("build", "query"), ("cpu_seconds", "peak_bytes", "own_peak_bytes")):
            found[-1][f"{step}_{name}"] = round(math.log(more[step][name] / less[step][name]) / steps, 2)
    return found


def main() -> None:
    """Measure each size, print a line for it, and write all to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["bm25", "dense"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--index", choices=["exact", "hnsw"], default="exact", help="of dense")
    parser.add_argument("--directory", type=Path, default=Path("outputs/benchmark-first-stage"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    directory = arguments.directory.absolute()
    options = ["depth=100"]
    if arguments.method == "dense":
        options += [f"model={random_encoder(directory / 'encoder')}", f"index={arguments.index}"]
        options += ["device=cpu", "batch_size=1024"]
    rows = []
    for size in arguments.sizes:
        rows.append(measure_size(arguments.method, size, arguments.queries, directory, options))
        print(json.dumps(rows[-1]), flush=True)
    result = environment(torch.device("cpu")) | {"queries": arguments.queries, "rows": rows, "growth": growth(rows)}
    for step in result["growth"]:
        print(json.dumps(step))
    name = arguments.method if arguments.method == "bm25" else f"dense-{arguments.index}"
    print(save(f"first-stage-{name}", result, arguments.results))


if __name__ == "__main__":
    main()
