"""How a tokeniser joins a query and a passage.

    template = PairTemplate.of(tokenizer)
    tokens, token_types = template.join(query, passage)         # [CLS] query [SEP] passage [SEP]

Query and passage are truncated separately, before they are joined.

    template = PairTemplate.of(tokenizer, first_stage_score="min-max")
    numbers = template.numbers(ranked.scores)                   # of a query's whole list: 100 for the highest
    template.join(query, passage, numbers[0])                   # [CLS] query [SEP] 100 [SEP] passage [SEP]

A model may read the first stage's score, too, as a number between query and passage (Askari et al., Injecting the BM25
Score as Text Improves BERT-Based Re-rankers, ECIR 2023, https://arxiv.org/abs/2301.09728).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from distill.errors import InputError

SCALES = ("min-max", "global")  # of first-stage scores
GLOBAL_BOUNDS = (0.0, 50.0)  # of BM25 scores, as in the code that Askari et al. published
HIGHEST = 100  # number of the best first-stage score; 0 is that of a passage that the first stage did not find


def _no_tokens() -> np.ndarray:
    return np.zeros(0, dtype=np.int32)


@dataclass
class PairTemplate:
    """The special tokens that a tokeniser puts around a pair: `prefix query middle passage suffix`."""

    prefix: np.ndarray  # [CLS] or <s>
    middle: np.ndarray  # [SEP] or </s></s>
    suffix: np.ndarray  # [SEP] or </s>
    second_type: int  # token type of the passage and suffix; the rest has 0
    max_length: int | None = None  # tokens of a pair, whose longer text is cut; None: no limit
    keeps_query: bool = False  # in such a pair, only the passage is cut, unless the query fills it
    cuts_left: bool = False  # whether such a pair's texts are cut at their beginnings
    query_text: str = "{}"  # how a query is tokenised: a prompt's spaces may belong to the words beside them
    passage_text: str = "{}"
    query_end: np.ndarray = field(default_factory=_no_tokens)  # tokens after {}, which a text that is cut keeps
    passage_end: np.ndarray = field(default_factory=_no_tokens)
    first_stage_score: str | None = None  # one of SCALES: the pair holds the first stage's score; None: no pair does
    middles: Sequence[np.ndarray] = ()  # with that score: what takes the place of `middle`, for each number from 0

    @classmethod
    def of(cls, tokenizer, first_stage_score: str | None = None) -> "PairTemplate":
        """Read the template off an encoded pair, so that every tokeniser keeps its own separators.

        Raises InputError for a tokeniser that cannot write the numbers of first_stage_score.
        """
        words, (query, passage) = _two_words(tokenizer)
        encoded = tokenizer(*words, return_token_type_ids=True)
        pair, types = encoded["input_ids"], encoded["token_type_ids"]
        start = _find(pair, query, 0)
        end = start + len(query)
        second = _find(pair, passage, end)
        specials = pair[:start], pair[end:second], pair[second + len(passage) :]
        prefix, middle, suffix = (np.asarray(tokens, dtype=np.int32) for tokens in specials)
        cuts_left = getattr(tokenizer, "truncation_side", "right") == "left"
        template = cls(prefix, middle, suffix, second_type=types[second], cuts_left=cuts_left)
        if first_stage_score is not None:
            template.first_stage_score = first_stage_score
            template.middles = [np.concatenate([middle, number, middle]) for number in _numbers(tokenizer)]
        return template

    @property
    def num_special(self) -> int:
        """Number of special tokens in a pair, with those of the longest first-stage score if the pair has one."""
        return len(self.prefix) + max(map(len, self.middles or [self.middle])) + len(self.suffix)

    def texts(self, query: str, passage: str) -> tuple[str, str]:
        """Return query and passage as they are tokenised."""
        return _in_form(self.query_text, query), _in_form(self.passage_text, passage)

    def texts_of_all(self, queries: Iterable[str], passages: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Return how each different query is tokenised, by the query, and how each passage is.

        A query's text is made once, however many pairs it has.
        """
        of_query = {query: _in_form(self.query_text, query) for query in dict.fromkeys(queries)}
        return of_query, [_in_form(self.passage_text, passage) for passage in passages]

    def numbers(self, scores: Sequence[float] | np.ndarray) -> list[int] | list[None]:
        """Return what `join` takes for the first-stage scores of a query's whole list: nothing if it reads none."""
        if self.first_stage_score is None:
            return [None] * len(scores)
        return score_numbers(np.asarray(scores, np.float64), self.first_stage_score).tolist()

    def join_all(
        self, query: np.ndarray, passages: Iterable[np.ndarray], numbers: Iterable[int | None] | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the pairs of a query with each of the passages; numbers: of their first-stage scores."""
        numbers = itertools.repeat(None) if numbers is None else numbers
        return [self.join(query, passage, number) for passage, number in zip(passages, numbers, strict=False)]

    def join(self, query: np.ndarray, passage: np.ndarray, number: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids and token types of one pair, both int32.

        number: of the first stage's score. Raises InputError if the pair has such a score and none is given.
        """
        middle = self.middle if self.first_stage_score is None else self._middle_with(number)
        if self.max_length is not None:
            room = self.max_length - self.num_special
            if self.keeps_query:
                query_length = min(len(query), room)
                passage_length = min(len(passage), room - query_length)
            else:
                query_length, passage_length = longest_first(len(query), len(passage), room)
            query = cut(query, query_length, self.query_end, left=self.cuts_left)
            passage = cut(passage, passage_length, self.passage_end, left=self.cuts_left)
        tokens = np.concatenate([self.prefix, query, middle, passage, self.suffix])
        types = np.zeros(len(tokens), dtype=np.int32)
        types[len(tokens) - len(passage) - len(self.suffix) :] = self.second_type
        return tokens, types

    def _middle_with(self, number: int | None) -> np.ndarray:
        if number is None:
            raise InputError(
                "this model reads the first stage's score of each passage, and none is given: see numbers and join_all "
                "in distill/data/pairs.py"
            )
        return self.middles[number]


def _in_form(form: str, text: str) -> str:
    return text if form == "{}" else form.replace("{}", text)  # replace would copy the text


def score_numbers(scores: np.ndarray, scale: str) -> np.ndarray:
    """Return the numbers [K] that are read for the first-stage scores of a list: 1 (lowest) to 100, 0 for no score.

    With s from 0 to 1, the number is 1 + ⌊99 s⌋: s = (score - lowest) / (highest - lowest) of the list with "min-max"
    (1 if all are equal), and with "global" the score's place between 0 and 50, the same for every query.

    scores: [K] float64 of a query's whole list; NaN for a passage that the first stage did not find. That passage's
    number is not the lowest score's: relevant passages are added to training lists, and if they had the number of the
    last passage retrieved, a model would learn to rank that passage first.

    Askari et al. compare such scalings of each list and of all together. The code that they published uses the second,
    with these bounds and ⌊100 s⌋; they compute BM25 for every training pair, so that none lacks a score.
    """
    known = scores[~np.isnan(scores)]
    if not len(known):
        return np.zeros(len(scores), np.uint8)
    low, high = GLOBAL_BOUNDS
    if scale == "min-max":
        _, exponent = np.frexp(np.abs(known).max())
        scores = np.ldexp(scores, -exponent)  # exact, and no difference overflows
        low, high = np.nanmin(scores), np.nanmax(scores)
    shares = np.clip((scores - low) / (high - low), 0.0, 1.0) if high > low else np.where(np.isnan(scores), scores, 1.0)
    return np.nan_to_num(1 + np.floor((HIGHEST - 1) * shares), nan=0.0).astype(np.uint8)


def _numbers(tokenizer) -> list[np.ndarray]:
    """Return the tokens of the numbers from 0; raises InputError if any is unknown, or the same as another."""
    texts = [str(number) for number in range(HIGHEST + 1)]
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    if len(set(map(tuple, tokens))) < len(tokens) or any(tokenizer.unk_token_id in ids for ids in tokens):
        raise InputError(
            "model.first_stage_score: the tokenizer has no tokens for the numbers from 0 to 100: use another backbone, "
            "or set it to null"
        )
    return [np.asarray(ids, dtype=np.int32) for ids in tokens]


def _two_words(tokenizer) -> tuple[list[str], list[list[int]]]:
    """Return two words, and their tokens: words of the vocabulary, if the tokeniser leaves out unknown ones.

    Raises InputError for a tokeniser that reads no word.
    """
    words: list[str] = []
    tokens: list[list[int]] = []
    for word in itertools.chain(("query", "passage"), _known_words(tokenizer)):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if ids and word not in words:
            words.append(word)
            tokens.append(ids)
        if len(words) == 2:
            return words, tokens
    raise InputError("its tokenizer reads no word: use another backbone")


def _known_words(tokenizer) -> Iterator[str]:
    controls = tokenizer.all_special_tokens
    for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token not in controls:
            yield tokenizer.convert_tokens_to_string([token]).strip()


def _find(sequence: list[int], wanted: list[int], start: int) -> int:
    for index in range(start, len(sequence) - len(wanted) + 1):
        if sequence[index : index + len(wanted)] == wanted:
            return index
    raise ValueError(f"the tokenizer joins a pair in an unknown way: {wanted} is not in {sequence}")


def cut(tokens: np.ndarray, length: int, end: np.ndarray, *, left: bool = False) -> np.ndarray:
    """Return the first `length` tokens of a text; the last of them are `end`, as they are of the whole text.

    left: the last ones instead.
    """
    if len(tokens) <= length:
        return tokens
    if left:
        return tokens[len(tokens) - max(length, 0) :]
    kept = end[: max(length, 0)]
    return np.concatenate([tokens[: length - len(kept)], kept]) if len(kept) else tokens[:length]


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
