"""Annotate with a real LLM behind an address: 20 queries x 20 passages, by several methods; how usable are its answers?

    sh benchmarks/small_llm.sh DIRECTORY                            # serves SmolLM2-135M-Instruct on a CPU
    python -m benchmarks.small_llm --url http://localhost:8123/v1 --collection collections/cranfield
    python -m benchmarks.small_llm ... --methods listwise/rankzephyr,listwise/rankgpt           # with other prompts
    python -m benchmarks.small_llm ... --methods setwise,pairwise --queries 5 --max-tokens 16   # many short requests

A model of this size ranks badly. What this shows is the traffic: every answer is used or flagged, whatever it says.
"""

import argparse
import json
import re
import tempfile
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import torch

from benchmarks.composed import compose_config
from benchmarks.report import environment, save
from distill.teachers.prompt import BUNDLED

METHODS = ("listwise", "pointwise", "first-token")


def shorter(prompt: Path, max_words: int, directory: Path) -> Path:
    """Write a prompt again, with passages of at most so many words; return its path."""
    text, path = prompt.read_text(encoding="utf-8"), directory / prompt.name
    path.write_text(re.sub(r"^max_words: *\d+", f"max_words: {max_words}", text, flags=re.MULTILINE))
    return path


def annotate(args: argparse.Namespace, model: str, method: str, prompt: str, directory: Path) -> dict:
    """Annotate once; return what came back, and what was made of it."""
    from omegaconf import OmegaConf

    from distill.config.local_files import with_local_files
    from distill.teachers.annotation import rank_with_teacher, write_annotation
    from distill.teachers.lists_to_rank import read_lists_to_rank

    files = {"passages": "docs.tsv", "queries": "queries.test.tsv", "run": "bm25.run", "qrels": "qrels.txt"}
    overrides = [f"{key}={args.collection / name}" for key, name in files.items()]
    overrides += [f"method={method}", f"depth={args.depth}", f"num_queries={args.queries}"]
    overrides += [f"shuffles={args.shuffles if method in ('listwise', 'first-token') else 1}"]
    overrides += [f"teacher.llm.max_tokens={args.max_tokens}"] if args.max_tokens else []
    overrides += [f"journal={args.journal}", "max_unusable=1", "tries=1", f"teacher.llm.base_url={args.url}"]
    overrides += [f"teacher.llm.model='{model}'", "teacher.llm.concurrency=1", "teacher.llm.timeout=600"]
    overrides += [f"prompt={shorter(BUNDLED / f'{prompt}.yaml', args.max_words, directory)}"]
    cfg = compose_config("annotate", overrides)
    OmegaConf.resolve(cfg)
    local = with_local_files(cfg)
    start = time.perf_counter()
    lists = read_lists_to_rank(cfg, local)
    ranking = rank_with_teacher(cfg, directory, lists)
    worth, totals = write_annotation(directory, cfg, local, lists, ranking), ranking.totals
    assert totals is not None
    table = pq.read_table(directory / "teacher.parquet").to_pydict()
    flagged = {query_id for query_id, is_flagged in zip(table["query_id"], table["flagged"], strict=True) if is_flagged}
    as_shown = [totals.consistency.num_as_shown, totals.consistency.num_windows]
    return {
        "method": method, "prompt": prompt, "lists": len(lists), "windows": totals.windows, "requests": totals.requests,
        "usable": 1 - totals.unanswered / totals.windows, "answers": dict(totals.answers), "as_shown": as_shown,
        "flagged_lists": len(flagged), "tokens": [totals.tokens_in, totals.tokens_out],
        "useless": totals.useless.most_common(3), "seconds": time.perf_counter() - start,
        **dict(worth.results()),
    }  # fmt: skip


def first_model(url: str) -> str:
    """Return the first model that an endpoint names."""
    with urllib.request.urlopen(f"{url}/models") as reply:
        return json.load(reply)["data"][0]["id"]


def main() -> None:
    """Parse arguments, annotate by each method, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of the endpoint, up to /v1")
    parser.add_argument(
        "--collection", type=Path, required=True, help="docs.tsv, queries.test.tsv, bm25.run, qrels.txt"
    )
    parser.add_argument("--model", help="default: the first that the endpoint names")
    parser.add_argument("--methods", default=",".join(METHODS), help="each METHOD or METHOD/PROMPT")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--max-words", type=int, default=20, help="of a passage: a CPU is slow")
    parser.add_argument("--max-tokens", type=int, help="of an answer")
    parser.add_argument("--shuffles", type=int, default=1)
    parser.add_argument("--journal", default="none", help="file of answers, to ask nothing twice")
    parser.add_argument("--results", type=Path, help="directory for the file; default: none is written")
    args = parser.parse_args()
    model = args.model or first_model(args.url)
    rows = []
    for method, _, prompt in (name.partition("/") for name in args.methods.split(",")):
        with tempfile.TemporaryDirectory() as directory:
            rows.append(annotate(args, model, method, prompt or method, Path(directory)))
        print(json.dumps(rows[-1]), flush=True)
    if args.results:
        result = environment(torch.device("cpu")) | {"model": Path(model).name, "rows": rows}
        save("small-llm", result, args.results)


if __name__ == "__main__":
    main()
