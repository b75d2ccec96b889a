"""The language of texts, by their most frequent words.

    language_of("Wie finden Bienen nach Hause?")            # "german"; "bigrams" where words have no spaces; else None
    sampled_languages("passages.tsv", fields)               # {"german": 0.96, "english": 0.01}

A word counts for each language whose list has it, the less the more lists that is. benchmarks/languages.py measures how
often this is right, and docs/evaluation.md has the table.
"""

import collections
import functools
import json
import logging
import random
from collections.abc import Iterable
from pathlib import Path

from distill.progress import Progress
from distill.retrieval.stop_words import all_stop_words
from distill.retrieval.words import BIGRAMS, WITHOUT_SPACES, WORD
from distill.sources.fields import Fields
from distill.sources.locate import source_state
from distill.sources.texts import iterate_texts
from distill.storage.cache import entry, key_of, make_once

log = logging.getLogger(__name__)

SAMPLED = 500  # passages
LEAST = 0.05  # of a text's words, in one language's list, each counted by how few lists have it
LEAST_SHARE = 0.2  # of the passages: with fewer in a language, it is not that of the collection
WORTH_NAMING = 0.1  # of the passages: with so many in another language, it is named, too
EACH = 2_000  # characters of a text that are looked at
VERSION = 1  # of how a language is found: another one looks anew


@functools.cache
def _weights() -> dict[str, list[tuple[str, float]]]:
    """Return the languages of each word, and how much it counts for each."""
    languages: dict[str, list[str]] = {}
    for language, words in all_stop_words().items():
        for word in words:
            languages.setdefault(word, []).append(language)
    return {word: [(name, 1 / len(names)) for name in names] for word, names in languages.items()}


def language_of(text: str) -> str | None:
    """Return a text's language as PyStemmer names it, "bigrams" for a script without spaces, None if unknown."""
    text = text[:EACH].lower()
    letters = sum(map(str.isalnum, text))
    if sum(map(len, WITHOUT_SPACES.findall(text))) * 3 > letters > 0:
        return BIGRAMS
    words = WORD["language"].findall(text)
    scores: dict[str, float] = {}
    for word in words:
        for language, weight in _weights().get(word, ()):
            scores[language] = scores.get(language, 0.0) + weight
    ranked = sorted(scores.items(), key=lambda one: -one[1])
    (best, score), (_, second) = [*ranked, ("", 0.0), ("", 0.0)][:2]
    return best if score > second and score >= LEAST * len(words) else None


def languages_of(texts: Iterable[str]) -> dict[str, float]:
    """Return the share of each language among texts, the most frequent first; unknown ones are left out."""
    found = [language_of(text) for text in texts]
    return {name: count / len(found) for name, count in collections.Counter(found).most_common() if name is not None}


def sampled_languages(source: str, fields: Fields) -> dict[str, float]:
    """Return the languages of a few hundred passages from everywhere in a source, kept in the cache for its state."""
    lists = {language: sorted(words) for language, words in all_stop_words().items()}
    key = key_of(source=source_state(source), fields=[fields.id, fields.texts], version=VERSION, lists=lists)

    def write(directory: Path) -> None:
        rng = random.Random(0)
        sample: list[str] = []
        texts = iterate_texts(source, "passages", fields)
        for number, (_, text) in enumerate(Progress(texts, f"reading {source} for its language", unit=" passages")):
            place = number if number < SAMPLED else rng.randrange(number + 1)  # each passage is as likely as any other
            sample[place : place + 1] = [text[:EACH]] if place < SAMPLED else sample[place : place + 1]
        (directory / "languages.json").write_text(json.dumps(languages_of(sample)), encoding="utf-8")

    directory = make_once(entry("language", source, key), write)
    return json.loads((directory / "languages.json").read_text(encoding="utf-8"))


def choose_language(source: str, shares: dict[str, float]) -> str | None:
    """Return the language of a collection, given the share of each; None if most passages are not in a known one."""
    best, share = next(iter(shares.items()), (None, 0.0))
    others = [f"{name} in {share:.0%}" for name, share in shares.items() if name != best and share >= WORTH_NAMING]
    if others:
        log.warning("%s: is in several languages: %s in %.0f%%, %s", source, best, 100 * share, ", ".join(others))
    return best if share >= LEAST_SHARE and 2 * share > sum(shares.values()) else None
