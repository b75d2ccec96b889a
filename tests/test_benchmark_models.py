"""The benchmarks take whatever the commands take as a model, and say why a contender is left out."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import rerank, train
from benchmarks.models import PEERS, forms, ranking_model, training_model
from benchmarks.workers import Race, run_race
from distill.errors import InputError
from distill.export.formats import export
from distill.models.cross_encoder import CrossEncoder
from tests.helpers.backbones import make_backbone
from tests.helpers.models import PASSAGES, QUERY, make_classifier

KINDS = ("encoder", "bi-encoder", "classifier", "ours", "lightning-ir", "packaged")
LISTS = [(QUERY, PASSAGES), (PASSAGES[0], PASSAGES[1:])]
CPU = torch.device("cpu")


def make_kind(kind: str, directory) -> str:
    """Write a tiny model of a kind; return its name."""
    if kind == "packaged":
        return "googleq-minilm-3"
    if kind == "classifier":
        make_classifier(directory, "bert", num_labels=1)
    else:
        make_backbone(directory)
    lengthen(directory)
    if kind in ("ours", "lightning-ir"):
        model = CrossEncoder.from_backbone(str(directory))
        torch.nn.init.normal_(model.head.weight)
        export(model, directory / kind, kind.replace("ours", "sentence-transformers"))
        return str(directory / kind)
    if kind == "bi-encoder":
        names = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in names.items()]
        modules = [module | {"idx": number, "name": str(number)} for number, module in enumerate(modules)]
        (directory / "modules.json").write_text(json.dumps(modules))
        (directory / "1_Pooling").mkdir()
        (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return str(directory)


def lengthen(directory, number: int = 320) -> None:
    """Let a tiny model read pairs of the benchmarks' length."""
    config = json.loads((directory / "config.json").read_text()) | {"max_position_embeddings": number}
    (directory / "config.json").write_text(json.dumps(config))
    weights = load_file(directory / "model.safetensors")
    [name] = [name for name in weights if name.endswith("position_embeddings.weight")]
    weights[name] = 0.1 * torch.randn(number, weights[name].shape[1], generator=torch.Generator().manual_seed(0))
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_all_contenders_score_with_one_model(kind, tmp_path):
    pytest.importorskip("sentence_transformers")
    name, race = make_kind(kind, tmp_path / "given"), Race()
    model = ranking_model(name, tmp_path)
    found = forms(dict.fromkeys(("packed", *PEERS), model), tmp_path, race)
    ours, theirs = (
        [torch.tensor(of_query) for of_query in rerank.scorer(contender, found[contender], LISTS, CPU)()]
        for contender in ("packed", "sentence-transformers")
    )
    if kind == "classifier":  # of two layers
        assert race.left_out.keys() == {"lightning-ir"} and "can be exported" in race.left_out["lightning-ir"]
        theirs = [scores.logit() for scores in theirs]  # they put a sigmoid on it
    else:
        assert "backbone_model_type" in json.loads(Path(found["lightning-ir"], "config.json").read_text())
    assert torch.cat(ours).std() > 0.001
    torch.testing.assert_close(torch.cat(ours), torch.cat(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_contenders_train_one_model(kind, tmp_path):
    pytest.importorskip("sentence_transformers")
    model = training_model(make_kind(kind, tmp_path / "given"), tmp_path)
    before = CrossEncoder.from_pretrained(model)
    for contender in ("packed", "sentence-transformers"):
        step, known = train.stepper(contender, model, LISTS, CPU, max_tokens=2048)
        step()
        assert contender != "packed" or known["flops"] > 0
    assert len(before.rank(QUERY, PASSAGES)[0]) == len(PASSAGES)


def test_a_directory_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="config.json"):
        ranking_model(str(tmp_path), tmp_path / "made")


WORKER = "from benchmarks.workers import serve\n"
WORKERS = {
    "packed": "serve(lambda: lambda: {'seconds': 2})",
    "padded": "def make():\n  raise ImportError('no\\n  such library')\nserve(make)",
    "sentence-transformers": "rounds = iter([{'seconds': 1}])\nserve(lambda: lambda: next(rounds))",
    "lightning-ir": "import sys; print('a warning', file=sys.stderr); sys.exit('cannot find it')",
}


def test_a_contender_that_fails_says_why_in_one_line(capsys):
    race = run_race({name: [sys.executable, "-c", WORKER + code] for name, code in WORKERS.items()}, rounds=2)
    assert race.answers == {"packed": [{"seconds": 2}] * 2}
    reasons = ["ImportError: no such library", "StopIteration", "cannot find it"]
    assert race.left_out == dict(zip(("padded", "sentence-transformers", "lightning-ir"), reasons, strict=True))
    assert capsys.readouterr().err.splitlines()[0] == "padded: left out: ImportError: no such library"
    with pytest.raises(SystemExit, match="no figures of padded: the reason is above"):
        race.end()


def test_the_run_ends_well_where_ours_has_figures():
    race = run_race({"packed": [sys.executable, "-c", WORKER + WORKERS["packed"]], "lightning-ir": ["no-python"]}, 1)
    assert race.left_out == {"lightning-ir": "no-python: No such file or directory"}
    race.end()
    with pytest.raises(SystemExit, match="no figures of lightning-ir"):
        Race(left_out=race.left_out).end()
