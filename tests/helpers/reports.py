"""Small runs to report on, whose numbers are worked out by hand."""

import csv
import json
from pathlib import Path

import yaml

from distill.commands.report import report
from distill.config.checks import check_values
from distill.report.labels import read_labels
from distill.report.rows import make_rows, name_rows
from tests.helpers.configuration import compose_config

DL19 = "test/trec-dl-2019-bm25/nDCG@10"


def make_run(directory: Path, config: dict, results: dict | None, per_query: list[float] | None = None) -> Path:
    """Write a run directory; config by dotted keys, per_query the nDCG@10 of queries q0, q1, ..."""
    directory.mkdir(parents=True)
    nested: dict = {}
    for key, value in config.items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(nested, sort_keys=False))
    if results is not None:
        (directory / "results.json").write_text(json.dumps(results, indent=2))
    if per_query is not None:
        lines = [f"q{index},{value}\n" for index, value in enumerate(per_query)]
        (directory / "per_query.csv").write_text("query_id,nDCG@10\n" + "".join(lines))
    return directory


def make_grid(directory: Path, values: dict[tuple[str, int], list[float]], metric: str = DL19) -> Path:
    """Write runs of losses and depths, a value for each seed."""
    for (loss, depth), by_seed in values.items():
        for seed, value in enumerate(by_seed):
            config = {"loss.name": loss, "data.depth": depth, "seed": seed, "logger.run_name": f"{loss}-{seed}"}
            make_run(directory / f"{loss}-{depth}-{seed}", config, {metric: value})
    return directory


def make_tested(directory: Path) -> Path:
    """Write runs: a baseline; a loss 0.1 above it on each query, give or take 0.02; one as often above as below."""
    baseline = [0.1, 0.2, 0.3, 0.4]
    changes = {"ranknet": [0] * 4, "adr_mse": [0.1, 0.12, 0.08, 0.1], "lce": [0.1, -0.1, 0.05, -0.05]}
    for loss, change in changes.items():
        for seed, noise in enumerate((-0.01, 0.01)):  # leaves the mean over seeds as it is
            values = [value + one + noise for value, one in zip(baseline, change, strict=True)]
            results = {DL19: sum(values) / 4, DL19.replace("test/", "first_stage/"): 0.48}
            make_run(directory / "runs" / f"{loss}{seed}", {"loss.name": loss, "seed": seed}, results, values)
    return directory / "runs"


def named_rows(runs: list) -> list:
    rows = make_rows(runs)
    name_rows(rows, read_labels([], [row.config for row in rows]))
    return rows


def report_on(directory: Path, *overrides: str, out: Path | None = None) -> Path:
    out = out or directory.parent / "out"
    out.mkdir(exist_ok=True)
    cfg = compose_config("report", f"runs='{directory}'", *overrides)
    check_values(cfg)
    report(cfg, out)
    return out


def read_table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}
