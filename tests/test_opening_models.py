"""Cross-encoders of other libraries: the same scores as theirs, and refusals of what cannot be read exactly."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoTokenizer

from distill.data.pairs import longest_first
from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.models import make_classifier, without_checksums

FAMILIES = ["bert", "electra", "roberta", "modernbert", "deberta-v2", "distilbert", "xlm-roberta"]
LONG = " ".join(WORDS[place % len(WORDS)] for place in range(100))
PAIRS = [
    *((" ".join(WORDS[:3]), " ".join(WORDS[start : start + size])) for start, size in ((0, 4), (2, 9), (5, 1))),
    (WORDS[0], LONG),  # the passage is cut
    (LONG, WORDS[1]),  # the query is cut
    (LONG, LONG),  # both are
]


def scores_of(directory, layout: str = "auto") -> torch.Tensor:
    model = CrossEncoder.from_pretrained(str(directory), layout=layout)
    return torch.tensor([model.rank(query, [passage])[1][0] for query, passage in PAIRS])


@pytest.mark.parametrize("num_labels", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_transformers_gives_its_own_scores(tmp_path, family, num_labels):
    theirs, tokenizer = make_classifier(tmp_path, family, num_labels)
    expected = []
    for query, passage in PAIRS:
        encoded = tokenizer(query, passage, truncation=True, max_length=40, return_tensors="pt")
        with torch.no_grad():
            logits = theirs(**encoded).logits[0]
        expected.append(logits[0] if num_labels == 1 else logits.log_softmax(0)[1])
    for layout in ("auto", "padded"):
        torch.testing.assert_close(scores_of(tmp_path, layout), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["default", "Identity", "Sigmoid"])
def test_a_classic_directory_of_sentence_transformers_keeps_its_activation(tmp_path, activation):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    make_classifier(tmp_path / "hf", "bert", 1)
    chosen = None if activation == "default" else getattr(nn, activation)()
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "hf"), activation_fn=chosen, device="cpu")
    theirs.save_pretrained(str(tmp_path / "st"))
    expected = torch.from_numpy(theirs.predict(PAIRS))
    torch.testing.assert_close(scores_of(tmp_path / "st"), expected, rtol=1e-5, atol=1e-5)
    # As versions before 4 wrote it
    (tmp_path / "st" / "modules.json").unlink()
    (tmp_path / "st" / "config_sentence_transformers.json").unlink()
    config = json.loads((tmp_path / "st" / "config.json").read_text())
    config.pop("sentence_transformers", None)
    config["sbert_ce_default_activation_function"] = f"torch.nn.modules.linear.{activation}"
    if activation != "default":
        (tmp_path / "st" / "config.json").write_text(json.dumps(config))
        torch.testing.assert_close(scores_of(tmp_path / "st"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_modular_directory_of_sentence_transformers_with_more_layers(tmp_path, pooling):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(make_backbone(tmp_path / "bert")))
    inner = Dense(16, 8, activation_function=nn.GELU())
    last = Dense(8, 1, activation_function=nn.Identity(), module_output_name="scores")
    theirs = sentence_transformers.CrossEncoder(
        modules=[transformer, Pooling(16, pooling_mode=pooling), inner, last], device="cpu"
    )
    theirs.save_pretrained(str(tmp_path / "st"))
    expected = torch.from_numpy(theirs.predict(PAIRS))
    torch.testing.assert_close(scores_of(tmp_path / "st"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_checkpoint_of_lightning_ir_gives_the_scores_that_it_gave_there(shared, layout):
    folder = shared / "interop" / "lir_tiny_checkpoint"
    pairs = json.loads((folder / "scores.json").read_text())["pairs"]
    model = CrossEncoder.from_pretrained(str(folder), layout=layout)
    for pair in pairs:
        (score,) = model.rank(pair["query"], [pair["passage"]])[1]
        assert score == pytest.approx(pair["score"], abs=1e-5)


def make_lightning_ir(directory, **changes):
    """Write what lightning-ir writes for a mono cross-encoder, and return the weights of its linear layer."""
    make_backbone(directory)
    names = AutoTokenizer.from_pretrained(directory).model_input_names
    weights = load_file(directory / "model.safetensors")
    bias, scoring = changes.get("linear_bias", False), changes.get("scoring_strategy", "rank")
    size = 2 if scoring == "mono" else 1
    torch.manual_seed(1)
    head = {"linear.weight": torch.randn(size, 16)} | ({"linear.bias": torch.randn(size)} if bias else {})
    prefix = changes.pop("prefix", "")
    save_file({prefix + key: tensor for key, tensor in weights.items()} | head, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    config |= {"backbone_model_type": "bert", "model_type": "mono", "query_length": 8, "doc_length": 20} | changes
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["MonoBertModel"]}))
    change_json(directory / "tokenizer_config.json", tokenizer_class="CrossEncoderTokenizer", model_input_names=names)
    return head


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"linear_bias": True},
        {"pooling_strategy": "mean"},
        {"scoring_strategy": "mono", "linear_bias": True},
        {"model_type": "cross-encoder", "prefix": "bert."},
        {"doc_length": None},
    ],
    ids=str,
)
def test_options_of_lightning_ir(tmp_path, changes):
    head = make_lightning_ir(tmp_path / "lir", **changes)
    model = CrossEncoder.from_pretrained(str(tmp_path / "lir"))
    make_backbone(tmp_path / "plain")
    pooling = {"mean": "mean"}.get(changes.get("pooling_strategy"), "cls")
    length = changes.get("doc_length", 20) or 64 - 8 - 3
    plain = CrossEncoder.from_backbone(str(tmp_path / "plain"), pooling, 8, length).eval()
    for query, passage in PAIRS[: 4 if changes.get("doc_length", 20) else 3]:  # lightning-ir fails on longer ones
        logits = []
        for row, weight in enumerate(head["linear.weight"]):
            plain.head.weight.data[0] = weight
            plain.head.bias.data[0] = head["linear.bias"][row] if "linear.bias" in head else 0.0
            logits.append(plain.rank(query, [passage])[1][0])
        expected = torch.tensor(logits).log_softmax(0)[1] if len(logits) == 2 else torch.tensor(logits[0])
        assert model.rank(query, [passage])[1][0] == pytest.approx(expected.item(), abs=1e-5)


def change_json(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickle_alone(path):
    make_classifier(path, "bert", 1)
    weights = load_file(path / "model.safetensors")
    torch.save(weights, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def remote_code(path):
    make_classifier(path, "bert", 1)
    (path / "modeling.py").write_text("raise SystemExit('was run')")
    change_json(path / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling.Model"})


def wrong_head(path):
    make_classifier(path, "bert", 1)
    change_json(path / "config.json", id2label={str(n): str(n) for n in range(2)}, label2id={"0": 0, "1": 1})


def missing_tensors(path):
    make_classifier(path, "bert", 1)
    weights = load_file(path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("classifier")}, path / "model.safetensors")


def two_configurations(path):
    make_lightning_ir(path)
    two = path.with_name("two")
    two_heads(two)
    shutil.copy(two / "modules.json", path / "modules.json")


def two_heads(path):
    backbone = str(make_backbone(path.with_name("b")))
    CrossEncoder.from_backbone(backbone, query_length=8, passage_length=20).save_pretrained(path)
    without_checksums(path)
    weights = load_file(path / "model.safetensors")
    weights["classifier.weight"][0, 0] *= 2
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def strange_activation(path):
    make_classifier(path, "bert", 1)
    change_json(path / "config.json", sentence_transformers={"activation_fn": "os.system"})


def no_linear_layer(path):
    make_lightning_ir(path)
    weights = load_file(path / "model.safetensors")
    weights.pop("linear.weight")
    save_file(weights, path / "model.safetensors")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pickle_alone, "has no safetensors weights, and pickles are never opened"),
        (remote_code, "asks for custom code (auto_map)"),
        (wrong_head, "cannot be loaded"),
        (missing_tensors, "lacks 2 of its weights (classifier."),
        (two_configurations, "config.json is from lightning-ir (mono), but modules.json is from sentence-transformers"),
        (two_heads, "config.json names one head (BertForSequenceClassification), and modules.json another"),
        (strange_activation, "has the activation os.system"),
        (no_linear_layer, "has no linear.weight"),
        (lambda path: make_classifier(path, "bert", 3), "its head returns 3 scores"),
        (lambda path: make_lightning_ir(path, model_type="set-encoder"), "is a set-encoder of lightning-ir"),
        (lambda path: make_lightning_ir(path, pooling_strategy="max"), "pooling_strategy=max"),
        (lambda path: make_lightning_ir(path, use_adapter=True), "use_adapter=True cannot be loaded"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_read_exactly_is_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "model")
    with pytest.raises(InputError) as caught:
        CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "model") in str(caught.value)


def make_modules(path):
    """Write a model of ours."""
    torch.manual_seed(0)
    backbone = str(make_backbone(path.with_name("b")))
    CrossEncoder.from_backbone(backbone, query_length=8, passage_length=20).save_pretrained(path)
    without_checksums(path)


@pytest.mark.parametrize("value", [0, -1, "32", True, 8.0, 10**12, None, [8], float("nan")])
@pytest.mark.parametrize("key", ["query_length", "passage_length"])
def test_lengths_that_are_no_whole_numbers_are_refused_with_their_file(tmp_path, key, value):
    make_modules(tmp_path / "model")
    file = tmp_path / "model" / "distill.json"
    change_json(file, **{key: value})
    with pytest.raises(InputError) as caught:
        CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert str(caught.value) == (
        f"{file}: {key}={json.dumps(value)}: must be a whole number from 1 to 2147483647: copy the file again from "
        "where the model was saved"
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("distill.json", {"max_length": 0}, "distill.json: max_length=0: must be a whole number from 1"),
        ("distill.json", {"max_length": 3}, "pairs of 3 tokens have no room for text beside 3 special tokens"),
        (
            "1_Pooling/config.json",
            {"embedding_dimension": -3},
            "1_Pooling/config.json: embedding_dimension=-3: must be a",
        ),
        (
            "1_Pooling/config.json",
            {"embedding_dimension": 8},
            "embedding_dimension=8, but the encoder's states have 16",
        ),
        (
            "2_Dense/config.json",
            {"in_features": 0},
            "2_Dense/config.json: in_features=0: must be a whole number from 1",
        ),
        (
            "2_Dense/config.json",
            {"in_features": 2**31 - 1},
            "has the shape (1, 16), but its configuration asks for (1, 2",
        ),
        ("2_Dense/config.json", {"out_features": "1"}, '2_Dense/config.json: out_features="1": must be a whole number'),
        ("tokenizer_config.json", {"model_max_length": 0}, "model_max_length=0: must be a whole number from 1"),
        ("tokenizer_config.json", {"model_max_length": -1}, "model_max_length=-1: must be a whole number from 1"),
    ],
)
def test_absurd_numbers_in_a_models_small_files_are_refused(tmp_path, name, changes, message):
    make_modules(tmp_path / "model")
    change_json(tmp_path / "model" / name, **changes)
    with pytest.raises(InputError) as caught:
        CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -5, "40", 1e9])
def test_an_absurd_max_seq_length_is_refused(tmp_path, value):
    make_classifier(tmp_path / "model", "bert", 1)
    file = tmp_path / "model" / "sentence_bert_config.json"
    file.write_text(json.dumps({"max_seq_length": value}))
    with pytest.raises(InputError, match="sentence_bert_config.json: max_seq_length=.*: must be a whole number from 1"):
        CrossEncoder.from_pretrained(str(tmp_path / "model"))
    file.write_text(json.dumps({"max_seq_length": None}))
    assert CrossEncoder.from_pretrained(str(tmp_path / "model")).max_length == 40


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("distill.json", "[8, 20]", "distill.json: holds a list: expected a JSON object"),
        ("config.json", '"bert"', "config.json: holds a str: expected a JSON object"),
        ("1_Pooling/config.json", "3", "config.json: holds a int: expected a JSON object"),
        ("modules.json", "{}", "modules.json must be a list of objects with a type and a path in this directory"),
        ("modules.json", '[{"type": "Transformer", "path": "../.."}]', "modules.json must be a list of objects"),
    ],
)
def test_files_of_another_kind_of_json_are_refused(tmp_path, name, text, message):
    make_modules(tmp_path / "model")
    (tmp_path / "model" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        CrossEncoder.from_pretrained(str(tmp_path / "model"))


def test_a_tokenizers_length_may_be_a_float_and_without_limit(tmp_path):
    make_classifier(tmp_path / "model", "bert", 1)
    change_json(tmp_path / "model" / "tokenizer_config.json", model_max_length=40.0)
    assert CrossEncoder.from_pretrained(str(tmp_path / "model")).max_length == 40
    change_json(tmp_path / "model" / "tokenizer_config.json", model_max_length=1e30)
    assert CrossEncoder.from_pretrained(str(tmp_path / "model")).max_length == 64  # of the encoder's positions


@given(one=st.integers(0, 30), other=st.integers(0, 30), limit=st.integers(1, 40))
def test_pairs_are_cut_as_tokenizers_cut_them(one, other, limit):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(limit)
    ids = tokenizer.encode(" ".join("a" * one), " ".join("b" * other)).ids
    assert longest_first(one, other, limit) == (ids.count(0), ids.count(1))
