"""Measure two runs against judgments, and test whether they differ.

Run: python -m examples.measure_run

Prints:

    first stage: nDCG@10 0.454, RR 0.921
    teacher: nDCG@10 0.928, RR 1.000
    the teacher gains 0.474 nDCG@10 over 100 queries, p < 0.001
"""

from distill.evaluation.measures import measure
from distill.evaluation.significance import compare
from distill.evaluation.tasks import parse_measures
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run

qrels = read_qrels("sample/test/qrels.txt.gz")
runs = {name: read_run(f"sample/test/{name.replace(' ', '_')}.run.gz") for name in ("first stage", "teacher")}
ndcg = {}  # of each run: query id -> nDCG@10
for name, run in runs.items():
    means, per_query = measure(run, qrels, parse_measures(["nDCG@10", "RR"]))
    print(f"{name}: " + ", ".join(f"{measure_name} {value:.3f}" for measure_name, value in means.items()))
    ndcg[name] = {query_id: values["nDCG@10"] for query_id, values in per_query.items()}
(found,) = compare(ndcg["first stage"], {"teacher": ndcg["teacher"]})  # a paired t-test over queries
p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
print(f"the teacher gains {found.difference:.3f} nDCG@10 over {found.num_queries} queries, {p}")
