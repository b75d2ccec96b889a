"""The vocabulary files of tokenizers written in Python, which some importers read in place of tokenizer.json.

write_vocabulary(directory)         # vocab.txt of BERT's kind; vocab.json and merges.txt of RoBERTa's
"""

import json
from pathlib import Path

from distill.models.json_files import read_object
from distill.storage.writing import write_text


def write_vocabulary(directory: Path) -> None:
    """Write what eland, which imports models into Elasticsearch, reads beside tokenizer.json.

    Other kinds of tokenizers (sentencepiece) cannot be written from that file: nothing is.
    """
    model = read_object(directory / "tokenizer.json")["model"]
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict):
        return
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    if [vocabulary[word] for word in words] != list(range(len(words))):  # in vocab.txt, a line's number is the id
        return
    if model["type"] == "WordPiece":
        write_text(directory / "vocab.txt", "".join(f"{word}\n" for word in words))
    elif model["type"] == "BPE":
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        write_text(directory / "vocab.json", json.dumps(vocabulary, ensure_ascii=False) + "\n")
        write_text(directory / "merges.txt", "".join(f"{line}\n" for line in ["#version: 0.2", *merges]))
