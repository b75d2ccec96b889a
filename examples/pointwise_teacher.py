"""Turn the first token of an LLM's answer into a score: log p(yes) - log p(no), as method=pointwise does.

Run: python -m examples.pointwise_teacher

Prints a prompt, and the passages in the order of their scores:

    Passage: Trains follow rails.
    Query: how do bees find home
    Does the passage answer the query? Write Yes or No and nothing else.

    2.94 Bees steer by the sun.
    -0.41 Bees live in hives.
    -3.89 Trains follow rails.
"""

from math import log

from distill.teachers.pointwise import order_by_score, yes_no_score
from distill.teachers.prompt import read_prompt

prompt = read_prompt("distill/teachers/prompts/pointwise.yaml", "pointwise")
system, user = prompt.fill("how do bees find home", ["Trains follow rails."])  # one request a passage
print(user["content"], end="\n\n")

answers = {  # what an endpoint gives as top_logprobs of the answer's first token: token -> probability
    "Trains follow rails.": {"No": 0.98, "Yes": 0.02},
    "Bees steer by the sun.": {"Yes": 0.7, " yes": 0.25, "No": 0.05},
    "Bees live in hives.": {"No": 0.6, "Yes": 0.4},
}
scores = [yes_no_score([(token, log(p)) for token, p in tokens.items()]) for tokens in answers.values()]
for place in order_by_score(scores):
    print(f"{scores[place]:.2f} {list(answers)[place]}")
