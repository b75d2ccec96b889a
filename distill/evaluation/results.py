"""The files of an evaluation, and its table.

write_task(directory, run, per_query, tag="student")        # run.txt (TREC) and per_query.csv
write_results(directory / "results.json", results)
print(format_results(results, cfg.task.name, num_queries, measures, missing))
"""

import csv
import json
from pathlib import Path

from omegaconf import DictConfig

from distill.evaluation.measures import PerQuery
from distill.sources.run_files import Run, write_run
from distill.storage.files import write_whole

ROWS = {  # prefix of a metric's name -> row of the table
    "first_stage": "first stage",
    "teacher": "teacher",
    "untrained": "student before training",
    "test": "student",
}


def write_task(directory: Path, run: Run, per_query: PerQuery, tag: str) -> None:
    """Write run.txt (TREC) and then per_query.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "run.txt", lambda aside: write_run(run, aside, tag))
    write_per_query(directory, per_query)


def write_per_query(directory: Path, per_query: PerQuery) -> None:
    """Write per_query.csv, one line a query: its id and its value of each measure."""
    measures = list(next(iter(per_query.values())))

    def write(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["query_id", *measures])
            writer.writerows([query_id, *(values[name] for name in measures)] for query_id, values in per_query.items())

    write_whole(directory / "per_query.csv", write)


def task_directory(directory: Path, cfg: DictConfig, name: str) -> Path:
    """Return where the files of a task stand: of a suite's tasks, each has its own directory."""
    return directory / "tasks" / name if cfg.tasks else directory


def write_results(path: Path, results: dict[str, float]) -> None:
    """Write a flat JSON object, metric name to number; whole or not at all."""
    text = json.dumps(results, indent=2) + "\n"
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def format_results(
    results: dict[str, float], name: str, num_queries: dict[str, int], measures: list, missing: dict[str, str]
) -> str:
    """Return the values of a task as a table, or one table a measure for the tasks and averages of a suite.

    num_queries: of each task. missing: the tasks that a suite lacks, with the reason.
    """
    measures = [str(one) for one in measures]
    if [*num_queries] == [name]:
        shown = {label: row for row, label in ROWS.items() if f"{row}/{name}/{measures[0]}" in results}
        cells = [
            [label, *(f"{results[f'{row}/{name}/{one}']:.4f}" for one in measures)] for label, row in shown.items()
        ]
        return _table([f"{name}: {num_queries[name]} queries", *measures], cells)
    averages = dict.fromkeys(metric.split("/")[1] for metric in results if metric.split("/")[1].startswith(f"{name}-"))
    tables = []
    for one in measures:
        rows = [row for row in ROWS if any(key.startswith(f"{row}/") and key.endswith(f"/{one}") for key in results)]
        cells = []
        for task in [*num_queries, *(average for average in averages if average not in num_queries)]:
            values = [results.get(f"{row}/{task}/{one}") for row in rows]
            size = str(num_queries.get(task, ""))
            cells.append([task, size, *("" if value is None else f"{value:.4f}" for value in values)])
        cells += [[task, "", *["missing"] * len(rows)] for task in missing]
        tables.append(_table([f"{name}: {one}", "queries", *(ROWS[row] for row in rows)], cells))
    reasons = [f"missing: {task}: {reason}" for task, reason in missing.items()]
    return "\n\n".join(["\n\n".join(tables), *(["\n".join(reasons)] if reasons else [])])


def _table(header: list[str], cells: list[list[str]]) -> str:
    """Align the first column to the left and the rest to the right, under a line below the header."""
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(row))
        for row in (list(zip(row, widths, strict=True)) for row in [header, *cells])
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
