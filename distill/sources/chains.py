"""The ranking in a language model's answer, among whatever else it writes.

    find_ranking("Passage [1] is vague. My order: [3] > [2] > [1].", 3)         # [3, 2, 1]
    find_ranking("I cannot rank these 6 passages.", 6)                          # None

A ranking is a chain, `[3] > [1] > [2]`, or a list with one passage a line, `1. Passage 3`. Models also cite passages,
repeat the incoming order or the prompt's example, and add remarks. So a chain counts if it has a line to itself, or
names more than half of the passages; the last one that counts is the ranking, unless it only repeats part of one
before it. A chain of other passages continues the one before it: long rankings are wrapped, and some models write one
for each degree of relevance. Chains without `>` are as likely to be lists of any kind, and count only where they are
complete, or all of the answer. In an answer that was cut, a ranking must be complete or reach the end: before that, it
is likely a thought.
"""

import re
from dataclasses import dataclass

from distill.sources.thinking import unwrapped

MAX_DIGITS = 9  # of a number; int() refuses 4301
NEAR = 60  # characters before and after a chain that say whether it has a line to itself
MARKUP = re.compile(r"[*_`\"'“”‘’$]")
OBJECT = re.compile(r"\s*\{\s*[\w ]+:\s*(\[[^:{}]*\])\s*\}\s*")  # with a single key
NUMBER = re.compile(
    r"(?P<named>(?:passage|document|doc|text|item|result|candidate|identifier|id)[\s#]*)?"
    r"(?:\[\s*(?:(?:passage|document|doc)\s*)?(?P<bracketed>\d+)\s*\]|(?<![\w.,\-+(\[])#?(?P<bare>\d+)(?![\w%]|[.,]\d))",
    re.IGNORECASE,
)
BETTER = re.compile(r"\s*(?:[>≻→⇒＞≥»]|->|=|\\succ\b)+\s*")
NEXT = re.compile(r"\s*(?:(?:[,;、，|/]|\band\b|\bthen\b|\bfollowed by\b)\s*)*", re.IGNORECASE)
BEFORE = re.compile(r"(?:\A|[:：.!?。！？,，>→])[\s(\[{|#\\-]*$")  # a chain may follow, with a line to itself
AFTER = re.compile(r"[\s)\]}|\\]*(?:$|[.!?。！？;]|>[\s\[]*\d*$)")  # the last: cut where the answer got too long
CUT = re.compile(r"(?:\s*[>≻→][^\w?]{0,9}[A-Za-z]{0,10})?[^\w?]{0,9}\d{0,9}")  # may follow a ranking that was cut
RANKED = re.compile(
    r"[|>\-•]? {0,3}(?:rank|place|position|no\.?|top)? ?#? ?(?P<rank>\d{1,9}) ?(?:st|nd|rd|th|º|°)? {0,9}"
    r"[.):：|\-–—=]{1,3}\s*(?P<rest>.*)",
    re.IGNORECASE,
)
COLUMN_OF_IDS = re.compile(r"passage|document|doc|id\b|identifier|number|candidate", re.IGNORECASE)
COLUMN_OF_RANKS = re.compile(r"rank|position|place|order", re.IGNORECASE)
LISTED = re.compile(r"(?:[-•] ?)?(?=\[)")
ABOUT_SCORES = re.compile(r"\b(?:rank|score|relevance|rating)\b|^\W*\d", re.IGNORECASE)


@dataclass
class Chain:
    """Passage numbers in a row, from `start` to `end` of the text."""

    numbers: list[int]
    start: int
    end: int
    has_better: bool  # a `>` is among its separators
    kind: str  # how its numbers are written: bracketed, named or bare
    last: int  # where its last number is


