"""Log metrics and results: always to files, and to Weights & Biases on request.

with Tracker(cfg) as tracker:                       # an exception inside marks the W&B run as failed
    tracker.start(directory, step)
    tracker.log(step, {"train/loss": 0.4})
    tracker.flush()                                 # before a checkpoint
    tracker.save_results({"test/sample/nDCG@10": 0.9})
    tracker.finish({"test/sample/nDCG@10": 0.9}, directory / "model", {"sample": {"q1": {"nDCG@10": 0.9}}})
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from omegaconf import DictConfig

from distill.config.composition import chosen_experiment
from distill.config.saved import as_plain
from distill.errors import InputError, printable
from distill.evaluation.results import write_results
from distill.secrets import for_others
from distill.sources.literals import with_texts
from distill.storage.small_files import read_small
from distill.storage.writing import append, write_text, writing
from distill.training.sender import Sender

log = logging.getLogger(__name__)

WANDB_SECONDS = 30  # to wait for W&B's servers before logging offline instead, and at the end for what was logged
CHECKPOINT_SECONDS = 5.0  # to wait for it at a checkpoint
FLUSH_SECONDS = 0.5  # between writes of W&B's file; with its 15, a job killed early could lose its configuration
ID_FILE = "wandb_id.txt"
ARTIFACT_FILE = "wandb_artifact.txt"  # beside model/: the model's name in W&B


class Tracker:
    """Writes the metrics of one run, to files first, so that nothing exists only in W&B."""

    def __init__(self, cfg: DictConfig):
        """Open nothing yet: a run refused for bad input leaves no W&B run behind."""
        self.cfg = cfg
        self.file: BinaryIO | None = None
        self.wandb: Any = None
        self.sender: Sender | None = None

    def start(self, directory: Path, step: int = 0) -> None:
        """Open the run's files; if the run is resumed at a step, drop what was logged after that step.

        With several ranks, only the first starts its tracker; the other trackers do nothing.
        """
        self.directory = directory
        metrics = directory / "metrics.jsonl"
        if metrics.is_file():
            kept = [line for line in metrics.read_bytes().splitlines(keepends=True) if _logged_by(line, step)]
            write_text(metrics, b"".join(kept).decode())
        with writing(metrics):
            self.file = open(metrics, "ab", buffering=0)  # noqa: SIM115 - open for the whole run
        self.source = _source_artifact(self.cfg.backbone.name)
        if self.cfg.logger.mode != "disabled":
            self.wandb = _start_wandb(directory, self.cfg, self.source)
            self.sender = Sender(self.wandb)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception) -> None:
        self.close(exit_code=0 if kind is None else 1)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append the metrics of a step to metrics.jsonl, and soon to W&B."""
        if not self.file:
            return
        append(self.file, (json.dumps({"step": step, **metrics}) + "\n").encode())
        if self.sender:
            self.sender.send(metrics, step)

    def flush(self) -> None:
        """Wait a little until W&B has everything that was logged: what a resumed run continues from."""
        if self.sender:
            self.sender.flush(CHECKPOINT_SECONDS)

    def save_results(self, results: dict[str, float]) -> None:
        """Write results.json, with which a run is finished."""
        if self.file:
            write_results(self.directory / "results.json", results)

    def finish(self, results: dict[str, float], model: Path, per_query: dict[str, dict[str, dict[str, float]]]) -> None:
        """Send W&B the results, a table for each task and, if configured, the model.

        per_query: task -> query id -> measure -> value, as in per_query.csv.
        """
        if self.wandb and self.sender:
            if not self.sender.flush(WANDB_SECONDS, at_end=True):
                log.warning("wandb does not answer: results and tables are only in %s", self.directory)
            else:
                with _unharmed_by_wandb(f"results and tables are only in {self.directory}"):
                    self._finish_wandb(results, model, per_query)

    def _finish_wandb(self, results: dict[str, float], model: Path, per_query: dict) -> None:
        import wandb

        tables = {}
        for task, values in per_query.items():
            measures = list(next(iter(values.values())))
            rows = [[query_id, *(row[name] for name in measures)] for query_id, row in values.items()]
            tables[f"per_query/{task}"] = wandb.Table(columns=["query_id", *measures], data=rows)
        self.wandb.log(tables)  # this also ends the last step, which would otherwise overwrite the summary below
        # In the form that define_metric uses, but over the whole run: W&B's own covers only the part since resuming
        self.wandb.summary.update(
            {name: {"max": value} if name.startswith("val/") else value for name, value in results.items()}
        )
        if self.cfg.logger.log_model:
            name = f"model-{self.wandb.id}"
            metadata = {"results": results, **_main_choices(self.cfg), "trained_from": self.source}
            artifact = wandb.Artifact(name, type="model", metadata=metadata)
            artifact.add_dir(str(model))
            self.wandb.log_artifact(artifact)
            # A collection for this run only, so that its latest version is this model; offline, the entity is unknown
            known = [name for name in (self.wandb.entity, self.wandb.project) if name]
            write_text(self.directory / ARTIFACT_FILE, "/".join([*known, f"{name}:latest"]) + "\n")

    def close(self, exit_code: int = 0) -> None:
        """Close the files and the W&B run; an exit code other than 0 marks the run as failed."""
        if self.file:
            self.file.close()
        if self.wandb and self.sender:
            is_free = self.sender.flush(WANDB_SECONDS, at_end=True)
            self.sender.close()
            if is_free:
                with _unharmed_by_wandb("its run is not marked as finished"):
                    self.wandb.finish(exit_code=exit_code)


