"""From a request to tokens and from tokens to scores, with the model that the server has.

scorer = load_scorer(cfg)
pairs = scorer.encode(asked)                # several threads may do this at once
[scores] = scorer.score([pairs])            # one thread at a time
scorer.returned(scores, raw=False)          # from 0 to 1
"""

import logging
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.config.schema import ServeConfig
from distill.device import choose_device, must_measure
from distill.errors import InputError
from distill.models.cross_encoder import MAX_CPU_TOKENS, CrossEncoder
from distill.models.onnx import OnnxScorer
from distill.models.parts import evaluating
from distill.models.precision import fastest_precision
from distill.models.pruned import check_keep
from distill.serving.batching import Pair
from distill.serving.dialects import Asked
from distill.serving.refusals import Refused

log = logging.getLogger(__name__)

TOKENS_PER_THREAD = 512  # of a batch on a CPU: larger ones are no faster (AMD EPYC, 2026-11-29), and others wait longer


class Scorer:
    """A model, and how it is used here."""

    def __init__(self, model: CrossEncoder, max_tokens: int, precision: torch.dtype, exit_keep: int | None = None):
        """Take the model; raises InputError for one that needs more than a request holds.

        exit_keep: as in CrossEncoder.rank; None: all layers score all passages.
        """
        check_keep(model, exit_keep)
        if model.first_stage_score is not None:
            raise InputError(
                "this model reads the first stage's score of each passage, which requests to these servers do not "
                "hold: serve a model that was trained with model.first_stage_score=null"
            )
        self.model, self.precision, self.exit_keep = model, precision, exit_keep
        self.max_tokens = max_tokens
        if model.device.type == "cpu":
            self.max_tokens = min(max_tokens, MAX_CPU_TOKENS, TOKENS_PER_THREAD * torch.get_num_threads())
        self.dtype = str(precision).removeprefix("torch.")

    def encode(self, asked: Asked) -> list[Pair]:
        """Return the pairs of a request; raises Refused if they would be cut and may not be."""
        if not asked.truncate and (cut := self.model.cut_pairs(asked.queries, asked.passages)):
            raise Refused(
                422,
                f"{len(cut)} of {len(asked.passages)} passages would be cut (first: {cut[0]}): the model reads "
                f"{self.model.query_length} tokens of a query and {self.model.passage_length} of a passage, and "
                f"{self.model.max_length} of a pair: send shorter texts, or truncate=true",
            )
        return self.model.encode(asked.queries, asked.passages, passage_length=asked.passage_tokens)

    @torch.inference_mode()
    def score(self, lists: list[list[Pair]]) -> list[np.ndarray]:
        """Return the model's scores of each list of pairs, as CrossEncoder.rank would."""
        with evaluating(self.model):
            return [scores.numpy() for scores in self.model.score_lists(lists, self.max_tokens, self.precision)]

    @torch.inference_mode()
    def score_list(self, pairs: list[Pair]) -> np.ndarray:
        """Return the scores of one query's list, of which only the best go through all layers."""
        with evaluating(self.model):
            [scores] = self.model.score_lists([pairs], self.max_tokens, self.precision, self.exit_keep)
        return scores.numpy()

    def returned(self, scores: np.ndarray, *, raw: bool) -> np.ndarray:
        """Return scores as they are, or as probabilities: by the model's calibration, or else σ of a logit.

        A model may have an activation already: log σ, as monoT5 has it, becomes σ, and σ stays.
        """
        activation = self.model.activation
        if raw or (isinstance(activation, nn.Sigmoid) and self.model.calibration is None):
            return scores
        if self.model.calibration is not None:
            return self.model.calibration.probabilities(scores)
        if isinstance(activation, nn.LogSigmoid):
            return np.exp(scores)
        return 1 / (1 + np.exp(-np.clip(scores, -700, 700)))  # exp(710) is infinite

    def describe(self) -> dict[str, Any]:
        """Return what /info says of the model."""
        return {
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "model_dtype": self.dtype,
            "max_input_length": self.model.max_length,
            "query_length": self.model.query_length,
            "passage_length": self.model.passage_length,
            "max_batch_tokens": self.max_tokens,
            "device": str(self.model.device),
            "exit_keep": self.exit_keep,
            "calibration": None if self.model.calibration is None else self.model.calibration.describe(),
        }


def load_scorer(cfg: ServeConfig) -> Scorer:
    """Load the model; raises InputError if it cannot be loaded or served."""
    device = choose_device(cfg.device)
    model = CrossEncoder.from_pretrained(cfg.model, cfg.layout, cfg.prompt, cfg.base).to(device).eval()
    if isinstance(model.backbone, OnnxScorer) and cfg.precision in ("bfloat16", "float16"):
        raise InputError(
            f"precision={cfg.precision}: {cfg.model} is an ONNX graph, whose precision is fixed: leave it out"
        )
    precision = fastest_precision(model, cfg.precision)
    if must_measure(cfg.precision, device):
        log.info("%s", precision.describe())
    scorer = Scorer(model, cfg.max_tokens, precision.dtype, cfg.exit_keep)
    scorer.score([model.encode(["a query"], ["a passage"])])  # the first pass allocates memory and chooses kernels
    return scorer
