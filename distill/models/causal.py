"""Causal language models that are trained to score, saved as what they were: two rows of the output matrix.

    for name, content in causal_files(model): ...       # of sentence-transformers, by their places
    write_causal(model, directory)                      # weights and config.json, as transformers has them

The score is (w_yes - w_no)·h of the last state h (distill/models/generative.py). It is trained as one linear layer, and
saved as the row of `yes`; the row of `no` becomes 0, so that their difference is exact in every precision. An output
matrix that was the same as the embeddings is then a matrix by itself: the words yes and no are still read as they were.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.models.heads import class_name
from distill.models.prompts import ScoringPrompt

MODULES = [  # sentence-transformers reads these names and classes
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
]

LOGITS = {"method": "forward", "method_output_name": "logits"}


@dataclass(frozen=True)
class CausalHead:
    """What a causal language model's score is made of, beside its last state."""

    architecture: type  # the class of the whole model
    true: int  # the token whose row of the output matrix is added
    false: int | None  # that whose row is subtracted; None: none is
    output: Tensor | None  # [V, D] the output matrix; None: it is that of the embeddings
    prompt: ScoringPrompt


def causal_head(model, true: int, false: int | None, prompt: ScoringPrompt) -> CausalHead:
    """Return the head of a model of AutoModelForCausalLM."""
    output = model.get_output_embeddings().weight
    tied = output is model.get_input_embeddings().weight
    return CausalHead(type(model), true, false, None if tied else output.detach(), prompt)


@torch.no_grad()
def write_causal(model, directory: Path) -> None:
    """Write weights and config.json of a CrossEncoder with such a head; the tokenizer gets the chat template."""
    head, config = model.causal, type(model.backbone.config).from_dict(model.backbone.config.to_dict())
    own = model.backbone.get_input_embeddings().weight if head.output is None else head.output
    matrix, weight = own.detach().cpu(), model.head.weight[0].detach().cpu()
    if not torch.equal(matrix[head.true] - (matrix[head.false] if head.false is not None else 0.0), weight):
        config.tie_word_embeddings = False
        matrix = matrix.clone()
        matrix[head.true] = weight
        if head.false is not None:
            matrix[head.false] = 0.0
    with torch.device("meta"):
        whole = head.architecture(config)
    state = {f"{whole.base_model_prefix}.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
    last = whole.get_output_embeddings()
    place = next(name for name, module in whole.named_modules() if module is last)
    state |= {f"{place}.{name}": torch.zeros(tensor.shape) for name, tensor in last.state_dict().items()}
    state[f"{place}.weight"] = matrix
    whole.load_state_dict({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, assign=True)
    whole.save_pretrained(directory)


def causal_files(model) -> dict[str, Any]:
    """Return the JSON files that sentence-transformers reads beside those of transformers."""
    prompt = model.causal.prompt
    return {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(MODULES)
        ],
        "config_sentence_transformers.json": {
            "activation_fn": class_name(model.activation),
            "model_type": "CrossEncoder",
            "prompts": prompt.instructions.get("prompts", {}),
            "default_prompt_name": prompt.instructions.get("default_prompt_name"),
        },
        "sentence_bert_config.json": {
            "transformer_task": "text-generation",
            "modality_config": {"text": LOGITS, "message": LOGITS | {"format": "flat"}},  # the chat template
            "module_output_name": "causal_logits",
        },
        "1_LogitScore/config.json": {
            "true_token_id": model.causal.true,
            "false_token_id": model.causal.false,
            "module_input_name": "causal_logits",
        },
    }
