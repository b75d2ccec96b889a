"""Draw the README's figure: corpus, first stage, teacher, student, for a light page and for a dark one.

    python docs/figures/pipeline.py             writes pipeline-light.svg and pipeline-dark.svg beside this script
    python docs/figures/pipeline.py DIRECTORY   writes them there

Bars are passages of one query; the stronger the colour, the more relevant. The first stage mixes them, the teacher
sorts them, and the student learns that order. The seconds are for 100 passages of a query (Rank-DistiLLM, one A100).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 880, 330
CARD_WIDTH, CARD_HEIGHT, GAP, LEFT, TOP = 184, 216, 40, 12, 12
BAR_WIDTH, BAR_HEIGHT, BAR_STEP = 120, 11, 16
FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'SF Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace"
GRADES = [1.0, 0.84, 0.68, 0.52, 0.38, 0.25, 0.14]  # opacity of the bars, from the most relevant passage to the least


@dataclass
class Theme:
    """The colours of one page."""

    text: str
    muted: str
    card: str
    border: str
    bar: str
    accent: str


@dataclass
class Card:
    """One step of the pipeline; order holds the places in GRADES of its bars, from the top, or None for the corpus."""

    title: str
    subtitle: str
    order: list[int] | None
    note: str
    command: str


THEMES = {
    "light": Theme("#1f2328", "#59636e", "#f6f8fa", "#d1d9e0", "#0969da", "#1a7f37"),
    "dark": Theme("#f0f6fc", "#9198a1", "#151b23", "#3d444d", "#4493f8", "#3fb950"),
}
CARDS = [
    Card("Your corpus", "passages and queries", None, "no labels needed", ""),
    Card("First stage", "BM25 or an encoder", [4, 1, 6, 0, 3, 2, 5], "top 100 passages", "distill retrieve"),
    Card("Teacher", "an LLM re-ranks the list", [0, 1, 2, 3, 4, 5, 6], "25 s a query", "distill annotate"),
    Card("Student", "learns to rank like it", [0, 1, 3, 2, 4, 5, 6], "0.3 s a query", "train.py"),
]


def main() -> None:
    """Write both figures."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, theme in THEMES.items():
        (directory / f"pipeline-{name}.svg").write_text(draw(theme), encoding="utf-8")


def draw(theme: Theme) -> str:
    """Return the figure as SVG."""
    parts = [card for place, one in enumerate(CARDS) for card in draw_card(one, card_left(place), theme)]
    for place in range(len(CARDS) - 1):
        start, y = card_left(place) + CARD_WIDTH, TOP + CARD_HEIGHT / 2
        parts.append(arrow(f"M{start + 5} {y} H{start + GAP - 7}", theme.muted, "head"))
    parts += draw_serving(theme)
    heads = "".join(arrow_head(name, colour) for name, colour in (("head", theme.muted), ("served", theme.accent)))
    label = (
        "Corpus, first stage, teacher and student: the student learns the teacher's order of the first stage's passages"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{label}" font-family="{FONT}">\n<defs>{heads}</defs>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def card_left(place: int) -> int:
    return LEFT + place * (CARD_WIDTH + GAP)


def draw_card(card: Card, left: int, theme: Theme) -> list[str]:
    """Return a card: its title, its list of passages, how long that takes, and the command below."""
    middle = left + CARD_WIDTH // 2
    parts = [
        f'<rect x="{left}" y="{TOP}" width="{CARD_WIDTH}" height="{CARD_HEIGHT}" rx="10" fill="{theme.card}" '
        f'stroke="{theme.border}"/>',
        text(middle, TOP + 28, card.title, theme.text, 17, weight=600),
        text(middle, TOP + 48, card.subtitle, theme.muted, 13),
    ]
    top = TOP + 66
    if card.order is None:
        parts += draw_corpus(left, top, theme)
    for place, grade in enumerate(card.order or []):
        parts.append(
            f'<rect x="{middle - BAR_WIDTH // 2}" y="{top + place * BAR_STEP}" width="{BAR_WIDTH}" '
            f'height="{BAR_HEIGHT}" rx="3" fill="{theme.bar}" fill-opacity="{GRADES[grade]}"/>'
        )
    parts.append(text(middle, TOP + CARD_HEIGHT - 14, card.note, theme.muted, 13))
    if card.command:
        parts.append(text(middle, TOP + CARD_HEIGHT + 22, card.command, theme.text, 13, family=MONO))
    return parts


def draw_corpus(left: int, top: int, theme: Theme) -> list[str]:
    """Return sheets of paper, one behind the other."""
    parts = []
    for shift in (24, 12, 0):
        x, y = left + 46 + shift, top + 24 - shift
        parts.append(
            f'<rect x="{x}" y="{y}" width="68" height="80" rx="5" fill="{theme.card}" stroke="{theme.muted}"/>'
        )
    for line, width in enumerate((48, 40, 48, 30)):
        y = top + 42 + line * 14
        parts.append(f'<rect x="{left + 56}" y="{y}" width="{width}" height="4" rx="2" fill="{theme.muted}"/>')
    return parts


def draw_serving(theme: Theme) -> list[str]:
    """Return the way of a new query: past the teacher."""
    first, student, y = card_left(1) + CARD_WIDTH // 2, card_left(3) + CARD_WIDTH // 2, TOP + CARD_HEIGHT + 62
    bend = TOP + CARD_HEIGHT + 32
    parts = [arrow(f"M{first} {bend} V{y - 10} Q{first} {y} {first + 10} {y} H{student - 10} Q{student} {y} {student} "
                   f"{y - 10} V{bend + 4}", theme.accent, "served")]  # fmt: skip
    middle = (first + student) // 2
    return [*parts, text(middle, y + 22, "a new query needs first stage and student only", theme.accent, 14)]


def arrow(path: str, colour: str, head: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" marker-end="url(#{head})"/>'


def arrow_head(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{colour}"/></marker>'
    )


def text(x: int, y: int, words: str, colour: str, size: int, weight: int = 400, family: str = "") -> str:
    """Return a line of text around x."""
    font = f' font-family="{family}"' if family else ""
    return (
        f'<text x="{x}" y="{y}" text-anchor="middle" fill="{colour}" font-size="{size}" font-weight="{weight}"{font}>'
        f"{words}</text>"
    )


if __name__ == "__main__":
    main()
