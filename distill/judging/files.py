"""The files of a judge: qrels.txt (TREC), card.md and results.json.

results, lines = write_judgments(directory, cfg, pool, judged, people)
"""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from distill.evaluation.results import write_results
from distill.judging.answers import GRADES
from distill.judging.judge import Judged
from distill.judging.people import People
from distill.judging.pool import Pool
from distill.secrets import for_others
from distill.storage.quoting import to_markdown
from distill.storage.writing import write_text
from distill.teachers.data_card import request_lines

Lines = list[tuple[str, str]]


def write_judgments(
    directory: Path, cfg: DictConfig, pool: Pool, judged: Judged, people: People | None, teacher: str | None
) -> tuple[dict[str, float], Lines]:
    """Write all files, results.json last; return its numbers, and what to print as (name, text).

    teacher: the name of the model that taught the student, None if it is not known.
    """
    counts = Counter(judged.grades.values())
    is_same = None if teacher is None else is_same_model(teacher, cfg.teacher.llm.model)
    lines = [("queries", str(len(pool.queries))), ("passages", str(len(pool.pairs)))]
    lines += [(f"grade {grade}", str(counts[grade])) for grade in GRADES]
    lines += [("without a grade", str(counts[None]))] if counts[None] else []
    lines += people.describe() if people is not None else []
    results = _results(cfg, pool, judged, people, is_same)
    write_text(directory / "qrels.txt", _qrels(pool, judged))
    write_text(directory / "card.md", _card(cfg, judged, people, lines, _about_teacher(teacher, is_same)))
    write_results(directory / "results.json", results)
    return results, lines


def is_same_model(one: str, other: str) -> bool:
    """Whether two names mean the same model, whatever the case and the owner before it: Org/Model-7B, model-7b."""
    names = [name.rstrip("/").rsplit("/", 1)[-1].casefold() for name in (one, other)]
    return names[0] == names[1]


def _qrels(pool: Pool, judged: Judged) -> str:
    """Return the grades as TREC qrels: query by query, passages by id, so that no ranking shows."""
    of_query: dict[str, list[str]] = {query_id: [] for query_id in pool.queries}
    for pair, grade in sorted(judged.grades.items(), key=lambda one: one[0]):
        if grade is not None:
            of_query[pair.query_id].append(f"{pair.query_id} 0 {pair.doc_id} {grade}\n")
    return "".join(line for lines in of_query.values() for line in lines)


def _results(
    cfg: DictConfig, pool: Pool, judged: Judged, people: People | None, is_same: bool | None
) -> dict[str, float]:
    counts, totals = Counter(judged.grades.values()), judged.totals
    results: dict[str, float] = {"queries": len(pool.queries), "passages": len(pool.pairs)}
    results |= {"judgments": len(pool.pairs) - counts[None], "unusable": counts[None]}
    results |= {f"grade/{grade}": counts[grade] for grade in GRADES}
    results |= people.results() if people is not None else {}
    results |= {} if is_same is None else {"same_as_teacher": int(is_same)}
    return results | totals.results(cfg.teacher.llm)


def _about_teacher(teacher: str | None, is_same: bool | None) -> str:
    if is_same is None:
        return "teacher: not known: give teacher_name or annotation, since a judge favours its own ranking"
    if is_same:
        return f"teacher: {teacher}, the same model: it judges its own ranking, and favours it"
    return f"teacher: {teacher}, another model"


def _card(cfg: DictConfig, judged: Judged, people: People | None, counted: Lines, about_teacher: str) -> str:
    """Return the text of card.md: the judge, what it graded, its grades, and how far people agree."""
    llm, totals = cfg.teacher.llm, judged.totals
    lines = ["# Data card", "", f"- made: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by the judge command"]
    lines += [f"- judge: {llm.model} ({llm.engine})", f"- {about_teacher}"]
    lines += [f"- pool: the top {cfg.depth} of {', '.join(cfg.runs)}, for queries of {cfg.queries}"]
    lines += [f"- passages of {cfg.passages}, one in each request, shuffled with seed {cfg.seed}"]
    lines += [f"- prompt: {Path(cfg.prompt).name}, {judged.prompt}"]
    lines += [f"- {name}: {text}" for name, text in counted]
    without = [pair for pair, grade in judged.grades.items() if grade is None]
    if without:
        lines += [f"- the first without a grade: query {without[0].query_id}, passage {without[0].doc_id}"]
    if totals.refused:
        lines += [f"- requests refused: {totals.refused}"]
    if totals.shortened:
        lines += [f"- passages cut further, since they were too long: {totals.shortened}"]
    lines += request_lines(totals, llm)
    text = "\n".join(to_markdown(line, with_code=True) for line in lines) + "\n"
    if people is not None:
        text += "\n".join(
            ["", "How often people (rows) and the judge (columns) gave each grade:", "", *people.table_lines(), ""]
        )
    return for_others(text)
