"""Queries with their passages as texts: from files, or generated with MS MARCO's lengths.

lists = generated_lists(num_queries=20, num_passages=100)         # [("what is ...", ["A passage ...", ...]), ...]
lists = file_lists(Path("docs.tsv"), Path("queries.tsv"), Path("bm25.run"), num_queries=20, num_passages=100)
"""

from itertools import islice
from pathlib import Path

from benchmarks.generate import passages, queries

Lists = list[tuple[str, list[str]]]


def generated_lists(num_queries: int, num_passages: int) -> Lists:
    """Return made-up queries with made-up passages, log-normal in length with a mean of 56 words."""
    texts = (line.partition("\t")[2].strip() for line in passages(num_queries * num_passages))
    asked = (line.partition("\t")[2].strip() for line in queries(num_queries))
    return [(query, list(islice(texts, num_passages))) for query in asked]


def file_lists(docs: Path, asked: Path, run: Path, num_queries: int, num_passages: int) -> Lists:
    """Return the first queries of a TSV file with the top passages of a TREC run."""
    texts, wanted = (
        dict(line.rstrip("\n").split("\t", 1) for line in path.read_text().splitlines()) for path in (docs, asked)
    )
    ranked: dict[str, list[str]] = {}
    for line in run.read_text().splitlines():
        query_id, _, doc_id, *_ = line.split()
        if query_id in wanted and len(ranked.setdefault(query_id, [])) < num_passages:
            ranked[query_id].append(texts[doc_id])
    return [(wanted[query_id], passages) for query_id, passages in islice(ranked.items(), num_queries)]
