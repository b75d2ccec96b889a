"""Frequent words without a topic, by language, from stop_words.yaml.

stop_words_of("german")                                 # {"der", "die", "das", ...}; None where there is no list
"""

import functools
from pathlib import Path

import yaml

from distill.storage.cache import key_of

LISTS = Path(__file__).with_name("stop_words.yaml")


@functools.cache
def all_stop_words() -> dict[str, frozenset[str]]:
    """Return the words of each language, which is named as PyStemmer names it."""
    lists = yaml.safe_load(LISTS.read_text(encoding="utf-8"))
    return {language: frozenset(words.split()) for language, words in lists.items()}


def stop_words_of(stemmer: str) -> frozenset[str] | None:
    """Return the words of a stemmer's language; None if there is no list."""
    return all_stop_words().get({"porter": "english", "dutch_porter": "dutch"}.get(stemmer, stemmer))


def list_state(stemmer: str) -> str:
    """Return what tells one version of a list from another."""
    return key_of(words=sorted(stop_words_of(stemmer) or ()))
