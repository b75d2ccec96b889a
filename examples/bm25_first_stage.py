"""Retrieve a first stage with BM25. The index is kept in the cache, so that the next call is quick.

Run: python -m examples.bm25_first_stage

Prints the best three passages of a query, with the scores:

    p1518 3.45 My neighbour swears so. A classic from Yucatan.
    p1554 3.45 Always trust your nose. Known all over Okinawa.
    p0892 3.39 Best eaten in autumn. Here is a baguette.
"""

from distill.retrieval.bm25 import bm25_run
from distill.sources.texts import read_passages

run = bm25_run("sample/passages.tsv", {"q1": "a good loaf that suits autumn"}, depth=3)
passages = read_passages("sample/passages.tsv", set(run["q1"].doc_ids))
for doc_id, score in zip(run["q1"].doc_ids, run["q1"].scores, strict=True):
    print(f"{doc_id} {score:.2f} {'. '.join(passages[doc_id].split('. ')[:2])}.")
