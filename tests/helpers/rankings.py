"""Small rankings and judgments."""

import numpy as np

from distill.sources.run_files import RankedList

QRELS = {"q1": {"d1": 1, "d2": 0, "d5": 2}, "q2": {"d1": 0, "d2": 0}, "q3": {"d3": 1}, "q4": {"d3": 3, "d4": -2}}


def ranked(scores: dict[str, float]) -> RankedList:
    doc_ids = sorted(scores, key=lambda doc_id: -scores[doc_id])
    return RankedList.in_order(doc_ids, np.array([scores[doc_id] for doc_id in doc_ids]))
