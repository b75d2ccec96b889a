"""Gather runs into tables, tests, figures and one page.

    python -m distill report runs=outputs/multirun/DATE/TIME
    python -m distill report runs=[DIR1,DIR2] metrics=[test/*/nDCG@10] baseline=loss=ranknet compare=loss.name

Each directory is searched for the runs of train.py and evaluate.py. Prints the table, and leaves index.html
(everything, in one file), report.yaml (its configuration), results.md, results.tex, results.csv, comparison.csv and
figures/ in its output directory.
"""

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from distill.config.checks import check_values
from distill.config.command import start
from distill.config.composition import ROOT, run_directory
from distill.errors import InputError, exit_on_bad_input

log = logging.getLogger("report")

OVER = {"data.depth": "effectiveness-over-depth", "data.num_queries": "effectiveness-over-queries"}


def report(cfg: DictConfig, directory: Path) -> None:
    """Write a report as configured; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.report import comparison, markup
    from distill.report.page import Report, to_html
    from distill.report.published import add_published
    from distill.report.rows import find_row, make_rows, name_rows
    from distill.report.runs import read_runs
    from distill.report.table import choose_columns, make_table, mark_significance

    if (directory / "config.yaml").exists():
        raise InputError(f"output={directory}: holds a run: choose another directory for the report")
    runs, unfinished = read_runs([cfg.runs] if isinstance(cfg.runs, str) else list(cfg.runs))
    log.info("%d runs, and %d unfinished", len(runs), len(unfinished))
    for path in unfinished:
        log.warning("unfinished, left out: %s", path)
    rows = make_rows(runs)
    columns = choose_columns(runs, cfg.metrics)
    measured = [row for row in rows if any(row.by_seed(column) for column in columns)]
    name_rows(measured)  # by what differs between the rows of the table

    table = make_table(cfg.title, rows, runs, columns)
    baseline = find_row(measured, cfg.baseline, "baseline") if cfg.baseline else None
    if baseline:
        mark_significance(table, measured, baseline, cfg.correction, cfg.alpha)
    if unfinished:
        table.notes.append(f"Unfinished and left out ({len(unfinished)}): {'; '.join(map(str, unfinished))}.")
    compared = comparison.compare_key(cfg.compare, measured, columns) if cfg.compare else None
    if cfg.published:
        add_published(table)

    page = Report(table, rows, unfinished, baseline.name if baseline else None, cfg.correction, compared)
    page.published = cfg.published
    page.figures = draw_figures(measured, rows, columns, directory / "figures")
    markdown = markup.to_markdown(table)
    if compared:
        page.diagram = draw_diagram(compared, directory / "figures")
        markdown += "\n" + comparison.to_markdown(compared)
        (directory / "comparison.csv").write_text(comparison.to_csv(compared), encoding="utf-8")
    (directory / "results.md").write_text(markdown, encoding="utf-8")
    (directory / "results.tex").write_text(markup.to_latex(table), encoding="utf-8")
    (directory / "results.csv").write_text(markup.to_csv(table), encoding="utf-8")
    (directory / "index.html").write_text(to_html(page), encoding="utf-8")
    OmegaConf.save(cfg, directory / "report.yaml")
    print(markdown)
    log.info("page: %s", directory / "index.html")


def draw_figures(measured: list, rows: list, columns: list[str], directory: Path) -> list[tuple[str, str]]:
    """Draw and write what there is to draw; return captions and <svg> elements for the page."""
    from distill.report.figures import draw_curves, draw_latency, draw_over, save, to_inline_svg

    over_seeds = "mean and standard deviation over seeds"
    figures = {name: (draw_over(key, measured, columns), f"Over {key}; {over_seeds}.") for key, name in OVER.items()}
    figures["curves"] = (draw_curves(rows), f"Validation and training loss over steps; {over_seeds}.")
    figures["latency"] = (draw_latency(measured, columns), "Effectiveness against seconds per query.")
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (figure, caption) in figures.items():
        if figure:
            save(figure, directory / name)
            drawn.append((caption, to_inline_svg(figure, name)))
    return drawn


def draw_diagram(compared, directory: Path) -> Path:
    """Write the critical-difference diagram and return the path of its PNG."""
    from distill.evaluation.significance import draw_critical_difference

    for suffix in ("svg", "png"):
        path = directory / f"critical-difference.{suffix}"
        draw_critical_difference(compared.treatments, compared.average_ranks, compared.p_values, path)
    return path


@hydra.main(config_path=str(ROOT / "conf"), config_name="report", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Write one report; bad input is answered with one line and exit status 2."""
    with exit_on_bad_input(sweep=HydraConfig.get().mode == RunMode.MULTIRUN):
        check_values(cfg)
        report(cfg, run_directory())


def main() -> None:
    """Run the command with the arguments of the command line."""
    start(run, "report")
