"""The forms of requests and answers: text-embeddings-inference, Jina, Cohere and vLLM.

    dialect = choose_dialect("/rerank", body)       # by the path and the fields; raises Refused
    asked = dialect.read(body)
    answer = dialect.write(asked, Scored(...))

Fields and defaults follow the published schemas. Those servers ignore fields that they do not know, and so does this
one.

- text-embeddings-inference: RerankRequest and Rank of docs/openapi.json in
  https://github.com/huggingface/text-embeddings-inference
- Jina: https://api.jina.ai/redoc, POST /v1/rerank
- Cohere: https://docs.cohere.com/v1/reference/rerank and https://docs.cohere.com/reference/rerank (v2)
- vLLM: https://docs.vllm.ai/en/latest/models/pooling_models/scoring.html

All four return scores from 0 to 1 unless told otherwise: text-embeddings-inference unless raw_scores is true, vLLM
unless use_activation is false; Jina and Cohere have no switch, and take raw_scores here. One difference is on purpose:
texts that are too long are cut, as in training, unless truncate is false. text-embeddings-inference and vLLM decide
that by an option of the server. Cohere's max_tokens_per_doc cuts passages shorter in all forms.

None of them interpolates. The fields for that are those of CrossEncoder.rank: first_stage_scores, a number for each
passage, and weight.
"""

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from distill.serving.refusals import Refused

SCORE_FIELDS = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))  # of vLLM


UNSUPPORTED: dict[str, tuple[tuple, str]] = {  # fields that would change scores: the values that do not, and a remedy
    "truncation_direction": (("right", "Right"), "texts are only cut at their ends, as in training"),
    "truncation_side": (("right",), "texts are only cut at their ends, as in training"),
    "truncate_prompt_tokens": ((-1,), "texts are cut to the model's lengths; max_tokens_per_doc cuts passages shorter"),
    "max_tokens_per_query": ((), "queries are cut to the model's length: send a shorter one"),
    "rank_fields": ((["text"],), "put what is to be read into each document's text"),
}


@dataclass
class Asked:
    """What a request asks for, in whatever form it came."""

    queries: list[str]  # one for each passage
    passages: list[str]
    model: str | None
    raw_scores: bool
    truncate: bool
    return_documents: bool = False
    top_n: int | None = None
    passage_tokens: int | None = None  # cut passages to so many tokens
    is_list: bool = True  # of one query, to be ranked; else pairs, each of which is to be scored
    first_stage_scores: list[float] | None = None  # one for each passage, to interpolate with
    weight: float | None = None  # the model's share in that


@dataclass
class Scored:
    """The scores of a request's pairs."""

    scores: list[float]  # as they are returned
    order: list[int]  # indices from best to worst
    num_tokens: int
    model: str


@dataclass(frozen=True)
class Dialect:
    """A form of requests and answers."""

    read: Callable[[dict[str, Any]], Asked]
    write: Callable[[Asked, Scored], Any]


def choose_dialect(path: str, body: Any) -> Dialect:
    """Return the dialect of a request; raises Refused for a body that has none."""
    if not isinstance(body, dict):
        raise Refused(422, "the body is not a JSON object: send {...} with a query and passages")
    for name, (allowed, remedy) in UNSUPPORTED.items():
        if body.get(name) is not None and body[name] not in allowed:
            raise Refused(422, f"{name} is not supported: {remedy}")
    if path.endswith("/score"):
        return VLLM_SCORE
    if "texts" in body and "documents" in body:
        raise Refused(422, "the body has both texts and documents: send one of them")
    if "texts" in body:
        return TEI
    if "documents" in body:
        return COHERE_V2 if path.startswith("/v2/") else JINA
    raise Refused(422, "the body has no passages: send documents (Jina, Cohere) or texts (text-embeddings-inference)")


# text-embeddings-inference


def read_tei(body: dict[str, Any]) -> Asked:
    """Read {"query", "texts", "raw_scores", "return_text"}."""
    passages = _texts(body, "texts")
    return Asked(
        **_common(body),
        queries=[_text(body, "query")] * len(passages),
        passages=passages,
        raw_scores=_flag(body, "raw_scores", False),
        return_documents=_flag(body, "return_text", False),
        top_n=_count(body, "top_n"),
        first_stage_scores=_numbers(body, "first_stage_scores"),
        weight=_number(body, "weight"),
    )


def write_tei(asked: Asked, scored: Scored) -> list[dict[str, Any]]:
    """Write [{"index", "score", "text"}], best first."""
    return [
        {"index": index, "score": scored.scores[index]}
        | ({"text": asked.passages[index]} if asked.return_documents else {})
        for index in scored.order[: asked.top_n]
    ]


# Jina and Cohere


def read_documents(body: dict[str, Any], return_documents: bool) -> Asked:
    """Read {"query", "documents", "top_n", "return_documents"}; documents are texts or {"text"}.

    return_documents: the default.
    """
    passages = _texts(body, "documents", objects=True)
    return Asked(
        **_common(body),
        queries=[_text(body, "query")] * len(passages),
        passages=passages,
        raw_scores=_raw(body),
        return_documents=_flag(body, "return_documents", return_documents),
        top_n=_count(body, "top_n"),
        first_stage_scores=_numbers(body, "first_stage_scores"),
        weight=_number(body, "weight"),
    )


def write_documents(asked: Asked, scored: Scored, version: str) -> dict[str, Any]:
    """Write {"id", "model", "results", "usage", "meta"}; Jina has usage, Cohere meta, and each ignores the other's."""
    results = [
        {"index": index, "relevance_score": scored.scores[index]}
        | ({"document": {"text": asked.passages[index]}} if asked.return_documents else {})
        for index in scored.order[: asked.top_n]
    ]
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "object": "list",
        "model": scored.model,
        "results": results,
        "usage": {"prompt_tokens": scored.num_tokens, "total_tokens": scored.num_tokens},
        "meta": {"api_version": {"version": version}, "tokens": {"input_tokens": scored.num_tokens}},
    }


