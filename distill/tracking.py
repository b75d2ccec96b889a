"""Where numbers go: `metrics.jsonl` and `results.json` always, Weights & Biases on request, a table at the end.

tracker = Tracker(directory, cfg)
tracker.log(step, {"train/loss": 0.4})
tracker.finish({"test/sample/nDCG@10": 0.9}, directory / "model")
"""

import json
import logging
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)

WANDB_SECONDS = 30  # to wait for W&B's servers before the run is kept on disk instead
ROWS = {  # prefix of a metric's name -> row of the table
    "first_stage": "first stage",
    "teacher": "teacher",
    "untrained": "student before training",
    "test": "student",
}


class Tracker:
    """Writes the metrics of one run; files first, so that nothing lives in W&B alone."""

    def __init__(self, directory: Path, cfg: DictConfig, step: int = 0, enabled: bool = True):
        """Open the run's files; where a run is resumed at a step, drop what was logged after it.

        enabled: false for the ranks that write nothing.
        """
        self.directory, self.enabled = directory, enabled
        if not enabled:
            return
        self.log_model = cfg.logger.log_model
        metrics = directory / "metrics.jsonl"
        if metrics.is_file():
            kept = [line for line in metrics.read_text().splitlines(keepends=True) if _logged_by(line, step)]
            metrics.write_text("".join(kept))
        self.file = open(metrics, "a", encoding="utf-8")  # noqa: SIM115 - open for the whole run
        self.wandb = _start_wandb(directory, cfg) if cfg.logger.mode != "disabled" else None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append the metrics of a step to metrics.jsonl and to W&B."""
        if not self.enabled:
            return
        self.file.write(json.dumps({"step": step, **metrics}) + "\n")
        self.file.flush()
        if self.wandb:
            self.wandb.log(metrics, step=step)

    def finish(self, results: dict[str, float], model: Path) -> None:
        """Write results.json, put the same numbers in W&B's summary, upload the model where that was asked for."""
        if not self.enabled:
            return
        write_results(self.directory / "results.json", results)
        if self.wandb:
            self.wandb.summary.update(results)
            if self.log_model:
                self.wandb.log_model(model, name=f"model-{self.wandb.id}")

    def close(self, exit_code: int = 0) -> None:
        """Close the files and the W&B run."""
        if not self.enabled:
            return
        self.file.close()
        if self.wandb:
            self.wandb.finish(exit_code=exit_code)


def _logged_by(line: str, step: int) -> bool:
    """Whether a line of metrics.jsonl is whole (a killed process may leave half a line) and not after the step."""
    return line.endswith("\n") and json.loads(line)["step"] <= step


def _start_wandb(directory: Path, cfg: DictConfig):
    """Start or resume the W&B run; what W&B lacks (key, network) must never stop training."""
    import wandb

    settings = cfg.logger
    run_id = directory / "wandb_id.txt"
    options = {
        "project": settings.project,
        "entity": settings.entity,
        "group": settings.group,
        "name": settings.run_name,
        "tags": list(settings.tags),
        "dir": str(directory),
        "id": run_id.read_text() if run_id.is_file() else None,
        "resume": "allow",
        "config": OmegaConf.to_container(cfg, resolve=True),
        "settings": wandb.Settings(init_timeout=WANDB_SECONDS),
    }
    mode = settings.mode
    if mode == "online" and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        log.warning("wandb: no API key: logging offline (`wandb login` once, `wandb sync` to send this run)")
        mode = "offline"
    try:
        run = wandb.init(mode=mode, **options)
    except (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
        log.warning("wandb: cannot log online (%s): logging offline", " ".join(str(error).split()))
        run = wandb.init(mode="offline", **options)
    run_id.write_text(run.id)
    return run


def write_results(path: Path, results: dict[str, float]) -> None:
    """Write a flat JSON object, metric name to number, aside and then renamed."""
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)


def format_results(
    results: dict[str, float], name: str, num_queries: dict[str, int], measures: list[str], missing: dict[str, str]
) -> str:
    """Return the values of a task as a table, or one table a measure for the tasks and averages of a suite.

    num_queries: of each task. missing: the tasks that a suite lacks, with the reason.
    """
    if [*num_queries] == [name]:
        rows = {label: row for row, label in ROWS.items() if f"{row}/{name}/{measures[0]}" in results}
        cells = [[label, *(f"{results[f'{row}/{name}/{one}']:.4f}" for one in measures)] for label, row in rows.items()]
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
