"""The configuration: its schema, and the rules between its fields.

The dataclasses give every key its type; `register_schemas` puts them first in the defaults lists of
`conf/train.yaml`, `conf/evaluate.yaml`, `conf/report.yaml` and `conf/dashboards.yaml`, so that a wrong key or type
fails while the configuration is composed. The values, with a comment beside each, stand in `conf/`. `check_train`,
`check_evaluate` and `check_report` hold the rules between fields and run before anything is loaded. This file imports
neither torch nor transformers: `--help` stays quick.
"""

import os
import tempfile
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.download import is_remote
from distill.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Backbone:
    name: str = MISSING
    weights: str = MISSING
    revision: str | None = None
    num_layers: int | None = None
    lr: float = MISSING
    pairs: int = MISSING


@dataclass
class Model:
    pooling: str = MISSING
    query_length: int = MISSING
    passage_length: int = MISSING
    layout: str = MISSING
    dropout: float | None = None


@dataclass
class RankNetLoss:
    name: str = MISSING
    target: str = MISSING
    reduction: str = MISSING
    implementation: str = MISSING


@dataclass
class AdrMseLoss:
    name: str = MISSING
    target: str = MISSING
    alpha: float = MISSING
    discount: str = MISSING
    reduction: str = MISSING
    implementation: str = MISSING


@dataclass
class LceLoss:
    name: str = MISSING
    target: str = MISSING
    reduction: str = MISSING


@dataclass
class MarginMseLoss:
    name: str = MISSING
    target: str = MISSING
    reduction: str = MISSING


@dataclass
class BceLoss:
    name: str = MISSING
    target: str = MISSING
    reduction: str = MISSING


@dataclass
class HingeLoss:
    name: str = MISSING
    target: str = MISSING
    margin: float = MISSING
    reduction: str = MISSING


@dataclass
class Data:
    name: str = MISSING
    passages: str | None = MISSING
    queries: str | None = MISSING
    depth: int | None = None
    num_queries: int | None = None
    subset_seed: int = MISSING
    num_negatives: int | None = None
    list_size: int | None = None
    list_choice: str = MISSING


@dataclass
class Teacher:
    name: str = MISSING
    path: str | None = MISSING
    format: str = MISSING
    texts: str | None = MISSING
    scores: bool = MISSING
    first_stage: str | None = MISSING
    depth: int | None = None
    qrels: str | None = MISSING
    min_grade: int = MISSING
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
    depth: Any = None  # a number, "auto" or null, see _check_measures: Hydra 1.3 cannot compose a union
    measures: list[str] | None = None
    corpus: str | None = None
    licence: str | None = None
    drop_identical: bool | None = None


@dataclass
class Task:
    name: str = MISSING
    passages: str | None = None
    queries: str | None = None
    run: str | None = None
    qrels: str | None = None
    teacher: str | None = None
    depth: Any = None  # a number, "auto" or null, see _check_measures: Hydra 1.3 cannot compose a union
    measures: list[str] = MISSING
    untrained: bool = False
    corpus: str | None = None
    licence: str | None = None
    drop_identical: bool = MISSING
    windows: int = MISSING
    window_stride: int | None = None
    tasks: dict[str, Any] = field(default_factory=dict)  # of TaskPart, checked by check_task: + can then add one
    runs: str | None = None
    means: list[str] = MISSING


@dataclass
class Optimizer:
    name: str = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    betas: list[float] = MISSING
    eps: float = MISSING
    warmup_steps: int = MISSING
    schedule: str = MISSING
    max_grad_norm: float | None = None


@dataclass
class Train:
    batch_size: int = MISSING
    max_steps: int | None = None
    max_epochs: float | None = None
    max_tokens: int = MISSING
    validate_every: int = MISSING
    patience: int | None = None
    save_every: int | None = None
    log_every: int = MISSING
    num_workers: int | None = None
    device: str = MISSING
    precision: str = MISSING
    compile: str = MISSING


@dataclass
class Logger:
    name: str = MISSING
    mode: str = MISSING
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
    seed: int = MISSING
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
    prompt: str | None = None
    task: Task = MISSING
    latency_queries: int = MISSING
    resume: str | None = None
    max_tokens: int = MISSING
    layout: str = MISSING
    device: str = MISSING
    precision: str = MISSING


@dataclass
class ReportConfig:
    runs: Any = MISSING
    output: str = MISSING
    title: str = MISSING
    metrics: list[str] | None = None
    baseline: str | None = None
    correction: str = MISSING
    alpha: float = MISSING
    compare: str | None = None
    published: bool = MISSING


