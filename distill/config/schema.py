"""The keys of every configuration, with type and rules of each; the values, with a comment each, are in `conf/`.

A wrong key or type fails while Hydra composes a configuration (distill/config/composition.py); a broken rule fails in
distill/config/checks.py. The keys of each loss are in distill/config/losses.py.
"""

import math
import os
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from distill.config.rules import (
    above,
    as_many_as,
    ascending,
    at_least,
    auto_or_at_least,
    beside,
    between,
    choice,
    each,
    less_than,
    must,
    needs,
    needs_given,
    needs_some,
    no_less_than,
    no_more_than,
    not_beside,
    not_with,
    only,
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
SHARD = "name one of several shards, from 0, as in 0/4, 1/4, 2/4 and 3/4"
ENCODER = "an encoder's directory or Hub id"
CROSS_ENCODERS = "only cross-encoders have adapters: leave it out, or set llm@teacher.llm=cross-encoder"


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
    name: str = choice("adamw")
    lr: float = above(0)
    head_lr: float | None = above(0, default=None)
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
class DashboardsConfig:
    entity: str | None = None
    project: str = MISSING
    title: str = MISSING
    test_metric: str = MISSING
    val_metric: str = MISSING
    group_by: str = MISSING
    dry_run: bool = MISSING


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


@dataclass
class ReportConfig:
    runs: Any = must(  # Any: Hydra 1.3 cannot compose a union
        "be a directory or a list of them, as in runs=[DIR1,DIR2]",
        lambda runs: isinstance(runs, str) or (isinstance(runs, list) and all(isinstance(one, str) for one in runs)),
    )
    output: str = MISSING
    title: str = MISSING
    metrics: list[str] | None = None
    queries: str | None = source(default=None)
    labels: list[str] = MISSING
    baseline: str | None = None
    correction: str = choice("holm", "bonferroni")
    alpha: float = above(0, below=1)
    compare: str | None = None
    published: bool = MISSING


@dataclass
class InspectConfig:
    run: str = source(or_directory=True)
    baseline: str | None = source(or_directory=True, default=None)
    passages: str | None = source(or_directory=True, default=None)
    queries: str | None = source(default=None)
    qrels: str | None = source(default=None)
    model: str | None = None
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()
    output: str = MISSING
    title: str = MISSING
    measure: str = MISSING
    sections: list[str] | None = each(
        choice("worst", "harmed", "helped", "missing", "moved", "sample"), least=1, default=None
    )
    num_queries: int = at_least(1)
    depth: int = at_least(1)
    characters: int | None = at_least(1, default=None)
    run_depth: int | None = at_least(1, default=None)


@dataclass
class CutConfig:
    passages: str = source(or_directory=True)
    output: str = MISSING
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    title_field: str = MISSING
    titles: str = choice("each", "first", "none")
    size: int = at_least(1)
    overlap: int = beside(at_least(0), less_than("size", "passages would not advance"))
    tokenizer: str | None = None
    sentences: bool = MISSING
    max_unusable: float = between(0, 1)


@dataclass
class SplitConfig:
    queries: str = source()
    origins: str | None = source(default=None)
    passages: str | None = source(default=None, or_directory=True)
    output: str = MISSING
    heldout: float = above(0, below=1)
    min_heldout: int = at_least(1)
    similarity: float = must("be above 0, and at most 1", lambda value: 0 < value <= 1)
    seed: int = at_least(0, below=2**63)
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()


@dataclass
class RetrieveConfig:
    passages: str = source(or_directory=True)
    queries: str = source()
    output: str = MISSING
    depth: int = at_least(1)
    method: str = beside(
        choice("bm25", "dense", "sparse"), needs("dense", model=ENCODER), needs("sparse", model=ENCODER)
    )
    bm25: Bm25Config = MISSING
    run: str | None = beside(
        source(default=None), without("method", "bm25", "only encoders order the passages of a run: set run=null")
    )
    model: str | None = beside(
        field(default=None), without("method", "bm25", "it uses no encoder: set method=dense or sparse, or model=null")
    )
    vectors: str | None = choice("float32", "float16", default=None)
    index: str = beside(
        choice("exact", "hnsw"),
        only("exact", "method", ("bm25", "sparse"), "graphs are of dense vectors"),
        only("exact", "vectors", (None,), "graphs need the vectors in the cache"),
    )
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
    qrels: str | None = beside(source(default=None), not_with("weights", "both decide the weights"))
    measure: str = MISSING
    k: float = at_least(0, at_most=10_000, why="scores have the digits of float32")
    run_depth: int | None = at_least(1, default=None)
    depth: int | None = at_least(1, default=None)
    max_passage: bool = MISSING


@dataclass
class JoinConfig:
    shards: list[str] = each(must("be a directory", os.path.isdir), least=1)
    output: str = MISSING


@dataclass
class VerdictConfig:
    runs: str = must("be a directory", lambda value: os.path.isdir(value))
    output: str = MISSING


@dataclass
class ExportConfig:
    model: str = MISSING
    base: str | None = None
    format: str = choice("sentence-transformers", "lightning-ir", "transformers", "bert", "onnx", "onnx-int8")
    dtype: str = beside(
        choice("float32", "float16", "bfloat16"),
        only("float32", "format", ("onnx", "onnx-int8"), "an ONNX graph has its own types"),
    )
    passages: str | None = beside(
        source(or_directory=True, default=None), needs_given("run", "the change is measured on the lists of a run")
    )
    queries: str | None = beside(source(default=None), needs_given("passages", "its change is measured on their texts"))
    run: str | None = beside(source(default=None), needs_given("queries", "its change is measured on their texts"))
    opset: int = at_least(18, at_most=23)
    output: str = MISSING
    hub: str | None = must("be OWNER/NAME", lambda value: value.count("/") == 1, default=None)
    private: bool = MISSING


@dataclass
class ServeConfig:
    model: str = MISSING
    names: list[str] | None = must("name at least one", bool, default=None)
    base: str | None = None
    prompt: str | None = choice("monot5", "rankt5", "qwen3-reranker", default=None)
    exit_keep: int | None = at_least(1, default=None)
    cascade: Cascade = MISSING
    host: str = MISSING
    port: int = at_least(0, at_most=65535)
    api_key_variable: str | None = None
    max_wait: float = at_least(0)
    max_tokens: int = at_least(1)
    max_queue: int = at_least(1)
    max_bytes: int = at_least(1000)
    max_passages: int = at_least(1)
    max_characters: int = at_least(1)
    body_timeout: float = above(0)
    stop_timeout: float = at_least(1)
    layout: str = choice(*LAYOUTS)
    device: str = MISSING
    precision: str = choice(*PRECISIONS)


@dataclass
class Llm:
    engine: str = choice("http", "local", "cross-encoder")
    model: str = MISSING
    base_url: str = must(
        "begin with http:// or https://, and have no ? or #: give the address up to /v1",
        lambda value: value.startswith(("http://", "https://")) and not set("?#") & set(value),
    )
    api_key_variable: str | None = None
    concurrency: int = at_least(1)
    requests_per_minute: float | None = above(0, default=None)
    timeout: float = above(0)
    max_bytes: int = at_least(1000)
    max_wait: float = at_least(0)
    body: Any = must("be fields of a request, as in {name:value}", lambda value: isinstance(value, dict), default=None)
    retries: int = at_least(0)
    temperature: float = at_least(0)
    max_tokens: int = at_least(1)
    price_in: float = at_least(0)
    price_out: float = at_least(0)
    max_cost: float | None = beside(above(0, default=None), needs_some("price_in", "price_out"))
    base: str | None = beside(
        field(default=None), without("engine", "http", CROSS_ENCODERS), without("engine", "local", CROSS_ENCODERS)
    )
    normalisation: str | None = choice("min-max", "z-score", default=None)  # of cross-encoders only
    batch_size: int = at_least(1)
    device: str = MISSING


@dataclass
class LlmTeacher:
    llm: Llm = MISSING


@dataclass
class JournalsConfig:
    journal: str | None = None
    price_in: float = at_least(0)
    price_out: float = at_least(0)


@dataclass
class GenerateConfig:
    passages: str = source(or_directory=True)
    num_queries: int = at_least(0)
    types: list[str] = must("name at least one", bool)
    logged: str | None = source(default=None)
    max_passages: int | None = beside(
        at_least(1, default=None), no_less_than("num_queries", "each query takes a passage")
    )
    seed: int = at_least(0, below=2**63)
    min_words: int = at_least(1)
    max_copied: int = at_least(1)
    max_similarity: float = must("be above 0, and at most 1", lambda value: 0 < value <= 1)
    round_trip: int | None = at_least(1, default=None)
    round_trip_model: str | None = beside(
        field(default=None), needs_given("round_trip", "it re-ranks the passages that BM25 finds")
    )
    round_trip_model_depth: int = at_least(1)
    bm25: Bm25Config = MISSING
    teacher: LlmTeacher = MISSING
    max_unusable: float = between(0, 1)
    journal: str | None = None
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()
    dry_run: bool = MISSING
    resume: str | None = output_of("generation", needs="config.yaml")


@dataclass
class JudgeConfig:
    passages: str = source(or_directory=True)
    queries: str = source()
    runs: list[str] = each(source(), least=1)
    depth: int = at_least(1)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    seed: int = at_least(0, below=2**63)
    human: str | None = source(default=None)
    min_grade: int = between(1, 3)
    human_min_grade: int = at_least(1)
    teacher_name: str | None = None
    annotation: str | None = output_of("annotation", needs="config.yaml")
    teacher: LlmTeacher = MISSING
    tries: int = at_least(1)
    max_unusable: float = between(0, 1)
    prompt: str = MISSING
    journal: str | None = None
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()
    dry_run: bool = MISSING
    resume: str | None = output_of("judgment", needs="config.yaml")


@dataclass
class AnnotateConfig:
    passages: str = source(or_directory=True)
    queries: str = source()
    run: str = source()
    id_field: str | None = None
    text_fields: list[str] | None = field_names()
    query_id_field: str | None = None
    query_text_fields: list[str] | None = field_names()
    depth: int = at_least(2, why=TWO_PASSAGES)
    num_queries: int | None = at_least(1, default=None)
    subset_seed: int = at_least(0, below=2**63)
    shard: str | None = must(SHARD, is_shard, default=None)
    teacher: LlmTeacher = MISSING
    method: str = choice("listwise", "pointwise", "first-token", "graded", "setwise", "pairwise")
    window: int = at_least(2, why=TWO_PASSAGES)
    stride: int = beside(at_least(1), no_more_than("window", "the passages between two windows would never be seen"))
    passes: int = at_least(1)
    shuffles: int = at_least(1)
    top: int | None = at_least(1, default=None)
    set_size: int = at_least(2, why=TWO_PASSAGES)
    sort: str = choice("heap", "bubble", "all")
    by_logprobs: bool = MISSING
    tries: int = at_least(1)
    max_unusable: float = between(0, 1)
    prompt: str = MISSING
    journal: str | None = None
    qrels: str | None = source(default=None)
    reference: str | None = source(default=None)
    dry_run: bool = MISSING
    resume: str | None = output_of("annotation", needs="config.yaml")
