"""Decoders: what they read around a pair, and the head that transformers puts on them.

    prompt = prompt_of(path, config, tokenizer, name=None)      # None: the tokenizer joins the pair
    parts.template = decoder_template(path, tokenizer, prompt)
    put_score_layer(name, parts)                                # a new one, on the state of the last token

A decoder's tokens attend to earlier ones only, so its score is read from the last token's state.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.models.heads import NativeHead, one_label, without_memory
from distill.models.parts import Parts, evaluating
from distill.models.prompts import ScoringPrompt, find_prompt, prompt_template

log = logging.getLogger(__name__)

SCORE = "score"  # the layer of decoders of AutoModelForSequenceClassification


def prompt_of(path: Path, config: dict, tokenizer, name: str | None = None) -> ScoringPrompt | None:
    """Return the prompt that a directory's model reads, None for one that reads plain pairs, as encoders do.

    name: one of PROMPTS. Raises InputError if it is given for an encoder.
    """
    if not may_have_prompt(config):
        if name is not None:
            kind = config.get("model_type")
            raise InputError(f"{path}: prompt={name} is for language models, but this is a {kind}: leave it out")
        return None
    return find_prompt(path, config, tokenizer, name)


def may_have_prompt(config: dict) -> bool:
    """Whether config.json is that of a decoder, by the names of transformers."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind, architecture = str(config.get("model_type")), str((config.get("architectures") or [""])[0])
    generates = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return architecture.endswith("ForCausalLM") or generates


def decoder_template(path: Path, tokenizer, prompt: ScoringPrompt | None) -> PairTemplate:
    """Return the tokens around a pair: those of the prompt, or the tokenizer's own.

    The tokenizer gets a token for padding, and the chat template that writes the prompt, if it lacks them.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if prompt is not None:
        tokenizer.chat_template = prompt.chat_template or tokenizer.chat_template
        return prompt_template(path, tokenizer, prompt.text)
    template = PairTemplate.of(tokenizer)
    # transformers scores by the last token that is not the one for padding; later ones change nothing
    real = np.flatnonzero(template.suffix != tokenizer.pad_token_id)
    template.suffix = template.suffix[: real[-1] + 1 if len(real) else 0]
    return template


def take_template(parts: Parts, prompt: ScoringPrompt | None) -> None:
    """Let the chat template of a classifier write the whole prompt: its directory has no place for an instruction."""
    if prompt is not None and prompt.whole_template is not None:
        parts.tokenizer.chat_template = prompt.whole_template


@torch.no_grad()
def attends_backwards_only(backbone, tokenizer) -> bool:
    """Whether the first token's state is the same whatever follows: pooled by it, all pairs would score the same."""
    pairs = [tokenizer("a", text)["input_ids"] for text in ("a", "a a a")]
    with evaluating(backbone):
        first, second = (backbone(input_ids=torch.tensor([ids])).last_hidden_state[0, 0] for ids in pairs)
    return pairs[0] != pairs[1] and torch.allclose(first, second, rtol=1e-4, atol=1e-5)


def put_score_layer(name: str, parts: Parts) -> None:
    """Give a decoder the head of transformers, one linear layer on the last token's state, which is still to be drawn.

    Raises InputError for an architecture that has another head, or none.
    """
    native = score_layer(parts.backbone.config)
    if native is None:
        kind = parts.backbone.config.model_type
        raise InputError(f"{name}: is a {kind}, a decoder without a known head in transformers: use another backbone")
    parts.pooling, parts.native = "last", native
    if parts.template is not None and not len(parts.template.middle):
        log.warning(
            "%s: its tokenizer puts nothing between query and passage: a prompt does: model.prompt=qwen3-reranker",
            name,
        )


def score_layer(config) -> NativeHead | None:
    """Return the head that transformers puts on a decoder, None if it is not one linear layer."""
    whole = without_memory(one_label(config))
    return NativeHead(type(whole), {"head": SCORE}) if hasattr(whole, SCORE) else None
