"""Gather runs into tables, tests, figures and one page.

    python -m distill report runs=outputs/multirun/DATE/TIME
    python -m distill report runs=[DIR1,DIR2] metrics=[test/*/nDCG@10] baseline=loss=ranknet compare=loss

Each directory is searched for the runs of train.py and evaluate.py. Prints the table, and leaves index.html
(everything, in one file), report.yaml (its configuration), results.md, results.tex, results.csv, comparison.csv and
figures/ in its output directory, in place of those of an earlier report there. A test that cannot be made is a note on
the page.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from distill.config.checks import check_values
from distill.config.composition import ROOT, command_overrides, run_directory
from distill.config.overrides import unquoted
from distill.config.saved import saved_text
from distill.errors import InputError
from distill.jobs import run_command, shown_path
from distill.sources.literals import as_literal

if TYPE_CHECKING:
    from distill.report.page import Figure, Report

log = logging.getLogger("report")

OVER = {"data.depth": "effectiveness-over-depth", "data.num_queries": "effectiveness-over-queries"}
DIAGRAM = "critical-difference"
FIGURES = ("effectiveness", "effectiveness-over-*", "curves", "latency", DIAGRAM)  # all that a report may draw
OVER_SEEDS = "mean and standard deviation over seeds"


def report(cfg: DictConfig, directory: Path) -> None:
    """Write a report as configured; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.report.labels import read_labels
    from distill.report.page import Report
    from distill.report.published import add_published
    from distill.report.rows import make_rows, name_rows
    from distill.report.runs import only_queries, read_runs
    from distill.report.table import choose_columns, label_references, make_table
    from distill.sources.texts import read_queries

    if (directory / "config.yaml").exists():
        raise InputError(f"output={directory}: holds a run: choose another directory for the report")
    runs, unfinished = read_runs([cfg.runs] if isinstance(cfg.runs, str) else list(cfg.runs))
    log.info("%d runs, and %d unfinished", len(runs), len(unfinished))
    for path in unfinished:
        log.warning("unfinished, left out: %s", path)
    if cfg.queries is not None:
        queries = read_queries(cfg.queries).keys()
        runs = [only_queries(run, queries) for run in runs]
        if not any(name.startswith("test/") for run in runs for name in run.results):
            raise InputError(f"queries={cfg.queries}: no run has values of any of its {len(queries)} queries")
    rows = make_rows(runs)
    columns = choose_columns(runs, cfg.metrics)
    measured = [row for row in rows if any(row.by_seed(column) for column in columns)]
    labels = read_labels(cfg.labels, [row.config for row in rows])
    name_rows(rows, labels)
    name_rows(measured, labels)  # by what differs between the rows of the table

    table = make_table(cfg.title, rows, runs, columns, labels)
    label_references(table, rows, labels)
    page = Report(table, rows, labels, unfinished, published=cfg.published, correction=cfg.correction)
    add_tests(cfg, page, measured)
    if unfinished:
        table.notes.append(f"Unfinished and left out ({len(unfinished)}): {'; '.join(map(str, unfinished))}.")
    page.figures = draw_figures(page, measured, directory / "figures")
    if cfg.published:
        add_published(table)
    write(cfg, page, directory)


def add_tests(cfg: DictConfig, page: "Report", measured: list) -> None:
    """Add the tests that were asked for, and notes; what cannot be tested is a problem that the page names.

    Raises InputError for a baseline that no row has, and for an unknown key.
    """
    from distill.report.comparison import compare_key, find_key
    from distill.report.paired import find_baseline, mark_significance, note_seeds

    baseline = find_baseline(cfg.baseline, measured, page.labels) if cfg.baseline else None
    key = find_key(cfg.compare, measured) if cfg.compare else None
    if baseline:
        page.baseline = baseline.name
        with noted(page.problems):
            mark_significance(page.table, measured, baseline, cfg.correction, cfg.alpha)
    page.table.notes += note_seeds(page.table, page.baseline if baseline and not baseline.reference else None)
    if key:
        with noted(page.problems):
            page.comparison = compare_key(key, measured, page.table.columns, page.labels, cfg.correction)


