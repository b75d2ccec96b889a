"""Measure what less work saves and costs: pairs per second and nDCG@10 beside sentence-transformers in float32.

    python -m benchmarks.less_work --model DIR --small googleq-minilm-3 --int8 DIR2 --num-queries 50 \\
        --passages docs.tsv --queries queries.tsv --run bm25.run --qrels qrels.txt
    python -m benchmarks.less_work ... --contenders float32,exit-20,cascade-20+int8,bfloat16+exit-20+cut-128

DIR is the full model; for exit-K it was trained with model.exit_layer, or --exit names another that was. --int8 is its
export with format=onnx-int8; without it, one is made, if the packages are there. A contender is one of these, or
several joined by +:

| | |
| --- | --- |
| float32, bfloat16 | the precision; float32 if neither is named |
| exit-K | only the K best passages of each list go through all layers |
| cascade-K | --small scores all passages, in that precision, and the model the K best again |
| cut-N | passages are cut to N tokens |
| int8 | the ONNX graph in place of the model |

All contenders score each query's list in turn, texts to scores, in one process, so that what else runs on the machine
slows them all. The ratio is that of the seconds of sentence-transformers' predict, batches of 32, float32: of CPU time
without a GPU. Beside it are the quartiles over the queries. Contenders that cannot run here are left out with the
reason.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import RESULTS, environment, save
from benchmarks.workers import spread
from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.measures import measure
from distill.models.cross_encoder import CrossEncoder
from distill.models.locate import locate_model
from distill.models.parts import evaluating
from distill.models.pruned import check_keep, score_again
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries

MEASURE = "nDCG@10"
THEIRS = "sentence-transformers"
CONTENDERS = (
    *("float32", "bfloat16", "exit-10", "exit-20", "exit-30", "cascade-20"),
    *("cut-64", "cut-96", "cut-128", "cut-192", "int8"),
    *("exit-20+cut-128", "bfloat16+exit-20", "bfloat16+cascade-20", "cascade-20+int8"),
)
Score = Callable[[str, list[str]], np.ndarray]  # of a query and its passages: scores [K]


@dataclass
class Way:
    """A way to score a list with less work."""

    precision: torch.dtype = torch.float32
    exit_keep: int | None = None
    cascade_keep: int | None = None
    cut: int | None = None
    int8: bool = False


def read_way(name: str) -> Way:
    """Return what a contender's name says, as in `bfloat16+exit-20`; raises InputError for another name."""
    way = Way()
    for part in name.split("+"):
        kind, _, number = part.partition("-")
        if part in ("float32", "bfloat16"):
            way.precision = getattr(torch, part)
        elif part == "int8":
            way.int8 = True
        elif kind in ("exit", "cascade", "cut") and number.isdecimal() and int(number):
            setattr(way, {"exit": "exit_keep", "cascade": "cascade_keep", "cut": "cut"}[kind], int(number))
        else:
            raise InputError(f"{name}: {part} is unknown: give float32, bfloat16, exit-K, cascade-K, cut-N or int8")
    return way


class Models:
    """The models of all contenders, each opened when the first one needs it."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path):
        """Take the command line and a directory for an export."""
        self.arguments, self.scratch = arguments, scratch
        self.opened: dict[str, CrossEncoder] = {}

    def of(self, way: Way) -> CrossEncoder:
        """Return the model that scores in this way; raises InputError if there is none."""
        if way.int8 and way.exit_keep is not None:
            raise InputError("an ONNX graph has only the full score")
        if way.int8:
            return self.open(str(self.arguments.int8 or self.exported()))
        model = self.open((self.arguments.exit if way.exit_keep is not None else None) or self.arguments.model)
        check_keep(model, way.exit_keep, "exit")
        return model

    def open(self, name: str) -> CrossEncoder:
        """Open a model, once."""
        if name not in self.opened:
            self.opened[name] = CrossEncoder.from_pretrained(name).to(self.arguments.device)
        return self.opened[name]

    def exported(self) -> Path:
        """Export the full model with int8 weights, once."""
        from distill.export.formats import export

        if not (self.scratch / "int8").is_dir():
            export(CrossEncoder.from_pretrained(self.arguments.model), self.scratch / "int8", "onnx-int8")
        return self.scratch / "int8"


def score(model: CrossEncoder, query: str, passages: list[str], way: Way) -> np.ndarray:
    """Return the scores [K] of a list by one model."""
    precision = torch.float32 if way.int8 else way.precision
    with torch.inference_mode(), evaluating(model):
        pairs = model.encode([query] * len(passages), passages, passage_length=way.cut)
        [scores] = model.score_lists([pairs], precision=precision, exit_keep=way.exit_keep)
    return scores.double().numpy()


def contender(name: str, models: Models) -> Score:
    """Return a contender's function; raises InputError if it cannot run here."""
    if name == THEIRS:
        return their_scores(models.arguments)
    way = read_way(name)
    model = models.of(way)
    keep = way.cascade_keep
    if keep is None:
        return lambda query, passages: score(model, query, passages, way)
    if models.arguments.small is None:
        raise InputError("a cascade needs --small")
    small = models.open(models.arguments.small)

    def both(query: str, passages: list[str]) -> np.ndarray:
        first = score(small, query, passages, Way(way.precision, cut=way.cut))
        return score_again(first, lambda best: score(model, query, [passages[index] for index in best], way), keep)

    return both


