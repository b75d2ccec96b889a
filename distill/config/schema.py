"""The keys of trainings and evaluations, with type and rules of each; the values, with a comment each, are in `conf/`.

A wrong key or type fails while Hydra composes a configuration (distill/config/composition.py); a broken rule fails in
distill/config/checks.py. The keys of each loss are in distill/config/losses.py, those of the other commands in
distill/config/command_schema.py.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from distill.config.rules import (
    above,
    ascending,
    at_least,
    auto_or_at_least,
    beside,
    between,
    choice,
    each,
    field_names,
    must,
    needs,
    needs_given,
    no_less_than,
    not_beside,
    not_with,
    output_of,
    source,
    source_or_sources,
    stemmer,
    unchecked_source,
    without,
)
from distill.sources.shards import is_shard

LAYOUTS = ("auto", "packed", "padded")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
TWO_PASSAGES = "a list needs two passages to be ranked"
OF_MUON = "only Muon has it: choose optimizer=muon, or set it to null"
SHARD = "name one of several shards, from 0, as in 0/4, 1/4, 2/4 and 3/4"


@dataclass
class Backbone:
    name: str = MISSING
    weights: str = choice("pretrained", "random")
    revision: str | None = None
    num_layers: int | None = at_least(1, default=None)
    lr: float = above(0)
    pairs: int = at_least(1)


@dataclass
class Freeze:
    embeddings: bool = MISSING
    layers: int = at_least(0)


@dataclass
class Lora:
    rank: int | None = at_least(1, default=None)
    alpha: float = above(0)
    dropout: float = at_least(0, below=1)
    targets: list[str] | None = must("name at least one linear layer, or be null for all", bool, default=None)
    save: str = choice("merged", "adapters")


@dataclass
class Model:
    head: str = choice("auto", "linear", "native", "mlp")
    pooling: str = choice("cls", "mean")
    query_length: int = at_least(1)
    passage_length: int = at_least(1)
    layout: str = choice(*LAYOUTS)
    dropout: float | None = at_least(0, below=1, default=None)
    first_stage_score: str | None = choice("min-max", "global", default=None)
    prompt: str | None = choice("qwen3-reranker", default=None)
    exit_layer: int | None = at_least(1, default=None)
    exit_weight: float = above(0)
    freeze: Freeze = MISSING
    lora: Lora = MISSING


@dataclass
class Negatives:
    max_percent_of_positive: float | None = above(0, default=None)
    margin: float | None = at_least(0, default=None)
    positive: str = choice("best", "median", "worst")
    max_score: float | None = must("be a finite number", math.isfinite, default=None)
    ranks: list[int] | None = beside(each(at_least(1), length=2, default=None), ascending())
    false_negatives: str = choice("drop", "relabel")


@dataclass
class Data:
    name: str = MISSING
    passages: str | None = source(or_directory=True)
    queries: str | None = source()
    depth: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    num_negatives: int | None = at_least(1, default=None)
    negatives: Negatives = MISSING
    list_size: int | None = beside(
        at_least(2, why=TWO_PASSAGES, default=None), not_with("num_negatives", "both say how long a list is")
    )
    list_choice: str = choice("random", "stratified", "quantiles", "top")
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()


@dataclass
class Fusion:
    method: str = choice("rrf", "mean-rank", "z-score")
    weights: list[float] | None = each(above(0), default=None)
    k: float = at_least(0, at_most=10_000, why="scores have the digits of float32")
    run_depth: int | None = at_least(1, default=None)


@dataclass
class Teacher:
    name: str = MISSING
    path: Any = source_or_sources()  # Any: Hydra 1.3 cannot compose a union
    fusion: Fusion = MISSING
    format: str = beside(
        choice("run", "permutations", "triples"),
        needs("permutations", path="the answers", first_stage="the lists that the answers permute"),
        needs("triples", path="the triples"),
    )
    texts: str | None = unchecked_source()
    scores: bool = MISSING
    first_stage: str | None = source()
    depth: int | None = at_least(2, why=TWO_PASSAGES, default=None)
    qrels: str | None = source()
    min_grade: int = at_least(1, why="lower grades are not relevant")
    add_relevant: bool = True
    licence: str | None = None
    citation: str | None = None


@dataclass
class Bm25Config:
    k1: float = at_least(0)
    b: float = between(0, 1)
    stemmer: str = stemmer("porter", "none", "bigrams", "auto")
    stop_words: str = choice("lucene", "bm25s", "none", "language")


@dataclass
class TaskConfig:
    name: str = MISSING
    passages: str | None = unchecked_source(default=None)
    queries: str | None = unchecked_source(default=None)
    run: str | None = unchecked_source(default=None)
    bm25: Bm25Config = MISSING
    qrels: str | None = unchecked_source(default=None)
    teacher: str | None = unchecked_source(default=None)
    depth: Any = auto_or_at_least(1, default=None)  # Any: Hydra 1.3 cannot compose a union
    measures: list[str] = MISSING
    untrained: bool = False
    interpolate: Any = must(  # Any: Hydra 1.3 cannot compose a union
        "be the student's weight, a number from 0 to 1, auto for the one in the model's files, fit to look for the "
        "best one, or null",
        lambda value: value in ("auto", "fit") or (type(value) in (int, float) and 0 <= value <= 1),
        default=None,
    )
    fused: str | None = unchecked_source(default=None)
    ideal: bool = False
    max_passage: bool = False
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


# Of a suite as a whole
SUITE_KEYS = ("name", "untrained", "ideal", "windows", "window_stride", "tasks", "runs", "means")
PART_KEYS = [one.name for one in fields(TaskConfig) if one.name not in SUITE_KEYS]  # of each of its tasks
PART_KEYS += [f"bm25.{one.name}" for one in fields(Bm25Config)]


@dataclass
class DataSet:
    data: Data = MISSING
    teacher: Teacher = MISSING


@dataclass
class Sampling:
    temperature: float = above(0)
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class Optimizer:
    name: str = beside(
        choice("adamw", "muon"), needs("muon", momentum="which optimizer=muon sets, in place of optimizer.name=muon")
    )
    lr: float = above(0)
    head_lr: float | None = above(0, default=None)
    matrix_lr: float | None = beside(above(0, default=None), without("name", "adamw", OF_MUON))
    momentum: float | None = beside(at_least(0, below=1, default=None), without("name", "adamw", OF_MUON))
    layer_decay: float | None = above(0, below=1, default=None)
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
    batch_size: int | None = at_least(1, default=None)
    max_steps: int | None = beside(at_least(1, default=None), not_beside("max_epochs"))
    max_epochs: float | None = above(0, below=2**31, default=None)
    learn_from: int | None = at_least(1, default=None)
    max_tokens: int = at_least(1)
    validate_every: int = at_least(1)
    patience: int | None = beside(
        at_least(1, default=None), no_less_than("validate_every", "training would stop at the first validation")
    )
    ema: float | None = above(0, below=1, default=None)
    soup: int | None = at_least(2, default=None)
    save_every: int | None = at_least(1, default=None)
    keep_previous: bool = True
    log_every: int = at_least(1)
    num_workers: int | None = at_least(0, default=None)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)
    compile: str = choice("auto", "true", "false", any_case=True)
    checkpointing: bool = MISSING


@dataclass
class CalibrationConfig:
    method: str | None = choice("platt", "isotonic", default=None)
    min_grade: int = at_least(1, why="lower grades are not relevant")


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
    teachers: dict[str, Teacher] = field(default_factory=dict)
    datasets: dict[str, DataSet] = field(default_factory=dict)
    sampling: Sampling = MISSING
    optimizer: Optimizer = MISSING
    train: Train = MISSING
    calibration: CalibrationConfig = MISSING
    validation: TaskConfig = MISSING
    task: TaskConfig = MISSING
    logger: Logger = MISSING
    seed: int = at_least(0, below=2**63)
    licence: str | None = None
    resume: str | None = output_of("training", needs="checkpoints/last.pt")


@dataclass
class Cascade:
    model: str | None = beside(field(default=None), needs_given("keep", "it scores the best passages of each list"))
    prompt: str | None = beside(
        choice("monot5", "rankt5", "qwen3-reranker", default=None), needs_given("model", "it is that model's prompt")
    )
    keep: int | None = beside(at_least(1, default=None), needs_given("model", "it scores the best passages again"))


@dataclass
class EvaluateConfig:
    model: str | None = None
    prompt: str | None = choice("monot5", "rankt5", "qwen3-reranker", default=None)
    base: str | None = None
    passage_length: int | None = beside(at_least(1, default=None), needs_given("model", "it reads the passages"))
    exit_keep: int | None = beside(at_least(1, default=None), needs_given("model", "its lists are pruned"))
    cascade: Cascade = MISSING
    task: TaskConfig = MISSING
    shard: str | None = must(SHARD, is_shard, default=None)
    latency_queries: int = at_least(0)
    resume: str | None = output_of("evaluation", needs="config.yaml")
    max_tokens: int = at_least(1)
    layout: str = choice(*LAYOUTS)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)
