"""The configuration: its schema, and the rules of its fields and between them.

The dataclasses give every key its type; `register_schemas` puts them first in the defaults lists of `conf/train.yaml`,
`conf/evaluate.yaml`, `conf/report.yaml` and `conf/dashboards.yaml`, so that a wrong key or type fails while the
configuration is composed. The rule of a single value stands beside its field (distill/config/rules.py): every number
and every choice has one. The values, with a comment beside each, stand in `conf/`. `check_train`, `check_evaluate` and
`check_report` hold the rules between fields. All of it runs before anything is loaded. This file imports neither torch
nor transformers: `--help` stays quick.
"""

import contextlib
import itertools
import os
import sys
import tempfile
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.config.rules import above, at_least, auto_or_at_least, between, check_rules, choice, each, must
from distill.errors import InputError, exit_on_bad_input
from distill.sources.download import is_remote

ROOT = Path(__file__).resolve().parent.parent.parent
LAYOUTS = ("auto", "packed", "padded")
PRECISIONS = ("float32", "bfloat16", "auto")
TWO_PASSAGES = "a list needs two passages to be ranked"
SOME_FIELD = ("name at least one field", bool)


@dataclass
class Backbone:
    name: str = MISSING
    weights: str = choice("pretrained", "random")
    revision: str | None = None
    num_layers: int | None = at_least(1, default=None)
    lr: float = above(0)
    pairs: int = at_least(1)


@dataclass
class Model:
    pooling: str = choice("cls", "mean")
    query_length: int = at_least(1)
    passage_length: int = at_least(1)
    layout: str = choice(*LAYOUTS)
    dropout: float | None = at_least(0, below=1, default=None)


@dataclass
class RankNetLoss:
    name: str = choice("ranknet")
    target: str = choice("rank")
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class AdrMseLoss:
    name: str = choice("adr_mse")
    target: str = choice("rank")
    alpha: float = above(0)
    discount: str = choice("log2", "none")
    reduction: str = choice("mean", "sum")
    implementation: str = choice("auto", "torch", "triton")


@dataclass
class LceLoss:
    name: str = choice("lce")
    target: str = choice("label")
    reduction: str = choice("mean", "sum")


@dataclass
class MarginMseLoss:
    name: str = choice("margin_mse")
    target: str = choice("score")
    reduction: str = choice("mean", "sum")


@dataclass
class BceLoss:
    name: str = choice("bce")
    target: str = choice("label")
    reduction: str = choice("mean", "sum")


@dataclass
class HingeLoss:
    name: str = choice("hinge")
    target: str = choice("label")
    margin: float = above(0)
    reduction: str = choice("mean", "sum")


@dataclass
class Data:
    name: str = MISSING
    passages: str | None = MISSING
    queries: str | None = MISSING
    depth: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    num_negatives: int | None = at_least(1, default=None)
    list_size: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    list_choice: str = choice("random", "stratified", "top")
    id_field: str | None = None
    text_fields: list[str] | None = must(*SOME_FIELD, default=None)
    query_id_field: str | None = None
    query_text_fields: list[str] | None = must(*SOME_FIELD, default=None)


@dataclass
class Teacher:
    name: str = MISSING
    path: str | None = MISSING
    format: str = choice("run", "permutations", "triples")
    texts: str | None = MISSING
    scores: bool = MISSING
    first_stage: str | None = MISSING
    depth: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    qrels: str | None = MISSING
    min_grade: int = at_least(1, why="lower grades are not relevant")
    licence: str | None = None
    citation: str | None = None


@dataclass
class TaskPart:
    """A task of a suite: what is null is the suite's."""

    passages: str | None = None
    queries: str | None = None
    run: str | None = None
    qrels: str | None = None
    teacher: str | None = None
    depth: Any = auto_or_at_least(1, default=None)  # Any: Hydra 1.3 cannot compose a union
    measures: list[str] | None = None
    corpus: str | None = None
    licence: str | None = None
    drop_identical: bool | None = None
    id_field: str | None = None
    text_fields: list[str] | None = must(*SOME_FIELD, default=None)
    query_id_field: str | None = None
    query_text_fields: list[str] | None = must(*SOME_FIELD, default=None)


