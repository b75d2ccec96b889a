"""Texts as token ids: tokenised once, kept flat, joined to query-passage pairs.

    store = TokenStore(tokenizer, passages, max_length=256)
    template = PairTemplate.of(tokenizer)
    tokens, token_types = template.join(queries["q1"], store["d7"])     # [CLS] query [SEP] passage [SEP]

Query and passage are truncated separately, before they are joined. Nothing is tokenised inside a training step.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from distill.collection import Texts

CHUNK = 10_000  # texts a tokeniser call: enough to use all cores, few enough to show progress


class TokenStore:
    """Token ids of many texts in one flat array, looked up by text id; no special tokens."""

    def __init__(self, tokenizer, texts: Texts, max_length: int, name: str = "texts"):
        """Tokenise all texts, each cut to its first max_length tokens."""
        self.rows = {text_id: row for row, text_id in enumerate(texts)}
        values = list(texts.values())
        pieces = []
        for start in tqdm(range(0, len(values), CHUNK), f"tokenising {name}", disable=silent(len(values) > CHUNK)):
            encoded = tokenizer(
                values[start : start + CHUNK],
                add_special_tokens=False,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            pieces += [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        self.offsets = np.cumsum([0, *map(len, pieces)])
        self.flat = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)

    def __getitem__(self, text_id: str) -> np.ndarray:
        """Return the token ids of a text, int32, a view."""
        row = self.rows[text_id]
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class PairTemplate:
    """The special tokens that a tokeniser puts around a pair: `prefix query middle passage suffix`."""

    prefix: np.ndarray  # [CLS] or <s>
    middle: np.ndarray  # [SEP] or </s></s>
    suffix: np.ndarray  # [SEP] or </s>
    second_type: int  # token type of the passage and suffix; the rest has 0

    @classmethod
    def of(cls, tokenizer) -> "PairTemplate":
        """Read the template off an encoded pair, so that every tokeniser keeps its own separators."""
        query, passage = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("query", "passage"))
        encoded = tokenizer("query", "passage", return_token_type_ids=True)
        pair, types = encoded["input_ids"], encoded["token_type_ids"]
        start = _find(pair, query, 0)
        end = start + len(query)
        second = _find(pair, passage, end)
        parts = pair[:start], pair[end:second], pair[second + len(passage) :]
        return cls(*(np.asarray(part, dtype=np.int32) for part in parts), second_type=types[second])

    @property
    def num_special(self) -> int:
        """Number of special tokens in a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def join(self, query: np.ndarray, passage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids and token types of one pair, both int32."""
        tokens = np.concatenate([self.prefix, query, self.middle, passage, self.suffix])
        types = np.zeros(len(tokens), dtype=np.int32)
        types[len(tokens) - len(passage) - len(self.suffix) :] = self.second_type
        return tokens, types


def silent(long: bool) -> bool | None:
    """Value for tqdm's `disable`: True for short work; None (tqdm's word for "unless a terminal") for long work."""
    return None if long else True


def _find(sequence: list[int], part: list[int], start: int) -> int:
    for index in range(start, len(sequence) - len(part) + 1):
        if sequence[index : index + len(part)] == part:
            return index
    raise ValueError(f"the tokenizer joins a pair in an unknown way: {part} is not in {sequence}")
