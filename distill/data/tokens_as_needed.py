"""Texts as token ids, tokenised when they are first asked for: what a task that is scored once needs.

    passages = TokensAsNeeded(tokenizer, texts, max_length=256)
    passages.of_ids(["d7", "d9"])                               # token ids, without special tokens

Memory does not grow with the texts, which may be on disk: only the tokens that were asked for last are kept.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from distill.data.tokens import Encoder, portable, token_type
from distill.sources.stored_passages import Passages

KEPT = 10_000_000  # tokens, of two or four bytes: passages of many lists are tokenised once


class TokensAsNeeded:
    """Token ids of texts by id; one thread at a time may ask."""

    def __init__(self, tokenizer, texts: Passages, max_length: int, form: str = "{}"):
        """Tokenise nothing yet; arguments as of TokenStore.of."""
        self.encode, self.texts = Encoder(portable(tokenizer), max_length, token_type(tokenizer), form), texts
        self.kept: OrderedDict[str, np.ndarray] = OrderedDict()  # the ones asked for last come last
        self.num_kept = 0  # tokens

    def of_ids(self, text_ids: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of some texts, not to be changed; raises KeyError for an id without a text."""
        missing = [text_id for text_id in dict.fromkeys(text_ids) if text_id not in self.kept]
        if missing:
            chunk = self.encode([(text_id, self.texts[text_id]) for text_id in missing])
            for text_id, tokens in zip(missing, np.split(chunk.tokens, np.cumsum(chunk.lengths)[:-1]), strict=True):
                self.kept[text_id] = tokens.copy()  # a part would keep the whole chunk in memory
            self.num_kept += len(chunk.tokens)
        found = [self.kept[text_id] for text_id in text_ids]
        for text_id in text_ids:
            self.kept.move_to_end(text_id)
        while self.num_kept > KEPT and self.kept:
            self.num_kept -= len(self.kept.popitem(last=False)[1])
        return found

    @property
    def tokens(self) -> np.ndarray:
        """All token ids that are kept, in one array."""
        return np.concatenate([np.zeros(0, self.encode.dtype), *self.kept.values()])
