"""Score the passages of a query with a trained model.

Train one first, in about half a minute: python train.py hydra.run.dir=outputs/sample
Run: python -m examples.score_passages [MODEL]

Prints, best passage first:

    0.78  Just a good loaf. Much loved in autumn.
    -1.88  Just a good loaf. Much loved in spring.
    -2.15  Makes a fine chowder. A classic from Fez.
"""

import sys

from distill import CrossEncoder
from distill.errors import exit_on_bad_input

with exit_on_bad_input(sweep=False):  # one line instead of a traceback
    model = CrossEncoder.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "outputs/sample/model")
passages = [
    "Makes a fine chowder. A classic from Fez.",
    "Just a good loaf. Much loved in spring.",
    "Just a good loaf. Much loved in autumn.",
]
order, scores = model.rank("gentle loaf that suits autumn", passages)
for place, score in zip(order, scores, strict=True):
    print(f"{score:.2f}  {passages[place]}")