@dataclass
class Task:
    name: str = MISSING
    passages: str | None = None
    queries: str | None = None
    run: str | None = None
    qrels: str | None = None
    teacher: str | None = None
    depth: Any = auto_or_at_least(1, default=None)  # Any: Hydra 1.3 cannot compose a union
    measures: list[str] = MISSING
    untrained: bool = False
    corpus: str | None = None
    licence: str | None = None
    drop_identical: bool = MISSING
    windows: int = at_least(1)
    window_stride: int | None = at_least(1, default=None)
    tasks: dict[str, Any] = field(default_factory=dict)  # of TaskPart, checked by check_task: + can then add one
    runs: str | None = must(
        "hold {task} where the task's name stands in the file names", lambda value: "{task}" in value, default=None
    )
    means: list[str] = each(choice("arithmetic", "geometric", "quadratic"))
    id_field: str | None = None
    text_fields: list[str] | None = must(*SOME_FIELD, default=None)
    query_id_field: str | None = None
    query_text_fields: list[str] | None = must(*SOME_FIELD, default=None)


@dataclass
class Optimizer:
    name: str = choice("adamw")
    lr: float = above(0)
    weight_decay: float = at_least(0)
    betas: list[float] = each(at_least(0, below=1), length=2)
    eps: float = above(0)
    warmup: float = must(
        "be a share of the steps below 1, as in 0.1, or a whole number of steps",
        lambda value: 0 <= value < 1 or (value >= 1 and value % 1 == 0),
    )
    schedule: str = choice("constant", "linear", "cosine")
    max_grad_norm: float | None = above(0, default=None)


@dataclass
class Train:
    batch_size: int = at_least(1)
    max_steps: int | None = at_least(1, default=None)
    max_epochs: float | None = above(0, below=2**31, default=None)
    max_tokens: int = at_least(1)
    validate_every: int = at_least(1)
    patience: int | None = at_least(1, default=None)
    save_every: int | None = at_least(1, default=None)
    log_every: int = at_least(1)
    num_workers: int | None = at_least(0, default=None)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)
    compile: str = choice("auto", "true", "false", any_case=True)


@dataclass
class Logger:
    name: str = MISSING
    mode: str = choice("online", "offline", "disabled")
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    run_name: str | None = None
    tags: list[str] = field(default_factory=list)
    log_model: bool = False


@dataclass
class TrainConfig:
    backbone: Backbone = MISSING
    model: Model = MISSING
    loss: Any = MISSING
    data: Data = MISSING
    teacher: Teacher = MISSING
    optimizer: Optimizer = MISSING
    train: Train = MISSING
    validation: Task = MISSING
    task: Task = MISSING
    logger: Logger = MISSING
    seed: int = at_least(0, below=2**63)
    licence: str | None = None
    resume: str | None = None


@dataclass
class DashboardsConfig:
    entity: str | None = None
    project: str = MISSING
    title: str = MISSING
    test_metric: str = MISSING
    val_metric: str = MISSING
    group_by: str = MISSING
    dry_run: bool = MISSING


@dataclass
class EvaluateConfig:
    model: str | None = None
    prompt: str | None = choice("monot5", "rankt5", "qwen3-reranker", default=None)
    task: Task = MISSING
    latency_queries: int = at_least(0)
    resume: str | None = None
    max_tokens: int = at_least(1)
    layout: str = choice(*LAYOUTS)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)


@dataclass
class ReportConfig:
    runs: Any = MISSING
    output: str = MISSING
    title: str = MISSING
    metrics: list[str] | None = None
    labels: list[str] = MISSING
    baseline: str | None = None
    correction: str = choice("holm", "bonferroni")
    alpha: float = above(0, below=1)
    compare: str | None = None
    published: bool = MISSING


