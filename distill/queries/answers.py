"""The query in an LLM's answer, and what is wrong with it.

    query_of('Sure! Here is a query:\\n1. **"bee navigation"**')                    # bee navigation
    fault_of("what does this passage say about bees?", passage, 25, 8)             # "mentions-passage"

Models put a query into quotes, number it, label it, introduce it or explain it, whatever the prompt asks for.
"""

import functools
import json
import re
import unicodedata
from collections import Counter

from distill.sources.thinking import answer_after_thinking
from distill.teachers.answer import well_formed
from distill.teachers.lengths import atoms_of, words_in

EMPTY, TOO_LONG, COPIED = "empty", "too-long", "copied"  # what is wrong with a query
MENTIONS, OTHER_SCRIPT = "mentions-passage", "other-script"
LEAST_SHARE = 0.1  # of a passage's letters: with fewer, a script is not one of its own

ASSENT = r"(?:sure|certainly|of course|okay|ok|absolutely|great|gerne|natürlich|klar|当然可以|当然|好的|可以)"
HERE = r"(?:here(?:['’]s| is| are)|the (?:search )?query (?:is|could be)|hier (?:ist|sind)|以下是|这是)(?![a-z]{2})"
INTRODUCTION = re.compile(rf"(?:{ASSENT}\s*(?:[!,.，！。、–—]|(?=[:：]|{HERE})|$)|{HERE})[^:：]*", re.IGNORECASE)
LABEL = re.compile(
    r"(?:(?:(?:search|keyword|long|short|user|suggested|possible|generated|final|best|example|natural[ -]language) )*"
    r"(?:quer(?:y|ies)|questions?|keywords?)(?: query)?"
    r"|answer|suchanfrage|suchbegriffe?|anfrage|frage|查询词?|搜索词|关键词|检索词|问题|提问)"
    r"\s*#?\d{0,2}\s*(?:[(\[（][^()\[\]（）]*[)\]）]\s*)?[:：]\s*",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(?:[-*•–·]|\(?1[.):、])\s+|#+\s+|>\s+")
QUOTES = ('""', "''", "``", "“”", "„“", "„”", "‘’", "«»", "»«", "「」", "『』", "‹›")
EXPLAINED = re.compile(r"[\"“„「]([^\"“”„「」]+)[\"”“」]\s*[-–—(（].*")
EMPHASIS = re.compile(r"(?<![A-Za-z0-9_])(\*{1,3}|_{1,3})(?=\S)(.+?)(?<=\S)\1(?![A-Za-z0-9_])")
FENCED = re.compile(r"```[\w-]*\s*([\[{].*?)```", re.DOTALL)
IN_TAG = re.compile(r"<(query|question|search_?query|q)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
KEYS = ("query", "question", "search_query", "q")  # of the query in a JSON object with several texts

# What somebody who has not seen the passage cannot mean; a pair: the second only counts if the passage lacks it
THIS = re.compile(
    r"\bth(?:is|ese|e (?:above|given|provided|following|aforementioned)) (?:passages?|texts?|articles?|documents?"
    r"|paragraphs?|excerpts?|abstract|study|snippet)\b|\b(?:passage|text|article|document) (?:above|below|provided)\b"
    r"|\b(?:diese[rmns]?|obige[rmn]?|folgende[rmn]?|vorliegende[rmn]?) (?:text\w*|abschnitts?|passage|artikels?"
    r"|dokuments?|absatz\w*|auszugs?)\b|\b(?:ce|cet|cette) (?:texte|passage|article|document|extrait)\b"
    r"|\beste (?:texto|pasaje|artículo|documento|párrafo)\b|\bquesto (?:testo|brano|articolo|documento)\b"
    r"|[本该此这上](?:篇|段|则|个)?(?:文(?![化学明件字本])|文章|段落|短文|文本|篇章|段文字|段话)|上述(?:文|段|内容)"
    r"|文中|文章中|段落中",
    re.IGNORECASE,
)
THE = re.compile(
    r"\bthe (?:passage|text|article|document|paragraph|excerpt|authors?|abstract)\b"
    r"|\b(?:der|die|das|dem|den|im|vom|laut) "
    r"(?:text|textabschnitt|abschnitt|passage|artikel|auszug|autor(?:en)?|verfasser)\b|作者|(?:根据|依据)(?:文章|文本|段落)",
    re.IGNORECASE,
)


def query_of(answer: str) -> str:
    """Return the query in an answer, as one line; empty if there is none, or the model still thinks."""
    lines = [line.strip() for line in _unpacked(answer_after_thinking(answer)).splitlines()]
    lines = [line for line in lines if line and not line.startswith("```")]
    for place, line in enumerate(lines, start=1):
        query = _without_marks(line)
        is_introduction = query.endswith((":", "：")) or (INTRODUCTION.fullmatch(query) and query[-1] in "!.。！")
        if query and not (is_introduction and place < len(lines)):
            return query
    return ""


def _unpacked(text: str) -> str:
    """Return what a tag or JSON holds: the only text of an object, that under "query", or the first of a list.

    JSON with no such text gives an empty one; any other text is returned as it is.
    """
    if tagged := IN_TAG.search(text):
        return tagged[2]
    fenced = FENCED.search(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value[next(iter(value))] if len(value) == 1 else next((value[key] for key in KEYS if key in value), "")
    if isinstance(value, str):
        return well_formed(value)  # JSON may escape half of a surrogate pair
    return text if isinstance(value, int | float) else ""  # a query may be a number


def _without_marks(line: str) -> str:
    """Return a line without what is put around a query: introductions, labels, numbers, emphasis, quotes."""
    before = None
    while line != before:
        before = line
        line = NUMBER.sub("", line.strip(), count=1) if NUMBER.match(line.strip()) else line.strip()
        line = EMPHASIS.sub(_without_emphasis, line)
        line = LABEL.sub("", line, count=1) if LABEL.match(line) else line
        introduction = INTRODUCTION.match(line)
        if introduction and line[introduction.end() : introduction.end() + 1] in (":", "："):
            line = line[introduction.end() + 1 :].strip() or line
        explained = EXPLAINED.fullmatch(line)
        line = explained[1] if explained else _without_quotes(line)
    return " ".join(line.split())


def _without_emphasis(found: re.Match) -> str:
    """Return what is emphasised; a name such as __init__ stays as it is."""
    return found[0] if re.fullmatch(r"__+\w+?__+", found[0]) else found[2]


def _without_quotes(text: str) -> str:
    if len(text) > 1 and text[0] + text[-1] in QUOTES and not {text[0], text[-1]} & {*text[1:-1]}:
        return text[1:-1]
    is_open = text[:1] in '"“„' and not set('"“”„') & {*text[1:]}  # the end of a cut answer is missing
    return text[1:] if is_open else text


def fault_of(query: str, passage: str, max_query_words: int, max_copied: float) -> str | None:
    """Return what is wrong with a query for a passage, None if nothing is.

    max_query_words: of the query; max_copied: words that it may repeat from the passage, one after the other.
    """
    if not any(map(str.isalnum, query)):
        return EMPTY
    if THIS.search(query) or any(found[0].lower() not in passage.lower() for found in THE.finditer(query)):
        return MENTIONS
    if num_words(query) > max_query_words:
        return TOO_LONG
    if has_other_script(query, passage):
        return OTHER_SCRIPT
    return COPIED if longest_copy(query, passage) >= max_copied else None


def num_words(text: str) -> float:
    """Return the number of words of a text; in scripts without spaces, of English words that are as many tokens."""
    return sum(words_in(text, atoms_of(text)))


def longest_copy(query: str, passage: str) -> float:
    """Return how many words of a query are also in a passage, one after the other; case and marks do not count."""
    whole = f" {' '.join(word for word, _ in _plain_words(passage))} "
    words, longest = _plain_words(query), 0.0
    for start in range(len(words)):
        end = start + 1
        while end <= len(words) and f" {' '.join(word for word, _ in words[start:end])} " in whole:
            longest = max(longest, sum(length for _, length in words[start:end]))
            end += 1
    return longest


def repeats(query: str, other: str, max_copied: float) -> bool:
    """Whether a query is the same as another, or has as many words of it, one after the other, as make a copy."""
    return plain(query) == plain(other) or longest_copy(query, other) >= max_copied


def _plain_words(text: str) -> list[tuple[str, float]]:
    """Return the words of a text, or characters where there are no spaces, with how many words each is."""
    atoms = atoms_of(text)
    found = [(plain(text[slice(*atom)]), length) for atom, length in zip(atoms, words_in(text, atoms), strict=True)]
    return [(word, length) for word, length in found if word]


def plain(text: str) -> str:
    """Return a text in the form in which queries are compared: without case, width, marks and surplus white space."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(one if one.isalnum() or _joins(one) else " " for one in text).split())


def _joins(character: str) -> bool:
    """Whether a character is part of a word: signs above and below letters, as in Hindi, and what joins a number."""
    return unicodedata.category(character) in ("Mn", "Mc") or character in "+#"


def has_other_script(query: str, passage: str) -> bool:
    """Whether most letters of a query are of scripts that are rare in the passage, without the passage's own words."""
    counts = Counter(map(_script, filter(str.isalpha, passage)))
    own = {script for script, count in counts.items() if count >= LEAST_SHARE * counts.total()}
    letters = foreign = 0
    for word in re.findall(r"\w+", query):
        here = [_script(letter) for letter in word if letter.isalpha()]
        letters += len(here)
        foreign += sum(script not in own for script in here) if word.lower() not in passage.lower() else 0
    return bool(own) and foreign * 2 > letters


@functools.cache
def _script(letter: str) -> str:
    """Return the script of a letter, by its name in Unicode; those of Chinese and Japanese are one."""
    name = unicodedata.name(unicodedata.normalize("NFKC", letter)[0], "UNKNOWN").split()[0].split("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC") else name
