"""Score the passages of a query with a trained model.

Run: python -m examples.score_passages [MODEL]              (default: the model that comes with the package)

Prints, best passage first:

    4.68  Bees find their way home by the sun and by the landmarks around their hive.
    0.53  Bees make honey from the nectar of flowers.
    -5.09  The first railway in the world to use steam locomotives opened in 1825.
"""

import sys

from distill import CrossEncoder
from distill.errors import exit_on_bad_input

with exit_on_bad_input(sweep=False):  # one line instead of a traceback
    model = CrossEncoder.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "googleq-minilm-3")
passages = [
    "The first railway in the world to use steam locomotives opened in 1825.",
    "Bees make honey from the nectar of flowers.",
    "Bees find their way home by the sun and by the landmarks around their hive.",
]
order, scores = model.rank("how do bees find home", passages)
for place, score in zip(order, scores, strict=True):
    print(f"{score:.2f}  {passages[place]}")
