"""What a model reads of a passage: its first tokens, or those of several windows.

reading = open_reading("outputs/DATE/TIME/model")      # None if the directory says nothing about it
reading.count({"d7": "..."})                            # {"d7": 171} tokens, of which reading.length are read
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.models.json_files import read_count, read_object
from distill.sources.texts import Texts

LONGEST = 2**20  # tokens of a passage that are counted


@dataclass
class Reading:
    """The tokens of a passage that a model reads."""

    length: int
    tokenizer: Any

    def count(self, texts: Texts) -> dict[str, int]:
        """Return the number of tokens of each text, also of those that are not read."""
        from distill.data.tokens import TokenStore  # here: without a model, nothing is tokenised

        store = TokenStore.of(self.tokenizer, texts, LONGEST, "passages")
        return dict(zip(texts, store.lengths(store.rows(texts)).tolist(), strict=True))


def open_reading(
    model: str | None, windows: int = 1, stride: int | None = None, length: int | None = None
) -> Reading | None:
    """Return what a saved model reads; None for no model, one that this project has not saved, and mere adapters.

    windows, stride: of a task. length: tokens of a passage or window; None: the model's own.

    Raises InputError for a damaged directory.
    """
    if model is None:
        return None
    from distill.models.parts import load_tokenizer  # here: without a model, nothing waits for torch
    from distill.models.saved import SETTINGS_FILE

    if not all(os.path.isfile(Path(model) / name) for name in (SETTINGS_FILE, "config.json")):  # adapters: no config
        return None
    file = Path(model) / SETTINGS_FILE
    length = length or read_count(read_object(file), "passage_length", file) or 0
    return Reading(length + (windows - 1) * (stride or max(length // 2, 1)), load_tokenizer(model))