@dataclass
class RetrieveConfig:
    passages: str = MISSING
    queries: str = MISSING
    output: str = MISSING
    depth: int = MISSING
    method: str = MISSING
    k1: float = MISSING
    b: float = MISSING
    model: str | None = None
    batch_size: int = MISSING
    device: str = MISSING


@dataclass
class ExportConfig:
    model: str = MISSING
    format: str = MISSING
    output: str = MISSING
    hub: str | None = None
    private: bool = MISSING


@dataclass
class Llm:
    engine: str = MISSING
    model: str = MISSING
    base_url: str = MISSING
    api_key_variable: str | None = None
    concurrency: int = MISSING
    requests_per_minute: float | None = None
    timeout: float = MISSING
    retries: int = MISSING
    temperature: float = MISSING
    max_tokens: int = MISSING
    price_in: float = MISSING
    price_out: float = MISSING
    max_cost: float | None = None
    normalisation: str | None = None  # of cross-encoders alone
    batch_size: int = MISSING
    device: str = MISSING


@dataclass
class LlmTeacher:
    llm: Llm = MISSING


@dataclass
class AnnotateConfig:
    passages: str = MISSING
    queries: str = MISSING
    run: str = MISSING
    depth: int = MISSING
    num_queries: int | None = None
    subset_seed: int = MISSING
    teacher: LlmTeacher = MISSING
    method: str = MISSING
    window: int = MISSING
    stride: int = MISSING
    passes: int = MISSING
    tries: int = MISSING
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
FREE = ("resume", "train.num_workers")  # a resumed run may change these
FILE_SUFFIXES = (".tsv", ".jsonl", ".json", ".txt", ".run", ".parquet", ".trec", ".qrels")
RERANKED_DEPTH = 100  # passages a query, where task.depth=auto and a model re-ranks
BM25_DEPTH = 1000  # of task.run=bm25, where no depth cuts
MEANS = ("arithmetic", "geometric", "quadratic")
CHOICES = {
    "backbone.weights": ("pretrained", "random"),
    "model.pooling": ("cls", "mean"),
    "layout": ("auto", "packed", "padded"),
    "model.layout": ("auto", "packed", "padded"),
    "loss.reduction": ("mean", "sum"),
    "loss.discount": ("log2", "none"),
    "loss.implementation": ("auto", "torch", "triton"),
    "data.list_choice": ("random", "stratified", "top"),
    "teacher.format": ("run", "permutations", "triples"),
    "optimizer.schedule": ("constant", "linear", "cosine"),
    "train.precision": ("float32", "bfloat16", "auto"),
    "train.compile": ("auto", "true", "false"),
    "precision": ("float32", "bfloat16", "auto"),
    "teacher.llm.normalisation": ("min-max", "z-score"),
    "teacher.llm.engine": ("http", "local", "cross-encoder"),
    "logger.mode": ("online", "offline", "disabled"),
    "correction": ("holm", "bonferroni"),
}
AT_LEAST_ONE = (
    *("stride", "passes", "tries", "num_queries", "teacher.llm.concurrency", "teacher.llm.max_tokens"),
    *("teacher.llm.batch_size",),
    *("depth", "batch_size"),
    *("data.num_queries", "data.num_negatives", "model.query_length", "model.passage_length", "max_tokens"),
    *(
        "backbone.pairs",
        "backbone.num_layers",
        "train.batch_size",
        "train.max_steps",
        "train.max_tokens",
        "train.validate_every",
        "train.patience",
    ),
    *("train.save_every", "train.log_every"),
    *("validation.windows", "task.windows", "validation.window_stride", "task.window_stride"),
)


def register_schemas() -> None:
    """Register the schemas and resolvers; call once before Hydra's main function.

    `${sample:NAME}` is a file of the bundled sample, wherever the command is started from.
    `${prompt:NAME}` is a file of distill/teachers/prompts/.
    `${divide:PAIRS,SIZE}` is how many lists of that size make so many pairs, at least 1.
    `${output_dir:RESUME,NEW}` is the directory to resume where one is given, else the new one.
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
    OmegaConf.register_new_resolver("output_dir", _output_directory, replace=True)
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)


def _output_directory(resume: str | None, new: str) -> str:
    """The directory to resume, else a new one; of several ranks only the first one's is used."""
    if resume or os.environ.get("RANK", "0") == "0":
        return resume or new
    return str(Path(tempfile.gettempdir()) / f"distill-rank-{os.environ['RANK']}")


