"""Models of AutoModelForSequenceClassification, with one label or two, opened with scores equal to their own.

    parts = open_classifier(path, "BertForSequenceClassification", config)

The score is the last layer's output. With two labels it is the second label's log-probability, log softmax(z)_1 =
log sigmoid(z_1 - z_0): one linear layer, whose row is the second label's minus the first's.

Whether a head was understood is not assumed: a few tokens are scored by the whole model first, and by the parts then. A
model whose scores would differ is refused.
"""

from pathlib import Path

import torch
from torch import nn

from distill.errors import InputError
from distill.models.decoders import SCORE, decoder_template, prompt_of, take_template
from distill.models.heads import NativeHead, native_head, one_score, take_pooler
from distill.models.modules import activation_of_model
from distill.models.parts import Change, Parts, check_attention, explained, load_tokenizer, load_whole
from distill.models.text_options import check_default_prompt

TOKENS = 11  # that are scored twice
TOLERANCE = 1e-4  # relative, and a tenth of it absolute: both come from the same weights in float32


def open_classifier(
    path: Path, architecture: str, config: dict, prompt: str | None = None, change: Change | None = None
) -> Parts:
    """Open a directory of AutoModelForSequenceClassification; raises InputError if it cannot be scored exactly.

    config: its config.json. prompt: of a decoder, one of PROMPTS; None: the one that its directory names, if any.
    change: of its configuration, before it is loaded.
    """
    from transformers import AutoModelForSequenceClassification

    with explained(path):
        model = load_whole(AutoModelForSequenceClassification, path, change).eval()
        check_attention(path, model.config)
        if isinstance(getattr(model, "score", None), nn.Linear):  # Qwen, Llama and other decoders
            parts, linear = _open_decoder(path, model, config, prompt), model.score
        else:
            parts, linear = _open_encoder(path, architecture, model)
    if linear.out_features == 2:
        parts.activation = nn.LogSigmoid()
    elif (activation := activation_of_model(path)) is not None:
        parts.activation = activation
    return parts


def _open_decoder(path: Path, model, config: dict, prompt: str | None) -> Parts:
    tokenizer = load_tokenizer(path)
    weight, bias = one_score(path, model.score)
    parts = Parts(model.base_model, tokenizer, weight, bias if model.score.bias is not None else None, "last")
    parts.native = NativeHead(type(model), {"head": SCORE})
    given = prompt_of(path, config, tokenizer, prompt)
    if given is None:
        check_default_prompt(path)
    parts.template = decoder_template(path, tokenizer, given)
    take_template(parts, given)
    return parts


def _open_encoder(path: Path, architecture: str, model) -> tuple[Parts, nn.Linear]:
    if model.config.is_encoder_decoder:
        raise InputError(f"{path}: the head of {architecture} is not supported: cannot be loaded")
    tokens = torch.arange(1, TOKENS + 1)[None] % len(model.get_input_embeddings().weight)  # [1, L]
    with torch.no_grad():
        expected = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.double()[0]  # [labels]
    native, projection, linear, pooling = native_head(model, path)
    weight, bias = one_score(path, linear)
    parts = Parts(model.base_model, load_tokenizer(path), weight, bias, pooling, projection)
    parts.native = native
    take_pooler(parts.backbone)
    with torch.no_grad():
        states = parts.backbone(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0]
        pooled = states[0] if pooling == "cls" else states.mean(dim=0)
        logit = (weight[0] @ projection.eval()(pooled[None])[0] + bias[0]).double()
    score = expected[-1] - (expected[0] if len(expected) == 2 else 0.0)
    if not torch.allclose(logit, score, rtol=TOLERANCE, atol=0.1 * TOLERANCE):
        raise InputError(f"{path}: the head of {architecture} is not known here: cannot be loaded")
    return parts, linear
