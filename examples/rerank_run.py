"""Re-rank a run in Python: read it with its texts, score every list, measure the new run, write it.

Train a model first: python train.py hydra.run.dir=outputs/sample
Run: python -m examples.rerank_run [MODEL] [OUTPUT]

Prints:

    10 queries, nDCG@10: first stage 0.447, student 0.731
    written: outputs/reranked.run
"""

import sys
from pathlib import Path

import numpy as np

from distill import CrossEncoder
from distill.evaluation.measures import measure
from distill.evaluation.tasks import parse_measures
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList, write_run
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries

model_name, output, *_ = sys.argv[1:] + ["outputs/sample/model", "outputs/reranked.run"][len(sys.argv) - 1 :]
model, queries = CrossEncoder.from_pretrained(model_name), read_queries("sample/test/queries.tsv")
first_stage = dict(list(read_run("sample/test/first_stage.run.gz").items())[:10])
passages = read_passages(
    "sample/passages.tsv", {doc_id for ranked in first_stage.values() for doc_id in ranked.doc_ids}
)

student = {}
for query_id, ranked in first_stage.items():
    order, scores = model.rank(queries[query_id], [passages[doc_id] for doc_id in ranked.doc_ids])
    student[query_id] = RankedList.in_order([ranked.doc_ids[place] for place in order], np.array(scores))

qrels = read_qrels("sample/test/qrels.txt.gz")
qrels = {query_id: qrels[query_id] for query_id in first_stage}
before, after = (measure(run, qrels, parse_measures(["nDCG@10"]))[0]["nDCG@10"] for run in (first_stage, student))
print(f"{len(student)} queries, nDCG@10: first stage {before:.3f}, student {after:.3f}")
Path(output).parent.mkdir(parents=True, exist_ok=True)
write_run(student, Path(output), tag="student")
print(f"written: {output}")
