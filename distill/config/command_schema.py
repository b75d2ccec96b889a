"""The keys of the commands of `python -m distill`, with type and rules of each; their values are in `conf/`.

Those of trainings and evaluations are in distill/config/schema.py.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from distill.config.rules import (
    above,
    as_many_as,
    at_least,
    beside,
    between,
    choice,
    each,
    field_names,
    less_than,
    must,
    needs,
    needs_given,
    needs_some,
    no_less_than,
    no_more_than,
    not_with,
    only,
    output_of,
    source,
    without,
)
from distill.config.schema import LAYOUTS, PRECISIONS, SHARD, TWO_PASSAGES, Bm25Config, Cascade
from distill.sources.shards import is_shard

ENCODER = "an encoder's directory or Hub id"
CROSS_ENCODERS = "only cross-encoders have adapters: leave it out, or set llm@teacher.llm=cross-encoder"


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


def _changes_scores(export: Any, prefix: str, passages: str | None) -> str | None:
    """Bond: what the change of the scores is measured on, of an export that changes some."""
    if passages is None or export["dtype"] != "float32" or export["format"] == "onnx-int8":
        return None
    return f", but {prefix}format={export['format']} in float32 changes no score: leave it out, or set {prefix}dtype"


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
        source(or_directory=True, default=None),
        needs_given("run", "the change is measured on the lists of a run"),
        _changes_scores,
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


def _is_for_templates(llm: Any, prefix: str, body: Any) -> str | None:
    """Bond: a model on this machine gets no request, but its chat template may have variables."""
    given = (body or {}).get("chat_template_kwargs", {})
    if llm["engine"] != "local" or (set(body or {}) <= {"chat_template_kwargs"} and isinstance(given, dict)):
        return None
    return (
        f" and {prefix}engine=local: it gets variables of its template only: give them, as in "
        f"{prefix}body={{chat_template_kwargs:{{enable_thinking:false}}}}"
    )


def _is_json(llm: Any, prefix: str, body: Any) -> str | None:
    """Bond: fields are sent as JSON, which has no NaN and no infinity, and in UTF-8."""
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return ": cannot be sent as JSON: numbers must be finite, and texts UTF-8"
    return None


def _is_greedy(llm: Any, prefix: str, temperature: float) -> str | None:
    """Bond: a model on this machine always writes the most likely answer."""
    if llm["engine"] != "local" or not temperature:
        return None
    return f" and {prefix}engine=local: it always writes the most likely answer: set it to 0"


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
    body: Any = beside(
        must("be fields of a request, as in {name:value}", lambda value: isinstance(value, dict), default=None),
        _is_for_templates,
        _is_json,
    )
    retries: int = at_least(0)
    temperature: float = beside(at_least(0), _is_greedy)
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
