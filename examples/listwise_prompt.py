"""Show the prompt that a listwise LLM gets, and the rankings that its answers give.

Run: python -m examples.listwise_prompt

Prints:

    Below are 3 passages, each after its number in brackets. Order them by how well they answer the
    query: how do bees find home
    [1] Trains follow rails.
    [2] Bees steer by the sun.
    [3] Ants follow scents.
    Query: how do bees find home
    Put all 3 numbers in order, the passage that answers best first, as in [2] > [3] > [1]. Write that
    line and nothing else.

    '[2] > [3] > [1]' -> 2 3 1, whole
    'Sure! [2] and then [2] > [3].' -> 2 3 1, missing repeated
    '[7] > [2]' -> 2 1 3, missing out of range
    'I cannot help with that.' -> 1 2 3, unusable
"""

import textwrap

from distill.sources.permutations import mend_permutation
from distill.teachers.prompt import read_prompt

prompt = read_prompt("distill/teachers/prompts/listwise.yaml")
passages = ["Trains follow rails.", "Bees steer by the sun.", "Ants follow scents."]
system, user = prompt.fill("how do bees find home", passages)
for line in user["content"].splitlines():
    print(textwrap.fill(line, 100))
print()
for answer in ("[2] > [3] > [1]", "Sure! [2] and then [2] > [3].", "[7] > [2]", "I cannot help with that."):
    order, faults = mend_permutation(answer, len(passages))
    numbers = " ".join(str(place + 1) for place in order)
    print(f"{answer!r} -> {numbers}, {' '.join(sorted(faults)) or 'whole'}")
