"""Texts as token ids: tokenised once, kept flat, looked up by id.

    store = TokenStore.of(tokenizer, texts, max_length=256)       # in memory; token_store.py has it on disk
    rows = store.rows(["d7", "d9"])                               # -1 for an id that it lacks
    store[rows[0]]                                                # token ids, without special tokens

Nothing is tokenised inside a training step.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from distill.progress import Progress
from distill.sources.stored_passages import Passages
from distill.storage.arrays import hash_strings, look_up_table, offsets_of, text_at

log = logging.getLogger(__name__)

AS_TEXT = "split_special_tokens "
FROM_LEFT = "truncation_side=left "
UNKNOWN_BLOCKS, UNKNOWN_BLOCK = 20, 50_000  # places in a store, and tokens at each, where unknown ones are counted
CHUNK = 5_000  # texts of one call: enough to use all cores, few enough to show progress


class TokenStore:
    """Token ids of N texts in one flat array, by row; rows are looked up by text id. No special tokens."""

    def __init__(self, tokens, offsets, ids, id_offsets, hashes, hashed_rows, cut):
        """Wrap flat arrays (tokens may be a FlatFile): tokens of row n from offsets[n] to offsets[n + 1], ids likewise.

        hashes: [N] of the ids, sorted; hashed_rows: [N] the row that each belongs to. cut: [N] which are truncated.
        """
        self.tokens, self.offsets = tokens, offsets
        self.ids, self.id_offsets = ids, id_offsets
        self.hashes, self.hashed_rows = hashes, hashed_rows
        self.cut = cut

    @classmethod
    def of(cls, tokenizer, texts: Passages, max_length: int, name: str = "texts", form: str = "{}") -> "TokenStore":
        """Tokenise texts into memory, each put in place of the form's {} and cut to its first max_length tokens.

        What follows {} is not cut (distill/data/pairs.py).
        """
        chunks = chunks_of(texts.items())
        encode = Encoder(portable(tokenizer), max_length, token_type(tokenizer), form)
        bar = Progress(chunks, f"tokenising {name}", len(texts) // CHUNK + 1, unit=" chunks", shown=len(texts) > CHUNK)
        empty = encode([])  # there may be no text
        whole = Chunk(*(np.concatenate(arrays) for arrays in zip(empty, *map(encode, bar), strict=True)))
        offsets, id_offsets = offsets_of(whole.lengths), offsets_of(whole.id_lengths)
        table = look_up_table(whole.ids, id_offsets, name, name)
        return cls(whole.tokens, offsets, whole.ids, id_offsets, *table, whole.cut)

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the token ids of a row, not to be changed."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return how many tokens each of the rows has."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def rows(self, text_ids: Iterable[str]) -> np.ndarray:
        """Return the row of each id, [n] int64; -1 for an id that the store lacks."""
        import pyarrow as pa  # imported here: a model needs no pyarrow

        hashes = hash_strings(pa.array(text_ids, pa.large_string()))
        if not len(self):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self) - 1)
        return np.where(self.hashes[places] == hashes, self.hashed_rows[places].astype(np.int64), -1)

    def of_ids(self, text_ids: Iterable[str]) -> list[np.ndarray]:
        """Return the token ids of some texts, not to be changed."""
        return [self[row] for row in self.rows(text_ids).tolist()]

    def text_id(self, row: int) -> str:
        """Return the id of a row."""
        return text_at(self.ids, self.id_offsets, row)

    def cut_ids(self, rows: np.ndarray | None = None) -> list[str]:
        """Return the ids of the truncated texts: among the rows, or of all."""
        rows = np.arange(len(self)) if rows is None else rows
        return [self.text_id(row) for row in rows[self.cut[rows] > 0].tolist()]


def unknown_share(store: "HasTokens", tokenizer) -> float:
    """Return the share of a store's tokens that stand for what the tokenizer does not know, in a sample of them."""
    size = len(store.tokens)
    if tokenizer.unk_token_id is None or not size:
        return 0.0
    step = max(size // UNKNOWN_BLOCKS, UNKNOWN_BLOCK)
    blocks = [store.tokens[start : min(start + UNKNOWN_BLOCK, size)] for start in range(0, size, step)]
    return float(np.mean(np.concatenate(blocks) == tokenizer.unk_token_id))


class HasTokens(Protocol):
    """What holds tokens in one array, of which slices can be taken."""

    @property
    def tokens(self) -> Any:
        """Token ids [T], or a FlatFile of them."""


class Encoder:
    """Tokenises chunks of texts: the part of a tokenizer that another process needs."""

    def __init__(self, definition: str, max_length: int, dtype: np.dtype, form: str = "{}"):
        """Rebuild the tokenizer from its definition, as `portable` returns it; form: of every text, at its {}."""
        from tokenizers import Tokenizer

        cuts_left, definition = definition.startswith(FROM_LEFT), definition.removeprefix(FROM_LEFT)
        self.tokenizer = Tokenizer.from_str(definition.removeprefix(AS_TEXT))
        self.tokenizer.encode_special_tokens = definition.startswith(AS_TEXT)
        self.dtype, self.form = dtype, form
        self.end = self.tokenizer.encode(form.partition("{}")[2], add_special_tokens=False).ids
        self.tokenizer.enable_truncation(max_length, direction="left" if cuts_left and not self.end else "right")

    def __call__(self, chunk: list[tuple[str, str]]) -> "Chunk":
        """Tokenise one chunk of (id, text)."""
        texts = [self.form.replace("{}", text) for _, text in chunk]
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        token_ids = [self._with_end(encoding) for encoding in encoded]
        lengths = np.fromiter(map(len, token_ids), np.int64, len(chunk))
        ids = [text_id.encode() for text_id, _ in chunk]
        return Chunk(
            np.fromiter(itertools.chain.from_iterable(token_ids), self.dtype, lengths.sum()),
            lengths,
            np.frombuffer(b"".join(ids), np.uint8),
            np.fromiter(map(len, ids), np.int64, len(chunk)),
            np.fromiter((bool(encoding.overflowing) for encoding in encoded), np.uint8, len(chunk)),
        )

    def _with_end(self, encoding) -> list[int]:
        """Return a text's tokens; of a text that is cut, the last ones are those of the form's end."""
        if not self.end or not encoding.overflowing:
            return encoding.ids
        kept = self.end[: len(encoding.ids)]
        return encoding.ids[: -len(kept)] + kept


class Chunk(NamedTuple):
    """The tokens and ids of n texts, flat."""

    tokens: np.ndarray
    lengths: np.ndarray  # [n] int64: tokens of each text
    ids: np.ndarray  # UTF-8
    id_lengths: np.ndarray  # [n] int64: bytes of each id
    cut: np.ndarray  # [n] uint8: 1 for a text that is longer than the tokens that are kept of it


def portable(tokenizer) -> str:
    """Return the definition of a tokenizer (JSON) without the truncation or padding that earlier calls have set.

    It starts with what no tokenizer.json says: FROM_LEFT if texts are cut at their beginnings, and AS_TEXT if control
    tokens within texts are read as text.
    """
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    marks = (FROM_LEFT if tokenizer.truncation_side == "left" else "") + (
        AS_TEXT if tokenizer.split_special_tokens else ""
    )
    return marks + copy.to_str()


def token_type(tokenizer) -> np.dtype:
    """Return the smallest unsigned type that holds every token id."""
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def chunks_of(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Yield (id, text) in lists of CHUNK."""
    texts = iter(texts)
    while chunk := list(itertools.islice(texts, CHUNK)):
        yield chunk


def warn_of_cut_queries(cut: list[str], total: int, length: int, where: str) -> None:
    """Warn of truncated queries, given by their ids: no score depends on their ends."""
    if cut:
        log.warning(
            "%s: %d of %d queries are longer than model.query_length=%d tokens: their ends are not read (first: %s)",
            *(where, len(cut), total, length, cut[0]),
        )
