"""Re-rank in a PyTerrier pipeline.

A frame takes the place of a retriever here, so that neither an index nor Java is needed.

Run: python -m examples.pyterrier_pipeline [MODEL]            (pip install python-terrier)

Prints the two best passages of three:

    0 d2 0.78
    1 d3 -1.88
"""

import sys

import pandas as pd
import pyterrier as pt

from distill.pyterrier import Reranker

query = "how do bees find home"
texts = {
    "d1": "The first railway in the world to use steam locomotives opened in 1825.",
    "d2": "Bees find their way home by the sun and by the landmarks around their hive.",
    "d3": "Bees make honey from the nectar of flowers.",
}
rows = [("q1", query, doc_id, text, 3.0 - place, place) for place, (doc_id, text) in enumerate(texts.items())]
retrieved = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])
retriever = pt.Transformer.from_df(retrieved)  # with an index: pt.terrier.Retriever(index) >> pt.text.get_text(index)

pipeline = retriever >> Reranker(sys.argv[1] if len(sys.argv) > 1 else "googleq-minilm-3") % 2
queries = pd.DataFrame([("q1", query)], columns=["qid", "query"])
for row in pipeline(queries).itertuples():
    print(row.rank, row.docno, f"{row.score:.2f}")
