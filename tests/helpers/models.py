"""Tiny cross-encoders of ours and of transformers, and pairs to score with them."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from distill.models.cross_encoder import CrossEncoder
from tests.helpers.backbones import WORDS, make_backbone

QUERY = " ".join(WORDS[:3])
PASSAGES = [" ".join(WORDS[start : start + size]) for start, size in ((0, 4), (2, 9), (5, 1), (1, 12))]


def make_model(directory, family: str, pooling: str = "cls") -> CrossEncoder:
    make_backbone(directory, family)
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(directory), pooling, query_length=8, passage_length=20).eval()
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    return model


def scores_of(model: CrossEncoder) -> torch.Tensor:
    return torch.tensor([model.rank(QUERY, [passage])[1][0] for passage in PASSAGES])


def make_classifier(directory, family: str, num_labels: int):
    """Write a model of AutoModelForSequenceClassification over the test's tokenizer."""
    make_backbone(directory, family)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = AutoConfig.from_pretrained(directory)
    config.num_labels = num_labels
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(directory)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(directory)
    return model, tokenizer


def without_checksums(directory: Path) -> Path:
    """Take the checksums out of a saved model's directory, as if an earlier version had saved it."""
    settings = json.loads((directory / "distill.json").read_text())
    settings.pop("crc32", None)
    (directory / "distill.json").write_text(json.dumps(settings))
    return directory
