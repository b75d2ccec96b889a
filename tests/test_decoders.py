"""Decoders that are trained: yes-or-no language models and classifiers, saved in their form, opened by their libraries."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from distill.data.lists import read_lists
from distill.data.pairs import PairTemplate, cut
from distill.errors import InputError
from distill.losses import LOSSES, ON_RANKS
from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.models.prompts import PROMPTS
from distill.models.starting import reader_of
from distill.training.backward import backward
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.batches import LENGTHS, SIZES, ragged_batch, random_batch
from tests.helpers.configuration import compose_config
from tests.helpers.language_models import CHAT, PAIRS, byte_level, sentence_piece, write
from tests.helpers.training import run_train

GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2}


def answers(directory: Path) -> Path:
    """A look-alike of Qwen3-Reranker: its prompt, known by its name; tied embeddings; keys shared by two heads."""
    write(directory / "Qwen3-Reranker-mini", AutoModelForCausalLM, byte_level(), "qwen3", **GROUPED)
    return directory / "Qwen3-Reranker-mini"


def modules(directory: Path) -> Path:
    """A Llama of sentence-transformers: its chat template, LogitScore, a sigmoid; an output matrix by itself."""
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    write(directory / "lm", AutoModelForCausalLM, tokenizer, "llama", tie_word_embeddings=False)
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.LogitScore"},
        ],
        "1_LogitScore/config.json": {"true_token_id": yes, "false_token_id": no},
        "config_sentence_transformers.json": {"prompts": {"web": "Find it."}, "default_prompt_name": "web"},
    }
    (directory / "lm" / "1_LogitScore").mkdir()
    for name, content in files.items():
        (directory / "lm" / name).write_text(json.dumps(content))
    return directory / "lm"


def classifier(directory: Path, family: str = "qwen3", num_labels: int = 1, **changes) -> Path:
    write(directory / "lm", AutoModelForSequenceClassification, byte_level(), family, num_labels=num_labels, **changes)
    return directory / "lm"


def two_labels(directory: Path) -> Path:
    """A Llama with two labels, whose chat template has the roles of a pair."""
    path = classifier(directory, "llama", 2)
    (path / "chat_template.jinja").write_text(CHAT)
    return path


def plain(directory: Path) -> Path:
    write(directory / "lm", AutoModelForCausalLM, byte_level(), "qwen3")
    return directory / "lm"


FORMS = {"answers": answers, "modules": modules, "classifier": classifier, "two-labels": two_labels, "plain": plain}


def of_sentence_transformers(directory: Path) -> np.ndarray:
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    return sentence_transformers.CrossEncoder(str(directory), device="cpu").predict(PAIRS)


def of_transformers(directory: Path, prompt: str | None) -> list[float]:
    """The scores that transformers gives, one pair at a time, in the prompt or as a pair."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    causal = config["architectures"][0].endswith("CausalLM")
    model = (AutoModelForCausalLM if causal else AutoModelForSequenceClassification).from_pretrained(directory).eval()
    assert causal or model.config.num_labels == 1
    scores = []
    for pair in PAIRS:
        texts = pair if prompt is None else [prompt.format(query=pair[0], passage=pair[1])]
        with torch.no_grad():
            logits = model(**tokenizer(*texts, return_tensors="pt")).logits[0]
        if causal:
            yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
            logits = logits[-1:, yes] - logits[-1:, no]
        scores.append(float(logits[0]))
    return scores


@pytest.mark.parametrize("form", FORMS)
def test_a_decoder_is_trained_saved_in_its_form_and_resumed_bit_for_bit(tmp_path, file_overrides, form):
    backbone = FORMS[form](tmp_path)
    overrides = [
        *(one for one in file_overrides if not one.startswith(("train.max_steps", "train.validate_every"))),
        *(f"backbone.name={backbone}", "train.validate_every=2", "optimizer.lr=1e-3", "task.run=null"),
    ]
    whole = run_train(tmp_path / "whole", *overrides, "train.max_steps=4")
    run_train(tmp_path / "part", *overrides, "train.max_steps=2")
    resumed = run_train(tmp_path / "part", *overrides, "train.max_steps=4", f"resume={tmp_path / 'part'}")
    assert {**resumed, "train/seconds": 0} == {**whole, "train/seconds": 0}
    states = [torch.load(tmp_path / run / "checkpoints" / "last.pt")["model"] for run in ("whole", "part")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    saved, started = tmp_path / "whole" / "model", CrossEncoder.from_backbone(str(backbone))
    assert not torch.equal(states[0]["head.weight"], started.head.weight) and "head.bias" not in states[0]
    model = CrossEncoder.from_pretrained(str(saved))
    assert (model.layout, model.query_length, model.passage_length) == ("packed", 8, 16)
    best = torch.load(tmp_path / "whole" / "checkpoints" / "best.pt")["model"]
    assert all(torch.equal(best[name], tensor) for name, tensor in model.state_dict().items())
    model.query_length = model.passage_length = 64  # as in the libraries, which cut only pairs
    scores = model.predict(PAIRS)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_allclose(of_sentence_transformers(saved), scores, rtol=0, atol=1e-4)
    if form == "modules":
        assert (
            isinstance(model.activation, nn.Sigmoid)
            and "prompts" in (saved / "config_sentence_transformers.json").read_text()
        )
        return
    prompt = {"answers": PROMPTS["qwen3-reranker"].text, "two-labels": rendered_chat()}.get(form)
    np.testing.assert_allclose(of_transformers(saved, prompt), scores, rtol=0, atol=1e-4)


def rendered_chat() -> str:
    return "<|im_start|>{{Query}}: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>\n\n"
