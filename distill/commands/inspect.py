"""Show side by side what a ranking has moved, and what it ranks wrongly.

    python -m distill inspect run=outputs/evaluate/DATE/TIME                       against its first stage
    python -m distill inspect run=A.run baseline=B.run passages=P.tsv queries=Q.tsv qrels=QRELS
    python -m distill inspect run=outputs/annotate/DATE/TIME                       what a teacher has moved

Prints a summary, and writes index.html. The page quotes the collection: mind its licence before you share it.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import ROOT, command_overrides, run_directory
from distill.config.measures import parse_measures
from distill.config.overrides import unquoted
from distill.errors import InputError
from distill.jobs import run_command, shown_path

if TYPE_CHECKING:
    from distill.report.two_runs import TwoRuns

log = logging.getLogger("inspect")

WITH_JUDGMENTS = ("worst", "harmed", "helped", "missing")
WITHOUT = ("moved",)


def inspect(cfg: DictConfig, directory: Path) -> None:
    """Write the page as configured, and print its summary; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.report.change_tables import Known, first_places, summarise, tabulate
    from distill.report.changes import SECTIONS, choose, compare
    from distill.report.provenance import describe_page
    from distill.report.side_by_side import PageSection, SideBySide, make_card, shown_doc_ids, to_html
    from distill.report.two_runs import read_two_runs
    from distill.storage.writing import write_text

    if (directory / "config.yaml").exists():
        raise InputError(f"output={directory}: holds a run: choose another directory for the page")
    two = read_two_runs(cfg)
    names = choose_sections(cfg, bool(two.qrels), is_teacher=two.teacher is not None)
    measure = parse_measures([cfg.measure])[0]
    changes = compare(two.before, two.after, two.qrels, measure, max_passage=two.max_passage)
    chosen = {name: choose(changes, name, cfg.num_queries) for name in names}
    shown = shown_doc_ids([change for listed, _ in chosen.values() for change in listed], cfg.depth)
    known = Known(two.queries, two.read_passages(shown | {doc_id for one in changes for doc_id in one.relevant}))
    if two.reading:
        known.lengths, known.length = two.reading.count(known.passages), two.reading.length
    page = SideBySide(
        cfg.title,
        str(measure),
        describe_page([unquoted(argument) for argument in command_overrides("task")], "inspect"),
        summarise(changes, str(measure), known) + compare_teachers(two),
        first_places(changes) if two.qrels else [],
        tabulate(changes, str(measure), known),
        [
            PageSection(
                SECTIONS[name].title.format(measure=measure),
                [make_card(change, known, str(measure), cfg.depth, cfg.characters) for change in listed],
                total,
            )
            for name, (listed, total) in chosen.items()
        ],
        two.notes,
    )
    page.about |= {"Before": two.before_name, "After": two.after_name}
    html = to_html(page)
    write_text(directory / "index.html", html)
    width = max(len(name) for name, _ in page.summary)
    print("\n".join(f"{name:{width}}  {text}" for name, text in page.summary))
    for note in two.notes:
        log.info("%s", note)
    log.info("next: open %s", shown_path(directory / "index.html"))


def compare_teachers(two: "TwoRuns") -> list[tuple[str, str]]:
    """Return a line that says whether a teacher agrees with a given ranking more than random answers would."""
    from distill.evaluation.agreement import agree
    from distill.teachers.worth import drawn_from, random_answers

    if two.teacher is None or not two.teacher_lists:
        return []
    orders, other, lists = (
        {query_id: ranked.doc_ids for query_id, ranked in run.items()}
        for run in (two.after, two.before, two.teacher_lists)
    )
    shared = {query_id: order for query_id, order in orders.items() if query_id in lists}
    found = agree(shared, other, drawn_from(lists, random_answers(two.teacher)))
    return [("agreement", found.describe())] if found else []


def choose_sections(cfg: DictConfig, has_judgments: bool, *, is_teacher: bool) -> list[str]:
    """Return the sections of the page; raises InputError for one that needs judgments, where there are none."""
    if cfg.sections is None:
        return [*(["sample"] if is_teacher else []), *(WITH_JUDGMENTS if has_judgments else WITHOUT)]
    names = list(dict.fromkeys(cfg.sections))
    needy = [name for name in names if name in WITH_JUDGMENTS]
    if needy and not has_judgments:
        raise InputError(f"sections=[{','.join(names)}]: {needy[0]} needs judgments: give qrels, or sections=[moved]")
    return names


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"comparing {cfg.run} with {cfg.baseline or 'its first stage'}"


def check_inspect(cfg: DictConfig) -> None:
    """Check the configuration; raises InputError with key, value, rule and remedy."""
    check_values(cfg)
    parse_measures([cfg.measure])


@hydra.main(config_path=str(ROOT / "conf"), config_name="inspect", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Write one page; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_inspect, lambda cfg: inspect(cfg, run_directory()))
