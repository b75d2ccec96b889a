"""Models written for other libraries: read back by them, and by us, with the same scores."""

import json
import os
import subprocess

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

from distill.errors import InputError
from distill.export.formats import FORMATS, export
from distill.export.vocabulary import write_vocabulary
from distill.models.calibration import Platt
from distill.models.cross_encoder import CrossEncoder
from distill.models.interpolation import Interpolation
from tests.helpers import commands
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.models import PASSAGES, QUERY, make_model, scores_of
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", ["bert", "electra", "roberta", "modernbert", "deberta-v2"])
def test_what_lightning_ir_gets_is_what_is_read_from_it(tmp_path, family, pooling):
    model = make_model(tmp_path / "backbone", family, pooling)
    export(model, tmp_path / "out", "lightning-ir")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["backbone_model_type"], config["doc_length"]) == ("mono", family, 20)
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    assert (again.query_length, again.passage_length, again.pooling) == (8, 20, pooling)
    torch.testing.assert_close(scores_of(again), scores_of(model), rtol=1e-5, atol=1e-5)


LIGHTNING_IR = """
import sys, torch
from lightning_ir import CrossEncoderModule
module = CrossEncoderModule(model_name_or_path=sys.argv[1]).eval()
with torch.no_grad():
    print(*module.score(sys.argv[2], sys.argv[3:]).scores.view(-1).tolist())
"""


