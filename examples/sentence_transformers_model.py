"""Open a trained model in sentence-transformers: its directory is a CrossEncoder of theirs, nothing is converted.

Run: python -m examples.sentence_transformers_model [MODEL]           (pip install sentence-transformers)

Prints:

    sentence-transformers: 0.78 -2.16
    distill: 0.78 -2.16
"""

import sys

from sentence_transformers import CrossEncoder as TheirCrossEncoder

from distill import CrossEncoder
from distill.models.locate import locate_model

name = locate_model(sys.argv[1] if len(sys.argv) > 1 else "googleq-minilm-3")  # its directory
query, passages = "how do bees find home", ["Bees find their way home by the sun.", "Trains follow rails."]
theirs = TheirCrossEncoder(name, device="cpu", trust_remote_code=False).predict(
    [(query, passage) for passage in passages]
)
order, scores = CrossEncoder.from_pretrained(name).rank(query, passages)
ours = dict(zip(order, scores, strict=True))
print("sentence-transformers:", *(f"{score:.2f}" for score in theirs))
print("distill:", *(f"{ours[place]:.2f}" for place in range(len(passages))))
