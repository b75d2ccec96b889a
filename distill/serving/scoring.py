"""From a request to tokens and from tokens to scores, with the model that the server has.

scorer = load_scorer(cfg)
scorer.check(asked)
pairs = scorer.encode(asked)                # several threads may do this at once
[scores] = scorer.score([pairs])            # one thread at a time
order, returned = scorer.rank(asked, scores)
"""

import logging
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.config.command_schema import ServeConfig
from distill.device import choose_device, must_measure, num_weights
from distill.errors import InputError
from distill.models.calibration import sigmoid
from distill.models.cross_encoder import MAX_CPU_TOKENS, CrossEncoder
from distill.models.interpolation import Interpolation, check_scores, check_weight, interpolate, is_weight
from distill.models.parts import evaluating
from distill.models.precision import check_precision, fastest_precision
from distill.models.pruned import check_keep, score_again
from distill.serving.batching import Pair, ScoreList
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
                "this model reads the first stage's score of each passage, which clients of these servers do not "
                "send: serve a model that was trained with model.first_stage_score=null"
            )
        self.model, self.precision, self.exit_keep = model, precision, exit_keep
        self.first, self.keep = first, keep
        self.max_tokens = max_tokens
        if model.device.type == "cpu":
            self.max_tokens = min(max_tokens, MAX_CPU_TOKENS, TOKENS_PER_THREAD * torch.get_num_threads())
        self.dtype = str(precision).removeprefix("torch.")

    def check(self, asked: Asked) -> None:
        """Raise Refused for an interpolation that cannot be computed."""
        if asked.first_stage_scores is None and asked.weight is None:
            return
        try:
            check_scores(asked.first_stage_scores, len(asked.passages))
        except InputError as error:
            raise Refused(422, str(error)) from None
        if asked.weight is None and self.interpolation is None:
            why = "that of the model's files is not for a cascade" if self.first else "the model's files hold none"
            raise Refused(422, f"weight is missing: {why}: send the model's share, a number from 0 to 1")
        if asked.weight is not None and not is_weight(asked.weight):
            raise Refused(422, f"weight is {asked.weight}: send the model's share, a number from 0 to 1")

    @property
    def interpolation(self) -> Interpolation | None:
        """What requests are interpolated with that name no weight; None: they must name one, as in a cascade."""
        return self.model.interpolation if self.first is None else None

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

    def list_scorer(self, asked: Asked) -> ScoreList | None:
        """Return the function that scores all pairs of a request at once; None if each has a score of its own."""
        if not asked.is_list or (self.exit_keep is None and self.first is None):
            return None
        return partial(self.score_list, asked)

    def score_list(self, asked: Asked, pairs: list[Pair]) -> tuple[np.ndarray, list[Pair]]:
        """Return the scores of one query's list, of which only the best get the full effort.

        And the pairs of a cascade's second model.
        """
        if self.first is None:
            return self._score_one(self.model, pairs, self.exit_keep), []
        read: list[Pair] = []

        def again(best: list[int]) -> np.ndarray:
            queries, passages = ([texts[index] for index in best] for texts in (asked.queries, asked.passages))
            read.extend(self.model.encode(queries, passages, passage_length=asked.passage_tokens))
            return self._score_one(self.model, read)

        scores = score_again(self._score_one(self.first, pairs, self.exit_keep), again, self.keep or len(pairs))
        return scores, read

    @torch.inference_mode()
    def _score_one(self, model: CrossEncoder, pairs: list[Pair], exit_keep: int | None = None) -> np.ndarray:
        with evaluating(model):
            [scores] = model.score_lists([pairs], self.max_tokens, self.precision, exit_keep)
        return scores.double().numpy()

    def rank(self, asked: Asked, scores: np.ndarray) -> tuple[list[int], list[float]]:
        """Return a request's places [K] from best to worst, and its scores [K] as they are returned, in its own order.

        Interpolated ones are weighted means of z-scores, or σ of these: no probabilities, whatever the model's are.
        """
        if asked.first_stage_scores is None:
            order = np.argsort(-scores, kind="stable")  # of the model's scores: probabilities near 1 would tie
            return order.tolist(), self.returned(scores, raw=asked.raw_scores).tolist()
        weight = check_weight(asked.weight, self.interpolation)
        order, mixed = interpolate(scores, np.array(asked.first_stage_scores), weight)
        placed = np.empty(len(mixed))
        placed[order] = mixed if asked.raw_scores else sigmoid(mixed)
        return order.tolist(), placed.tolist()

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
        return sigmoid(scores)

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
            "interpolation": None if self.interpolation is None else self.interpolation.as_json(),
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
