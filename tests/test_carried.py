"""One directory for all: classifiers of transformers give a saved model's scores, or refuse to load it."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from distill.export.formats import export
from distill.models.carried import CONSTANT, EPSILON, HEADS, SHARE, carry, classifier_config
from distill.models.cross_encoder import CrossEncoder
from tests.helpers.backbones import make_backbone
from tests.helpers.models import PASSAGES, QUERY, make_model, scores_of

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def logits_of(directory, dtype=torch.float32) -> torch.Tensor:
    """The scores of AutoModelForSequenceClassification, padded together, as servers compute them."""
    theirs = AutoModelForSequenceClassification.from_pretrained(directory).eval().to(dtype)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer([QUERY] * len(PASSAGES), PASSAGES, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**encoded).logits
    assert logits.shape == (len(PASSAGES), 1)
    return logits[:, 0].float()


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert", "mpnet", "deberta-v2", "distilbert"])
def test_one_directory_opens_in_every_library_with_equal_scores(tmp_path, family):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    model = make_model(tmp_path / "backbone", family)
    expected = scores_of(model)
    model.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits_of(tmp_path / "model"), expected, rtol=1e-5, atol=1e-5)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "model"), device="cpu")
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling", "Dense"]  # the head counts once
    found = torch.from_numpy(theirs.predict([(QUERY, passage) for passage in PASSAGES]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores_of(CrossEncoder.from_pretrained(str(tmp_path / "model"))), expected)
    second_stage = CrossEncoder.from_backbone(str(tmp_path / "model"), query_length=8, passage_length=20)
    torch.testing.assert_close(scores_of(second_stage.eval()), expected)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_reads_either_state(tmp_path, pooling):
    model = make_model(tmp_path / "backbone", "modernbert", pooling)
    model.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits_of(tmp_path / "model"), scores_of(model), **TOLERANCE)
    again = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    torch.testing.assert_close(scores_of(again), scores_of(model))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["local_rope_theta"] == 10_000 and config["global_rope_theta"] == 160_000  # names of transformers 4


@pytest.mark.parametrize(("kind", "size"), [("bert", 384), ("electra", 384), ("modernbert", 768)])
@pytest.mark.parametrize(("dtype", "spread"), [("float32", 1e-4), ("bfloat16", 0.15), ("float16", 0.02)])
def test_a_head_of_usual_size_gives_scores_up_to_15_in_every_type(kind, size, dtype, spread):
    """Against float64: b + w·x of states as a last layer normalises them."""
    draw = torch.Generator().manual_seed(0)
    states = nn.functional.layer_norm(torch.randn(64, size, generator=draw), (size,))
    weight = torch.randn(1, size, generator=draw) * 0.2
    bias = torch.tensor([-0.7])
    exact = (states.double() @ weight.double().T)[:, 0] + bias
    assert 8 < exact.abs().max() < 15
    config = classifier_config(AutoConfig.for_model(kind, hidden_size=size))
    head = {name: tensor.to(getattr(torch, dtype)) for name, tensor in carry(config, weight, bias).items()}
    first, last, between = HEADS[kind]
    inner = nn.functional.linear(
        states.to(head[f"{first}.weight"].dtype), head[f"{first}.weight"], head[f"{first}.bias"]
    )
    units = torch.tanh(inner) if between == "tanh" else nn.functional.gelu(inner)
    if between == "norm":
        units = nn.functional.layer_norm(units, (size,), head["head.norm.weight"], eps=config.norm_eps)
    found = nn.functional.linear(units, head[f"{last}.weight"], head[f"{last}.bias"])[:, 0]
    assert (found.double() - exact).abs().max() < spread
    assert all(math.frexp(number)[0] == 0.5 for number in (EPSILON, SHARE, CONSTANT))  # powers of two round nothing


@pytest.mark.parametrize(
    ("family", "head"), [("bert", "mean"), ("roberta", "mean"), ("bert", "mlp"), ("modernbert", "mlp")]
)
def test_what_no_head_carries_is_refused_by_transformers_and_read_by_sentence_transformers(tmp_path, family, head):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    if head == "mean":
        model = make_model(tmp_path / "backbone", family, "mean")
    else:
        backbone = str(make_backbone(tmp_path / "backbone", family))
        model = CrossEncoder.from_backbone(backbone, query_length=8, passage_length=20, head="mlp").eval()
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    [architecture] = json.loads((tmp_path / "model" / "config.json").read_text())["architectures"]
    assert architecture.endswith("CrossEncoder")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "model"), device="cpu")
    found = torch.from_numpy(theirs.predict([(QUERY, passage) for passage in PASSAGES]))
    torch.testing.assert_close(found, scores_of(model), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores_of(CrossEncoder.from_pretrained(str(tmp_path / "model"))), scores_of(model))


def test_a_model_that_reads_first_stage_scores_is_no_classifier(tmp_path):
    make_backbone(tmp_path / "backbone", words=["a", *map(str, range(101))])
    model = CrossEncoder.from_backbone(
        str(tmp_path / "backbone"), query_length=8, passage_length=20, first_stage_score="min-max"
    )
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert CrossEncoder.from_pretrained(str(tmp_path / "model")).first_stage_score == "min-max"


def test_a_saved_model_is_saved_again_with_the_head_it_has_by_then(tmp_path):
    make_model(tmp_path / "backbone", "bert").save_pretrained(tmp_path / "first")
    model = CrossEncoder.from_pretrained(str(tmp_path / "first"))
    nn.init.normal_(model.head.weight)
    before = torch.get_rng_state()
    model.save_pretrained(tmp_path / "second")
    assert torch.get_rng_state().equal(before)  # a training that saves goes on as one that does not
    torch.testing.assert_close(logits_of(tmp_path / "second"), scores_of(model), rtol=1e-5, atol=1e-5)
    assert "bert.pooler.dense.weight" in load_file(tmp_path / "second" / "model.safetensors")
    checked = json.loads((tmp_path / "second" / "distill.json").read_text())["crc32"]
    assert {"model.safetensors", "config.json", "2_Dense/model.safetensors"} <= checked.keys()


def test_the_first_directories_still_open(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    model.backbone.save_pretrained(tmp_path / "model")  # a bare encoder, as before
    settings = json.loads((tmp_path / "model" / "distill.json").read_text())
    (tmp_path / "model" / "distill.json").write_text(json.dumps(settings | {"crc32": {}}))
    assert scores_of(CrossEncoder.from_pretrained(str(tmp_path / "model"))).equal(scores_of(model))


def test_the_tokenizer_is_the_same_in_both_versions_of_transformers_and_without_them(tmp_path):
    """Version 4 and tokenizer.json alone give token types unless they are told not to."""
    from tokenizers import Tokenizer

    for family, types in (("bert", 0), ("roberta", 0)):
        make_model(tmp_path / family, family).save_pretrained(tmp_path / f"{family}-model")
        config = json.loads((tmp_path / f"{family}-model" / "tokenizer_config.json").read_text())
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert config["model_input_names"] == ["input_ids", "attention_mask"] and "is_local" not in config
        plain = Tokenizer.from_file(str(tmp_path / f"{family}-model" / "tokenizer.json"))
        assert set(plain.encode(QUERY, PASSAGES[0]).type_ids) == {types}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.save_pretrained(tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "tokenizer_config.json").read_text())
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps(config | names))
    model = CrossEncoder.from_backbone(str(tmp_path / "bert"), query_length=8, passage_length=20).eval()
    model.save_pretrained(tmp_path / "typed")
    assert (
        json.loads((tmp_path / "typed" / "tokenizer_config.json").read_text())["model_input_names"]
        == names["model_input_names"]
    )
    plain = Tokenizer.from_file(str(tmp_path / "typed" / "tokenizer.json"))
    assert set(plain.encode(QUERY, PASSAGES[0]).type_ids) == {0, 1}
    torch.testing.assert_close(logits_of(tmp_path / "typed"), scores_of(model), rtol=1e-5, atol=1e-5)


def test_a_model_of_16_bits_keeps_its_head_in_float32(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")
    export(model, tmp_path / "out", "sentence-transformers", dtype="float16")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as weights:
        types = {name: weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118
    kept = {name for name, kind in types.items() if kind == torch.float32}
    assert kept == {f"{layer}.{part}" for layer in HEADS["bert"][:2] for part in ("weight", "bias")}
    found = scores_of(CrossEncoder.from_pretrained(str(tmp_path / "out")))
    torch.testing.assert_close(found, scores_of(model), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(logits_of(tmp_path / "out"), found, rtol=1e-5, atol=1e-5)
