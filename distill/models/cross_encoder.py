"""The cross-encoder: `[CLS] query [SEP] passage [SEP]` through a backbone, then one linear layer on the [CLS] state.

    model = CrossEncoder.from_pretrained("outputs/.../model")
    indices, scores = model.rank("how do bees find home", ["Bees ...", "Trains ..."])
    scores = model.predict([("how do bees find home", "Bees ..."), ("fast trains", "Trains ...")])

A saved model is a sentence-transformers v6 CrossEncoder directory; weights are safetensors, read and written.
Shapes: B lists, K passages per list, P query-passage pairs, L tokens of the longest pair, D hidden size.
"""

import contextlib
import inspect
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.batch import Batch, copy_to, make_batch
from distill.data.pairs import PairTemplate
from distill.device import dtype_of, half_precision
from distill.errors import InputError
from distill.models.adapters import holds_adapters, load_adapters, read_base, write_adapters
from distill.models.calibration import Calibration
from distill.models.causal import CausalHead
from distill.models.early_exit import ExitHead, in_float32
from distill.models.first_stage_use import FirstStageUse
from distill.models.first_states import score_only_first_states
from distill.models.given_texts import as_lists, as_pairs, as_texts, is_one_pair, is_sequence
from distill.models.heads import NativeHead
from distill.models.interpolation import Interpolation
from distill.models.locate import locate_model
from distill.models.lora import merged
from distill.models.opening import open_directory, read_exit
from distill.models.packed import NAME, PackedChunk, can_pack, pack_chunks, register_attention
from distill.models.padded import PaddedChunk, pad_chunks, reads_padding
from distill.models.pair_reading import TokenPair, places_of_cut_pairs, read_pairs
from distill.models.parts import (
    Parts,
    evaluating,
    explained,
    first_position,
    is_of_transformers,
    longest_input,
)
from distill.models.prompts import name_of_prompt
from distill.models.pruned import check_keep, score_pruned
from distill.models.saved import OF_ITS_USER, check_replaceable, download, write_model
from distill.models.sizes import match_vocabulary, num_embeddings
from distill.models.starting import Start, exit_to_train, load_for_training

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

MAX_TOKENS = 16384  # per forward pass, unless the caller says otherwise; conf/ has its own max_tokens
PAIRS_AT_ONCE = 4096  # pairs that predict sorts by length together
MAX_CPU_TOKENS = 2048  # per forward pass: the states of more tokens do not fit in a CPU's cache


