"""Queries by a real LLM behind an address, for 100 passages: how many find their passage again?

    sh benchmarks/small_llm.sh DIRECTORY                            # serves SmolLM2-135M-Instruct on a CPU
    python -m benchmarks.small_llm_queries --url http://localhost:8123/v1 --passages CORPUS.jsonl.gz
    python -m benchmarks.small_llm_queries ... --max-words 300      # as `distill generate` asks: a CPU takes an hour

Each passage is asked about once. Prints how many queries of each type are kept, the ranks of their passages in BM25's
lists, beside those of other passages that were drawn at random, and ten of the queries that are kept.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from benchmarks.composed import compose_config
from benchmarks.report import environment, save
from benchmarks.small_llm import first_model, shorter
from distill.queries.prompt import BUNDLED, read_query_prompts

TYPES = ("keyword", "question", "long")
DEPTHS = (1, 5, 20, 100)


def ranks(corpus, queries: list, doc_ids: list[str]) -> list[int | None]:
    """Return BM25's rank of each query's passage, None below the largest depth. corpus: a generation.Corpus."""
    from distill.retrieval.bm25 import found_lists

    assert corpus.round_trip is not None
    texts = {one.query_id: one.query for one in queries}
    trip = corpus.round_trip
    run = found_lists(trip.source, texts, max(DEPTHS), trip.bm25, trip.fields)
    lists = [run[one.query_id].doc_ids if one.query_id in run else [] for one in queries]
    return [found.index(doc) + 1 if doc in found else None for found, doc in zip(lists, doc_ids, strict=True)]


def within(found: list[int | None]) -> dict[int, int]:
    """Return how many ranks are within each depth."""
    return {depth: sum(rank is not None and rank <= depth for rank in found) for depth in DEPTHS}


def measure(args: argparse.Namespace, model: str, directory: Path) -> dict:
    """Generate once; return what came back, and what was kept of it."""
    from omegaconf import OmegaConf

    from distill.config.local_files import with_local_files
    from distill.queries.generation import generate, read_corpus

    prompts = ",".join(str(shorter(BUNDLED / f"{kind}.yaml", args.max_words, directory)) for kind in TYPES)
    overrides = [f"passages={args.passages}", f"num_queries={args.queries}", f"max_passages={args.queries}"]
    overrides += [f"types=[{prompts}]", "journal=none", "max_unusable=1", f"teacher.llm.base_url={args.url}"]
    overrides += [f"teacher.llm.model='{model}'", "teacher.llm.concurrency=1", "teacher.llm.timeout=600"]
    cfg = compose_config("generate", overrides)
    OmegaConf.resolve(cfg.teacher)
    start = time.perf_counter()
    corpus = read_corpus(cfg, with_local_files(cfg))
    generated = generate(cfg, args.journal or directory, read_query_prompts([*cfg.types]), corpus)
    seconds, kept = time.perf_counter() - start, generated.kept()
    checked = [one for one in generated.candidates if one.reason in (None, "not-retrieved")]
    rng = random.Random(0)
    others = [rng.choice([*corpus.sampled.texts]) for _ in checked]
    return {
        "queries": args.queries, "kept": len(kept), "max_words": args.max_words, "seconds": seconds,
        "reasons": {kind: dict(generated.counts(kind)) for kind in TYPES},
        "checked": len(checked), "within": within(ranks(corpus, checked, [one.doc_id for one in checked])),
        "within_of_random": within(ranks(corpus, checked, others)),
        "rejected": dict(Counter(one.reason for one in generated.candidates if one.reason)),
        "tokens": [generated.totals.tokens_in, generated.totals.tokens_out],
        "ten": [[one.kind, one.query] for one in rng.sample(kept, min(10, len(kept)))],
    }  # fmt: skip


def main() -> None:
    """Parse arguments, generate, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of the endpoint, up to /v1")
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--model", help="default: the first that the endpoint names")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--max-words", type=int, default=100, help="of a passage: a CPU is slow")
    parser.add_argument("--journal", type=Path, help="directory of the journal, to ask nothing twice")
    parser.add_argument("--results", type=Path, help="directory for the file; default: none is written")
    args = parser.parse_args()
    model = args.model or first_model(args.url)
    with tempfile.TemporaryDirectory() as directory:
        row = measure(args, model, Path(directory))
    print(json.dumps(row, indent=1, ensure_ascii=False))
    if args.results:
        save("small-llm-queries", environment(torch.device("cpu")) | {"model": Path(model).name, **row}, args.results)


if __name__ == "__main__":
    main()
