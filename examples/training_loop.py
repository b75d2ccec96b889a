"""Train a model from Python, with the pieces that train.py calls.

Run: python -m examples.training_loop [STEPS] [OUTPUT]

Prints:

    step 10: loss 0.666
    step 20: loss 0.673
    step 30: loss 0.645
    saved: outputs/loop/model
"""

import sys

import numpy as np
import torch

from distill import CrossEncoder
from distill.data.batch import make_batch
from distill.data.tokens import TokenStore
from distill.losses import ranknet
from distill.sources.runs import read_run
from distill.sources.texts import iterate_texts, read_queries

steps, output, *_ = sys.argv[1:] + ["30", "outputs/loop/model"][len(sys.argv) - 1 :]
torch.manual_seed(0)
model = CrossEncoder.from_backbone("sample/backbone", passage_length=64)
passages = TokenStore.of(model.tokenizer, dict(iterate_texts("sample/passages.tsv", "passages")), max_length=64)
queries = TokenStore.of(model.tokenizer, read_queries("sample/train/queries.tsv"), max_length=32)
teacher = read_run("sample/train/teacher.run.gz")
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

for step in range(1, int(steps) + 1):
    query_ids = np.random.default_rng(step).choice(list(teacher), 8, replace=False).tolist()
    lists = [teacher[query_id].cut(25) for query_id in query_ids]  # the teacher's top 25 of 8 queries
    pairs = [
        [model.template.join(queries[row], passages[place]) for place in passages.rows(ranked.doc_ids)]
        for row, ranked in zip(queries.rows(query_ids), lists, strict=True)
    ]
    batch = make_batch(query_ids, pairs, {"rank": [ranked.ranks for ranked in lists]})
    loss = ranknet(model.score(batch, max_tokens=16384), batch.targets["rank"], batch.mask)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
model.save_pretrained(output)
print(f"saved: {output}")
