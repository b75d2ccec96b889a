"""How long texts are for a language model, in whatever script, and how they are cut.

    num_tokens_of("蜜蜂用太阳导航")                      # about 5; a Latin letter counts as a quarter
    cut(passage, max_words=300)                         # at most so much as 300 English words
    cut(passage, max_words=300, tokenizer=tokenizer)    # the same, counted in its tokens where words have no spaces
    atoms_of("GPS 导航")                                # [(0, 3), (4, 5), (5, 6)]: what is never parted
    words_in(text, atoms), tokens_in(text, atoms, tokenizer)                  # and how long each is

Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between words. There, and in "words" such as encoded
files, length is counted in tokens: by the model's tokenizer if it is known, else by an estimate for each script.
"""

import bisect
import itertools
import math
import re

TOKENS_A_WORD = 4 / 3  # of English
LONGEST_WORD = 64  # characters; what is longer is no word
# Tokens a character, by the mean of several tokenizers: less with those made for the language, more with others
LATIN, CJK, SOUTH_EAST, OTHER = 0.25, 0.75, 0.5, 0.4
CJK_CHARACTERS = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")
SOUTH_EAST_CHARACTERS = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
OTHER_CHARACTERS = re.compile(r"[\u0370-\u0dff\u10a0-\u177f\u1800-\u1dff\u2c00-\u2dff]")
WITHOUT_SPACES = re.compile(
    r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]"  # Korean has spaces
)


def num_tokens_of(text: str) -> int:
    """Return the approximate number of tokens of a text."""
    return int(_tokens(text))


def _tokens(text: str) -> float:
    if text.isascii():
        return LATIN * len(text)
    cjk, south_east, other = (
        len(found.findall(text)) for found in (CJK_CHARACTERS, SOUTH_EAST_CHARACTERS, OTHER_CHARACTERS)
    )
    latin = len(text) - cjk - south_east - other
    return LATIN * latin + CJK * cjk + SOUTH_EAST * south_east + OTHER * other


def atoms_of(text: str) -> list[tuple[int, int]]:
    """Return where each word of a text begins and ends; in scripts without spaces, where each character does."""
    atoms: list[tuple[int, int]] = []
    for found in re.finditer(r"\S+", text):
        if _is_word(found[0]):
            atoms.append(found.span())
        else:
            atoms += [(place, place + 1) for place in range(*found.span())]
    return atoms


def words_in(text: str, atoms: list[tuple[int, int]]) -> list[float]:
    """Return how long each atom of a text is, in words: 1, or less for a character of what is no single word."""
    return [1.0 if _is_whole(text, *atom) else _tokens(text[slice(*atom)]) / TOKENS_A_WORD for atom in atoms]


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether an atom is a word: with more than one letter, or by itself."""
    is_apart = not text[start - 1 : start].strip() and not text[end : end + 1].strip()
    return end - start > 1 or (is_apart and not WITHOUT_SPACES.match(text, start))


def tokens_in(text: str, atoms: list[tuple[int, int]], tokenizer) -> list[float]:
    """Return how many tokens of the whole text end in each of its atoms; tokenizer: of transformers, a fast one."""
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    ends = sorted(end for _, end in places)
    bounds = [0, *(bisect.bisect_right(ends, end) for _, end in atoms)]
    return [float(more - fewer) for fewer, more in itertools.pairwise(bounds)]


def cut(text: str, max_words: int, tokenizer=None) -> str:
    """Return the beginning of a text, with single spaces: max_words words, or as many tokens as those have in English.

    tokenizer: of transformers; None: unknown.
    """
    words = text.split()
    head = words[: max_words + 1]
    if max(map(len, head), default=0) <= LONGEST_WORD and not WITHOUT_SPACES.search(" ".join(head)):  # all are words
        return " ".join(words[:max_words])
    if tokenizer is not None and tokenizer.is_fast:
        return _cut_by_tokens(" ".join(words), math.ceil(max_words * TOKENS_A_WORD), tokenizer)
    kept, room = [], float(max_words)
    for word in words:
        size = 1.0 if _is_word(word) else max(_tokens(word) / TOKENS_A_WORD, 1.0)
        if size > room:
            kept.append(_beginning(word, room))
            break
        kept.append(word)
        room -= size
    return " ".join(kept).strip()


def _is_word(word: str) -> bool:
    return len(word) <= LONGEST_WORD and not WITHOUT_SPACES.search(word)


def _beginning(word: str, room: float) -> str:
    """Return as many characters of what is no single word as have room, in words."""
    if _is_word(word):
        return ""
    used = 0.0
    for place, character in enumerate(word):
        used += _tokens(character) / TOKENS_A_WORD
        if used > room:
            return word[:place]
    return word


def _cut_by_tokens(text: str, max_tokens: int, tokenizer) -> str:
    # A token is seldom more than 20 characters: no need to encode a whole book
    places = tokenizer(text[: 20 * max_tokens], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text[: places[max_tokens - 1][1]] if len(places) > max_tokens else text[: 20 * max_tokens]