def find_ranking(text: str, num_passages: int, *, is_cut: bool = False) -> list[int] | None:
    """Return the numbers of the ranking in a text, as written: they may repeat or be out of range; None if none is.

    is_cut: whether the text ends where the answer got too long.
    """
    text = _plain(text)
    first, last = re.search(r"\w", text), re.search(r"\w", text[::-1])
    words = range(first.start(), len(text) - last.start()) if first and last else range(0)
    found = [(chain.end, chain.numbers) for chain in _chains(text) if _counts(chain, text, words, num_passages)]
    found += [(end, numbers) for end, numbers in _line_lists(text, num_passages)]
    chosen: list[int] | None = None
    rest = ""  # of the text, after the ranking
    for end, numbers in sorted(found, key=lambda one: one[0]):
        if chosen is not None and _valid(numbers, num_passages).isdisjoint(chosen):
            chosen, rest = chosen + numbers, text[end:]
        elif chosen is None or not _repeats_part(numbers, chosen):
            chosen, rest = numbers, text[end:]
    is_sure = not is_cut or CUT.fullmatch(rest) or len(_valid(chosen or [], num_passages)) == num_passages
    return chosen if is_sure else None


def _plain(text: str) -> str:
    """Return a text without Markdown's marks, with plain brackets, and each number of an array in its own."""
    text = text.replace("&gt;", ">").translate(str.maketrans("［］【】〔〕", "[][][]"))
    text = MARKUP.sub("", unwrapped(text))
    text = found[1] if (found := OBJECT.fullmatch(text)) else text
    return re.sub(r"\[\s*\d+(?:\s*,\s*\d+)+\s*\]", lambda array: re.sub(r"(\d+)", r"[\1]", array[0][1:-1]), text)


def _to_int(digits: str) -> int:
    return int(digits) if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS


def _chains(text: str) -> list[Chain]:
    """Return the longest runs of numbers, written alike, with nothing but separators between them."""
    chains: list[Chain] = []
    for match in NUMBER.finditer(text):
        kind = "bracketed" if match["bracketed"] else "named" if match["named"] else "bare"
        number = _to_int(match["bracketed"] or match["bare"])
        joined = _joined(chains[-1], text, match.start(), kind) if chains else None
        if joined is None:
            chains.append(Chain([number], match.start(), match.end(), False, kind, match.start()))
            continue
        if joined is not chains[-1]:
            chains.append(joined)
        joined.numbers.append(number)
        joined.last, joined.end = match.start(), match.end()
    return chains


def _joined(chain: Chain, text: str, place: int, kind: str) -> Chain | None:
    """Return the chain that a number at this place continues: the last one, or a new one with its last number.

    None if something else comes between. A chain with `>` does not run on into the next line by itself, and does not
    begin in lines before it.
    """
    between = text[chain.end : place]
    if kind != chain.kind:
        return None
    if BETTER.fullmatch(between):
        if not chain.has_better and "\n" in text[chain.start : chain.last]:
            before = chain.numbers.pop()
            chain.end, start = text.rindex("\n", chain.start, chain.last), chain.last
            return Chain([before], start, place, True, kind, start)
        chain.has_better = True
        return chain
    is_next = NEXT.fullmatch(between) and (kind == "bracketed" or between)
    return chain if is_next and not (chain.has_better and "\n" in between) else None


def _valid(numbers: list[int], num_passages: int) -> set[int]:
    return {number for number in numbers if 1 <= number <= num_passages}


def _counts(chain: Chain, text: str, words: range, num_passages: int) -> bool:
    """Whether a chain is a ranking, rather than a citation or a list of any kind; words: where the text has some."""
    named = _valid(chain.numbers, num_passages)
    if not named:
        return False
    is_all = chain.start <= words.start and chain.end >= words.stop
    if len(chain.numbers) == 1:
        return is_all and chain.kind != "bare"
    if chain.has_better:
        before = text[max(chain.start - NEAR, 0) : chain.start].rpartition("\n")[2]
        after = text[chain.end : chain.end + NEAR].partition("\n")[0]
        is_apart = BEFORE.search(before) and AFTER.match(after)
        return is_all or 2 * len(named) > num_passages or (len(named) > 1 and bool(is_apart))
    if is_all:
        return chain.kind == "bracketed" or len(named) == num_passages
    is_whole = len(named) == num_passages == len(chain.numbers)
    return is_whole and num_passages > 2 and chain.numbers != sorted(chain.numbers)


