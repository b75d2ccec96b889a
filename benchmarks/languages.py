"""BM25 in English, German and Chinese, by the default, by the stemmer of the language and by pairs of characters.

    python -m benchmarks.languages                          ten questions of each language, as a table
    python -m benchmarks.languages --django DIRECTORY       how often the language of Django's messages is found

The first prints the place of the article that answers each question (– beyond the tenth), and a digest of the runs,
which is the same with every version of bm25s. The second reads the translations of an installed or unpacked Django.
"""

import argparse
import hashlib
import os
import re
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks.help_desk import articles, questions

WAYS = {"default": ("porter", "lucene"), "stemmer=auto": ("auto", "lucene"), "stemmer=bigrams": ("bigrams", "none")}
TRANSLATIONS = {  # Django's locale -> a language as PyStemmer names it
    "en": "english", "de": "german", "fr": "french", "es": "spanish", "it": "italian", "pt": "portuguese",
    "nl": "dutch", "sv": "swedish", "da": "danish", "nb": "norwegian", "fi": "finnish", "hu": "hungarian",
    "ro": "romanian", "ca": "catalan", "eu": "basque", "pl": "polish", "cs": "czech", "sr": "serbian", "ru": "russian",
    "el": "greek", "tr": "turkish", "id": "indonesian", "ar": "arabic", "fa": "persian", "hi": "hindi", "ne": "nepali",
    "ta": "tamil", "hy": "armenian", "ga": "irish", "lt": "lithuanian", "et": "estonian", "eo": "esperanto",
    "zh_Hans": "bigrams", "ja": "bigrams", "th": "bigrams",
    "sk": "slovak", "sl": "slovenian", "uk": "ukrainian", "bg": "bulgarian", "vi": "vietnamese", "he": "hebrew",
    "ko": "korean", "lv": "latvian", "mk": "macedonian", "gl": "galician", "af": "afrikaans",
}  # fmt: skip
PLACEHOLDER = re.compile(r"%\(\w+\)\w|%\w|<[^>]+>|\{\w*\}|\\n")
LEAST = 40  # characters of a message; of one without spaces a third


def places(language: str, folder: Path) -> tuple[dict[str, list[int]], str]:
    """Return the place of each question's article by each way, 0 if it is not found, and a digest of the runs."""
    from distill.errors import InputError
    from distill.retrieval.bm25 import Bm25, bm25_run

    path = folder / f"{language}.tsv"
    lines = (f"{row['sku']}\t{row['title']} {row['body']}\n" for row in articles(language))
    path.write_text("".join(lines), encoding="utf-8")
    asked = questions(language)
    found, digest = {}, hashlib.sha256()
    for name, (stemmer, stop_words) in WAYS.items():
        texts = {query_id: text for query_id, (text, _) in asked.items()}
        try:
            run = bm25_run(str(path), texts, 100, Bm25(stemmer=stemmer, stop_words=stop_words))
        except InputError:  # no question shares a word with an article
            run = {}
        ranked = {query_id: run[query_id].doc_ids if query_id in run else [] for query_id in asked}
        found[name] = [
            ranked[query_id].index(doc_id) + 1 if doc_id in ranked[query_id] else 0
            for query_id, (_, doc_id) in asked.items()
        ]
        digest.update(repr([(q, list(zip(run[q].doc_ids, run[q].scores.tolist(), strict=True))) for q in run]).encode())
    return found, digest.hexdigest()[:16]


def show_places() -> None:
    """Print the table of places."""
    print(f"bm25s {metadata.version('bm25s')}, PyStemmer {metadata.version('PyStemmer')}\n")
    print("| questions | bm25 | place of the article, by question | RR@10 |\n| --- | --- | --- | --- |")
    digests = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DISTILL_CACHE"] = f"{folder}/cache"
        for language in ("english", "german", "chinese"):
            found, digest = places(language, Path(folder))
            digests.append(f"{language} {digest}")
            for name, ranks in found.items():
                shown = " ".join(str(rank) if 0 < rank <= 10 else "–" for rank in ranks)
                mean = sum(1 / rank for rank in ranks if 0 < rank <= 10) / len(ranks)
                print(f"| {language} | {name} | {shown} | {mean:.3f} |")
    print(f"\nruns: {', '.join(digests)}")


def messages(django: Path, locale: str, least: int) -> list[str]:
    """Return the messages of a translation that are long enough, without placeholders; English is the original."""
    field = "msgid" if locale == "en" else r"msgstr(?:\[0\])?"
    found = []
    for path in sorted(django.rglob(f"locale/{locale}/LC_MESSAGES/*.po")):
        for block in re.finditer(rf'^{field} ((?:".*"\n)+)', path.read_text(encoding="utf-8"), re.MULTILINE):
            text = "".join(re.findall(r'"(.*)"\n', block[1]))
            if "Content-Type" not in text and len(PLACEHOLDER.sub(" ", text)) >= least:
                found.append(PLACEHOLDER.sub(" ", text))
    return found


def show_accuracy(django: Path) -> None:
    """Print how often the language of a message, and of all messages together, is found."""
    from distill.retrieval.languages import choose_language, languages_of

    print("| language | messages | right | unknown | all together |\n| --- | --- | --- | --- | --- |")
    for locale, language in TRANSLATIONS.items():
        texts = messages(django, locale, LEAST // 3 if language == "bigrams" else LEAST)
        shares = languages_of(texts)
        right, unknown = shares.get(language, 0.0), 1 - sum(shares.values())
        name = language if language != "bigrams" else f"{locale} (no spaces)"
        print(f"| {name} | {len(texts)} | {right:.0%} | {unknown:.0%} | {choose_language(locale, shares)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--django", type=Path, help="a directory with Django's package")
    given = parser.parse_args()
    if given.django:
        show_accuracy(given.django)
    else:
        show_places()
