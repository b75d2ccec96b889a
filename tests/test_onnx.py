"""ONNX graphs: onnxruntime gives the model's scores, padded as they come; int8 ranks nearly alike."""

import json
import sys

import pytest
import torch

from distill.errors import InputError
from distill.export.formats import export
from distill.models.cross_encoder import CrossEncoder
from distill.serving.scoring import Scorer
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from distill.teachers.ensemble import take_logits
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.commands import run
from tests.helpers.models import PASSAGES, QUERY, make_classifier, make_model, scores_of
from tests.helpers.paths import ROOT

onnxruntime = pytest.importorskip("onnxruntime", minversion="1.23")


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        ("bert", "cls"),
        pytest.param("electra", "mean", marks=pytest.mark.long),
        pytest.param("roberta", "cls", marks=pytest.mark.long),
        ("modernbert", "mean"),
        ("deberta-v2", "cls"),
    ],
)
def test_onnxruntime_gives_the_models_scores(tmp_path, family, pooling):
    model = make_model(tmp_path / "backbone", family, pooling)
    layout, expected = model.layout, model.rank(QUERY, PASSAGES)
    export(model, tmp_path / "out", "onnx")
    assert b"site-packages" not in (tmp_path / "out" / "onnx" / "model.onnx").read_bytes()  # no places of this machine
    assert model.layout == layout and model.rank(QUERY, PASSAGES) == expected  # as it was before
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    assert (again.query_length, again.passage_length) == (8, 20)
    order, scores = again.rank(QUERY, PASSAGES)  # together, with padding between
    assert order == expected[0]
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(expected[1]), rtol=1e-4, atol=1e-5)
    long = " ".join(WORDS * 20)
    torch.testing.assert_close(again.rank(long, [long])[1], model.rank(long, [long])[1], rtol=1e-4, atol=1e-5)