@dataclass
class RetrieveConfig:
    passages: str = MISSING
    queries: str = MISSING
    output: str = MISSING
    depth: int = at_least(1)
    method: str = choice("bm25", "dense", "sparse")
    k1: float = at_least(0)
    b: float = between(0, 1)
    model: str | None = None
    batch_size: int = at_least(1)
    device: str = MISSING
    id_field: str | None = None
    text_fields: list[str] | None = must(*SOME_FIELD, default=None)
    query_id_field: str | None = None
    query_text_fields: list[str] | None = must(*SOME_FIELD, default=None)


@dataclass
class ExportConfig:
    model: str = MISSING
    format: str = choice("sentence-transformers", "lightning-ir", "transformers", "onnx", "onnx-int8")
    output: str = MISSING
    hub: str | None = must("be OWNER/NAME", lambda value: value.count("/") == 1, default=None)
    private: bool = MISSING


@dataclass
class Llm:
    engine: str = choice("http", "local", "cross-encoder")
    model: str = MISSING
    base_url: str = must("begin with http:// or https://", lambda value: value.startswith(("http://", "https://")))
    api_key_variable: str | None = None
    concurrency: int = at_least(1)
    requests_per_minute: float | None = above(0, default=None)
    timeout: float = above(0)
    retries: int = at_least(0)
    temperature: float = at_least(0)
    max_tokens: int = at_least(1)
    price_in: float = at_least(0)
    price_out: float = at_least(0)
    max_cost: float | None = above(0, default=None)
    normalisation: str | None = choice("min-max", "z-score", default=None)  # of cross-encoders alone
    batch_size: int = at_least(1)
    device: str = MISSING


@dataclass
class LlmTeacher:
    llm: Llm = MISSING


@dataclass
class AnnotateConfig:
    passages: str = MISSING
    queries: str = MISSING
    run: str = MISSING
    id_field: str | None = None
    text_fields: list[str] | None = must(*SOME_FIELD, default=None)
    query_id_field: str | None = None
    query_text_fields: list[str] | None = must(*SOME_FIELD, default=None)
    depth: int = at_least(2, why=TWO_PASSAGES)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    teacher: LlmTeacher = MISSING
    method: str = choice("listwise", "pointwise")
    window: int = at_least(2, why=TWO_PASSAGES)
    stride: int = at_least(1)
    passes: int = at_least(1)
    tries: int = at_least(1)
    prompt: str = MISSING
    journal: str | None = None
    qrels: str | None = None
    reference: str | None = None
    dry_run: bool = MISSING
    resume: str | None = None


LOSS_SCHEMAS = {
    "ranknet": RankNetLoss,
    "adrmse": AdrMseLoss,
    "lce": LceLoss,
    "marginmse": MarginMseLoss,
    "bce": BceLoss,
    "hinge": HingeLoss,
}

SWEEP_MARKS = ("multirun.yaml", "sweep.lock")  # files by Hydra's sweeper and our launcher in a sweep's directory
FILE_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".txt", ".run", ".parquet", ".trec", ".qrels")
RERANKED_DEPTH = 100  # passages a query, where task.depth=auto and a model re-ranks
BM25_DEPTH = 1000  # of task.run=bm25, where no depth cuts


