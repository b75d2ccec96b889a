"""Presets of backbones: their names and rates, and look-alikes that are loaded, trained and saved with their heads."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from distill.models.cross_encoder import CrossEncoder
from distill.models.starting import start_options
from distill.training.optim import make_optimizer
from tests.helpers.backbones import make_backbone
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT
from tests.test_heads import OPTIMIZER, make, ours, step, theirs

NAMES = {
    "ettin-400m": "jhu-clsp/ettin-encoder-400m",
    "ettin-1b": "jhu-clsp/ettin-encoder-1b",
    "mmbert-base": "jhu-clsp/mmBERT-base",
    "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
    "gte-modernbert-base": "Alibaba-NLP/gte-modernbert-base",
    "gte-reranker-modernbert": "Alibaba-NLP/gte-reranker-modernbert-base",
    "bge-reranker-v2-m3": "BAAI/bge-reranker-v2-m3",
    "ms-marco-minilm-l6": "cross-encoder/ms-marco-MiniLM-L6-v2",
    "ms-marco-minilm-l12": "cross-encoder/ms-marco-MiniLM-L12-v2",
} | {
    f"ettin-reranker-{size}": f"cross-encoder/ettin-reranker-{size}-v1"
    for size in ("17m", "32m", "68m", "150m", "400m", "1b")
}
ALIKE = [  # one preset of each set of classes, and the form of its look-alike
    ("mmbert-base", "encoder"),
    ("gte-modernbert-base", "bi-encoder"),
    ("gte-reranker-modernbert", "modernbert"),
    ("bge-reranker-v2-m3", "xlm-roberta"),
    ("ms-marco-minilm-l6", "classic"),
    ("ettin-reranker-150m", "ettin"),
]


def test_every_preset_has_its_name_and_learning_rate():  # that each composes is in tests/test_config.py
    usual, rates = OmegaConf.load(ROOT / "conf" / "backbone" / "hf.yaml").lr, {}
    for name, place in NAMES.items():
        preset = OmegaConf.load(ROOT / "conf" / "backbone" / f"{name}.yaml")
        assert preset.name == place
        rates[name] = preset.get("lr", usual)
    assert rates["ettin-400m"] == rates["ettin-reranker-400m"] == 7e-6  # as its re-ranker was trained
    assert rates["ettin-1b"] == rates["ettin-reranker-1b"] == 3e-6
    assert rates["bge-reranker-v2-m3"] == 5e-6 and rates["ms-marco-minilm-l6"] == rates["ms-marco-minilm-l12"] == 7e-6


@pytest.mark.parametrize(("name", "form"), ALIKE)
def test_a_look_alike_of_a_preset_is_loaded_trained_and_saved(tmp_path, name, form):
    path, saved = tmp_path / "published", tmp_path / "saved"
    if form in ("encoder", "bi-encoder"):
        make_backbone(path, "modernbert")
    else:
        make(form, path)
    if form == "bi-encoder":
        modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
        (path / "modules.json").write_text(json.dumps(modules))
    if form == "modernbert":  # the published one reads the mean
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"classifier_pooling": "mean"}))
    overrides = [f"backbone={name}", f"backbone.name={path}", "model.query_length=8", "model.passage_length=20"]
    cfg = compose_config("train", *overrides)
    assert cfg.model.head == "auto" and cfg.optimizer.lr == cfg.backbone.lr
    model = CrossEncoder.from_backbone(cfg.backbone.name, **start_options(cfg)).train()
    assert model.is_plain == (form in ("encoder", "bi-encoder"))
    if not model.is_plain:
        torch.testing.assert_close(ours(model), theirs(form, path), rtol=1e-5, atol=1e-5)
    assert all(step(model, make_optimizer(model, OPTIMIZER)).values())
    model.save_pretrained(saved)
    torch.testing.assert_close(theirs("modular" if model.is_plain else form, saved), ours(model), rtol=1e-5, atol=1e-5)