def test_a_search_engine_finds_an_old_opset_and_a_classifier_with_one_label(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = make_model(tmp_path / "backbone", "bert", "mean")
    for opset in (18, 23):
        export(model, tmp_path / str(opset), "onnx", opset=opset)
        graph = onnx.load(tmp_path / str(opset) / "onnx" / "model.onnx")
        assert {(one.domain, one.version) for one in graph.opset_import} == {("", opset)}
    config = json.loads((tmp_path / "18" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and config["id2label"] == {"0": "LABEL_0"}
    assert json.loads((tmp_path / "18" / "tokenizer_config.json").read_text())["model_max_length"] == model.max_length


def test_layers_and_activation_of_another_librarys_model_are_in_the_graph(tmp_path):
    make_classifier(tmp_path / "hf", "bert", 2)
    model = CrossEncoder.from_pretrained(str(tmp_path / "hf"))
    export(model, tmp_path / "out", "onnx")
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    torch.testing.assert_close(scores_of(again), scores_of(model), rtol=1e-4, atol=1e-5)
    long = " ".join(WORDS * 20)
    torch.testing.assert_close(again.rank(long, [long])[1], model.rank(long, [long])[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="onnx: only an encoder can be exported"):
        export(again, tmp_path / "twice", "onnx")


def test_an_activation_is_applied_once_wherever_the_graph_is_served(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")
    model.activation = torch.nn.Sigmoid()
    export(model, tmp_path / "out", "onnx")
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    torch.testing.assert_close(scores_of(again), scores_of(model), rtol=1e-4, atol=1e-5)
    asked = [(QUERY, passage) for passage in PASSAGES]
    served = [Scorer(one, 512, torch.float32).returned(one.predict(asked), raw=False) for one in (model, again)]
    assert served[1] == pytest.approx(served[0], abs=1e-5) and served[0] == pytest.approx(model.predict(asked))
    config = json.loads((tmp_path / "out" / "config.json").read_text())  # sentence-transformers applies it, too
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    assert take_logits(again, "out") and again.predict(asked) != pytest.approx(model.predict(asked), abs=0.1)


def test_a_graph_reads_no_more_than_its_positions(tmp_path, monkeypatch):
    export(make_model(tmp_path / "backbone", "bert"), tmp_path / "out", "onnx")
    model = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    with pytest.raises(InputError, match="passage_length=100"):
        model.read_passages_to(100)
    file, settings = (tmp_path / "out" / name for name in ("config.json", "distill.json"))
    config = json.loads(file.read_text())
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"crc32": {}}))
    for changed in ({"position_biased_input": False}, {"max_position_embeddings": 1000}):  # no limit, or a wrong one
        file.write_text(json.dumps(config | changed))
        model = CrossEncoder.from_pretrained(str(tmp_path / "out"))
        model.read_passages_to(100)
    with pytest.raises(InputError, match=r"onnxruntime cannot score pairs of \d+ tokens \(.*\): lower passage_length"):
        model.rank(QUERY, [" ".join(WORDS * 20)])


@pytest.mark.slow
def test_the_command_writes_int8_and_it_is_evaluated(tmp_path):
    model = CrossEncoder.from_backbone(str(ROOT / "sample" / "backbone"), passage_length=64).eval()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Mine\n\n## Use\n\nsomehow\n\n## Licence\n\nfree\n")
    done = run(
        "-m", "distill", "export", f"model={tmp_path / 'model'}", "format=onnx-int8", f"output={tmp_path / 'int8'}"
    )
    assert done.returncode == 0 and f"onnx-int8: {tmp_path / 'int8'}" in done.stderr.splitlines(), done.stderr
    assert "onnxruntime.InferenceSession" in (tmp_path / "int8" / "README.md").read_text()
    export(model, tmp_path / "onnx", "onnx")
    sizes = [(tmp_path / chosen / "onnx" / "model.onnx").stat().st_size for chosen in ("int8", "onnx")]
    assert sizes[0] < 0.5 * sizes[1]
    passages = [f"bees find home {word}" for word in ("by", "the", "sun", "and", "stars")]
    expected = dict(zip(*model.rank("how do bees find home", passages), strict=True))
    int8 = CrossEncoder.from_pretrained(str(tmp_path / "int8"))
    found = dict(zip(*int8.rank("how do bees find home", passages), strict=True))
    assert all(found[place] == pytest.approx(expected[place], abs=0.1) for place in expected)
    options = [f"model={tmp_path / 'int8'}", "task.depth=5"]
    run("evaluate.py", *options, f"hydra.run.dir={tmp_path / 'out'}", check=True)
    passages, queries = (
        read_passages(str(ROOT / "sample" / "passages.tsv"), None),
        read_queries(str(ROOT / "sample" / "test/queries.tsv")),
    )
    for query_id, ranked in read_run(str(tmp_path / "out" / "run.txt")).items():
        places, scores = int8.rank(queries[query_id], [passages[doc_id] for doc_id in ranked.doc_ids])
        assert sorted(places) == list(range(5))
        assert [ranked.scores[place] for place in places] == pytest.approx(scores, abs=0.05)  # other lengths of padding
    done = run("evaluate.py", *options, "precision=bfloat16", f"hydra.run.dir={tmp_path / 'half'}")
    assert done.returncode == 2 and "is an ONNX graph, whose precision is fixed" in done.stderr


def test_a_graph_that_is_broken_or_of_another_kind_is_refused(tmp_path):
    make_backbone(tmp_path / "backbone")
    export(make_model(tmp_path / "backbone", "bert"), tmp_path / "out", "onnx")
    (tmp_path / "out" / "distill.json").unlink()
    with pytest.raises(InputError, match="it has no distill.json"):
        CrossEncoder.from_pretrained(str(tmp_path / "out"))
    (tmp_path / "out" / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="onnxruntime cannot read it"):
        CrossEncoder.from_pretrained(str(tmp_path / "out"))


@pytest.mark.parametrize("chosen", ["onnx", "onnx-int8"])
def test_without_the_packages_the_remedy_is_named(tmp_path, monkeypatch, chosen):
    model = make_model(tmp_path / "backbone", "bert")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="format=onnx needs onnxscript: pip install onnx onnxscript onnxruntime"):
        export(model, tmp_path / "out", chosen)
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]
