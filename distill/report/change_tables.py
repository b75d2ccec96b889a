"""What the queries of two rankings have in common: who was helped, where relevant passages are, what goes with it.

facts = summarise(changes, "nDCG@10", facts)         # (name, text), a line each
tables = tabulate(changes, "nDCG@10", facts)         # by query length, first-stage rank, passage length, shared words
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from distill.evaluation.agreement import TOP, overlap
from distill.evaluation.worth import Worth, share
from distill.report.changes import Change
from distill.report.page import PageCell, PageLine, PageTable
from distill.sources.texts import Texts

RANKS = (1, 2, 3, 5, 10, 20, 50, 100)  # the last of each group
SHARES = (0.25, 0.5, 0.75, 0.99)  # of a query's words


@dataclass
class Known:
    """What is known of the texts."""

    queries: Texts = field(default_factory=dict)
    passages: Texts = field(default_factory=dict)  # of those that are shown, and of relevant ones
    lengths: dict[str, int] = field(default_factory=dict)  # of these passages, in tokens; empty without a model
    length: int | None = None  # tokens that the model reads


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def summarise(changes: Sequence[Change], measure: str, known: Known) -> list[tuple[str, str]]:
    """Return what the page and the terminal say first, as (name, text)."""
    judged = [one for one in changes if one.values is not None]
    lines = [("queries", f"{len(changes)}" + (f", {len(judged)} of them judged" if judged else ""))]
    if judged:
        before, after = ({one.query_id: one.values[side] for one in judged if one.values} for side in (0, 1))
        lines += Worth.of(before, after).describe(measure)
        hopeless = sum(one.is_hopeless for one in judged)
        lines.append(("no relevant passage", f"in {share(hopeless, len(judged))} of the lists: no order of them helps"))
    firsts = sum(one.before.doc_ids[:1] != one.after.doc_ids[:1] for one in changes)
    lines.append(("another first passage", share(firsts, len(changes))))
    taus = [one.tau for one in changes if one.tau is not None]
    if taus:
        lines.append(("Kendall's tau", f"{sum(taus) / len(taus):.2f} on average between the two orders"))
    tops = [overlap(one.before.doc_ids, one.after.doc_ids) for one in changes]
    tops = [top for top in tops if top is not None]
    if tops:
        lines.append((f"overlap@{TOP}", f"{sum(tops) / len(tops):.2f} on average of {len(tops)} lists"))
    relevant = {doc_id for one in judged for doc_id in one.relevant & known.lengths.keys()}
    if relevant and known.length:
        cut = sum(known.lengths[doc_id] > known.length for doc_id in relevant)
        text = (
            f"{share(cut, len(relevant))} of the relevant ones are longer than the {known.length} tokens that are read"
        )
        lines.append(("long passages", text))
    return lines


def _means(changes: Sequence[Change]) -> tuple[float, float]:
    before, after = zip(*(one.values for one in changes if one.values is not None), strict=True)
    return sum(before) / len(before), sum(after) / len(after)


def first_places(changes: Sequence[Change]) -> list[tuple[str, int, int]]:
    """Return how many lists have their first relevant passage at which place, as (places, before, after)."""
    judged = [one for one in changes if one.values is not None]
    pairs = [(one.first_place(one.before), one.first_place(one.after)) for one in judged]
    found = [place for pair in pairs for place in pair if place is not None]
    lines = []
    for low, high in _groups(RANKS):
        if found and low <= max(found):
            inside = [[place is not None and low <= place <= (high or place) for place in pair] for pair in pairs]
            lines.append((_range(low, high), *(sum(column) for column in zip(*inside, strict=True))))
    nowhere = [sum(place is None for place in column) for column in zip(*pairs, strict=True)] or [0, 0]
    return [*lines, ("none in the list", *nowhere)]


def tabulate(changes: Sequence[Change], measure: str, known: Known) -> PageTable | None:
    """Return how queries fared by what is known about them; None without judgments."""
    judged = [one for one in changes if one.values is not None]
    if not judged:
        return None
    firsts = {one.query_id: one.before.first(one.relevant) or one.after.first(one.relevant) for one in judged}
    places = {one.query_id: one.first_place(one.before) for one in judged}
    lines = _lines("First relevant passage before", judged, places, _groups(RANKS), "none in the list")
    counts = {one.query_id: len(words(known.queries[one.query_id])) for one in judged if one.query_id in known.queries}
    lines += _lines("Words of the query", judged, counts, _groups(_quartiles(counts.values())))
    unit = "Tokens" if known.lengths else "Words"
    lengths = known.lengths or {doc_id: len(words(text)) for doc_id, text in known.passages.items()}
    long = {query_id: lengths[doc_id] for query_id, doc_id in firsts.items() if doc_id in lengths}
    edges = (known.length // 2, known.length) if known.length else _quartiles(long.values())
    lines += _lines(f"{unit} of that passage", judged, long, _groups(edges))
    shares = {
        query_id: _shared(known.queries[query_id], known.passages[doc_id])
        for query_id, doc_id in firsts.items()
        if doc_id in known.passages and query_id in known.queries
    }
    lines += _share_lines(judged, shares)
    heads = ["", "queries", f"{measure} before", "after", "change", "helped", "harmed"]
    return PageTable(heads, lines)


def _shared(query: str, passage: str) -> float:
    asked = set(words(query))
    return len(asked & set(words(passage))) / max(len(asked), 1)


def _quartiles(values: Iterable[int]) -> tuple[int, ...]:
    """Return where the first three quarters of the values end, each once."""
    ordered = sorted(values)
    ends = {ordered[(len(ordered) - 1) * quarter // 4] for quarter in (1, 2, 3)} if ordered else set()
    return tuple(sorted(end for end in ends if end < ordered[-1]))


def _groups(edges: Sequence[int]) -> list[tuple[int, int | None]]:
    """Return (first, last) of the groups of whole numbers that end at the edges; the last group has no end."""
    return list(zip([1, *(edge + 1 for edge in edges)], [*edges, None], strict=True))


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if low == high else f"{low}–{high}"


def _lines(
    heading: str,
    judged: Sequence[Change],
    values: dict[str, int | None] | dict[str, int],
    groups: Sequence[tuple[int, int | None]],
    none: str = "",
) -> list[PageLine]:
    """Return a line for each group that has a query; none: the name of a last one, of queries without a value."""
    parts = []
    for low, high in groups:
        inside = [one for one in judged if (values.get(one.query_id) or 0) >= low]
        inside = [one for one in inside if high is None or (values.get(one.query_id) or 0) <= high]
        parts.append((_range(low, high), inside))
    if none:
        parts.append((none, [one for one in judged if values.get(one.query_id) is None]))
    return _titled(heading, parts)


def _share_lines(judged: Sequence[Change], shares: dict[str, float]) -> list[PageLine]:
    names = ["up to 25 %", "up to 50 %", "up to 75 %", "less than all", "all"]
    parts = []
    for name, low, high in zip(names, (-1.0, *SHARES), (*SHARES, 1.0), strict=True):
        parts.append((name, [one for one in judged if low < shares.get(one.query_id, -1) <= high]))
    return _titled("Words of the query in that passage", parts)


def _titled(heading: str, parts: Sequence[tuple[str, list[Change]]]) -> list[PageLine]:
    lines = []
    for name, inside in parts:
        if inside:
            before, after = _means(inside)
            cells = [str(len(inside)), f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
            cells += [share(sum(one.difference * sign > 0 for one in inside), len(inside)) for sign in (1, -1)]
            lines.append(PageLine(name, [*map(PageCell, cells)], kind=re.sub(r"\W+", "-", heading.lower())))
    if lines:
        lines[0].heading = heading
    return lines
