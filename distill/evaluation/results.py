"""The files of an evaluation, and the table it prints.

write_rows(directory, rows, per_query, "test", tag="student")       # run.txt (TREC) and per_query.csv, of each row
write_results(directory / "results.json", results)
print(format_results(results, cfg.task.name, num_queries, measures, missing))
"""

import csv
import json
from pathlib import Path

from omegaconf import DictConfig

from distill.evaluation.measures import PerQuery
from distill.sources.run_files import Run, write_run
from distill.storage.quoting import to_cell
from distill.storage.writing import write_text, write_whole

ROWS = {  # prefix of a metric's name -> row of the table
    "first_stage": "first stage",
    "teacher": "teacher",
    "fused": "fused runs",
    "ideal": "perfect order",
    "untrained": "student before training",
    "test": "student",
    "interpolated": "interpolated",
}
UNTRAINED = "student before training: where its linear layer is new, its weights are random, and so is its order"


def write_rows(
    directory: Path,
    rows: dict[str, Run],
    per_query: dict[str, PerQuery],
    main: str,
    tag: str,
    *,
    keep_run: bool = False,
) -> None:
    """Write the files of all rows of a task, run.txt and per_query.csv for the main one.

    per_query: by row; empty for a task without judgments, which has only the runs. keep_run: run.txt is there, and was
    read. The others have their values by query in ROW.per_query.csv, and the interpolated one its run, too. The main
    row's values come last: with them, a task counts as done.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for row in (row for row in per_query if row != main):
        write_per_query(directory, per_query[row], f"{row}.per_query.csv")
    if "interpolated" in rows:
        write_whole(directory / "interpolated.run.txt", lambda aside: write_run(rows["interpolated"], aside, tag))
    if not keep_run:
        write_task(directory, rows[main], per_query.get(main), tag)
    elif per_query:
        write_per_query(directory, per_query[main])  # the judgments may have changed


def write_task(directory: Path, run: Run, per_query: PerQuery | None, tag: str) -> None:
    """Write run.txt (TREC) and then per_query.csv, if there is any."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "run.txt", lambda aside: write_run(run, aside, tag))
    if per_query is not None:
        write_per_query(directory, per_query)


def write_per_query(directory: Path, per_query: PerQuery, name: str = "per_query.csv") -> None:
    """Write a CSV file, one line per query: its id and its value of each measure."""
    measures = list(next(iter(per_query.values())))

    def write(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["query_id", *measures])
            writer.writerows(
                [to_cell(query_id), *(values[name] for name in measures)] for query_id, values in per_query.items()
            )

    write_whole(directory / name, write)


def task_directory(directory: Path, cfg: DictConfig, name: str) -> Path:
    """Return the directory for a task's files; each task of a suite has its own."""
    return directory / "tasks" / name if cfg.tasks else directory


def write_results(path: Path, results: dict[str, float]) -> None:
    """Write a flat JSON object, metric name to number, completely or not at all."""
    write_text(path, json.dumps(results, indent=2) + "\n")


def format_results(
    results: dict[str, float], name: str, num_queries: dict[str, int], measures: list, missing: dict[str, str]
) -> str:
    """Return the values of a task as a table, or one table per measure for the tasks and averages of a suite.

    num_queries: of each task. missing: the tasks that a suite lacks, with the reason.
    """
    names = [str(measure) for measure in measures]
    note = f"\n{UNTRAINED}" if any(key.startswith("untrained/") for key in results) else ""
    if [*num_queries] == [name]:
        return _task_table(results, name, num_queries[name], names) + note
    tables = [_suite_table(results, name, num_queries, measure, missing) for measure in names]
    if missing:
        tables.append("\n".join(f"missing: {task}: {reason}" for task, reason in missing.items()))
    return "\n\n".join(tables) + note


def _task_table(results: dict[str, float], name: str, num_queries: int, measures: list[str]) -> str:
    """Return a table with a line for each row and a column for each measure."""
    cells = []
    for row, label in ROWS.items():
        if f"{row}/{name}/{measures[0]}" in results:
            cells.append([label, *(f"{results[f'{row}/{name}/{measure}']:.4f}" for measure in measures)])
    return table([f"{name}: {num_queries} queries", *measures], cells)


def _suite_table(
    results: dict[str, float], name: str, num_queries: dict[str, int], measure: str, missing: dict[str, str]
) -> str:
    """Return a table with a line for each task and average, and a column for each row."""
    rows = [row for row in ROWS if any(key.startswith(f"{row}/") and key.endswith(f"/{measure}") for key in results)]
    averages = [task for task in (metric.split("/")[1] for metric in results) if task.startswith(f"{name}-")]
    cells = []
    for task in dict.fromkeys([*num_queries, *averages]):
        values = [results.get(f"{row}/{task}/{measure}") for row in rows]
        size = str(num_queries.get(task, ""))
        cells.append([task, size, *("" if value is None else f"{value:.4f}" for value in values)])
    cells += [[task, "", *["missing"] * len(rows)] for task in missing]
    return table([f"{name}: {measure}", "queries", *(ROWS[row] for row in rows)], cells)


def table(header: list[str], cells: list[list[str]]) -> str:
    """Align the first column to the left and the rest to the right, with a line below the header."""
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(row))
        for row in (list(zip(row, widths, strict=True)) for row in [header, *cells])
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
