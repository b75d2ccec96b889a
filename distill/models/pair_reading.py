"""Texts as a cross-encoder reads them: pairs of query and passage as tokens, each cut to its own length.

pairs = read_pairs(model, ["how do bees find home"] * 2, ["Bees ...", "Trains ..."])       # tokens and token types
cut = places_of_cut_pairs(model, queries, passages)
[tokens] = read_texts(model.tokenizer, ["how do bees find home"], 32)
"""

import itertools
from collections.abc import Iterable

import numpy as np

from distill.data.pairs import cut

TokenPair = tuple[np.ndarray, np.ndarray]  # tokens and token types of a pair


def read_pairs(
    model,
    queries: list[str],
    passages: list[str],
    numbers: Iterable[int | None] | None = None,
    passage_length: int | None = None,
) -> list[TokenPair]:
    """Return pairs, one query for each passage, cut to the model's lengths.

    A query is tokenised once, however many pairs it has. numbers: those of first-stage scores. passage_length: cut
    passages to fewer tokens than the model reads.
    """
    template, length = model.template, min(passage_length or model.passage_length, model.passage_length)
    query_texts, passage_texts = template.texts_of_all(queries, passages)
    read = read_texts(model.tokenizer, list(query_texts.values()), model.query_length, template.query_end)
    of_query = dict(zip(query_texts, read, strict=True))
    encoded = read_texts(model.tokenizer, passage_texts, length, template.passage_end)
    numbers = itertools.repeat(None, len(encoded)) if numbers is None else numbers
    together = zip(queries, encoded, numbers, strict=True)
    return [template.join(of_query[query], passage, number) for query, passage, number in together]


def places_of_cut_pairs(model, queries: list[str], passages: list[str]) -> list[int]:
    """Return the indices of the pairs that `read_pairs` cuts, since the model does not read texts of such lengths."""
    query_texts, passage_texts = model.template.texts_of_all(queries, passages)
    read = read_texts(model.tokenizer, list(query_texts.values()), None)
    of_query = dict(zip(query_texts, map(len, read), strict=True))
    lengths = map(len, read_texts(model.tokenizer, passage_texts, None))
    room = model.max_length - model.template.num_special
    return [
        index
        for index, (query, length) in enumerate(zip(queries, lengths, strict=True))
        if of_query[query] > model.query_length or length > model.passage_length or of_query[query] + length > room
    ]


def read_texts(tokenizer, texts: list[str], max_length: int | None, end: np.ndarray | None = None) -> list[np.ndarray]:
    """Return the first max_length tokens of each text, None for all; without special tokens.

    end: what the texts' forms end with, which is not cut.
    """
    # Not truncation=True, which changes the tokenizer, so that two threads could not use it at once
    options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    encoded = tokenizer(texts, verbose=False, **options)["input_ids"] if texts else []
    read = [np.asarray(ids, np.int64) for ids in encoded]  # int64 even for an empty text
    if max_length is None:
        return read
    end = np.zeros(0, np.int64) if end is None else end
    left = tokenizer.truncation_side == "left" and not len(end)
    return [cut(tokens, max_length, end, left=left) for tokens in read]