@pytest.mark.skipif("LIGHTNING_IR_PYTHON" not in os.environ, reason="LIGHTNING_IR_PYTHON names no interpreter with it")
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_lightning_ir_itself_gives_the_models_scores(tmp_path, family):
    model = make_model(tmp_path / "backbone", family)
    export(model, tmp_path / "out", "lightning-ir")
    command = [os.environ["LIGHTNING_IR_PYTHON"], "-c", LIGHTNING_IR, str(tmp_path / "out"), QUERY, *PASSAGES]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = torch.tensor([float(score) for score in run.stdout.split("\n")[-2].split()])
    torch.testing.assert_close(found, scores_of(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_a_classifier_of_transformers_gives_the_models_scores(tmp_path, family):
    model = make_model(tmp_path / "backbone", family)
    export(model, tmp_path / "out", "transformers")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    encoded = tokenizer([QUERY] * len(PASSAGES), PASSAGES, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**encoded).logits
    assert logits.shape == (len(PASSAGES), 1)
    torch.testing.assert_close(logits[:, 0], scores_of(model), rtol=1e-4, atol=1e-4)
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    torch.testing.assert_close(scores_of(again), scores_of(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["linear", "native"])
def test_importers_of_classifiers_find_a_vocabulary_in_words(tmp_path, head):
    """eland, which imports into Elasticsearch, reads tokenizers without tokenizer.json (use_fast=False)."""
    model = CrossEncoder.from_backbone(str(ROOT / "sample" / "backbone"), passage_length=64, head=head).eval()
    export(model, tmp_path / "out", "transformers")
    words = (tmp_path / "out" / "vocab.txt").read_text().splitlines()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert {word: number for number, word in enumerate(words)} == tokenizer.get_vocab()
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"
    assert tokenizer(QUERY)["input_ids"] == model.tokenizer(QUERY)["input_ids"]
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    torch.testing.assert_close(scores_of(again), scores_of(model), rtol=1e-4, atol=1e-4)


def test_the_vocabulary_of_a_byte_level_tokenizer_has_merges_and_that_of_other_kinds_is_left_out(tmp_path):
    for merges in ([["a", "b"]], ["a b"]):
        model = {"type": "BPE", "vocab": {"b": 1, "a": 0, "ab": 2}, "merges": merges}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
        write_vocabulary(tmp_path)
        assert json.loads((tmp_path / "vocab.json").read_text()) == model["vocab"]
        assert (tmp_path / "merges.txt").read_text() == "#version: 0.2\na b\n"
    for other in ({"type": "Unigram", "vocab": [["a", 0.0]]}, {"type": "WordPiece", "vocab": {"a": 1}}):
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": other}))
        write_vocabulary(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()


def test_a_head_that_reads_another_state_is_refused_and_leaves_nothing(tmp_path):
    model = make_model(tmp_path / "backbone", "electra", "mean")
    with pytest.raises(InputError, match="puts on electra .mean pooling. cannot carry one linear layer"):
        export(model, tmp_path / "out", "transformers")
    with pytest.raises(InputError, match="bert: .*has embeddings of 8 and states of 16 numbers"):
        export(model, tmp_path / "out", "bert")
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_only_an_electra_is_renamed_to_bert(tmp_path, family):
    with pytest.raises(InputError, match=f"bert: only an ELECTRA .* can be renamed, but this is a {family}$"):
        export(make_model(tmp_path / "backbone", family), tmp_path / "out", "bert")


def test_an_electra_renamed_to_bert_gives_the_same_scores(tmp_path):
    make_backbone(tmp_path / "backbone", "electra")
    config = AutoConfig.from_pretrained(tmp_path / "backbone", embedding_size=16)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path / "backbone")
    model = CrossEncoder.from_backbone(str(tmp_path / "backbone"), query_length=8, passage_length=20).eval()
    model.calibration, model.interpolation = Platt(2.0, 0.5, 1, 60), Interpolation(0.8, ("bm25",), "nDCG@10", 200)
    export(model, tmp_path / "out", "bert")
    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    encoded = tokenizer([QUERY] * len(PASSAGES), PASSAGES, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**encoded).logits
    torch.testing.assert_close(logits[:, 0], scores_of(model), rtol=1e-5, atol=1e-5)
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    assert (again.query_length, again.passage_length, again.backbone.config.model_type) == (8, 20, "bert")
    assert (again.interpolation, again.calibration) == (model.interpolation, model.calibration)
    assert scores_of(again).equal(scores_of(model))


@pytest.mark.parametrize("target", [name for name in FORMATS if name != "bert"])  # tested above
def test_what_a_format_has_no_place_for_is_kept_or_said(target, tmp_path, caplog):
    make_backbone(tmp_path, "bert")
    model = CrossEncoder.from_backbone(str(tmp_path), query_length=8, passage_length=20, exit_layer=1).eval()
    model.calibration, model.interpolation = Platt(2.0, 0.5, 1, 60), Interpolation(0.8, ("bm25",), "nDCG@10", 200)
    export(model, tmp_path / "exported", target)
    lost = ["its early exit"] if target != "sentence-transformers" else []
    if target in ("lightning-ir", "transformers"):
        lost = ["the weight of its interpolation", "its calibration", *lost]
    else:
        again = CrossEncoder.from_pretrained(str(tmp_path / "exported"))
        assert (again.interpolation, again.calibration) == (model.interpolation, model.calibration)
        assert (again.exit is None) == bool(lost)
    what = f"{target}: has no place for {' and '.join(lost)}: only the model you export from keeps that"
    assert said_by_export(caplog) == ([what] if lost else [])


@pytest.mark.parametrize("target", ["lightning-ir", "transformers"])
def test_nothing_is_said_of_a_model_that_loses_nothing(target, tmp_path, caplog):
    export(make_model(tmp_path / "backbone", "bert"), tmp_path / "plain", target)
    assert not said_by_export(caplog)


def said_by_export(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "distill.export.formats"]


def test_the_command_writes_once_and_says_what_is_wrong(tmp_path):
    make_model(tmp_path / "backbone", "bert").save_pretrained(tmp_path / "model")
    command = ["-m", "distill", "export", f"model={tmp_path / 'model'}", f"output={tmp_path / 'out'}"]
    for chosen, status, message in (
        ("lightning-ir", 0, "lightning-ir: "),
        ("lightning-ir", 2, "already exists"),
        ("onyx", 2, "format=onyx is unknown: choose one of sentence-transformers, lightning-ir,"),
    ):
        run = commands.run(*command, f"format={chosen}", cwd=tmp_path)
        assert run.returncode == status and message in run.stdout + run.stderr, run.stderr
        assert "Traceback" not in run.stderr
    run = commands.run(*command, "format=onnx", "hub=mine", cwd=tmp_path)
    assert run.returncode == 2 and "hub=mine: must be OWNER/NAME" in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "model", "out"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("opset=23", "opset: is of an ONNX graph, not of format=bert: leave it out"),
        ("private=false", "private: is of a repository that an upload creates, which needs hub: leave it out"),
    ],
)
def test_the_command_refuses_keys_that_would_do_nothing(tmp_path, key, message):
    run = commands.run("-m", "distill", "export", "model=none", "format=bert", "output=out", key, cwd=tmp_path)
    assert run.returncode == 2 and run.stderr.splitlines()[-1] == f"error: {message}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["electra", "deberta-v2"])
def test_sentence_transformers_and_rerankers_open_that_classifier(tmp_path, family):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    rerankers = pytest.importorskip("rerankers", reason="rerankers is not installed")
    model = make_model(tmp_path / "backbone", family)
    export(model, tmp_path / "out", "transformers")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "out"), device="cpu")
    found = torch.from_numpy(theirs.predict([(QUERY, passage) for passage in PASSAGES]))
    torch.testing.assert_close(found, scores_of(model), rtol=1e-5, atol=1e-5)
    ranker = rerankers.Reranker(str(tmp_path / "out"), model_type="cross-encoder", verbose=0, device="cpu")
    scores = {result.text: result.score for result in ranker.rank(QUERY, PASSAGES)}
    found = torch.tensor([scores[passage] for passage in PASSAGES])
    torch.testing.assert_close(found, scores_of(model), rtol=1e-5, atol=1e-5)


def test_a_model_that_cuts_pairs_together_still_does_once_saved(tmp_path):
    make_model(tmp_path / "backbone", "electra").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "distill.json").unlink()  # as sentence-transformers writes it
    model = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    long = " ".join(WORDS * 9)
    expected = [
        model.rank(query, [passage])[1] for query, passage in ((long, long), (long, WORDS[0]), (WORDS[0], long))
    ]
    model.save_pretrained(tmp_path / "again")
    export(model, tmp_path / "classifier", "transformers")
    with pytest.raises(InputError, match="lightning-ir: cuts query and passage separately"):
        export(model, tmp_path / "lightning", "lightning-ir")
    for name in ("again", "classifier"):
        again = CrossEncoder.from_pretrained(str(tmp_path / name))
        found = [
            again.rank(query, [passage])[1] for query, passage in ((long, long), (long, WORDS[0]), (WORDS[0], long))
        ]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