@contextlib.contextmanager
def _unharmed_by_wandb(what: str) -> Iterator[None]:
    """Turn an error of W&B into a warning, of what comes of it: a training that has its results must end well."""
    try:
        yield
    except InputError:  # of a file of our own
        raise
    except Exception as error:  # of many kinds
        log.warning("wandb: %s (%s)", what, " ".join(str(error).split())[:200] or type(error).__name__)


def _logged_by(line: bytes, step: int) -> bool:
    """Whether a line of metrics.jsonl is complete (a killed process may leave half a line) and not after the step."""
    try:
        return line.endswith(b"\n") and json.loads(line.decode())["step"] <= step
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning("metrics.jsonl: dropped a damaged line: %s", printable(line.decode(errors="replace").strip())[:80])
        return False


def _source_artifact(backbone: str) -> str | None:
    """Return the W&B artifact of a backbone that is the model directory of an earlier run, None if there is none."""
    path = Path(backbone).parent / ARTIFACT_FILE
    return _read_name(path, r"[\w./:-]{1,500}") if os.path.isdir(backbone) and path.is_file() else None


def _read_name(path: Path, pattern: str) -> str | None:
    """Return what W&B has named a run or a model; None, with a warning, for a damaged file."""
    try:
        name = read_small(path, 1000).strip()
    except InputError as error:
        log.warning("%s", error)
        return None
    if not re.fullmatch(pattern, name, re.ASCII):
        log.warning("%s: holds no name of W&B: not used", path)
        return None
    return name


def _main_choices(cfg: DictConfig) -> dict[str, str | int | None]:
    """Return the settings that distinguish the runs of an ablation."""
    names = {group: cfg[group].name for group in ("backbone", "loss", "teacher", "data")}
    choices = {**names, "depth": cfg.data.depth, "num_queries": cfg.data.num_queries, "seed": cfg.seed}
    return with_texts(choices, for_others)


def _start_wandb(directory: Path, cfg: DictConfig, source: str | None):
    """Start or resume the W&B run; a missing key or network must never stop training."""
    import wandb

    settings = cfg.logger
    experiment = chosen_experiment()
    run_id = directory / ID_FILE
    options = {
        "project": settings.project,
        "entity": settings.entity,
        "group": with_texts(settings.group, for_others),
        "job_type": settings.job_type or "train",
        "name": with_texts(settings.run_name, for_others),
        "tags": list(dict.fromkeys([*settings.tags, *([experiment] if experiment else [])])),
        "dir": str(directory),
        "id": _read_name(run_id, r"[\w-]{1,128}") if run_id.is_file() else None,
        "resume": "allow",
        "config": with_texts(as_plain(cfg), for_others) | ({"trained_from": source} if source else {}),
        "settings": wandb.Settings(
            init_timeout=WANDB_SECONDS,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
            x_disable_meta=True,  # the user's and the machine's name, paths and command line
            console="off",  # lines of the log name files of this machine
        ),
    }
    unreachable = (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError)
    mode = settings.mode
    try:
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            log.warning("wandb: no API key: logging offline (`wandb login` once, `wandb sync` to send this run)")
            mode = "offline"
        run = wandb.init(mode=mode, **options)
    except unreachable as error:
        log.warning("wandb: cannot log online (%s): logging offline", " ".join(str(error).split()))
        run = wandb.init(mode="offline", **options)
    write_text(run_id, run.id)
    # Against W&B's built-in step, which is the training step
    run.define_metric("train/*")
    run.define_metric("train/loss", summary="min,last")
    run.define_metric("val/*", summary="max")
    if source:
        _declare_source(run, source)
    return run


def _declare_source(run, source: str) -> None:
    """Declare the model that this run starts from as its input, so that W&B draws stage 1 -> stage 2 -> ..."""
    from wandb.errors import Error

    if run.offline:
        log.info("wandb: offline, so the lineage from %s is only recorded in the configuration", source)
        return
    try:
        run.use_artifact(source, type="model")
    except (Error, ValueError) as error:
        reason = " ".join(str(error).split())
        log.warning(
            "wandb: %s is not available (%s), so the lineage is only recorded in the configuration", source, reason
        )