def their_scores(arguments: argparse.Namespace) -> Score:
    """Return sentence-transformers' function."""
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    name = locate_model(arguments.model)
    theirs: Any = TheirCrossEncoder(name, device=arguments.device, trust_remote_code=False)

    def predict(query: str, passages: list[str]) -> np.ndarray:
        pairs = [(query, passage) for passage in passages]
        return np.asarray(theirs.predict(pairs, batch_size=32, show_progress_bar=False), np.float64)

    return predict


def read_lists(arguments: argparse.Namespace) -> tuple[dict[str, tuple[str, list[str], list[str]]], dict]:
    """Return the first queries that have judgments and a list, with ids and texts of their passages, and the qrels."""
    queries, qrels, run = read_queries(arguments.queries), read_qrels(arguments.qrels), read_run(arguments.run)
    chosen = [query_id for query_id in run if query_id in queries and query_id in qrels][: arguments.num_queries]
    top = {query_id: run[query_id].doc_ids[: arguments.depth] for query_id in chosen}
    texts = read_passages(arguments.passages, {doc_id for doc_ids in top.values() for doc_id in doc_ids})
    lists = {
        query_id: (queries[query_id], doc_ids, [texts[doc_id] for doc_id in doc_ids])
        for query_id, doc_ids in top.items()
    }
    return lists, {query_id: qrels[query_id] for query_id in lists}


def timed(score_list: Score, query: str, passages: list[str], device: str) -> tuple[np.ndarray, float, float]:
    """Return the scores, the seconds, and the seconds of CPU time."""
    start, used = time.perf_counter(), time.process_time()
    scores = score_list(query, passages)
    if device == "cuda":
        torch.cuda.synchronize()
    return scores, time.perf_counter() - start, time.process_time() - used


def main() -> None:
    """Score all lists, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--model", "--passages", "--queries", "--run", "--qrels"):
        parser.add_argument(name, required=True)
    parser.add_argument("--small", help="first model of a cascade")
    parser.add_argument("--exit", help="model with a score after an inner layer, if --model has none")
    parser.add_argument("--int8", type=Path, help="export of --model with format=onnx-int8")
    parser.add_argument("--num-queries", type=int, default=50)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    lists, qrels = read_lists(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        models, contenders = Models(arguments, Path(scratch)), dict[str, Score]()
        for name in (THEIRS, *arguments.contenders.split(",")):
            try:
                contenders[name] = contender(name, models)
            except InputError as error:
                print(f"{name}: left out: {error}", file=sys.stderr)
        rows = run_all(contenders, lists, qrels, arguments.device)
    for row in rows:
        low, high = row["ratio_of_queries"]["quartiles"]
        print(
            f"{row['name']:24} {row[MEASURE]:.4f} {row['pairs_per_second']:8.1f} pairs/s "
            f"{row['ratio']:6.2f} ({low:.2f} to {high:.2f})"
        )
    sizes = {"queries": len(lists), "pairs": sum(len(doc_ids) for _, doc_ids, _ in lists.values())}
    print(save("less-work", environment(torch.device(arguments.device)) | sizes | {"rows": rows}, arguments.results))


def run_all(contenders: dict[str, Score], lists: dict, qrels: dict, device: str) -> list[dict[str, Any]]:
    """Let all contenders score each list in turn, after one list that is not counted; return a row for each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    counted: dict[str, list[float]] = {name: [] for name in contenders}  # CPU time, without a GPU
    runs: dict[str, dict[str, RankedList]] = {name: {} for name in contenders}
    for place, query_id in enumerate([next(iter(lists)), *lists]):
        query, doc_ids, passages = lists[query_id]
        for name, score_list in contenders.items():
            scores, wall, cpu = timed(score_list, query, passages, device)
            runs[name][query_id] = RankedList.by_score(doc_ids, scores)
            if place:
                seconds[name].append(wall)
                counted[name].append(wall if device == "cuda" else cpu)
    num_pairs = sum(len(doc_ids) for _, doc_ids, _ in lists.values())
    rows = []
    for name in contenders:
        means, _ = measure(runs[name], qrels, parse_measures([MEASURE]))
        ratios = [theirs / ours for theirs, ours in zip(counted[THEIRS], counted[name], strict=True)]
        rates = {"pairs_per_second": num_pairs / sum(seconds[name])}
        rates |= {"ratio": sum(counted[THEIRS]) / sum(counted[name]), "ratio_of_queries": spread(ratios)}
        rows.append({"name": name, **means, **rates})
    return rows


if __name__ == "__main__":
    main()
