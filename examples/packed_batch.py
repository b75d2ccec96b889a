"""Look at a packed batch: pairs one after the other in one row of tokens, without padding between them.

Run: python -m examples.packed_batch

Prints:

    lists of [3, 1] passages, pairs of [10, 15, 10, 11] tokens: 46, where padding would make 60
    one row [1, 46], longest pair first; the pairs begin at [0, 15, 26, 36]
    positions start again with each pair: [13, 14, 0, 1, 2]
    scores [2, 3], list by list, 0 where there is no passage:
    0.15 0.13 0.13
    0.14 0.00 0.00
"""

import torch

from distill import CrossEncoder
from distill.data.batch import make_batch

lists = {
    "gentle loaf": ["Just a good loaf.", "Makes a fine chowder. A classic from Fez.", "Much loved in autumn."],
    "soup for autumn": ["Much loved in autumn."],
}
torch.manual_seed(0)
model = CrossEncoder.from_backbone("sample/backbone", passage_length=64).eval()


def encode(text: str) -> list[int]:
    return model.tokenizer.encode(text, add_special_tokens=False)


pairs = [[model.template.join(encode(query), encode(text)) for text in texts] for query, texts in lists.items()]
batch = make_batch(list(lists), pairs)
sizes, lengths = batch.list_sizes.tolist(), batch.lengths.tolist()
padded = len(lengths) * max(lengths)
print(f"lists of {sizes} passages, pairs of {lengths} tokens: {sum(lengths)}, where padding would make {padded}")

(chunk,) = model.chunks(batch, max_tokens=16384)
print(f"one row {list(chunk.input_ids.shape)}, longest pair first; the pairs begin at {chunk.cu_seqlens[:-1].tolist()}")
print("positions start again with each pair:", chunk.position_ids[0, max(lengths) - 2 : max(lengths) + 3].tolist())
with torch.inference_mode():
    scores = model.score(batch, max_tokens=16384)
print(f"scores {list(scores.shape)}, list by list, 0 where there is no passage:")
for row in scores.tolist():
    print(*(f"{score:.2f}" for score in row))