# vLLM's /score


def read_score(body: dict[str, Any]) -> Asked:
    """Read {"text_1", "text_2"} or the other names of both: one text for all of the second, or as many as those."""
    for name in ("first_stage_scores", "weight"):
        if body.get(name) is not None:
            raise Refused(422, f"{name}: /score scores each pair by itself: send a query's whole list to /rerank")
    named = next((names for names in SCORE_FIELDS if all(name in body for name in names)), None)
    if named is None:
        raise Refused(422, f"the body has no pairs: send {' or '.join(' and '.join(names) for names in SCORE_FIELDS)}")
    queries, passages = (_texts(body, name, lone=True) for name in named)
    if len(queries) != len(passages) and len(queries) > 1:
        raise Refused(
            422, f"{named[0]} has {len(queries)} texts and {named[1]} {len(passages)}: send one, or as many as those"
        )
    return Asked(
        **_common(body),
        queries=queries if len(queries) == len(passages) else queries * len(passages),
        passages=passages,
        raw_scores=_raw(body),
        is_list=False,
    )


def write_score(asked: Asked, scored: Scored) -> dict[str, Any]:
    """Write {"id", "model", "data": [{"index", "score"}], "usage"}, in the order of the request."""
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scored.model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scored.scores)],
        "usage": {"prompt_tokens": scored.num_tokens, "total_tokens": scored.num_tokens, "completion_tokens": 0},
    }


TEI = Dialect(read_tei, write_tei)
# Jina returns documents by default, as vLLM always does; Cohere's v1, at the same address, does not, and its clients
# ignore them. Its v2 has no documents in answers
JINA = Dialect(partial(read_documents, return_documents=True), partial(write_documents, version="1"))
COHERE_V2 = Dialect(partial(read_documents, return_documents=False), partial(write_documents, version="2"))
VLLM_SCORE = Dialect(read_score, write_score)


# Fields; null is as good as none, since clients send it for options that are not set


def _common(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of Asked that every dialect has under the same names: model, truncate, max_tokens_per_doc."""
    truncate, passage_tokens = _flag(body, "truncate", True), _count(body, "max_tokens_per_doc")
    if passage_tokens is not None and not truncate:
        raise Refused(422, "max_tokens_per_doc cuts passages, which truncate=false forbids: leave one of them out")
    return {"model": _optional_text(body, "model"), "truncate": truncate, "passage_tokens": passage_tokens}


def _raw(body: dict[str, Any]) -> bool:
    """Whether scores are returned as the model gives them: raw_scores, or the opposite of vLLM's use_activation."""
    for name in ("use_activation", "activation", "softmax"):  # the others are its names in older versions of vLLM
        if body.get(name) is not None:
            return not _flag(body, name, True)
    return _flag(body, "raw_scores", False)


def _text(body: dict[str, Any], name: str) -> str:
    if body.get(name) is None:
        raise Refused(422, f"{name} is missing: send a text")
    return _checked_text(body[name], name)


def _optional_text(body: dict[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else _checked_text(body[name], name)


def _checked_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Refused(422, f"{name} is {_kind(value)}: send a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(422, f"{name} holds half of a surrogate pair, which is no character: send valid text") from None
    return value


def _texts(body: dict[str, Any], name: str, *, objects: bool = False, lone: bool = False) -> list[str]:
    """Return a list of texts; objects: each may be {"text": ...}; lone: a text is a list of one."""
    values = body.get(name)
    if lone and isinstance(values, str):
        values = [values]
    if not isinstance(values, list):
        raise Refused(422, f"{name} is {_kind(values)}: send a list of texts")
    if not values:
        raise Refused(422, f"{name} is empty: send at least one text")
    texts = []
    for index, value in enumerate(values):
        where = f"{name}[{index}]"
        if objects and isinstance(value, dict):
            value, where = value.get("text"), f"{where}.text"
        texts.append(_checked_text(value, where))
    return texts


def _flag(body: dict[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refused(422, f"{name} is {_kind(value)}: send true or false")
    return value


def _count(body: dict[str, Any], name: str) -> int | None:
    """Return a number from 1, None for none; vLLM's 0 means all."""
    value = body.get(name)
    if value is None or (value == 0 and value is not False):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        shown = value if isinstance(value, int) and not isinstance(value, bool) else _kind(value)
        raise Refused(422, f"{name} is {shown}: send a whole number from 1")
    return value


def _number(body: dict[str, Any], name: str) -> float | None:
    return None if body.get(name) is None else _checked_number(body[name], name)


def _numbers(body: dict[str, Any], name: str) -> list[float] | None:
    values = body.get(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise Refused(422, f"{name} is {_kind(values)}: send a list of numbers")
    return [_checked_number(value, f"{name}[{index}]") for index, value in enumerate(values)]


def _checked_number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(422, f"{name} is {_kind(value)}: send a number")
    try:
        number = float(value)
    except OverflowError:  # of a whole number with more than 308 digits
        number = math.inf
    if not math.isfinite(number):  # 1e999 is JSON
        raise Refused(422, f"{name} is too large: send a number that is finite in 64 bits")
    return number


def _kind(value: Any) -> str:
    """Return what a JSON value is, for a message."""
    kinds = {bool: "true or false", str: "a text", dict: "an object", list: "a list"}
    return "missing" if value is None else kinds.get(type(value), "a number")
