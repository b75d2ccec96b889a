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


def format_results(results: dict[str, float], task: str, num_queries: int, measures: list[str]) -> str:
    """Return the values of one task as a table: a row for each ranking that was measured, a column for each measure."""
    label_width = max(map(len, ROWS.values())) + 2
    widths = [max(len(name), 6) + 2 for name in measures]
    lines = [f"{task}: {num_queries} queries".ljust(label_width) + _align(measures, widths)]
    lines.append("-" * len(lines[0]))
    for row, label in ROWS.items():
        if f"{row}/{task}/{measures[0]}" in results:
            values = [f"{results[f'{row}/{task}/{name}']:.4f}" for name in measures]
            lines.append(label.ljust(label_width) + _align(values, widths))
    return "\n".join(lines)


def _align(cells: list[str], widths: list[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
