"""Tokenise a collection once, on disk, and read it back: what training on millions of passages does.

Run: python -m examples.token_store

Prints:

    2300 passages, 74785 tokens of 2 bytes
    p0001 is row 1 and has 35 tokens: read all this twice. it looks rather
    the second time, it is only opened
"""

import os
import tempfile

import numpy as np
from transformers import AutoTokenizer

from distill.data.token_store import open_token_store


def main() -> None:
    """Build a store, read a passage of it, and open it again; its worker processes import this file."""
    tokenizer = AutoTokenizer.from_pretrained("sample/backbone", trust_remote_code=False)
    store = open_token_store("sample/passages.tsv", tokenizer, max_length=64)
    rows = np.arange(len(store))
    print(f"{len(store)} passages, {store.lengths(rows).sum()} tokens of {store[0].itemsize} bytes")
    (row,) = store.rows(["p0001"])
    tokens = store[row]
    print(f"p0001 is row {row} and has {len(tokens)} tokens: {tokenizer.decode(tokens[:8])}")
    again = open_token_store("sample/passages.tsv", tokenizer, max_length=64)
    assert (again[row] == tokens).all()
    print("the second time, it is only opened")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ["DISTILL_CACHE"] = directory  # leave this out to keep the store in ~/.cache/distill
        main()
