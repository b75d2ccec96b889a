"""Language models that score by the first token they would generate: monoT5, RankT5, Qwen3-Reranker and similar models.

    parts = open_generative(path, config, prompt=None)       # for scoring only, not for training

A language model's logits are linear in its last state h. Each of these models is therefore a cross-encoder with one
linear layer, whose weights are rows of the output matrix; the rows of other tokens are never multiplied:

    monoT5           log softmax(false, true) of true = log sigmoid((w_true - w_false)·h)      Nogueira et al., 2020
    RankT5           w_<extra_id_10>·h                                                         Zhuang et al., 2023
    causal yes or no (w_yes - w_no)·h, the log-odds
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.models.chat_template import TemplateRefusal, render_chat
from distill.models.json_files import COPY_AGAIN, SENTENCE_TRANSFORMERS, read_count, read_object
from distill.models.model_files import read_modules
from distill.models.parts import Parts, explained, load_tokenizer, load_whole, longest_input
from distill.models.sizes import match_vocabulary, num_embeddings

if TYPE_CHECKING:
    pass

T5_PROMPTS = ("monot5", "rankt5")
T5_LENGTH = 512  # tokens of a pair, if the tokenizer sets no limit
PROBES = [("who is it?", "It is 5."), ("10 mm", '"quoted" words'), ("bees find home", "(bees) steer")]


@dataclass(frozen=True)
class ScoringPrompt:
    """The prompt of a language model, and the tokens whose logits make up its score."""

    text: str  # with {query} and {passage}
    true: str
    false: str | None  # None: the score is the logit of `true`
    log_probability: bool = False  # the score is the log-probability of `true` among the two, not the log-odds


PROMPTS = {
    "monot5": ScoringPrompt("Query: {query} Document: {passage} Relevant:", "▁true", "▁false", log_probability=True),
    "rankt5": ScoringPrompt("Query: {query} Document: {passage}", "<extra_id_10>", None),
    # From the model cards of Qwen/Qwen3-Reranker-*, whose probability is the sigmoid of these log-odds
    "qwen3-reranker": ScoringPrompt(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "yes",
        "no",
    ),
}


def is_generative(architecture: str) -> bool:
    """Whether config.json names a model that generates text."""
    return architecture.endswith(("ForCausalLM", "ForConditionalGeneration"))


def open_generative(path: Path, config: dict, prompt: str | None, logit_score: dict | None = None) -> Parts:
    """Open a monoT5, a RankT5 or a causal language model.

    prompt: one of PROMPTS; None: take it from the directory's chat template or name.
    logit_score: configuration of sentence-transformers' LogitScore, which gives the tokens by id.
    Raises InputError if the prompt is unknown, or if the scores would differ from those of the source library.
    """
    if prompt is not None and prompt not in PROMPTS:
        raise InputError(f"prompt={prompt} is unknown: choose one of {', '.join(PROMPTS)}")
    architecture = config["architectures"][0]
    if architecture.endswith("ForCausalLM"):
        return _open_causal(path, config, prompt, logit_score)
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

    name = name or _prompt_by_name(path, config, T5_PROMPTS)
    if name not in T5_PROMPTS:
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
    before, between, after = (text.strip() for text in _split(prompt.text))
    parts.template = _template(tokenizer, before, between, after, [tokenizer.eos_token_id])
    _check_seams(path, parts, prompt.text, [tokenizer.eos_token_id])
    longest = tokenizer.model_max_length
    parts.max_length = longest if longest < 10**6 else T5_LENGTH
    return parts


def _open_causal(path: Path, config: dict, name: str | None, logit_score: dict | None) -> Parts:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path)
    given = None if name else _chat_prompt(path, tokenizer)
    if given is None:
        name = name or _prompt_by_name(path, config, ("qwen3-reranker",))
        if name is None or name in T5_PROMPTS:
            raise InputError(
                f"{path}: is a language model whose chat template has no query and document roles: set "
                "prompt=qwen3-reranker if it was trained with that prompt"
            )
        given = PROMPTS[name]
    if logit_score is None:
        true, false = (_token_id(path, tokenizer, token) for token in (given.true, given.false))
    else:
        file = path / read_modules(path)[1]["path"] / "config.json"
        true = read_count(logit_score, "true_token_id", file, low=0)
        false = read_count(logit_score, "false_token_id", file, low=0, optional=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    with explained(path):
        model = load_whole(AutoModelForCausalLM, path)
    if max(true, false or 0) >= len(model.get_output_embeddings().weight):
        raise InputError(f"{path}: scores by the tokens {true} and {false}, but the model has fewer: {COPY_AGAIN}")
    weight = _score_weight(model, true, false)
    parts = Parts(model.base_model, tokenizer, weight, weight.new_zeros(1), pooling="last")
    before, between, after = _split(given.text)
    # Byte-level tokenizers merge a space with the following word, and a newline with the preceding punctuation
    query_start, passage_start = (text.removeprefix(text.rstrip(" ")) for text in (before, between))
    query_end, passage_end = (text.removesuffix(text.lstrip()) for text in (between, after))
    between = between.removeprefix(query_end).removesuffix(passage_start)
    parts.template = _template(tokenizer, before.rstrip(" "), between, after.lstrip(), [])
    parts.template.query_text = f"{query_start}{{}}{query_end}"
    parts.template.passage_text = f"{passage_start}{{}}{passage_end}"
    _check_seams(path, parts, given.text, [])
    _check_linear(path, model, parts, true, false)
    parts.max_length = min(tokenizer.model_max_length, longest_input(model))
    return parts


def _prompt_by_name(path: Path, config: dict, choices: tuple[str, ...]) -> str | None:
    """Return the prompt whose name is part of the directory's, the Hub's or the configuration's model name."""
    names = [path.name, str(config.get("_name_or_path", ""))]
    if path.parent.name == "snapshots":  # in the Hub's cache: models--OWNER--NAME/snapshots/COMMIT
        names.append(path.parent.parent.name)
    return next((choice for choice in choices for name in names if choice in name.lower()), None)


