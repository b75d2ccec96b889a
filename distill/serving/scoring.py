"""From a request to tokens and from tokens to scores, with the model that the server has.

scorer = load_scorer(cfg)
pairs = scorer.encode(asked)                # several threads may do this at once
[scores] = scorer.score([pairs])            # one thread at a time
scorer.returned(scores, raw=False)          # from 0 to 1
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.config.command_schema import ServeConfig
from distill.device import choose_device, must_measure, num_weights
from distill.errors import InputError
from distill.models.cross_encoder import MAX_CPU_TOKENS, CrossEncoder
from distill.models.parts import evaluating
from distill.models.precision import check_precision, fastest_precision
from distill.models.pruned import check_keep, score_again
from distill.serving.batching import Pair
from distill.serving.dialects import Asked
from distill.serving.refusals import Refused

log = logging.getLogger(__name__)

TOKENS_PER_THREAD = 512  # of a batch on a CPU: larger ones are no faster (AMD EPYC, 2026-11-29), and others wait longer


class Scorer:
    """A model, and how it is used here."""

    def __init__(
        self,
        model: CrossEncoder,
        max_tokens: int,
        precision: torch.dtype,
        exit_keep: int | None = None,
        first: CrossEncoder | None = None,
        keep: int | None = None,
    ):
        """Take the model; raises InputError for one that needs more than a request holds.

        exit_keep: as in CrossEncoder.rank, of the model that scores lists first; None: all layers score all passages.
        first: in a cascade, the model that scores all passages of a list; `model` then scores its `keep` best.
        """
        check_keep(model if first is None else first, exit_keep)
        if any(one is not None and one.first_stage_score is not None for one in (model, first)):
            raise InputError(
                "this model reads the first stage's score of each passage, which requests to these servers do not "
                "hold: serve a model that was trained with model.first_stage_score=null"
            )
        self.model, self.precision, self.exit_keep = model, precision, exit_keep
        self.first, self.keep = first, keep
        self.max_tokens = max_tokens
        if model.device.type == "cpu":
            self.max_tokens = min(max_tokens, MAX_CPU_TOKENS, TOKENS_PER_THREAD * torch.get_num_threads())
        self.dtype = str(precision).removeprefix("torch.")

    def encode(self, asked: Asked) -> list[Pair]:
        """Return the pairs of a request, as the model reads them that scores them first.

        Raises Refused if they would be cut and may not be.
        """
        readers = [self.model] if self.first is None or not asked.is_list else [self.first, self.model]
        for model in readers:
            if not asked.truncate and (cut := model.cut_pairs(asked.queries, asked.passages)):
                raise Refused(
                    422,
                    f"{len(cut)} of {len(asked.passages)} passages would be cut (first: {cut[0]}): the model reads "
                    f"{model.query_length} tokens of a query and {model.passage_length} of a passage, and "
                    f"{model.max_length} of a pair: send shorter texts, or truncate=true",
                )
        return readers[0].encode(asked.queries, asked.passages, passage_length=asked.passage_tokens)

    @torch.inference_mode()
    def score(self, lists: list[list[Pair]]) -> list[np.ndarray]:
        """Return the model's scores of each list of pairs, as CrossEncoder.rank would."""
        with evaluating(self.model):
            return [scores.numpy() for scores in self.model.score_lists(lists, self.max_tokens, self.precision)]

    def list_scorer(self, asked: Asked) -> Callable[[list[Pair]], np.ndarray] | None:
        """Return the function that scores all pairs of a request at once; None if each has a score of its own."""
        if not asked.is_list or (self.exit_keep is None and self.first is None):
            return None
        return partial(self.score_list, asked)

    def score_list(self, asked: Asked, pairs: list[Pair]) -> np.ndarray:
        """Return the scores of one query's list, of which only the best get the full effort."""
        if self.first is None:
            return self._score_one(self.model, pairs, self.exit_keep)

        def again(best: list[int]) -> np.ndarray:
            queries, passages = ([texts[index] for index in best] for texts in (asked.queries, asked.passages))
            read = self.model.encode(queries, passages, passage_length=asked.passage_tokens)
            return self._score_one(self.model, read)

        return score_again(self._score_one(self.first, pairs, self.exit_keep), again, self.keep or len(pairs))

    @torch.inference_mode()
    def _score_one(self, model: CrossEncoder, pairs: list[Pair], exit_keep: int | None = None) -> np.ndarray:
        with evaluating(model):
            [scores] = model.score_lists([pairs], self.max_tokens, self.precision, exit_keep)
        return scores.double().numpy()

    def returned(self, scores: np.ndarray, *, raw: bool) -> np.ndarray:
        """Return scores as they are, or as probabilities: by the model's calibration, or else σ of a logit.

        A model may have an activation already: log σ, as monoT5 has it, becomes σ, and σ stays.
        """
        activation = self.model.activation
        if raw:
            return scores
        if isinstance(activation, nn.Sigmoid) and self.model.calibration is None:
            return np.clip(scores, 0.0, 1.0)  # those that a cascade places below may be less
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
            "cascade_keep": self.keep,
            "calibration": None if self.model.calibration is None else self.model.calibration.describe(),
        }


def load_scorer(cfg: ServeConfig) -> Scorer:
    """Load the model, or the two of a cascade; raises InputError if one cannot be loaded or served."""
    device = choose_device(cfg.device)
    model, first = _load(cfg, cfg.model, cfg.prompt, cfg.base, device), None
    if cfg.cascade.model is not None:
        model, first = _load(cfg, cfg.cascade.model, cfg.cascade.prompt, None, device), model
    models = [one for one in (first, model) if one is not None]
    precision = fastest_precision(max(models, key=num_weights), cfg.precision)
    if must_measure(cfg.precision, device):
        log.info("%s", precision.describe())
    scorer = Scorer(model, cfg.max_tokens, precision.dtype, cfg.exit_keep, first, cfg.cascade.keep)
    for one in models:  # the first pass allocates memory and chooses kernels
        one.predict(("a query", "a passage"), scorer.max_tokens, scorer.precision)
    return scorer


def _load(cfg: ServeConfig, name: str, prompt: str | None, base: str | None, device: torch.device) -> CrossEncoder:
    model = CrossEncoder.from_pretrained(name, cfg.layout, prompt, base).to(device).eval()
    check_precision(model, name, cfg.precision)
    return model