class CrossEncoder(nn.Module):
    """Scores query-passage pairs: s = W·e + b, where e is the [CLS] state or the mean over the tokens.

    Heads of other libraries may have more layers: s = activation(W·projection(e) + b), as in distill/models/heads.py.
    """

    def __init__(
        self,
        backbone: "PreTrainedModel",
        tokenizer,
        pooling: str,
        query_length: int,
        passage_length: int,
        layout: str = "auto",
        template: PairTemplate | None = None,
    ):
        """Put a new linear layer on a transformers encoder.

        layout: "packed" or "padded" pairs; "auto" packs them if the backbone supports it (distill/models/packed.py).
        template: the tokens around query and passage; None: the tokenizer's special tokens.
        Raises InputError if the backbone cannot read pairs of these lengths, or cannot pack them.
        """
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.hidden_size, 1, bias=pooling != "last")  # as in transformers
        nn.init.normal_(self.head.weight, std=0.02)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
        self.projection: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Identity()
        self.native: NativeHead | None = None
        self.causal: CausalHead | None = None
        self.exit: ExitHead | None = None  # a second score, after an inner layer
        for parameter in getattr(getattr(backbone, "pooler", None), "parameters", list)():
            parameter.requires_grad_(False)  # the score does not use BERT's pooler
        self.tokenizer = tokenizer
        self.takes_token_types = (
            "token_type_ids" in tokenizer.model_input_names
            and "token_type_ids" in inspect.signature(backbone.forward).parameters
            and getattr(backbone.config, "type_vocab_size", None) != 1  # which has one type, and no second
        )
        # A decoder would keep the keys and values of all tokens, as if it had to generate the next one
        keeps = "use_cache" in inspect.signature(backbone.forward).parameters
        self.options = {"use_cache": False} if pooling == "last" and keeps else {}
        self.template = template or PairTemplate.of(tokenizer)
        self.pooling, self.query_length, self.passage_length = pooling, query_length, passage_length
        self.is_partly_frozen = False  # by choice: distill/models/freezing.py, distill/models/lora.py
        self.base: dict[str, Any] = {}  # what it was started with, and the checksum of what is frozen
        self.saves_adapters = False  # without the backbone: distill/models/adapters.py
        self.interpolation: Interpolation | None = None  # chosen at the end of a training with validation
        self.calibration: Calibration | None = None  # fitted there, if asked for
        self.choose_layout(layout)
        if self.max_length <= self.template.num_special:
            raise InputError(
                f"pairs of {self.max_length} tokens have no room for text beside {self.template.num_special} special "
                "tokens: raise max_length in the model's distill.json, or model_max_length in its tokenizer_config.json"
            )
        self._check_lengths()

    def read_passages_to(self, length: int) -> None:
        """Read so many tokens of each passage from now on; raises InputError if the model cannot."""
        fits = (self.template.max_length or math.inf) - self.template.num_special
        if length > fits:
            raise InputError(
                f"passage_length={length}: this model reads pairs of {self.template.max_length} tokens, special tokens "
                f"included: lower it to {fits} or less"
            )
        self.passage_length = length
        self._check_lengths("query_length", "passage_length")

    def _check_lengths(self, query: str = "model.query_length", passage: str = "model.passage_length") -> None:
        """Raise InputError for pairs that are too long for the backbone, naming the keys that set their lengths."""
        longest = longest_input(self.backbone)
        if self.max_length > longest:
            fits = longest - self.query_length - self.template.num_special
            remedy = f"{passage} to {fits}" if fits > 0 else query
            raise InputError(
                f"{query}={self.query_length} and {passage}={self.passage_length} make pairs of {self.max_length} "
                f"tokens, special tokens included, but this backbone reads {longest}: lower {remedy}"
            )

    @property
    def max_length(self) -> int:
        """Number of tokens in the longest possible pair."""
        longest = self.query_length + self.passage_length + self.template.num_special
        return min(longest, self.template.max_length or longest)

    @property
    def settings(self) -> dict[str, Any]:
        """Contents of distill.json: tokens of a query, a passage and, if cut as one, a pair; and what was fitted.

        If pairs hold the first stage's score, also how it is scaled.
        """
        settings: dict[str, Any] = {"query_length": self.query_length, "passage_length": self.passage_length}
        if self.template.max_length is not None:
            settings["max_length"] = self.max_length
        if self.first_stage_score is not None:
            settings["first_stage_score"] = self.first_stage_score
        if self.saves_adapters:
            settings["base"] = self.base
        settings |= {"exit_layer": self.exit.layer} if self.exit is not None else {}
        settings |= {"interpolation": self.interpolation.as_json()} if self.interpolation else {}
        return settings | ({"calibration": self.calibration.as_json()} if self.calibration else {})

    @property
    def first_stage_score(self) -> str | None:
        """How the first stage's score is scaled if pairs hold it (distill/data/pairs.py), else None."""
        return self.template.first_stage_score

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.head.weight.device

    @property
    def is_plain(self) -> bool:
        """Whether it is an encoder with one linear layer on its pooled state, and no other layer."""
        plain = isinstance(self.projection, nn.Identity) and isinstance(self.activation, nn.Identity)
        return plain and self.is_encoder

    @property
    def is_encoder(self) -> bool:
        """Whether the backbone is a transformers encoder, rather than a language model or an ONNX graph."""
        return is_of_transformers(self.backbone) and self.pooling in ("cls", "mean")

    @property
    def is_decoder(self) -> bool:
        """Whether the backbone is a transformers decoder, whose last token's state is read."""
        return is_of_transformers(self.backbone) and self.pooling == "last"

    @property
    def attention_dropout(self) -> float:
        """Probability of dropping an attention weight; the packed layout never drops any."""
        config = self.backbone.config
        return getattr(config, "attention_probs_dropout_prob", getattr(config, "attention_dropout", 0.0)) or 0.0

    def describe(self) -> str:
        """Return a description of the model's size and layout."""
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        part = f", of which {trained / 1e6:.2f} million are trained" if self.is_partly_frozen else ""
        without = " without attention dropout" if self.layout == "packed" and self.attention_dropout else ""
        also = f", a score after layer {self.exit.layer}, too" if self.exit is not None else ""
        return f"{num_parameters / 1e6:.2f} million parameters{part}, {self.layout} layout{without}{also}"

    def take_head(self, parts: Parts) -> None:
        """Use the layers of the parts in place of the new linear layer."""
        self.native, self.projection, self.activation = parts.native, parts.projection, parts.activation
        self.causal = parts.causal
        if parts.weight is not None:
            has_bias = parts.bias is not None
            if parts.weight.shape[1] != self.head.in_features or has_bias != (self.head.bias is not None):
                self.head = nn.Linear(parts.weight.shape[1], 1, bias=has_bias)
            weights = {"weight": parts.weight, "bias": parts.bias}
            self.head.load_state_dict({name: value.detach() for name, value in weights.items() if value is not None})

    def choose_layout(self, layout: str) -> None:
        """Use the "packed" or "padded" layout; "auto" packs if the backbone supports it.

        Call this before compiling the backbone. Raises InputError like __init__, and for another layout.
        """
        if layout not in ("auto", "packed", "padded"):
            raise InputError(f"layout={layout} is unknown: choose one of auto, packed, padded")
        packable = can_pack(self.backbone)
        if layout == "packed" and not packable:
            raise InputError(
                f"layout=packed: a {self.backbone.config.model_type} backbone builds its own attention and cannot be "
                "packed: set it to padded"
            )
        self.layout = "packed" if packable and layout != "padded" else "padded"
        if packable:
            register_attention()
            self.backbone.set_attn_implementation(NAME if self.layout == "packed" else "sdpa")
        self.first_only = self.pooling == "cls" and score_only_first_states(self.backbone)
        self.first_position = first_position(self.backbone)

    def chunks(self, batch: Batch, max_tokens: int) -> Iterator[PackedChunk | PaddedChunk]:
        """Yield all pairs of a batch in the model's layout, in chunks of at most max_tokens tokens."""
        pad_id, on_gpu = self.tokenizer.pad_token_id, self.device.type == "cuda"
        if not on_gpu:
            max_tokens = min(max_tokens, MAX_CPU_TOKENS)
        if self.layout == "packed":
            counts_pads = self.first_position == 0
            return pack_chunks(batch, max_tokens, pad_id, self.max_length, buckets=on_gpu, counts_pads=counts_pads)
        return pad_chunks(batch, max_tokens, pad_id, equal=reads_padding(self.backbone.config))

    def run(self, backbone: Any, chunk: PackedChunk | PaddedChunk, **options) -> Any:
        """Return what a backbone, the model's own or one with fewer layers, returns for a chunk."""
        inputs = chunk.inputs(takes_token_types=self.takes_token_types, first_position=self.first_position)
        return backbone(**inputs, **self.options, **options)

    def logits(self, pooled: Tensor) -> Tensor:
        """Return the float32 logits [p] of pooled states [p, D], to which the activation is not applied."""
        with torch.autocast(pooled.device.type, enabled=False):  # bfloat16 keeps 8 bits: close scores would tie
            return in_float32(self.head, self.projection(pooled.to(self.head.weight.dtype)))

    def forward(self, chunk: PackedChunk | PaddedChunk) -> Tensor:
        """Return the float32 scores [p] of a chunk's pairs; in training mode without the activation, as logits.

        If the model has a score after an inner layer, too, training gets both, [p, 2]: the last one and that.
        """
        trains_exit = self.exit is not None and self.training
        output = self.run(self.backbone, chunk, **({"output_hidden_states": True} if trains_exit else {}))
        logits = self.logits(chunk.pool(output.last_hidden_state, self.pooling, first_only=self.first_only))
        if not self.training:
            return self.activation(logits)
        if self.exit is None:
            return logits
        inner = output.hidden_states[self.exit.layer]  # [0] is the embeddings'
        return torch.stack([logits, self.exit(chunk.pool(inner, self.pooling))], dim=1)

    def score(self, batch: Batch, max_tokens: int, exit_keep: int | None = None) -> Tensor:
        """Return the scores [B, K] of a batch, 0 where padded, in forward passes of at most max_tokens tokens.

        exit_keep: only so many passages of a list, the best by the score after an inner layer, go through all layers
        (distill/models/pruned.py). Raises InputError for a model without such a score.
        """
        check_keep(self, exit_keep)
        if exit_keep is not None and exit_keep < batch.mask.shape[1]:
            return score_pruned(self, batch, max_tokens, exit_keep)
        chunks = list(self.chunks(batch, max_tokens))
        return self.arrange(batch, chunks, [self(chunk.to(self.device)) for chunk in chunks])

    def arrange(self, batch: Batch, chunks: list[PackedChunk | PaddedChunk], scores: list[Tensor]) -> Tensor:
        """Arrange the scores of a batch's chunks as [B, K], with 0 where padded; two of each pair as [2, B, K]."""
        if scores[0].dim() == 2:
            return torch.stack([self.arrange(batch, chunks, [both[:, i] for both in scores]) for i in range(2)])
        flat = torch.cat(scores)  # [P], in the order of the chunks
        slots = copy_to(batch.slots[torch.cat([chunk.pairs for chunk in chunks])], flat.device)
        return flat.new_zeros(batch.mask.numel()).scatter(0, slots, flat).view(batch.mask.shape)  # [B, K]

    @overload
    def rank(
        self,
        query: str,
        passages: Iterable[str],
        max_tokens: int = ...,
        precision: str | torch.dtype | None = ...,
        *,
        first_stage_scores: Iterable[float] | None = ...,
        weight: float | None = ...,
        exit_keep: int | None = ...,
        return_documents: Literal[False] = ...,
    ) -> tuple[list[int], list[float]]: ...

    @overload
    def rank(self, query: Any, passages: Any, *options: Any, **keywords: Any) -> Any: ...

    @torch.inference_mode()
    def rank(
        self,
        query,
        passages,
        max_tokens: int = MAX_TOKENS,
        precision: str | torch.dtype | None = None,
        *,
        first_stage_scores=None,
        weight: float | None = None,
        exit_keep: int | None = None,
        return_documents: bool = False,
    ) -> Any:
        """Return the indices of the passages from best to worst, and their scores in that order.

        query: a text; or a list of them, with a list of passages for each: the result is then a list of results.
        passages: a list or any other sequence of texts (tuple, pandas Series, NumPy array). Empty texts are scored too.
        precision: of the forward pass, a dtype or its name, as in "bfloat16"; None: bfloat16 on CUDA, else float32.
        Some CPUs are also faster in bfloat16: distill/models/precision.py measures it. With float32, an autocast
        context around the call still applies.
        first_stage_scores: of the same passages, in their order; order and scores are then interpolated
        (distill/models/interpolation.py). A model that was trained to read them needs them, of the whole list; it
        interpolates only if a weight is given.
        weight: the model's share in that, from 0 to 1; None: the weight in the model's files.
        exit_keep: of a model that was trained with model.exit_layer: only so many passages of each list go through all
        layers, the others are placed below them (distill/models/pruned.py).
        return_documents: return the passages too, in that order.

        Several threads may call it at once. Raises TypeError if the query or a passage is not a string, and InputError
        if one holds half a surrogate pair, if a score is not finite, if there is no weight, if first_stage_scores is
        not one finite number for each passage, if the model needs them, if it has no score after an inner layer to keep
        by, or for an option that does not exist.
        """
        several = is_sequence(query)
        queries, lists = as_lists(query, passages) if several else ([query], [as_texts(query, passages)])
        given: list[Any] = [first_stage_scores]
        if several and first_stage_scores is None:
            given = [None] * len(queries)
        elif several:
            if not is_sequence(first_stage_scores):
                raise InputError(
                    f"first_stage_scores={str(first_stage_scores)[:60]}: must be a list of numbers for each query"
                )
            given = list(first_stage_scores)
        if len(given) != len(queries):
            raise InputError(f"first_stage_scores has {len(given)} lists: give one for each of {len(queries)} queries")
        uses = [FirstStageUse.of(self, texts, scores, weight) for texts, scores in zip(lists, given, strict=True)]
        with evaluating(self):
            pairs = [
                self.encode([text] * len(of_query), of_query, use.numbers)
                for text, of_query, use in zip(queries, lists, uses, strict=True)
            ]
            scores = self.score_lists(pairs, max_tokens, precision, exit_keep)
        results: list[Any] = []
        for texts, values, use in zip(lists, scores, uses, strict=True):
            order, ordered = use.order(values)
            results.append(
                (order, ordered, [texts[index] for index in order]) if return_documents else (order, ordered)
            )
        return results if several else results[0]

    @torch.inference_mode()
    def predict(
        self,
        pairs: Iterable[Iterable[str]] | tuple[str, str],
        max_tokens: int = MAX_TOKENS,
        precision: str | torch.dtype | None = None,
    ) -> np.ndarray:
        """Return the float32 scores [P] of pairs of query and passage, in their order, as sentence-transformers does.

        pairs: a list or any other sequence (pandas Series, NumPy array) of pairs of texts; for one pair of texts, the
        score is returned by itself.
        max_tokens, precision: as in `rank`.

        Several threads may call it at once. Raises TypeError for anything but pairs of texts, and InputError if a score
        is not finite, or if the model reads first-stage scores, which only `rank` takes.
        """
        if self.first_stage_score is not None:
            raise InputError("this model reads the first stage's score of each passage: use rank, which takes them")
        if is_one_pair(pairs):
            return self.predict([cast(tuple[str, str], pairs)], max_tokens, precision)[0]
        queries, passages = as_pairs(pairs)
        found = [np.zeros(0, np.float32)]
        with evaluating(self):
            for start in range(0, len(queries), PAIRS_AT_ONCE):
                some = slice(start, start + PAIRS_AT_ONCE)
                encoded = self.encode(queries[some], passages[some])
                found += [scores.numpy() for scores in self.score_lists([encoded], max_tokens, precision)]
        return np.concatenate(found)

    def probabilities(self, scores: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return how likely passages with these scores are relevant, by the calibration in the model's files.

        scores: of `predict`, or of `rank` without first-stage scores. Raises InputError for a model without one.
        """
        if self.calibration is None:
            raise InputError(
                "this model's files hold no calibration: train it with calibration.method=platt or isotonic, and "
                "a validation"
            )
        return self.calibration.probabilities(scores)

    def encode(
        self,
        queries: list[str],
        passages: list[str],
        numbers: Iterable[int | None] | None = None,
        passage_length: int | None = None,
    ) -> list[TokenPair]:
        """Return pairs, one query for each passage, as tokens and token types, cut to the model's lengths.

        A query is tokenised once, however many pairs it has. numbers: those of first-stage scores. passage_length: cut
        passages to fewer tokens than the model reads.
        """
        return read_pairs(self, queries, passages, numbers, passage_length)

    def cut_pairs(self, queries: list[str], passages: list[str]) -> list[int]:
        """Return the indices of the pairs that `encode` cuts, since the model does not read texts of such lengths."""
        return places_of_cut_pairs(self, queries, passages)

    def score_lists(
        self,
        lists: list[list[TokenPair]],
        max_tokens: int = MAX_TOKENS,
        precision: str | torch.dtype | None = None,
        exit_keep: int | None = None,
    ) -> list[Tensor]:
        """Return the scores [K] of each list of pairs, on the CPU; the lists share forward passes.

        exit_keep: as in `rank`. Call it in evaluation mode. Raises InputError for a score that is not finite.
        """
        check_keep(self, exit_keep)
        dtype = dtype_of(precision, self.device)
        if not any(lists):
            return [torch.zeros(0) for _ in lists]
        batch = make_batch([""] * len(lists), lists)
        half = half_precision(self.device, dtype)
        with contextlib.nullcontext() if dtype == torch.float32 else half:  # the caller's autocast still applies
            scores = self.score(batch, max_tokens, exit_keep).cpu()
        for row, index in torch.nonzero(~torch.isfinite(scores)).tolist():
            where = f"list {row}, " if len(lists) > 1 else ""
            raise InputError(
                f"{where}passage {index} has the score {scores[row, index]:g}, which is not finite: the model's "
                "weights are damaged, or too large for this precision: try precision=torch.float32"
            )
        return [row[: len(pairs)] for row, pairs in zip(scores, lists, strict=True)]

    @torch.no_grad()
    def _score_two_pairs(self, name: str) -> None:
        """Raise InputError if the model cannot score: a wrong number in its files may only show in a forward pass.

        Language models are left out: a pass of theirs takes seconds on a CPU, and they were tried when opened.
        """
        if self.pooling == "last":
            return
        with explained(name, "as a cross-encoder"), evaluating(self):
            encoded = self.tokenizer(["a", "a a a"], add_special_tokens=False)["input_ids"]
            short, long = (np.asarray(ids, np.int64) for ids in encoded)
            numbers = None if self.first_stage_score is None else [0, 0]
            pairs = self.template.join_all(short, [short, long], numbers)
            self.score(make_batch(["a"], [pairs]), MAX_TOKENS)

    @classmethod
    def from_backbone(
        cls,
        name: str,
        pooling: str = "cls",
        query_length: int = 32,
        passage_length: int = 256,
        weights: str = "pretrained",
        dropout: float | None = None,
        revision: str | None = None,
        layout: str = "auto",
        num_layers: int | None = None,
        first_stage_score: str | None = None,
        head: str = "auto",
        prompt: str | None = None,
        exit_layer: int | None = None,
    ) -> "CrossEncoder":
        """Load a transformers encoder or decoder in float32, to train it with the head that it has or with a new one.

        Args:
            name: directory, packaged model (distill/models/locate.py) or Hub id.
            pooling: "cls" or "mean", of a new head.
            query_length, passage_length: how many tokens of each are read.
            weights: "pretrained", or "random" to keep only the architecture.
            dropout: probability that replaces all of the backbone's dropouts; None keeps them.
            revision: commit or branch on the Hub.
            layout: "packed", "padded", or "auto", which packs if the backbone supports it.
            num_layers: keep only this many of the first layers; None keeps all.
            first_stage_score: put the first stage's score into the pairs, scaled by "min-max" or "global".
            head: "auto", "linear", "native" or "mlp" (distill/models/starting.py).
            prompt: of a decoder (distill/models/prompts.py); None: the one that its directory names, if any.
            exit_layer: also learn a score after this layer, counted from 1 (distill/models/early_exit.py).

        Raises InputError if the backbone, its head or its tokenizer cannot be loaded, or cannot be trained.
        """
        start = Start(head, pooling, weights, dropout, num_layers, first_stage_score, prompt, exit_layer)
        parts = load_for_training(name, start, revision)
        with explained(name):
            template = parts.template or PairTemplate.of(parts.tokenizer, first_stage_score)
        model = cls(parts.backbone, parts.tokenizer, parts.pooling, query_length, passage_length, layout, template)
        model.take_head(parts)
        model.exit = exit_to_train(parts, exit_layer)
        if parts.causal is not None:  # its directory's name may have said it
            prompt = name_of_prompt(parts.causal.prompt.text) or prompt
        model.base = {"name": name, "revision": revision, "head": head, "pooling": pooling, "prompt": prompt}
        model.base |= {"num_layers": num_layers, "first_stage_score": first_stage_score}
        model._score_two_pairs(name)
        return model

    @classmethod
    def from_pretrained(
        cls, name: str, layout: str = "auto", prompt: str | None = None, base: str | None = None
    ) -> "CrossEncoder":
        """Load a cross-encoder in float32, ready to score: one trained here, or any other that opening.py reads.

        Args:
            name: directory, packaged model (distill/models/locate.py) or Hub id.
            layout: as in `from_backbone`.
            prompt: for a language model (distill/models/generative.py) whose directory does not name its prompt:
                "monot5", "rankt5" or "qwen3-reranker".
            base: of a directory of adapters (distill/models/adapters.py), the backbone that they belong to.

        Raises InputError if it is not a cross-encoder, or cannot be loaded exactly.
        """
        source = locate_model(name)
        with explained(name):
            folder = Path(source) if os.path.isdir(source) else download(source)
            if holds_adapters(folder):
                if prompt is not None:
                    raise InputError(f"prompt={prompt}: the adapters in {name} have their own: leave it out")
                model = cls.from_backbone(str(base), layout=layout, **read_base(folder, base))
                load_adapters(model, folder, str(base))
                return model.eval()
            if base is not None:
                raise InputError(f"base={base}: {name} holds no adapters, but a whole model: leave it out")
            parts = open_directory(folder, prompt)
            if is_of_transformers(parts.backbone):
                match_vocabulary(name, parts.tokenizer, num_embeddings(parts.backbone))
            # Without separate lengths, either the query or the passage may fill the whole pair
            whole: Any = (parts.max_length, parts.max_length)
            query_length, passage_length = parts.lengths or whole
            template = parts.template or PairTemplate.of(parts.tokenizer, parts.first_stage_score)
            template = replace(template, max_length=parts.max_length)
            model = cls(parts.backbone, parts.tokenizer, parts.pooling, query_length, passage_length, layout, template)
            model.take_head(parts)
            model.interpolation, model.calibration = parts.interpolation, parts.calibration
            model.exit = read_exit(folder, parts.backbone)
            model._score_two_pairs(name)
            return model.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the model as a directory of sentence-transformers v6, or with a native head as one of transformers.

        It is written to a temporary directory that is then renamed, so `directory` never holds a half-written model.
        A model that is there already is replaced, and its card and licence stay. Raises InputError for a directory with
        anything else in it, and for a model with layers that this format cannot hold.
        """
        directory = Path(directory).absolute()  # the current one has no name
        check_replaceable(directory)
        self.write(directory, kept=OF_ITS_USER)

    def write(self, directory: Path, kept: re.Pattern[str] | None = None) -> None:
        """Write the model like `save_pretrained`, in place of whatever is in the directory, which is the caller's.

        kept: names of files in it that stay.
        """
        if self.saves_adapters:
            write_adapters(self, directory, kept)
            return
        with merged(self.backbone):
            write_model(self, directory, kept)