def _repeats_part(numbers: list[int], earlier: list[int]) -> bool:
    """Whether numbers are some of the earlier ones, in the same order: a remark about them."""
    rest = iter(earlier)
    return len(numbers) < len(earlier) and all(number in rest for number in numbers)


def _line_lists(text: str, num_passages: int) -> list[tuple[int, list[int]]]:
    """Return (end, numbers) of lists and tables with one passage a line."""
    found, end = [], 0
    ranked: list[tuple[int, str]] = []  # passage and what follows it, of the lines ranked 1, 2, ...
    listed: list[tuple[int, str]] = []  # the same of lines that begin with a passage
    table: list[list[str]] = []
    for whole_line in [*text.split("\n"), "end"]:
        line = whole_line.strip()
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            found += [(end, numbers) for numbers in _read_table(table, num_passages)]
            table = []
        row = None if table else _read_ranked(line)
        if row is not None and row[0] == 1:
            found += _whole_lists(ranked, end, num_passages)
            ranked = []
        if row is not None and row[0] == len(ranked) + 1:
            ranked.append(row[1:])
        elif ranked and line and not whole_line.startswith((" ", "\t")):
            found += _whole_lists(ranked, end, num_passages)
            ranked = []
        match = NUMBER.match(line, LISTED.match(line).end()) if LISTED.match(line) else None  # type: ignore[union-attr]
        if match and match["bracketed"]:
            listed.append((_to_int(match["bracketed"]), line[match.end() :]))
        elif line and listed:
            found += _whole_listing(listed, end, num_passages)
            listed = []
        end += len(whole_line) + 1
    return found


def _read_ranked(line: str) -> tuple[int, int, str] | None:
    """Return rank, passage and the rest of a line such as `1. Passage 6` or `Rank 1: [6], since ...`."""
    row = RANKED.match(line)
    match = NUMBER.match(row["rest"]) if row else None
    if row is None or match is None:
        return None
    return _to_int(row["rank"]), _to_int(match["bracketed"] or match["bare"]), row["rest"][match.end() :]


def _whole_lists(lines: list[tuple[int, str]], end: int, num_passages: int) -> list[tuple[int, list[int]]]:
    """Return a ranked list, unless its numbers are the lines' own, as in remarks on each passage in turn."""
    numbers = [number for number, _ in lines]
    has_remarks = any(re.search(r"\w", rest) for _, rest in lines)
    is_in_turn = numbers == list(range(1, len(numbers) + 1))
    if len(_valid(numbers, num_passages)) < 2 or (is_in_turn and has_remarks):
        return []
    return [(end, numbers)]


def _whole_listing(lines: list[tuple[int, str]], end: int, num_passages: int) -> list[tuple[int, list[int]]]:
    """Return a list without ranks if it is complete, not in the incoming order, and says nothing of scores."""
    numbers = [number for number, _ in lines]
    if sorted(numbers) != list(range(1, num_passages + 1)) or numbers == sorted(numbers):
        return []
    return [] if any(ABOUT_SCORES.search(rest) for _, rest in lines) else [(end, numbers)]


def _read_table(rows: list[list[str]], num_passages: int) -> list[list[int]]:
    """Return the passages of a table in the order of its column of ranks; none if it has no such column."""
    ranks = [place for place, name in enumerate(rows[0]) if COLUMN_OF_RANKS.search(name)]
    ids = [place for place, name in enumerate(rows[0]) if COLUMN_OF_IDS.search(name) and place not in ranks]
    if not ranks and not ids and len(rows[0]) > 1:  # no header
        ranks, ids = [0], [1]
    if len(ranks) != 1 or not ids:
        return []
    pairs = []
    for row in rows:
        if len(row) <= max(ranks[0], ids[0]):
            continue
        rank, match = re.search(r"\d+", row[ranks[0]]), NUMBER.search(row[ids[0]])
        if rank and match:
            pairs.append((_to_int(rank[0]), _to_int(match["bracketed"] or match["bare"])))
    numbers = [number for _, number in sorted(pairs)]
    if sorted(rank for rank, _ in pairs) != list(range(1, len(pairs) + 1)):
        return []
    return [numbers] if len(_valid(numbers, num_passages)) > 1 else []
