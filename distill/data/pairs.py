"""How a tokeniser joins a query and a passage.

    template = PairTemplate.of(tokenizer)
    tokens, token_types = template.join(query, passage)         # [CLS] query [SEP] passage [SEP]

Query and passage are truncated separately, before they are joined.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class PairTemplate:
    """The special tokens that a tokeniser puts around a pair: `prefix query middle passage suffix`."""

    prefix: np.ndarray  # [CLS] or <s>
    middle: np.ndarray  # [SEP] or </s></s>
    suffix: np.ndarray  # [SEP] or </s>
    second_type: int  # token type of the passage and suffix; the rest has 0
    max_length: int | None = None  # tokens of a pair, whose longer text is cut; None: no limit
    query_text: str = "{}"  # how a query is tokenised: a prompt's spaces may belong to the words beside them
    passage_text: str = "{}"

    @classmethod
    def of(cls, tokenizer) -> "PairTemplate":
        """Read the template off an encoded pair, so that every tokeniser keeps its own separators."""
        query, passage = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("query", "passage"))
        encoded = tokenizer("query", "passage", return_token_type_ids=True)
        pair, types = encoded["input_ids"], encoded["token_type_ids"]
        start = _find(pair, query, 0)
        end = start + len(query)
        second = _find(pair, passage, end)
        specials = pair[:start], pair[end:second], pair[second + len(passage) :]
        prefix, middle, suffix = (np.asarray(tokens, dtype=np.int32) for tokens in specials)
        return cls(prefix, middle, suffix, second_type=types[second])

    @property
    def num_special(self) -> int:
        """Number of special tokens in a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def texts(self, query: str, passage: str) -> tuple[str, str]:
        """Return query and passage as they are tokenised."""
        return self.query_text.replace("{}", query), self.passage_text.replace("{}", passage)

    def join(self, query: np.ndarray, passage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids and token types of one pair, both int32."""
        if self.max_length is not None:
            query_length, passage_length = longest_first(len(query), len(passage), self.max_length - self.num_special)
            query, passage = query[:query_length], passage[:passage_length]
        tokens = np.concatenate([self.prefix, query, self.middle, passage, self.suffix])
        types = np.zeros(len(tokens), dtype=np.int32)
        types[len(tokens) - len(passage) - len(self.suffix) :] = self.second_type
        return tokens, types


def _find(sequence: list[int], wanted: list[int], start: int) -> int:
    for index in range(start, len(sequence) - len(wanted) + 1):
        if sequence[index : index + len(wanted)] == wanted:
            return index
    raise ValueError(f"the tokenizer joins a pair in an unknown way: {wanted} is not in {sequence}")


def longest_first(first: int, second: int, limit: int) -> tuple[int, int]:
    """Return how many tokens of two texts are kept where both together may have `limit`, the longer being cut.

    The same numbers as truncation="longest_first" of Hugging Face tokenizers gives.
    """
    if first + second <= limit:
        return first, second
    least, most = sorted((first, second))
    most = max(least, limit - least)
    if least + most > limit:
        least, most = limit // 2, limit - limit // 2
    return (least, most) if first <= second else (most, least)