def _chat_prompt(path: Path, tokenizer) -> ScoringPrompt | None:
    """Return the prompt of a chat template with the roles query and document, as sentence-transformers writes them."""
    if not tokenizer.chat_template:
        return None
    marks = "Query7Mark", "Passage7Mark"
    messages = [{"role": role, "content": mark} for role, mark in zip(("query", "document"), marks, strict=True)]
    try:
        text = render_chat(tokenizer, _with_instruction(path, messages), path)
    except TemplateRefusal:  # of a role that it does not know
        return None
    if [text.count(mark) for mark in marks] != [1, 1] or text.index(marks[0]) > text.index(marks[1]):
        return None
    text = text.replace("{", "{{").replace("}", "}}")
    return ScoringPrompt(text.replace(marks[0], "{query}").replace(marks[1], "{passage}"), "yes", "no")


def _with_instruction(path: Path, messages: list[dict]) -> list[dict]:
    """Prepend the default prompt of a sentence-transformers directory to the messages."""
    file = path / "config_sentence_transformers.json"
    config = read_object(file, SENTENCE_TRANSFORMERS) if file.is_file() else {}
    instruction = (config.get("prompts") or {}).get(config.get("default_prompt_name"))
    if instruction is not None and not isinstance(instruction, str):
        raise InputError(f"{file}: prompts holds {str(instruction)[:40]}: must be texts: {COPY_AGAIN}")
    return ([{"role": "system", "content": instruction}] if instruction else []) + messages


def _split(text: str) -> tuple[str, str, str]:
    """Return the text before the query, between query and passage, and after the passage."""
    before, rest = text.split("{query}")
    texts = before, *rest.split("{passage}")
    return tuple(text.replace("{{", "{").replace("}}", "}") for text in texts)


def _template(tokenizer, before: str, between: str, after: str, end: list[int]) -> PairTemplate:
    prefix, separator, suffix = (_ids(tokenizer, text) for text in (before, between, after))
    tokens = (np.asarray(ids, dtype=np.int32) for ids in (prefix, separator, suffix + end))
    return PairTemplate(*tokens, second_type=0)


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def _check_seams(path: Path, parts: Parts, text: str, end: list[int]) -> None:
    """Raise InputError if tokenising query and passage separately does not give the tokens of the whole prompt."""
    for query, passage in PROBES:
        whole = _ids(parts.tokenizer, text.format(query=query, passage=passage)) + end
        tokens = [np.asarray(_ids(parts.tokenizer, form)) for form in parts.template.texts(query, passage)]
        if parts.template.join(*tokens)[0].tolist() != whole:
            raise InputError(
                f"{path}: its tokenizer merges words of the prompt with the texts: cannot be loaded exactly"
            )


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
