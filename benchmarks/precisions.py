"""Measure what a precision costs: nDCG@10 and pairs per second of CPU time, beside float32, in one process.

    python -m benchmarks.precisions --model DIR --contenders onnx=DIR2,int8=DIR3 --docs docs.tsv \\
        --queries queries.tsv --run bm25.run --qrels qrels.txt

float32 and bfloat16 are of DIR, NAME=DIR are exports of it. The contenders score each query's passages in turn, so that
what else runs on the machine slows them all; CPU time leaves it out.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import RESULTS, environment, save
from distill.config.measures import parse_measures
from distill.evaluation.measures import measure
from distill.models.cross_encoder import CrossEncoder
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries

MEASURE = "nDCG@10"


def main() -> None:
    """Score all queries, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--model", "--docs", "--queries", "--run", "--qrels"):
        parser.add_argument(name, required=True)
    parser.add_argument("--contenders", default="")
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    queries, qrels, run = read_queries(arguments.queries), read_qrels(arguments.qrels), read_run(arguments.run)
    top = {query_id: run[query_id].doc_ids[: arguments.passages] for query_id in queries if query_id in run}
    texts = read_passages(arguments.docs, {doc_id for doc_ids in top.values() for doc_id in doc_ids})
    qrels = {query_id: grades for query_id, grades in qrels.items() if query_id in top}
    model = CrossEncoder.from_pretrained(arguments.model)
    contenders: dict[str, tuple[CrossEncoder, torch.dtype | None]] = {
        "float32": (model, torch.float32),
        "bfloat16": (model, torch.bfloat16),
    }
    for one in filter(None, arguments.contenders.split(",")):
        name, _, directory = one.partition("=")
        contenders[name] = CrossEncoder.from_pretrained(directory), None
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    runs: dict[str, dict[str, RankedList]] = {name: {} for name in contenders}
    for query_id, doc_ids in top.items():
        passages = [texts[doc_id] for doc_id in doc_ids]
        for name, (opened, precision) in contenders.items():
            used = time.process_time()
            order, scores = opened.rank(queries[query_id], passages, precision=precision)
            seconds[name].append(time.process_time() - used)
            runs[name][query_id] = RankedList.in_order([doc_ids[place] for place in order], np.asarray(scores))
    num_pairs = sum(map(len, top.values()))
    rows = []
    for name in contenders:
        means, _ = measure(runs[name], qrels, parse_measures([MEASURE]))
        rate, ratio = num_pairs / sum(seconds[name]), sum(seconds["float32"]) / sum(seconds[name])
        rows.append({"name": name, **means, "pairs_per_cpu_second": rate, "against_float32": ratio})
        print(f"{name:10} {means[MEASURE]:.4f} {rate:8.1f} pairs/s {ratio:5.2f}")
    sizes = {"queries": len(top), "pairs": num_pairs}
    print(save("precisions", environment(torch.device("cpu")) | sizes | {"rows": rows}, arguments.results))


if __name__ == "__main__":
    main()
