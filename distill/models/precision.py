"""The precision that a cross-encoder scores in: on a CPU with bfloat16, the one that a short measurement finds faster.

    chosen = fastest_precision(model)
    model.rank(query, passages, precision=chosen.dtype)

Training stays in float32 on a CPU unless bfloat16 is asked for.
"""

import math
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from distill.data.batch import make_batch
from distill.device import ScoringPrecision, num_weights, scoring_precision
from distill.errors import InputError
from distill.models.cross_encoder import MAX_TOKENS, CrossEncoder
from distill.models.onnx import OnnxScorer
from distill.models.parts import evaluating
from distill.storage.small_files import read_numbers

PAIR = 128  # tokens of a measured pair, or fewer if the model reads fewer

_measured: weakref.WeakKeyDictionary[CrossEncoder, ScoringPrecision] = weakref.WeakKeyDictionary()


def fastest_precision(model: CrossEncoder, name: str = "auto") -> ScoringPrecision:
    """Return the precision that a model scores in, measured once in a process; an ONNX graph has its own.

    name: as precision= says it. Warns and raises like `choose_precision`.
    """
    if isinstance(model.backbone, OnnxScorer):
        return ScoringPrecision(torch.float32)
    if name != "auto":
        return scoring_precision(name, model.device, 0, lambda num_tokens: _pass(model, num_tokens))
    if model not in _measured:
        with evaluating(model):
            _measured[model] = scoring_precision(
                name, model.device, num_weights(model), lambda num_tokens: _pass(model, num_tokens)
            )
    return _measured[model]


def check_precision(model: CrossEncoder, name: str, precision: str) -> None:
    """Raise InputError if a precision is asked for of an ONNX graph, whose own is fixed; name: of the model."""
    if isinstance(model.backbone, OnnxScorer) and precision in ("bfloat16", "float16"):
        raise InputError(f"precision={precision}: {name} is an ONNX graph, whose precision is fixed: leave it out")


def _pass(model: CrossEncoder, num_tokens: int) -> tuple[Callable[[], object], int]:
    """Return a forward pass over a few pairs, and its tokens."""
    words = np.arange(PAIR, dtype=np.int32) % len(model.tokenizer)
    length = min(model.passage_length, max(PAIR - 8 - model.template.num_special, 1))
    pair = model.template.join(words[: min(8, model.query_length)], words[:length], 0)
    batch = make_batch([""], [[pair] * math.ceil(num_tokens / len(pair[0]))])
    return lambda: model.score(batch, MAX_TOKENS), len(batch.tokens)


def read_precision(file: Path) -> ScoringPrecision:
    """Return the precision that an evaluation has measured; raises InputError for a damaged file."""
    found = read_numbers(file)
    missing = [name for name in ScoringPrecision(torch.float32).results() if name not in found]
    if missing:
        raise InputError(f"{file}: lacks {missing[0]}: restore the file, or use another directory")
    bits, *speeds = (found[name] for name in ScoringPrecision(torch.float32).results())
    return ScoringPrecision(torch.bfloat16 if bits == 16 else torch.float32, *speeds)
