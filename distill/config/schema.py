"""The keys of every configuration, with type and rules of each; the values, with a comment each, are in `conf/`.

A wrong key or type fails while Hydra composes a configuration (distill/config/composition.py); a broken rule fails in
distill/config/checks.py. The keys of each loss are in distill/config/losses.py.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from distill.config.rules import (
    above,
    as_many_as,
    at_least,
    auto_or_at_least,
    beside,
    between,
    choice,
    each,
    either,
    must,
    needs,
    needs_some,
    no_less_than,
    no_more_than,
    not_with,
    only,
    output_of,
    source,
    without,
)

LAYOUTS = ("auto", "packed", "padded")
PRECISIONS = ("float32", "bfloat16", "auto")
TWO_PASSAGES = "a list needs two passages to be ranked"
ENCODER = "an encoder's directory or Hub id"


def field_names() -> Any:
    """A field of the names of the fields that make up a text; null: the usual ones."""
    return must("name at least one field", bool, default=None)


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
class Data:
    name: str = MISSING
    passages: str | None = source()
    queries: str | None = source()
    depth: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    num_negatives: int | None = at_least(1, default=None)
    list_size: int | None = beside(
        at_least(2, why=TWO_PASSAGES, default=None), not_with("num_negatives", "both say how long a list is")
    )
    list_choice: str = choice("random", "stratified", "top")
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()


@dataclass
class Teacher:
    name: str = MISSING
    path: str | None = source()
    format: str = beside(
        choice("run", "permutations", "triples"),
        needs("permutations", path="the answers", first_stage="the lists that the answers permute"),
        needs("triples", path="the triples"),
    )
    texts: str | None = MISSING
    scores: bool = MISSING
    first_stage: str | None = source()
    depth: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    qrels: str | None = source()
    min_grade: int = at_least(1, why="lower grades are not relevant")
    licence: str | None = None
    citation: str | None = None


@dataclass
class TaskConfig:
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
    tasks: dict[str, Any] = field(default_factory=dict)  # checked by check_task, so that + can add one
    runs: str | None = must(
        "hold {task} where the file names have the task's name", lambda value: "{task}" in value, default=None
    )
    means: list[str] = each(choice("arithmetic", "geometric", "quadratic"))
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()


SUITE_KEYS = ("name", "untrained", "windows", "window_stride", "tasks", "runs", "means")  # of a suite as a whole
PART_KEYS = [one.name for one in fields(TaskConfig) if one.name not in SUITE_KEYS]  # of each of its tasks


@dataclass
class Optimizer:
    name: str = choice("adamw")
    lr: float = above(0)
    head_lr: float | None = above(0, default=None)
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
    max_steps: int | None = beside(at_least(1, default=None), either("max_epochs"))
    max_epochs: float | None = above(0, below=2**31, default=None)
    max_tokens: int = at_least(1)
    validate_every: int = at_least(1)
    patience: int | None = beside(
        at_least(1, default=None), no_less_than("validate_every", "training would stop at the first validation")
    )
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
    validation: TaskConfig = MISSING
    task: TaskConfig = MISSING
    logger: Logger = MISSING
    seed: int = at_least(0, below=2**63)
    licence: str | None = None
    resume: str | None = output_of("training", needs="checkpoints/last.pt")


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
    task: TaskConfig = MISSING
    latency_queries: int = at_least(0)
    resume: str | None = output_of("evaluation", needs="config.yaml")
    max_tokens: int = at_least(1)
    layout: str = choice(*LAYOUTS)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)


@dataclass
class ReportConfig:
    runs: Any = must(  # Any: Hydra 1.3 cannot compose a union
        "be a directory or a list of them, as in runs=[DIR1,DIR2]",
        lambda runs: isinstance(runs, str) or (isinstance(runs, list) and all(isinstance(one, str) for one in runs)),
    )
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
    passages: str = source()
    queries: str = source()
    output: str = MISSING
    depth: int = at_least(1)
    method: str = beside(
        choice("bm25", "dense", "sparse"), needs("dense", model=ENCODER), needs("sparse", model=ENCODER)
    )
    k1: float = at_least(0)
    b: float = between(0, 1)
    run: str | None = beside(
        source(default=None), without("method", "bm25", "only encoders order the passages of a run: set run=null")
    )
    model: str | None = None
    batch_size: int = at_least(1)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()


@dataclass
class FuseConfig:
    runs: list[str] = each(source(), least=2)
    output: str = MISSING
    method: str = choice("rrf", "mean-rank", "z-score")
    weights: list[float] | None = beside(each(above(0), default=None), as_many_as("runs"))
    k: float = at_least(0, at_most=10_000, why="scores have the digits of float32")
    run_depth: int | None = at_least(1, default=None)
    depth: int | None = at_least(1, default=None)


@dataclass
class ExportConfig:
    model: str = MISSING
    format: str = choice("sentence-transformers", "lightning-ir", "transformers", "onnx", "onnx-int8")
    dtype: str = beside(
        choice("float32", "float16", "bfloat16"),
        only("float32", "format", ("onnx", "onnx-int8"), "an ONNX graph has its own types"),
    )
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
    max_cost: float | None = beside(above(0, default=None), needs_some("price_in", "price_out"))
    normalisation: str | None = choice("min-max", "z-score", default=None)  # of cross-encoders only
    batch_size: int = at_least(1)
    device: str = MISSING


@dataclass
class LlmTeacher:
    llm: Llm = MISSING


@dataclass
class AnnotateConfig:
    passages: str = source()
    queries: str = source()
    run: str = source()
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()
    depth: int = at_least(2, why=TWO_PASSAGES)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    teacher: LlmTeacher = MISSING
    method: str = choice("listwise", "pointwise")
    window: int = at_least(2, why=TWO_PASSAGES)
    stride: int = beside(at_least(1), no_more_than("window", "the passages between two windows would never be seen"))
    passes: int = at_least(1)
    tries: int = at_least(1)
    prompt: str = MISSING
    journal: str | None = None
    qrels: str | None = source(default=None)
    reference: str | None = source(default=None)
    dry_run: bool = MISSING
    resume: str | None = output_of("annotation", needs="config.yaml")