@contextlib.contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Note why a test could not be made, in place of ending the command."""
    try:
        yield
    except InputError as error:
        log.warning("%s", error)
        problems.append(str(error))


def write(cfg: DictConfig, page: "Report", directory: Path) -> None:
    """Write the page and the files beside it, and print the table."""
    from distill.report import comparison, markup
    from distill.report.page import to_html
    from distill.report.provenance import describe_page, read_commands
    from distill.storage.quoting import to_markdown
    from distill.storage.writing import write_text

    is_repeated = (directory / "report.yaml").is_file()
    page.about = describe_page([unquoted(argument) for argument in command_overrides("task")])
    page.commands = read_commands([run for row in page.rows for run in row.runs])
    markdown = markup.to_markdown(page.table)
    if page.problems:
        markdown += "\n" + "".join(f"- Not tested: {to_markdown(problem)}\n" for problem in page.problems)
    if page.comparison:
        page.diagram = draw_diagram(page.comparison, directory / "figures")
        markdown += "\n" + comparison.to_markdown(page.comparison)
        write_text(directory / "comparison.csv", comparison.to_csv(page.comparison))
    write_text(directory / "results.md", markdown)
    write_text(directory / "results.tex", markup.to_latex(page.table))
    write_text(directory / "results.csv", markup.to_csv(page.table))
    write_text(directory / "index.html", to_html(page))
    # Not the unresolved output, which would name, and make, a directory of its own
    write_text(directory / "report.yaml", saved_text(OmegaConf.merge(cfg, {"output": as_literal(str(cfg.output))})))
    if is_repeated:
        remove_earlier(page, directory)
    print(markdown)
    log.info("next: open %s", shown_path(directory / "index.html"))


def draw_figures(page: "Report", measured: list, directory: Path) -> "list[Figure]":
    """Draw and write what there is to draw, and return it for the page."""
    from distill.report import figures
    from distill.report.page import Figure
    from distill.report.panels import draw, save, to_inline_svg
    from distill.storage.writing import writing

    columns, labels = page.table.columns, page.labels
    found = {}
    for key in figures.swept_keys(measured):
        name = OVER.get(key, f"effectiveness-over-{key}")
        found[name] = (figures.draw_over(key, measured, columns, labels), f"Over {key}; {OVER_SEEDS}.")
    if not any(panels for panels, _ in found.values()):
        found["effectiveness"] = figures.draw_dots(page.table, measured)
    found["curves"] = figures.draw_curves(page.rows, labels)
    found["latency"] = (
        figures.draw_latency(measured, columns),
        f"Effectiveness against seconds per query; {OVER_SEEDS}.",
    )
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (panels, caption) in found.items():
        if panels:
            wide = draw(panels)
            save(wide, directory / name)
            narrow = to_inline_svg(draw(panels, narrow=True), f"{name}-narrow")
            drawn.append(Figure(name, caption, to_inline_svg(wide, name), narrow))
    return drawn


def draw_diagram(compared, directory: Path) -> Path | None:
    """Write the critical-difference diagram and return the path of its PNG; None where two values are compared."""
    from distill.report.diagram import draw_critical_difference

    if compared.average_ranks is None:
        return None
    names = [line[0] for line in compared.lines]
    for suffix in ("svg", "png"):
        path = directory / f"{DIAGRAM}.{suffix}"
        draw_critical_difference(names, compared.average_ranks, compared.p_values, path)
    return path


def remove_earlier(page: "Report", directory: Path) -> None:
    """Remove what an earlier report has written here, and this one has not."""
    from distill.storage.writing import writing

    drawn = {figure.name for figure in page.figures} | ({DIAGRAM} if page.diagram else set())
    patterns = [f"{name}.{suffix}" for name in FIGURES for suffix in ("svg", "png")]
    figures = (path for pattern in patterns for path in (directory / "figures").glob(pattern))
    old = [path for path in figures if path.stem not in drawn]
    old += [] if page.comparison else [directory / "comparison.csv"]
    with writing(directory):
        for path in old:
            path.unlink(missing_ok=True)


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    runs = cfg.runs if isinstance(cfg.runs, str) else ", ".join(cfg.runs)
    return f"reporting on {runs}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="report", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Report once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, lambda cfg: report(cfg, run_directory()))
