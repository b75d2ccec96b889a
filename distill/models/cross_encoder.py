"""The cross-encoder: `[CLS] query [SEP] passage [SEP]` through a backbone, then one linear layer on the [CLS] state.

    model = CrossEncoder.from_pretrained("outputs/.../model")
    indices, scores = model.rank("how do bees find home", ["Bees ...", "Trains ..."])

A saved model is a sentence-transformers v6 CrossEncoder directory; weights are safetensors, read and written.
Shapes: B lists, K passages per list, P query-passage pairs, L tokens of the longest pair, D hidden size.
"""

import contextlib
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from io import IOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.data.batch import Batch, copy_to, make_batch
from distill.data.control_tokens import read_as_text
from distill.data.pairs import PairTemplate
from distill.device import choose_precision
from distill.errors import InputError
from distill.models.first_states import score_only_first_states
from distill.models.interpolation import Interpolation, check_scores, check_weight, interpolate
from distill.models.locate import locate_model
from distill.models.opening import open_directory
from distill.models.packed import NAME, PackedChunk, can_pack, pack_chunks
from distill.models.padded import PaddedChunk, pad_chunks
from distill.models.parts import explained, fill, load_tokenizer, longest_input, read_weights
from distill.models.saved import check_same_score, download, find_head, write_model
from distill.models.sizes import check_size, check_vocabulary

log = logging.getLogger(__name__)

MAX_TOKENS = 16384  # per forward pass, unless the caller says otherwise; conf/ has its own max_tokens
MAX_CPU_TOKENS = 2048  # per forward pass: the states of more tokens do not fit in a CPU's cache