def _sweep_name(resume: str | None) -> str | None:
    """The name of the sweep's directory, with the date before it where it is a mere time of day.

    Most jobs are processes of their own that know of no sweep, but stand in the directory that it has marked.
    """
    if resume is not None:
        sweep = Path(resume).absolute().parent
    elif not HydraConfig.initialized():
        return None
    elif HydraConfig.get().mode == RunMode.MULTIRUN:
        return _group_name(Path(HydraConfig.get().sweep.dir))
    else:
        sweep = Path(HydraConfig.get().runtime.output_dir).parent
    return _group_name(sweep) if any((sweep / mark).is_file() for mark in SWEEP_MARKS) else None


def _group_name(sweep: Path) -> str:
    return f"{sweep.parent.name}_{sweep.name}" if sweep.parent.parent.name == "multirun" else sweep.name


def chosen_experiment() -> str | None:
    """The option of the group `experiment` that the command line chose; None for none."""
    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


def check_train(cfg: DictConfig) -> None:
    """Check the rules between the fields of a training configuration.

    Raises InputError with key, value, rule and remedy.
    """
    _check_values(cfg)
    data, teacher, loss = cfg.data, cfg.teacher, cfg.loss
    if data.depth is not None and data.depth < 2:
        raise InputError(f"data.depth={data.depth}: a list needs two passages to be ranked: raise it")
    if data.list_size is not None and data.list_size < 2:
        raise InputError(f"data.list_size={data.list_size}: a list needs two passages to be ranked: raise it")
    if data.list_size is not None and data.num_negatives is not None:
        raise InputError(
            f"data.list_size={data.list_size} and data.num_negatives={data.num_negatives} both say how long a list is: "
            "set one of them to null"
        )
    if (cfg.train.max_steps is None) == (cfg.train.max_epochs is None):
        raise InputError("train.max_steps and train.max_epochs: give exactly one, and set the other to null")
    if not cfg.optimizer.lr > 0:
        raise InputError(f"optimizer.lr={cfg.optimizer.lr}: must be positive")
    if cfg.train.patience is not None and cfg.train.patience < cfg.train.validate_every:
        raise InputError(
            f"train.patience={cfg.train.patience} is below train.validate_every={cfg.train.validate_every}: training "
            "would stop at the first validation: raise the one or lower the other"
        )
    if "alpha" in loss and not loss.alpha > 0:
        raise InputError(f"loss.alpha={loss.alpha}: must be above 0, the steeper the closer to exact ranks")
    if cfg.train.num_workers is not None and cfg.train.num_workers < 0:
        raise InputError(f"train.num_workers={cfg.train.num_workers}: must be 0 or more")
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
    if not has_tasks(cfg.validation) and cfg.train.patience is not None:
        raise InputError(
            f"train.patience={cfg.train.patience} needs a validation: give validation.run, validation.queries and "
            "validation.qrels, or set train.patience=null"
        )
    if not has_tasks(cfg.task) and cfg.task.untrained:
        raise InputError("task.untrained=true needs task.run: give one, or set task.untrained=false")
    if cfg.resume is not None and not (Path(cfg.resume) / "checkpoints" / "last.pt").is_file():
        raise InputError(f"resume={cfg.resume}: no checkpoints/last.pt there: give the output directory of a run")


def check_evaluate(cfg: DictConfig) -> None:
    """Check the rules between the fields of an evaluation; raises InputError like `check_train`."""
    _check_values(cfg)
    if not has_tasks(cfg.task):
        raise InputError("task.run is missing: give the run to score or re-rank, as in task.run=bm25.run")
    check_task(cfg.task, "task", texts=cfg.model is not None)
    if cfg.latency_queries < 0:
        raise InputError(f"latency_queries={cfg.latency_queries}: must be 0 or more")
    if cfg.resume is not None and not (Path(cfg.resume) / "config.yaml").is_file():
        raise InputError(f"resume={cfg.resume}: no config.yaml there: give the output directory of an evaluation")


def check_retrieve(cfg: DictConfig) -> None:
    """Check the values of a retrieval's configuration; raises InputError like `check_train`."""
    _check_values(cfg)
    _check_choice(cfg, "method", ("bm25", "dense", "sparse"))
    for key in ("passages", "queries"):
        _check_source(cfg, key, required=True)
    if cfg.method != "bm25" and cfg.model is None:
        raise InputError(f"model is missing: method={cfg.method} needs an encoder's directory or Hub id")
    if not (cfg.k1 >= 0 and 0 <= cfg.b <= 1):
        raise InputError(f"k1={cfg.k1} and b={cfg.b}: k1 must be 0 or more, b between 0 and 1")


def check_export(cfg: DictConfig) -> None:
    """Check the values of an export; raises InputError like `check_train`."""
    _check_values(cfg)
    _check_choice(cfg, "format", ("sentence-transformers", "lightning-ir", "transformers", "onnx", "onnx-int8"))
    if cfg.hub is not None and cfg.hub.count("/") != 1:
        raise InputError(f"hub={cfg.hub}: must be OWNER/NAME")