def register_schemas() -> None:
    """Register the schemas and resolvers; call once before Hydra's main function.

    `${sample:NAME}` is a file of the bundled sample, wherever the command is started from.
    `${prompt:NAME}` is a file of distill/teachers/prompts/.
    `${divide:PAIRS,SIZE}` is how many lists of that size make so many pairs, at least 1.
    `${output_dir:GIVEN,NEW}` is the given directory, else a new one: it is made, as NEW, NEW-2, NEW-3, ...
    `${sweep_name:RESUME}` names the sweep that the run is a job of; null for a run by itself.
    """
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="report_schema", node=ReportConfig)
    store.store(name="retrieve_schema", node=RetrieveConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="annotate_schema", node=AnnotateConfig)
    store.store(name="dashboards_schema", node=DashboardsConfig)
    for name, schema in LOSS_SCHEMAS.items():
        store.store(group="schema/loss", name=name, node=schema)
    OmegaConf.register_new_resolver("sample", lambda name: str(ROOT / "sample" / name), replace=True)
    OmegaConf.register_new_resolver(
        "prompt", lambda name: str(ROOT / "distill/teachers/prompts" / f"{name}.yaml"), replace=True
    )
    OmegaConf.register_new_resolver("divide", lambda pairs, size: max(pairs // size, 1), replace=True)
    # Cached in the configuration, which a sweep's jobs take over: it is asked for several times, and made once
    OmegaConf.register_new_resolver("output_dir", _output_directory, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)


def _output_directory(given: str | None, new: str) -> str:
    """The given directory, else a new one, which is made; of several ranks only the first one's is used."""
    if given or "--resolve" in sys.argv:  # a configuration that is only printed makes no directory
        return given or new
    if os.environ.get("RANK", "0") != "0":
        return str(Path(tempfile.gettempdir()) / f"distill-rank-{os.environ['RANK']}")
    with exit_on_bad_input(sweep=False):
        return str(make_directory(Path(new)))


def make_directory(path: Path) -> Path:
    """Make a directory that was not there: PATH, or PATH-2, PATH-3, ... where another command was first.

    Raises InputError where none can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            made = path if number == 1 else path.with_name(f"{path.name}-{number}")
            with contextlib.suppress(FileExistsError):
                made.mkdir()
                return made
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}): start from another directory") from None


def run_directory() -> Path:
    """Hydra's output directory, absolute; read as it is, since Hydra does not escape a `${` in its name."""
    return Path(OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)["output_dir"])


def _sweep_name(resume: str | None) -> str | None:
    """The name of the sweep's directory, with the date before it where it is a mere time of day.

    Most jobs are processes of their own that know of no sweep, but stand in the directory that it has marked.
    """
    if resume is not None:
        directory = Path(resume).absolute()
    elif not HydraConfig.initialized():
        return None
    elif HydraConfig.get().mode == RunMode.MULTIRUN:
        return _group_name(Path(HydraConfig.get().sweep.dir))
    else:
        directory = run_directory()
    marked = (parent for parent in directory.parents if any((parent / mark).is_file() for mark in SWEEP_MARKS))
    sweep = next(marked, None)  # hydra.sweep.subdir may have several levels
    return _group_name(sweep) if sweep else None


def _group_name(sweep: Path) -> str:
    return f"{sweep.parent.name}_{sweep.name}" if sweep.parent.parent.name == "multirun" else sweep.name


def command_overrides(kind: str) -> list[str]:
    """The overrides of the command line, of the kind "task" or "hydra", as they were given: ${...} is not resolved."""
    if not HydraConfig.initialized():
        return []
    return OmegaConf.to_container(HydraConfig.get().overrides, resolve=False)[kind]


def chosen_experiment() -> str | None:
    """The option of the group `experiment` that the command line chose; None for none."""
    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


def refuse_renamed(arguments: list[str]) -> None:
    """Raise InputError for a key that has another name now: Hydra would only say that it is unknown."""
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        if key == "optimizer.warmup_steps":
            new = "optimizer.warmup"
            raise InputError(f"{key}={value}: is {new} now, below 1 a share of the steps: write {new}={value}")


def check_train(cfg: DictConfig) -> None:
    """Check the rules between the fields of a training configuration.

    Raises InputError with key, value, rule and remedy.
    """
    _check_values(cfg)
    data, teacher, loss = cfg.data, cfg.teacher, cfg.loss
    if data.list_size is not None and data.num_negatives is not None:
        raise InputError(
            f"data.list_size={data.list_size} and data.num_negatives={data.num_negatives} both say how long a list is: "
            "set one of them to null"
        )
    if (cfg.train.max_steps is None) == (cfg.train.max_epochs is None):
        raise InputError("train.max_steps and train.max_epochs: give exactly one, and set the other to null")
    if cfg.train.patience is not None and cfg.train.patience < cfg.train.validate_every:
        raise InputError(
            f"train.patience={cfg.train.patience} is below train.validate_every={cfg.train.validate_every}: training "
            "would stop at the first validation: raise the one or lower the other"
        )
    for key in ("passages", "queries"):
        if data[key] is None:
            raise InputError(
                f"data.{key} is null: data={data.name} reads texts from teacher.texts, and teacher={teacher.name} has "
                "none: choose another teacher, or data=files"
            )
    _check_format(teacher, data)
    _check_target(loss.target, teacher)
    if loss.target == "label":
        if teacher.path is None and teacher.first_stage is None:
            raise InputError("teacher.first_stage is missing: labels need a run to draw the other passages from")
    elif data.num_negatives is not None:
        raise InputError(
            f"data.num_negatives={data.num_negatives} draws negatives by label, but loss={loss.name} learns from "
            f"teacher {loss.target}s: set data.num_negatives=null and cut lists by data.depth"
        )
    for name in ("data.passages", "data.queries", "teacher.path", "teacher.first_stage", "teacher.qrels"):
        _check_source(cfg, name)
    for name in ("validation", "task"):
        check_task(cfg[name], name)
        check_stride(cfg[name], name, cfg.model.passage_length)
    if not has_tasks(cfg.validation) and cfg.train.patience is not None:
        raise InputError(
            f"train.patience={cfg.train.patience} needs a validation: give validation.run, validation.queries and "
            "validation.qrels, or set train.patience=null"
        )
    if not has_tasks(cfg.task) and cfg.task.untrained:
        raise InputError("task.untrained=true needs task.run: give one, or set task.untrained=false")
    check_resume(cfg, "checkpoints/last.pt", "training")


def check_evaluate(cfg: DictConfig) -> None:
    """Check the rules between the fields of an evaluation; raises InputError like `check_train`."""
    _check_values(cfg)
    if not has_tasks(cfg.task):
        raise InputError("task.run is missing: give the run to score or re-rank, as in task.run=bm25.run")
    check_task(cfg.task, "task", texts=cfg.model is not None)
    check_resume(cfg, "config.yaml", "evaluation")


def check_retrieve(cfg: DictConfig) -> None:
    """Check the values of a retrieval's configuration; raises InputError like `check_train`."""
    _check_values(cfg)
    for key in ("passages", "queries"):
        _check_source(cfg, key, required=True)
    if cfg.method != "bm25" and cfg.model is None:
        raise InputError(f"model is missing: method={cfg.method} needs an encoder's directory or Hub id")


def check_export(cfg: DictConfig) -> None:
    """Check the values of an export; raises InputError like `check_train`."""
    _check_values(cfg)


def check_annotate(cfg: DictConfig) -> None:
    """Check the rules between the fields of an annotation; raises InputError like `check_train`."""
    _check_values(cfg)
    for key in ("passages", "queries", "run"):
        _check_source(cfg, key, required=True)
    for key in ("qrels", "reference"):
        _check_source(cfg, key)
    if cfg.stride > cfg.window:
        raise InputError(
            f"stride={cfg.stride} exceeds window={cfg.window}: the passages between two windows would never be seen"
        )
    llm = cfg.teacher.llm
    if llm.max_cost is not None and not (llm.price_in > 0 or llm.price_out > 0):
        raise InputError(f"teacher.llm.max_cost={llm.max_cost} needs teacher.llm.price_in and price_out")
    check_resume(cfg, "config.yaml", "annotation")


def check_report(cfg: DictConfig) -> None:
    """Check the values of a report's configuration; raises InputError like `check_train`."""
    _check_values(cfg)
    runs = [cfg.runs] if isinstance(cfg.runs, str) else cfg.runs
    if isinstance(runs, dict | DictConfig | int | float) or not all(isinstance(one, str) for one in runs):
        raise InputError(f"runs={cfg.runs}: expected a directory or a list of them, as in runs=[DIR1,DIR2]")


def check_resume(cfg: DictConfig, needs: str, noun: str) -> None:
    """Raise InputError where a directory is to be resumed that lacks the file which that needs."""
    if cfg.resume is not None and not os.path.isfile(Path(cfg.resume) / needs):  # False for an impossible name, too
        article = "an" if noun[0] in "ae" else "a"
        raise InputError(f"resume={cfg.resume}: no {needs} there: give the output directory of {article} {noun}")


def has_tasks(task: DictConfig) -> bool:
    """Whether there is anything to measure."""
    return task.run is not None or bool(task.tasks)


def split_suite(task: DictConfig) -> list[DictConfig]:
    """Return the tasks of a suite, each with all its keys; a task that is no suite is its own single one."""
    if not has_tasks(task):
        return []
    own = OmegaConf.to_container(task, resolve=True)
    tasks = []
    for name, part in (own["tasks"] or {own["name"]: {}}).items():
        merged = own | {key: value for key, value in part.items() if value is not None} | {"name": name, "tasks": {}}
        if own["runs"] is not None:
            merged["run"] = own["runs"].replace("{task}", name)
        tasks.append(OmegaConf.create(merged))
    return tasks


def check_task(task: DictConfig, key: str, texts: bool = True) -> None:
    """Check that tasks have all that measuring needs, and re-ranking where texts are read; raises InputError."""
    for name, part in task.tasks.items():
        try:
            typed = OmegaConf.merge(TaskPart, part)
        except OmegaConfBaseException as error:
            raise InputError(f"{key}.tasks.{name}: {str(error).splitlines()[0]}: see conf/task/files.yaml") from None
        check_rules(typed, f"{key}.tasks.{name}.")
    for part in split_suite(task):
        prefix = f"{key}.tasks.{part.name}." if task.tasks else f"{key}."
        _check_measures(part, key, prefix, reranked=texts)
        if key == "validation" and part.measures != task.measures:
            raise InputError(f"{prefix}measures={part.measures}: a validation has one mean: set {key}.measures alone")
        needed = ("passages", "queries") if texts or part.run == "bm25" else ()
        for name in needed:
            _check_source(part, name, required=True, prefix=prefix)
        _check_source(part, "qrels", required=True, prefix=prefix)
        if part.run is None or not task.tasks:  # of a suite's runs, some may be missing
            _check_source(part, "run", required=True, prefix=prefix)
        _check_source(part, "teacher", prefix=prefix)


def check_stride(task: DictConfig, key: str, passage_length: int) -> None:
    """Check that windows leave nothing between them unread, once the length of one is known; raises InputError."""
    if task.window_stride is not None and task.window_stride > passage_length:
        raise InputError(
            f"{key}.window_stride={task.window_stride} exceeds the window, model.passage_length={passage_length}: the "
            "tokens between two windows would never be read: lower it, or set it to null for half a window"
        )


def task_depth(task: DictConfig, reranked: bool) -> int | None:
    """Return how many passages a query are re-ranked or measured; None for all of the run."""
    return (RERANKED_DEPTH if reranked else None) if task.depth == "auto" else task.depth


def _check_measures(task: DictConfig, key: str, prefix: str, reranked: bool) -> None:
    """Check the depth, the measures' names, and that none looks below a depth that nobody chose; raises InputError."""
    from distill.evaluation.measures import parse_measures  # here: what has no task does without it

    depth = task.depth
    if not task.measures:
        raise InputError(f"{key}.measures is empty: name at least one measure, as in {key}.measures=[nDCG@10]")
    limit = task_depth(task, reranked) or (BM25_DEPTH if task.run == "bm25" else None)
    for measure in parse_measures(task.measures):
        if not isinstance(depth, int) and limit is not None and measure.params.get("cutoff", 0) > limit:
            raise InputError(
                f"measure {measure}: looks below the {limit} passages a query that {prefix}depth={depth} leaves: set "
                f"{prefix}depth={measure['cutoff']}, or choose a smaller cut-off"
            )


def needs_first_stage(cfg: DictConfig) -> bool:
    """Whether the training lists depend on teacher.first_stage: it is large, and need not be read for nothing."""
    depth, teacher = cfg.data.depth, cfg.teacher
    if cfg.loss.target == "label" or teacher.format == "permutations":
        return True
    return depth is not None and (teacher.depth is None or depth < teacher.depth)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a configuration with its interpolations resolved, as {"loss.name": "ranknet", ...}."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        return {prefix: plain}
    parts = [flatten(part, f"{prefix}.{name}".strip(".")) for name, part in plain.items()]
    return {key: value for part in parts for key, value in part.items()}


def _unknown_keys(node: Any, prefix: str = "") -> list[str]:
    """Keys that no schema has; Hydra lets `+key=value` add them, but nothing would read them."""
    schema = OmegaConf.get_type(node)
    known = {part.name for part in fields(schema)} if is_dataclass(schema) else set(node)
    unknown = [f"{prefix}{name}" for name in node if name not in known]
    parts = [name for name in node if not OmegaConf.is_missing(node, name) and OmegaConf.is_dict(node[name])]
    return unknown + [key for name in parts for key in _unknown_keys(node[name], f"{prefix}{name}.")]


def _check_values(cfg: DictConfig) -> None:
    unknown = _unknown_keys(cfg)
    if unknown:
        raise InputError(f"{unknown[0]} is no key of the configuration: see `--cfg job` for those there are")
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise InputError(f"{missing[0]} is missing: give it on the command line, as in {missing[0]}=VALUE")
    check_rules(cfg)


def _check_format(teacher: DictConfig, data: DictConfig) -> None:
    """Check what a teacher's file needs beside it, and what does not go with it; raises InputError."""
    if teacher.format != "run" and teacher.path is None:
        raise InputError(f"teacher.format={teacher.format} needs teacher.path")
    if teacher.format == "permutations" and teacher.first_stage is None:
        raise InputError("teacher.format=permutations needs teacher.first_stage, the lists that the answers permute")
    if teacher.format == "triples":
        for key in ("depth", "num_negatives", "list_size"):
            if data[key] is not None:
                raise InputError(f"data.{key}={data[key]}: teacher.format=triples has lists of two: set it to null")


def _check_target(target: str, teacher: DictConfig) -> None:
    gives = {
        "rank": (teacher.path is not None, "teacher.path, a run ranked by the teacher"),
        "score": (
            teacher.path is not None and teacher.scores,
            "teacher.path with teacher.scores=true, if the scores of that run mean more than its order",
        ),
        "label": (teacher.qrels is not None or teacher.format == "triples", "teacher.qrels"),
    }
    given, remedy = gives[target]
    if not given:
        able = ", ".join(name for name, (present, _) in gives.items() if present) or "nothing"
        raise InputError(
            f"the loss needs a {target} for every passage, but teacher={teacher.name} gives {able}: add {remedy}, or "
            "choose another loss"
        )


def is_path(source: str) -> bool:
    """Whether a source looks like a path, and not like an `ir_datasets` id."""
    return source.startswith(("/", ".", "~")) or source.removesuffix(".gz").endswith(FILE_SUFFIXES)


def _check_source(cfg: DictConfig, key: str, required: bool = False, prefix: str = "") -> None:
    """A value that looks like a path must be a file; anything else may be an `ir_datasets` id, looked up later."""
    value = OmegaConf.select(cfg, key)
    if value is None:
        if required:
            raise InputError(f"{prefix}{key} is missing: give a file or an ir_datasets id")
        return
    if is_remote(value):
        return
    # os.path answers False for a name that no file can have; Path.is_file raises OSError
    if not os.path.isfile(value) and (is_path(value) or os.path.isdir(value)):
        raise InputError(f"{prefix}{key}={value}: no such file: check the path (it is read from {Path.cwd()})")
