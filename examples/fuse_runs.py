"""Fuse two runs in memory: the fusion ranks better than either.

Run: python -m examples.fuse_runs

Prints the nDCG@10 of each:

    first stage: 0.654
    BM25: 0.258
    reciprocal rank fusion: 0.721
    mean of z-scores: 0.718
"""

from distill.evaluation.measures import measure
from distill.evaluation.tasks import parse_measures
from distill.retrieval.bm25 import bm25_run
from distill.retrieval.fusion import fuse
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from distill.sources.texts import read_queries

first_stage = read_run("sample/test/first_stage.run.gz")
bm25 = bm25_run("sample/passages.tsv", read_queries("sample/test/queries.tsv"), depth=100)
runs = {"first stage": first_stage, "BM25": bm25}
runs["reciprocal rank fusion"] = fuse([first_stage, bm25])
runs["mean of z-scores"] = fuse([first_stage, bm25], "z-score")
qrels = read_qrels("sample/test/qrels.txt.gz")
for name, run in runs.items():
    means, _ = measure(run, qrels, parse_measures(["nDCG@10"]))
    print(f"{name}: {means['nDCG@10']:.3f}")