def check_annotate(cfg: DictConfig) -> None:
    """Check the rules between the fields of an annotation; raises InputError like `check_train`."""
    _check_values(cfg)
    _check_choice(cfg, "method", ("listwise", "pointwise"))
    for key in ("passages", "queries", "run"):
        _check_source(cfg, key, required=True)
    for key in ("qrels", "reference"):
        _check_source(cfg, key)
    if cfg.depth < 2 or cfg.window < 2:
        raise InputError(f"depth={cfg.depth} and window={cfg.window}: two passages at least can be ranked: raise it")
    if cfg.stride > cfg.window:
        raise InputError(
            f"stride={cfg.stride} exceeds window={cfg.window}: the passages between two windows would never be seen"
        )
    llm = cfg.teacher.llm
    if not llm.base_url.startswith(("http://", "https://")):
        raise InputError(f"teacher.llm.base_url={llm.base_url}: must begin with http:// or https://")
    if llm.retries < 0 or not llm.timeout > 0:
        raise InputError(f"teacher.llm.retries={llm.retries} and timeout={llm.timeout}: must not be negative")
    if llm.max_cost is not None and not (llm.price_in > 0 or llm.price_out > 0):
        raise InputError(f"teacher.llm.max_cost={llm.max_cost} needs teacher.llm.price_in and price_out")
    if cfg.resume is not None and not (Path(cfg.resume) / "config.yaml").is_file():
        raise InputError(f"resume={cfg.resume}: no config.yaml there: give the output directory of an annotation")


def check_report(cfg: DictConfig) -> None:
    """Check the values of a report's configuration; raises InputError like `check_train`."""
    _check_values(cfg)
    if not 0 < cfg.alpha < 1:
        raise InputError(f"alpha={cfg.alpha}: must be between 0 and 1, as in alpha=0.05")
    runs = [cfg.runs] if isinstance(cfg.runs, str) else cfg.runs
    if isinstance(runs, dict | DictConfig | int | float) or not all(isinstance(one, str) for one in runs):
        raise InputError(f"runs={cfg.runs}: expected a directory or a list of them, as in runs=[DIR1,DIR2]")


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
    for mean in task.means:
        if mean not in MEANS:
            raise InputError(f"{key}.means: {mean} is unknown: choose among {', '.join(MEANS)}")
    if task.runs is not None and "{task}" not in task.runs:
        raise InputError(f"{key}.runs={task.runs}: must hold {{task}} where the task's name stands in the file names")
    for name, part in task.tasks.items():
        try:
            OmegaConf.merge(TaskPart, part)
        except OmegaConfBaseException as error:
            raise InputError(f"{key}.tasks.{name}: {str(error).splitlines()[0]}: see conf/task/files.yaml") from None
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


def task_depth(task: DictConfig, reranked: bool) -> int | None:
    """Return how many passages a query are re-ranked or measured; None for all of the run."""
    return (RERANKED_DEPTH if reranked else None) if task.depth == "auto" else task.depth


def _check_measures(task: DictConfig, key: str, prefix: str, reranked: bool) -> None:
    """Check the depth, the measures' names, and that none looks below a depth that nobody chose; raises InputError."""
    from distill.measures import parse_measures  # here: what has no task does without it

    depth = task.depth
    if not (depth in (None, "auto") or (type(depth) is int and depth >= 1)):
        raise InputError(f"{prefix}depth={depth}: must be at least 1, auto, or null for all passages")
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


def changed_keys(old: DictConfig, new: DictConfig) -> list[str]:
    """Return "key: old -> new" for every key that differs, but for those a resumed run may change."""
    before, after = flatten(old), flatten(new)
    keys = [key for key in sorted(before.keys() | after.keys()) if key not in FREE and not key.startswith("logger.")]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


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
    for key, choices in CHOICES.items():
        _check_choice(cfg, key, choices)
    for key in AT_LEAST_ONE:
        value = OmegaConf.select(cfg, key)
        if value is not None and value < 1:
            raise InputError(f"{key}={value}: must be at least 1")


def _check_choice(cfg: DictConfig, key: str, choices: tuple[str, ...]) -> None:
    value = OmegaConf.select(cfg, key)
    if value is not None and value not in choices:
        raise InputError(f"{key}={value} is unknown: choose one of {', '.join(choices)}")


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
    if not Path(value).is_file() and (is_path(value) or Path(value).is_dir()):
        raise InputError(f"{prefix}{key}={value}: no such file: check the path (it is read from {Path.cwd()})")
