"""The page of two rankings side by side: one HTML file, which needs no network and no script.

path.write_text(to_html(page))

side_by_side.html is its template. Texts come from collections: they are escaped, and characters that a page does not
show are written out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from distill.errors import printable
from distill.report.change_tables import Known
from distill.report.changes import Change, Ranking
from distill.report.page import PageTable, render, style


@dataclass
class Entry:
    """A passage in one of the two lists."""

    place: int
    doc_id: str
    score: str
    text: str
    moved: str  # where it is in the other list
    grade: str
    is_relevant: bool
    length: str  # how much of it the model does not read


@dataclass
class Card:
    """A query with its two lists."""

    query_id: str
    query: str
    facts: list[str]
    columns: list[tuple[str, list[Entry]]]
    missed: Entry | None
    num_missed: int


@dataclass
class PageSection:
    """Queries that are shown for one reason."""

    title: str
    cards: list[Card]
    total: int


@dataclass
class SideBySide:
    """What the page shows."""

    title: str
    measure: str
    about: dict[str, str]
    summary: list[tuple[str, str]]
    places: list[tuple[str, int, int]]  # of the first relevant passage: places, lists before and after
    table: PageTable | None
    sections: list[PageSection]
    notes: list[str] = field(default_factory=list)


def to_html(page: SideBySide) -> str:
    """Return the page."""
    most = max((number for _, *numbers in page.places for number in numbers), default=1)
    return render("side_by_side.html", page=page, most=max(most, 1), css=style("page.css", "side_by_side.css"))


def shown_doc_ids(changes: Sequence[Change], depth: int) -> set[str]:
    """Return the passages that the cards of these queries show."""
    shown = {doc_id for one in changes for side in (one.before, one.after) for doc_id in side.doc_ids[:depth]}
    return shown | {doc_id for one in changes if (doc_id := one.missed(depth)) is not None}


def make_card(change: Change, known: Known, measure: str, depth: int, characters: int | None) -> Card:
    """Return a query as the page shows it, with the first passages of both lists."""
    sides = (("before", change.before, change.after), ("after", change.after, change.before))
    columns = [
        (name, [_entry(change, doc_id, name, side, other, known, characters) for doc_id in side.doc_ids[:depth]])
        for name, side, other in sides
    ]
    missed = change.missed(depth)
    entry = None
    if missed is not None:
        entry = _entry(change, missed, "after", change.after, change.before, known, characters)
        entry.moved = f"before: {_where(change.before, missed)}; after: {_where(change.after, missed)}"
    num_missed = len(change.relevant - set(change.after.doc_ids[:depth]))
    query = printable(known.queries.get(change.query_id, ""))
    return Card(printable(change.query_id), query, _facts(change, measure), columns, entry, num_missed)


def _where(ranking: Ranking, doc_id: str) -> str:
    place = ranking.places.get(doc_id)
    return "not in the list" if place is None else f"{place} of {len(ranking.doc_ids)}"


def _facts(change: Change, measure: str) -> list[str]:
    facts = []
    if change.values is not None:
        before, after = change.values
        facts.append(f"{measure} {before:.4f} → {after:.4f} ({change.difference:+.4f})")
        first = [change.first_place(ranking) or "none" for ranking in (change.before, change.after)]
        facts.append(f"first relevant passage {first[0]} → {first[1]}")
        inside = len(change.relevant & change.after.places.keys())
        facts.append(f"{inside} of {len(change.relevant)} relevant in the list")
    facts.append(f"{len(change.after.doc_ids)} passages")
    if change.tau is not None:
        facts.append(f"Kendall's tau {change.tau:.2f}")
    return facts


def _entry(
    change: Change, doc_id: str, name: str, side: Ranking, other: Ranking, known: Known, characters: int | None
) -> Entry:
    place, there = side.places.get(doc_id, 0), other.places.get(doc_id)
    if there is None:
        moved = "only here"
    elif there == place:
        moved = "same place"
    elif name == "before":
        moved = f"to {there} {_arrow(place - there)}"
    else:
        moved = f"from {there} {_arrow(there - place)}"
    grade = ""
    if change.grades is not None:
        grade = f"grade {change.grades[doc_id]}" if doc_id in change.grades else "not judged"
    length = known.lengths.get(doc_id, 0)
    is_cut = known.length is not None and length > known.length
    return Entry(
        place=place,
        doc_id=printable(doc_id),
        score=f"{side.scores[doc_id]:.4g}" if doc_id in side.scores else "",
        text=_cut(known.passages.get(doc_id), characters),
        moved=moved,
        grade=grade,
        is_relevant=doc_id in change.relevant,
        length=f"{length} tokens, {known.length} read" if is_cut else "",
    )


def _arrow(rise: int) -> str:
    return f"▲{rise}" if rise > 0 else f"▼{-rise}"


def _cut(text: str | None, characters: int | None) -> str:
    """Return the beginning of a text; of a passage without one, an empty text."""
    text = printable(text or "")
    return text if characters is None or len(text) <= characters else f"{text[:characters].rstrip()}…"
