"""Language models that score by the first token they would generate: monoT5, RankT5, Qwen3-Reranker and similar models.

    parts = open_generative(path, config, prompt=None)

A language model's logits are linear in its last state h. Each of these models is therefore a cross-encoder with one
linear layer, whose weights are rows of the output matrix; the rows of other tokens are never multiplied:

    monoT5           log softmax(false, true) of true = log sigmoid((w_true - w_false)·h)      Nogueira et al., 2020
    RankT5           w_<extra_id_10>·h                                                         Zhuang et al., 2023
    causal yes or no (w_yes - w_no)·h, the log-odds

Those of T5 are for scoring only; the causal ones are also trained (distill/models/causal.py).
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from distill.errors import InputError
from distill.models.causal import causal_head
from distill.models.decoders import decoder_template
from distill.models.json_files import COPY_AGAIN, read_count
from distill.models.model_files import read_modules
from distill.models.parts import Change, Parts, explained, load_tokenizer, load_whole, longest_input
from distill.models.prompts import (
    PROMPTS,
    T5_PROMPTS,
    check_seams,
    find_prompt,
    prompt_name,
    split_prompt,
    template_of_texts,
)
from distill.models.sizes import match_vocabulary, num_embeddings
from distill.models.text_options import longest_pair

T5_LENGTH = 512  # tokens of a pair, if the tokenizer sets no limit


def is_generative(architecture: str) -> bool:
    """Whether config.json names a model that generates text."""
    return architecture.endswith(("ForCausalLM", "ForConditionalGeneration"))


def open_generative(
    path: Path, config: dict, prompt: str | None, logit_score: dict | None = None, change: Change | None = None
) -> Parts:
    """Open a monoT5, a RankT5 or a causal language model.

    prompt: one of PROMPTS; None: take it from the directory's chat template or name.
    logit_score: configuration of sentence-transformers' LogitScore, which gives the tokens by id.
    change: of a causal model's configuration, before it is loaded.
    Raises InputError if the prompt is unknown, or if the scores would differ from those of the source library.
    """
    architecture = config["architectures"][0]
    if architecture.endswith("ForCausalLM"):
        return _open_causal(path, config, prompt, logit_score, change)
    if config.get("model_type") not in ("t5", "mt5"):
        raise InputError(f"{path}: is a {architecture}: T5 is the only encoder-decoder that can be loaded")
    return _open_t5(path, config, prompt)


class FirstDecoderState(nn.Module):
    """A T5 that returns only the decoder's first state, after the start token; the score is computed from it."""

    def __init__(self, model: nn.Module):
        """Take the encoder and decoder of a T5ForConditionalGeneration."""
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.start = model.config.decoder_start_token_id or 0
        self.config = SimpleNamespace(model_type="t5-reranker", hidden_size=model.config.d_model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Return last_hidden_state [P, 1, D]; input_ids, attention_mask: [P, L]."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        start = torch.full_like(input_ids[:, :1], self.start)
        return SimpleNamespace(
            last_hidden_state=self.decoder(
                input_ids=start, encoder_hidden_states=states, encoder_attention_mask=attention_mask, use_cache=False
            ).last_hidden_state
        )


def _open_t5(path: Path, config: dict, name: str | None) -> Parts:
    from transformers import AutoModelForSeq2SeqLM

    name = prompt_name(path, config, T5_PROMPTS, name)
    if name is None:
        raise InputError(f"{path}: is a T5, and no file names its training prompt: set prompt=monot5 or prompt=rankt5")
    tokenizer, prompt = load_tokenizer(path), PROMPTS[name]
    with explained(path):
        model = load_whole(AutoModelForSeq2SeqLM, path)
        match_vocabulary(path, tokenizer, num_embeddings(model))
    true, false = (_token_id(path, tokenizer, token) for token in (prompt.true, prompt.false))
    # transformers keeps the original scaling of tied embeddings in this field
    scale = model.config.d_model**-0.5 if model.config.scale_decoder_outputs else 1.0
    weight = scale * _score_weight(model, true, false)
    parts = Parts(FirstDecoderState(model), tokenizer, weight, weight.new_zeros(1))
    parts.activation = nn.LogSigmoid() if prompt.log_probability else nn.Identity()
    # A T5 tokenizer starts each text with a space token, so tokenising the texts separately gives the same tokens
    before, between, after = (text.strip() for text in split_prompt(prompt.text))
    parts.template = template_of_texts(tokenizer, before, between, after, [tokenizer.eos_token_id])
    check_seams(path, tokenizer, parts.template, prompt.text, [tokenizer.eos_token_id])
    longest = tokenizer.model_max_length
    parts.max_length = longest if longest < 10**6 else T5_LENGTH
    return parts


def _open_causal(path: Path, config: dict, name: str | None, logit_score: dict | None, change: Change | None) -> Parts:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path)
    given = find_prompt(path, config, tokenizer, name)
    if given is None:
        raise InputError(
            f"{path}: is a language model whose chat template has no query and document roles: set "
            "prompt=qwen3-reranker if it was trained with that prompt"
        )
    if logit_score is None:
        true, false = (_token_id(path, tokenizer, token) for token in (given.true, given.false))
    else:
        file = path / read_modules(path)[1]["path"] / "config.json"
        true = read_count(logit_score, "true_token_id", file, low=0)
        false = read_count(logit_score, "false_token_id", file, low=0, optional=True)
    with explained(path):
        model = load_whole(AutoModelForCausalLM, path, change)
    if max(true, false or 0) >= len(model.get_output_embeddings().weight):
        raise InputError(f"{path}: scores by the tokens {true} and {false}, but the model has fewer: {COPY_AGAIN}")
    weight = _score_weight(model, true, false)
    parts = Parts(model.base_model, tokenizer, weight, None, pooling="last")
    parts.causal = causal_head(model, true, false, given)
    parts.template = decoder_template(path, tokenizer, given)
    _check_linear(path, model, parts, true, false)
    longest = min(tokenizer.model_max_length, longest_input(model))
    parts.max_length = min(longest_pair(path) or longest, longest)
    return parts


def _token_id(path: Path, tokenizer, token: str | None) -> int | None:
    if token is None:
        return None
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise InputError(f"{path}: its tokenizer lacks the token {token}, which the score is computed from")
    return token_id


def _score_weight(model, true: int, false: int | None) -> Tensor:
    """Return the row [1, D] of the output matrix that gives the score: that of `true`, less that of `false`."""
    rows = model.get_output_embeddings().weight.detach()
    return rows[[true]] - rows[[false]] if false is not None else rows[[true]].clone()


@torch.no_grad()
def _check_linear(path: Path, model, parts: Parts, true: int, false: int | None) -> None:
    """Raise InputError if the logits are not the last state times a matrix: capped, scaled, or with a bias."""
    tokens = torch.from_numpy(np.concatenate([parts.template.prefix, parts.template.suffix])).long()[None]
    output = model.eval()(input_ids=tokens, output_hidden_states=True, use_cache=False)
    logits = output.logits[0, -1].float()
    expected = logits[true] - (logits[false] if false is not None else 0.0)
    score = parts.weight[0] @ parts.backbone(input_ids=tokens, use_cache=False).last_hidden_state[0, -1]
    if not torch.allclose(score, expected, rtol=1e-4, atol=1e-4):
        raise InputError(f"{path}: its logits are not linear in its last state: cannot be loaded exactly")