class CrossEncoder(nn.Module):
    """Scores query-passage pairs: s = W·e + b, where e is the [CLS] state or the mean over the tokens.

    Models from other libraries may have more layers: s = activation(W·projection(e) + b).
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
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
        self.head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.projection: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Identity()
        for parameter in getattr(getattr(backbone, "pooler", None), "parameters", list)():
            parameter.requires_grad_(False)  # the score does not use BERT's pooler
        self.tokenizer = tokenizer
        self.takes_token_types = (
            "token_type_ids" in tokenizer.model_input_names
            and "token_type_ids" in inspect.signature(backbone.forward).parameters
        )
        self.template = template or PairTemplate.of(tokenizer)
        self.pooling, self.query_length, self.passage_length = pooling, query_length, passage_length
        self.interpolation: Interpolation | None = None  # chosen at the end of a training with validation
        self.choose_layout(layout)
        if self.max_length <= self.template.num_special:
            raise InputError(
                f"pairs of {self.max_length} tokens have no room for text beside {self.template.num_special} special "
                "tokens: raise max_length in the model's distill.json, or model_max_length in its tokenizer_config.json"
            )
        longest = longest_input(backbone.config)
        if self.max_length > longest:
            fits = longest - query_length - self.template.num_special
            remedy = f"model.passage_length to {fits}" if fits > 0 else "model.query_length"
            raise InputError(
                f"model.query_length={query_length} and model.passage_length={passage_length} make pairs of "
                f"{self.max_length} tokens, special tokens included, but this backbone reads {longest}: lower {remedy}"
            )

    @property
    def max_length(self) -> int:
        """Number of tokens in the longest possible pair."""
        longest = self.query_length + self.passage_length + self.template.num_special
        return min(longest, self.template.max_length or longest)

    @property
    def settings(self) -> dict[str, Any]:
        """Contents of distill.json: tokens of a query, a passage and, if cut as one, a pair; and the interpolation.

        If pairs hold the first stage's score, also how it is scaled.
        """
        settings: dict[str, Any] = {"query_length": self.query_length, "passage_length": self.passage_length}
        if self.template.max_length is not None:
            settings["max_length"] = self.max_length
        if self.first_stage_score is not None:
            settings["first_stage_score"] = self.first_stage_score
        return settings | ({"interpolation": self.interpolation.as_json()} if self.interpolation else {})

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
        """Whether it is the kind of model trained here: an encoder with one linear layer on its pooled state."""
        plain = isinstance(self.projection, nn.Identity) and isinstance(self.activation, nn.Identity)
        return plain and self.is_encoder

    @property
    def is_encoder(self) -> bool:
        """Whether the backbone is a transformers encoder, rather than a language model or an ONNX graph."""
        return isinstance(self.backbone, PreTrainedModel) and self.pooling in ("cls", "mean")

    @property
    def attention_dropout(self) -> float:
        """Probability of dropping an attention weight; the packed layout never drops any."""
        config = self.backbone.config
        return getattr(config, "attention_probs_dropout_prob", getattr(config, "attention_dropout", 0.0)) or 0.0

    def describe(self) -> str:
        """Return a description of the model's size and layout."""
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        without = " without attention dropout" if self.layout == "packed" and self.attention_dropout else ""
        return f"{num_parameters / 1e6:.2f} million parameters, {self.layout} layout{without}"

    def choose_layout(self, layout: str) -> None:
        """Use the "packed" or "padded" layout; "auto" packs if the backbone supports it.

        Call this before compiling the backbone. Raises InputError like __init__.
        """
        packable = can_pack(self.backbone)
        if layout == "packed" and not packable:
            raise InputError(
                f"model.layout=packed: a {self.backbone.config.model_type} backbone builds its own attention and "
                "cannot be packed: set model.layout=padded"
            )
        self.layout = "packed" if packable and layout != "padded" else "padded"
        if packable:
            self.backbone.set_attn_implementation(NAME if self.layout == "packed" else "sdpa")
        if self.pooling == "cls":
            score_only_first_states(self.backbone)
        config = self.backbone.config
        counts_from_padding = config.model_type in ("roberta", "xlm-roberta", "camembert")
        self.first_position = config.pad_token_id + 1 if counts_from_padding else 0

    def chunks(self, batch: Batch, max_tokens: int) -> Iterator[PackedChunk | PaddedChunk]:
        """Yield all pairs of a batch in the model's layout, in chunks of at most max_tokens tokens."""
        pad_id, on_gpu = self.tokenizer.pad_token_id, self.device.type == "cuda"
        if not on_gpu:
            max_tokens = min(max_tokens, MAX_CPU_TOKENS)
        if self.layout == "packed":
            return pack_chunks(batch, max_tokens, pad_id, self.max_length, buckets=on_gpu)
        return pad_chunks(batch, max_tokens, pad_id)

    def forward(self, chunk: PackedChunk | PaddedChunk) -> Tensor:
        """Return the float32 scores [p] of a chunk's pairs."""
        states = self.backbone(
            **chunk.inputs(takes_token_types=self.takes_token_types, first_position=self.first_position)
        ).last_hidden_state
        pooled = chunk.pool(states, self.pooling)  # [p, D]
        with torch.autocast(pooled.device.type, enabled=False):  # bfloat16 keeps 8 bits: close scores would tie
            pooled = self.projection(pooled.to(self.head.weight.dtype))
            return self.activation(self.head(pooled)).squeeze(-1)  # [P]

    def score(self, batch: Batch, max_tokens: int) -> Tensor:
        """Return the scores [B, K] of a batch, 0 where padded, in forward passes of at most max_tokens tokens."""
        chunks = list(self.chunks(batch, max_tokens))
        return self.arrange(batch, chunks, [self(chunk.to(self.device)) for chunk in chunks])

    def arrange(self, batch: Batch, chunks: list[PackedChunk | PaddedChunk], scores: list[Tensor]) -> Tensor:
        """Arrange the scores of a batch's chunks as [B, K], with 0 where padded."""
        flat = torch.cat(scores)  # [P], in the order of the chunks
        slots = copy_to(batch.slots[torch.cat([chunk.pairs for chunk in chunks])], flat.device)
        return flat.new_zeros(batch.mask.numel()).scatter(0, slots, flat).view(batch.mask.shape)  # [B, K]

    @torch.inference_mode()
    def rank(
        self,
        query: str,
        passages: Iterable[str],
        max_tokens: int = MAX_TOKENS,
        precision: torch.dtype | None = None,
        *,
        first_stage_scores: Iterable[float] | None = None,
        weight: float | None = None,
    ) -> tuple[list[int], list[float]]:
        """Return the indices of the passages from best to worst, and their scores in that order.

        passages: a list or any other sequence of texts (tuple, pandas Series, NumPy array). Empty texts are scored too.
        precision: of the forward pass; None: torch.bfloat16 on CUDA, else torch.float32. Some CPUs are also faster in
        torch.bfloat16. With float32, an autocast context around the call still applies.
        first_stage_scores: of the same passages, in their order; order and scores are then interpolated
        (distill/models/interpolation.py). A model that was trained to read them needs them, of the whole list; it
        interpolates only if a weight is given.
        weight: the model's share in that, from 0 to 1; None: the weight in the model's files.

        Raises TypeError if the query or a passage is not a string, and InputError if a score is not finite, if there is
        no weight, if there is not one first-stage score for each passage, or if the model needs them.
        """
        passages = _as_texts(query, passages)
        first_stage_scores = None if first_stage_scores is None else list(first_stage_scores)
        numbers = self._numbers(passages, first_stage_scores)
        interpolates = weight is not None or (first_stage_scores is not None and self.first_stage_score is None)
        if interpolates:
            first_stage = check_scores(first_stage_scores, len(passages))
            share = check_weight(weight, self.interpolation)
        if not passages:
            return [], []
        with evaluating(self):
            scores = self._score_texts(query, passages, numbers, max_tokens, precision)
        for index in torch.nonzero(~torch.isfinite(scores)).flatten().tolist():
            raise InputError(
                f"passage {index} has the score {scores[index]:g}, which is not finite: the model's weights are "
                "damaged, or too large for this precision: try precision=torch.float32"
            )
        if interpolates:
            places, interpolated = interpolate(scores.double().numpy(), first_stage, share)
            return places.tolist(), interpolated.tolist()
        order = torch.argsort(scores, descending=True, stable=True)
        return order.tolist(), scores[order].tolist()

    def _numbers(self, passages: list[str], scores: Iterable[float] | None) -> Iterable[int | None] | None:
        """Return the numbers that are read for first-stage scores; raises InputError if these do not suit the model."""
        if self.first_stage_score is None:
            return None
        if scores is None:
            raise InputError(
                "this model reads the first stage's score of each passage: give first_stage_scores, those of the "
                "query's whole list"
            )
        values = np.asarray(list(scores), np.float64)
        if values.shape != (len(passages),) or not np.isfinite(values).all():
            raise InputError(f"first_stage_scores must be {len(passages)} finite numbers, one for each passage")
        return self.template.numbers(values)

    def _score_texts(
        self,
        query: str,
        passages: list[str],
        numbers: Iterable[int | None] | None,
        max_tokens: int,
        precision: torch.dtype | None,
    ) -> Tensor:
        """Return the scores [K] of the passages; numbers: those of their first-stage scores."""
        texts = [self.template.texts(query, passage) for passage in passages]
        encoded_query = self._encode([texts[0][0]], self.query_length)[0]
        encoded = self._encode([text for _, text in texts], self.passage_length)
        pairs = self.template.join_all(encoded_query, encoded, numbers)
        batch = make_batch([query], [pairs])
        precision = precision or choose_precision("auto", self.device)
        half = torch.autocast(self.device.type, dtype=torch.bfloat16)
        with half if precision == torch.bfloat16 else contextlib.nullcontext():  # the caller's autocast still applies
            return self.score(batch, max_tokens)[0].cpu()

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

    def _encode(self, texts: list[str], max_length: int) -> list:
        options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
        encoded = self.tokenizer(texts, truncation=True, max_length=max_length, verbose=False, **options)
        return [np.asarray(ids, np.int64) for ids in encoded["input_ids"]]  # int64 even for an empty text

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
    ) -> "CrossEncoder":
        """Load a Hugging Face transformers encoder in float32 and put a linear layer on it.

        A saved cross-encoder keeps its own linear layer (for the second stage of two-stage training); any other
        encoder gets a new one.

        Args:
            name: directory, packaged model (distill/models/locate.py) or Hub id.
            pooling: "cls" or "mean".
            query_length, passage_length: how many tokens of each are read.
            weights: "pretrained", or "random" to keep only the architecture.
            dropout: probability that replaces all of the backbone's dropouts; None keeps them.
            revision: commit or branch on the Hub.
            layout: "packed", "padded", or "auto", which packs if the backbone supports it.
            num_layers: keep only this many of the first layers; None keeps all.
            first_stage_score: put the first stage's score into the pairs, scaled by "min-max" or "global".

        Raises InputError if the backbone or its tokenizer cannot be loaded.
        """
        from transformers import AutoConfig, AutoModel

        source = locate_model(name)
        with explained(name):
            tokenizer = read_as_text(load_tokenizer(source, revision))
            config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            if dropout is not None:
                _set_dropout(config, dropout)
            if num_layers is not None:
                _keep_layers(config, num_layers, name)
            if weights == "random":
                check_size(AutoModel, config, None)
                backbone = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
            else:
                if os.path.isdir(source):
                    check_size(AutoModel, config, Path(source))
                backbone = AutoModel.from_pretrained(
                    source,
                    config=config,
                    revision=revision,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                )
            check_vocabulary(name, tokenizer, backbone)
            template = PairTemplate.of(tokenizer, first_stage_score)
        model = cls(backbone, tokenizer, pooling, query_length, passage_length, layout, template)
        head = find_head(source, revision) if weights == "pretrained" else None
        if head is not None:
            check_same_score(source, revision, first_stage_score)
            fill(model.head, read_weights(head), head, "linear.")
        model._score_two_pairs(name)
        log.info("%s: %s weights, %s linear layer", name, weights, "its own" if head else "a new")
        return model

    @classmethod
    def from_pretrained(cls, name: str, layout: str = "auto", prompt: str | None = None) -> "CrossEncoder":
        """Load a cross-encoder in float32, ready to score: one trained here, or any other that opening.py reads.

        Args:
            name: directory, packaged model (distill/models/locate.py) or Hub id.
            layout: as in `from_backbone`.
            prompt: for a language model (distill/models/generative.py) whose directory does not name its prompt:
                "monot5", "rankt5" or "qwen3-reranker".

        Raises InputError if it is not a cross-encoder, or cannot be loaded exactly.
        """
        source = locate_model(name)
        with explained(name):
            parts = open_directory(Path(source) if os.path.isdir(source) else download(source), prompt)
            if isinstance(parts.backbone, PreTrainedModel):
                check_vocabulary(name, parts.tokenizer, parts.backbone)
            # Without separate lengths, either the query or the passage may fill the whole pair
            whole: Any = (parts.max_length, parts.max_length)
            query_length, passage_length = parts.lengths or whole
            template = parts.template or PairTemplate.of(parts.tokenizer, parts.first_stage_score)
            template = replace(template, max_length=parts.max_length)
            model = cls(parts.backbone, parts.tokenizer, parts.pooling, query_length, passage_length, layout, template)
            model.head = nn.Linear(parts.weight.shape[1], 1)
            model.head.load_state_dict({"weight": parts.weight.detach(), "bias": parts.bias.detach()})
            model.projection, model.activation = parts.projection, parts.activation
            model.interpolation = parts.interpolation
            model._score_two_pairs(name)
            return model.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the model as a sentence-transformers v6 CrossEncoder directory.

        It is written to a temporary directory that is then renamed, so `directory` never holds a half-written model.
        Raises InputError for a model with layers that this format cannot hold.
        """
        write_model(self, Path(directory))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore its previous mode on exit, even after an error."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _as_texts(query: str, passages: Iterable[str]) -> list[str]:
    """Return the passages as a list; raises TypeError for a single text, a table, or anything that is not a text."""
    is_table = isinstance(passages, Mapping | Set | IOBase) or hasattr(passages, "columns")  # a DataFrame has columns
    if isinstance(passages, str | bytes) or is_table or not isinstance(passages, Iterable):
        raise TypeError(
            f"passages is a {type(passages).__name__}: expected a list of texts, as in rank(query, [passage])"
        )
    passages = list(passages)
    for name, text in (("query", query), *((f"passage {index}", text) for index, text in enumerate(passages))):
        if not isinstance(text, str):
            raise TypeError(f"{name} is a {type(text).__name__} ({str(text)[:40]}): expected a text")
    return passages


def _set_dropout(config, probability: float) -> None:
    for name in config.to_dict():
        if name.endswith(("dropout", "dropout_prob")) and isinstance(getattr(config, name), float | int):
            setattr(config, name, probability)


def _keep_layers(config, number: int, name: str) -> None:
    if number > config.num_hidden_layers:
        raise InputError(f"backbone.num_layers={number}: {name} has {config.num_hidden_layers} layers: lower it")
    config.num_hidden_layers = number
    if getattr(config, "layer_types", None):  # ModernBERT: which layers attend only within a window
        config.layer_types = config.layer_types[:number]
