"""Models that the package carries: found by name wherever a model is opened, from any directory, without a network."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from distill import CrossEncoder
from distill.config.checks import check_values
from distill.errors import InputError
from distill.export.formats import export
from distill.export.model_card import exported_card, make_card
from distill.export.rounding import PAIRS, rounding_change
from distill.models import locate
from distill.models.locate import locate_model, packaged_models
from tests.helpers import commands
from tests.helpers.backbones import WORDS
from tests.helpers.configuration import compose_config
from tests.helpers.models import PASSAGES, QUERY, make_model, scores_of
from tests.helpers.paths import ROOT

NAME = "tiny-2"
CARD = "---\nlicense: apache-2.0\nbase_model: owner/encoder\nlibrary_name: sentence-transformers\n---\n\n# tiny-2\n"
OFFLINE = "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"


@pytest.fixture
def packaged(tmp_path, monkeypatch) -> Path:
    """A place for packaged models, with one in half precision."""
    place = tmp_path / "packaged"
    model = make_model(tmp_path / "backbone", "bert")
    export(model, place / NAME, "sentence-transformers", CARD, "float16")
    (place / "README.md").write_text("no model\n")
    monkeypatch.setattr(locate, "PACKAGED", place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return place


def run_with(packaged: Path, tmp_path: Path, script: str, *arguments: str):
    """Run a command with this place for packaged models."""
    patch = (
        f"{OFFLINE}import pathlib, distill.models.locate as locate\nlocate.PACKAGED = pathlib.Path({str(packaged)!r})"
    )
    return commands.run_patched(tmp_path, patch, script, *arguments)


def test_a_name_is_a_directory_then_a_packaged_model_then_a_hub_id(packaged, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert packaged_models() == [NAME]
    assert locate_model(NAME) == str(packaged / NAME)
    assert [locate_model(name) for name in ("owner/tiny-2", "README.md", "../packaged")] == [
        *("owner/tiny-2", "README.md", "../packaged")
    ]
    (elsewhere / NAME).mkdir()
    assert locate_model(NAME) == NAME
    with pytest.raises(InputError, match=f"{NAME}: .*it has no config.json"):
        CrossEncoder.from_pretrained(NAME)


def test_the_default_place_is_beside_the_code():
    assert locate.PACKAGED == ROOT / "distill" / "models" / "packaged"


def test_it_opens_by_name_with_its_rounded_weights_in_float32(packaged, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = CrossEncoder.from_pretrained(NAME)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert dtypes_of(packaged / NAME) == ({torch.float16}, {torch.float32})
    upcast = make_model(tmp_path / "again", "bert")  # the model before it was rounded
    assert (scores_of(upcast) - scores_of(model)).abs().max() > 1e-5
    for parameter in upcast.backbone.parameters():
        parameter.data = parameter.data.half().float()
    torch.testing.assert_close(scores_of(upcast), scores_of(model), rtol=1e-6, atol=1e-6)


def dtypes_of(directory: Path) -> tuple[set[torch.dtype], set[torch.dtype]]:
    """Return the types of the floating-point weights in a directory's files: of the encoder, and of the head."""
    weights = {name: tensor for file in directory.rglob("*.safetensors") for name, tensor in load_file(file).items()}
    floating = {name: tensor.dtype for name, tensor in weights.items() if tensor.is_floating_point()}
    of_head = {name for name in floating if name.startswith(("classifier.", "linear.", "bert.pooler."))}
    return {floating[name] for name in floating.keys() - of_head}, {floating[name] for name in of_head}


def test_sentence_transformers_gives_the_same_scores(packaged):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    theirs = sentence_transformers.CrossEncoder(locate_model(NAME), device="cpu")
    found = torch.from_numpy(theirs.predict([(QUERY, passage) for passage in PASSAGES]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, scores_of(CrossEncoder.from_pretrained(NAME)), rtol=1e-5, atol=1e-5)


def test_a_backbone_starts_from_it_and_saves_float32(packaged, tmp_path):
    started = CrossEncoder.from_backbone(NAME, query_length=8, passage_length=20).eval()
    torch.testing.assert_close(scores_of(started), scores_of(CrossEncoder.from_pretrained(NAME)), rtol=0, atol=0)
    started.save_pretrained(tmp_path / "saved")
    assert {tensor.dtype for tensor in load_file(tmp_path / "saved" / "model.safetensors").values()} == {torch.float32}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"
    cut = CrossEncoder.from_backbone(NAME, passage_length=20, num_layers=1)
    assert len(cut.backbone.encoder.layer) == 1


@pytest.mark.parametrize("open_model", [CrossEncoder.from_pretrained, CrossEncoder.from_backbone])
def test_an_unknown_name_is_answered_with_the_packaged_ones(packaged, open_model):
    with pytest.raises(InputError, match=f"tiny-3: .*; the package carries {NAME}$"):
        open_model("tiny-3")
    with pytest.raises(InputError) as error:
        open_model("owner/tiny-3")
    assert "carries" not in str(error.value)


def test_the_card_of_a_model_that_started_from_it_names_it_and_its_encoder(packaged):
    cfg = compose_config("train", "backbone=hf", f"backbone.name={NAME}")
    card = make_card(cfg, {"train/steps": 5}, None)
    assert "base_model: owner/encoder" in card
    assert f"| Encoder | owner/encoder as trained for {NAME}, cls pooling" in card
    assert exported_card(Path(NAME), "lightning-ir").startswith(CARD.partition("library_name")[0])


def write_collection(place: Path) -> dict[str, str]:
    """Write two queries and their lists, in the words of the tiny model; return the paths."""
    texts = {
        "passages.tsv": "".join(f"d{row}\t{text}\n" for row, text in enumerate(PASSAGES)),
        "queries.tsv": f"q1\t{QUERY}\nq2\t{' '.join(WORDS[5:8])}\n",
        "first.run": "".join(f"{q} Q0 d{row} {row + 1} {9 - row} x\n" for q in ("q1", "q2") for row in range(4)),
        "qrels.txt": "q1 0 d3 1\nq2 0 d1 1\n",
    }
    for name, text in texts.items():
        (place / name).write_text(text)
    return {name.split(".")[0]: str(place / name) for name in texts}


@pytest.mark.long
def test_commands_take_its_name_from_any_directory(packaged, tmp_path):
    given = write_collection(tmp_path)
    texts = [f"{key}={given[key]}" for key in ("passages", "queries")]
    task = [*(f"task.{one}" for one in texts), f"task.run={given['first']}", f"task.qrels={given['qrels']}"]
    for script, *arguments in (
        ("evaluate.py", f"model={NAME}", "task=files", "task.depth=4", *task, f"hydra.run.dir={tmp_path}/evaluated"),
        (
            "distill/__main__.py", "annotate", *texts, f"run={given['first']}", "llm@teacher.llm=cross-encoder",
            f"teacher.llm.model={NAME}", f"hydra.run.dir={tmp_path}/annotated",
        ),
        (
            "distill/__main__.py", "export", f"model={NAME}", "format=lightning-ir", "dtype=bfloat16",
            f"output={tmp_path}/exported",
        ),
    ):  # fmt: skip
        run = run_with(packaged, tmp_path, script, *arguments)
        assert run.returncode == 0, run.stdout + run.stderr
    model = CrossEncoder.from_pretrained(NAME)
    order, scores = model.rank(QUERY, PASSAGES)
    for file in (tmp_path / "evaluated" / "run.txt", tmp_path / "annotated" / "teacher.run"):
        rows = [line.split() for line in file.read_text().splitlines() if line.startswith("q1 ")]
        assert [row[2] for row in rows] == [f"d{place}" for place in order], file
        torch.testing.assert_close([float(row[4]) for row in rows], scores, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "exported" / "README.md").read_text().startswith(CARD.partition("library_name")[0])
    assert "bfloat16: scores of 6 pairs change by up to " in run.stdout + run.stderr
    run = run_with(packaged, tmp_path, "evaluate.py", "model=tiny-3", "task=files", *task)
    assert run.returncode == 2 and f"; the package carries {NAME}" in run.stderr and "Traceback" not in run.stderr


def test_pyterrier_takes_its_name(packaged):
    pytest.importorskip("pyterrier", reason="pyterrier is not installed")
    import pandas as pd

    from distill.pyterrier import Reranker

    rows = [("q1", QUERY, f"d{row}", text) for row, text in enumerate(PASSAGES)]
    reranked = Reranker(NAME)(pd.DataFrame(rows, columns=["qid", "query", "docno", "text"]))
    order, _ = CrossEncoder.from_pretrained(NAME).rank(QUERY, PASSAGES)
    assert list(reranked.docno) == [f"d{place}" for place in order]


# Weights in 16 bits


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", ["sentence-transformers", "lightning-ir", "transformers"])
def test_every_format_holds_rounded_weights_that_are_read_in_float32(tmp_path, target, dtype):
    model = make_model(tmp_path / "backbone", "electra")
    export(model, tmp_path / "out", target, dtype=dtype)
    assert dtypes_of(tmp_path / "out") == ({getattr(torch, dtype)}, {torch.float32})
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    for parameter in model.backbone.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype)).float()
    again = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    torch.testing.assert_close(scores_of(again), scores_of(model), rtol=1e-5, atol=1e-5)


def test_the_change_of_scores_is_of_rounding_and_not_of_cutting(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")  # cuts passages at 20 tokens; the classifier cuts pairs at 30
    export(model, tmp_path / "out", "transformers", dtype="float16")
    long = [" ".join(WORDS * times) for times in (2, 3, 4)]
    change = rounding_change(model, tmp_path / "out", [(QUERY, long)])
    plain = rounding_change(model, tmp_path / "out", [(QUERY, PASSAGES)])
    assert change.largest < 0.01 and plain.largest < 0.01 and plain.spread > 0.01


def test_the_change_of_scores_is_measured(tmp_path):
    model = make_model(tmp_path / "backbone", "bert", "mean")  # no classifier can carry its head: it is only in 2_Dense
    model.save_pretrained(tmp_path / "copy")
    assert (
        rounding_change(model, tmp_path / "copy").largest < 1e-6
    )  # the last bit depends on where weights lie in memory
    weights = load_file(tmp_path / "copy" / "2_Dense" / "model.safetensors")
    weights["linear.bias"] += 0.25  # every score by as much
    save_file(weights, tmp_path / "copy" / "2_Dense" / "model.safetensors")
    settings = tmp_path / "copy" / "distill.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "crc32"}))
    change = rounding_change(model, tmp_path / "copy")
    scores = [score for query, passages in PAIRS.items() for score in model.rank(query, passages)[1]]
    assert change.largest == pytest.approx(0.25, abs=1e-5)
    assert change.spread == pytest.approx(statistics.stdev(scores), abs=1e-5)
    assert (change.pairs, change.lists, change.reordered, change.new_first) == (6, 2, 0, 0)


def test_lists_whose_order_changes_are_counted(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")
    model.save_pretrained(tmp_path / "copy")
    lists = [("a bee", ["the sun", "a hive", "rails"]), ("the sun", ["a bee", "a hive"])]
    for parameter in model.head.parameters():  # a linear layer: every order is reversed
        parameter.data *= -1
    change = rounding_change(model, tmp_path / "copy", lists)
    assert (change.pairs, change.lists, change.reordered, change.new_first) == (5, 2, 2, 2)


def test_weights_beyond_float16_are_refused_and_leave_nothing(tmp_path):
    model = make_model(tmp_path / "backbone", "bert")
    model.backbone.embeddings.word_embeddings.weight.data[3, 0] = -1e5
    message = r"dtype=float16: the weight bert.embeddings.word_embeddings.weight holds 100000, and the largest .*65504"
    with pytest.raises(InputError, match=message):
        export(model, tmp_path / "out", "sentence-transformers", dtype="float16")
    shutil.rmtree(tmp_path / "backbone")
    assert not list(tmp_path.iterdir())
    export(model, tmp_path / "out", "sentence-transformers", dtype="bfloat16")


def test_onnx_graphs_have_no_dtype():
    with pytest.raises(
        InputError, match="dtype=float16 with format=onnx-int8: an ONNX graph has its own types: set it"
    ):
        check_values(compose_config("export", "model=m", "output=o", "format=onnx-int8", "dtype=float16"))
    with pytest.raises(InputError, match="dtype=half is unknown: choose one of float32, float16, bfloat16"):
        check_values(compose_config("export", "model=m", "output=o", "format=onnx", "dtype=half"))
    check_values(compose_config("export", "model=m", "output=o", "format=onnx"))


def test_a_card_says_that_its_figures_are_of_the_weights_before(tmp_path):
    (tmp_path / "README.md").write_text("# m\n\n## Measured\n\n| a |\n")
    card = exported_card(tmp_path, "sentence-transformers", dtype="float16")
    assert "## Measured\n\nBefore the weights were rounded to float16:\n\n| a |" in card


# The model that comes with the package

OURS = ROOT / "distill" / "models" / "packaged" / "googleq-minilm-3"
PAIRS_IN_ORDER = {  # the better passage first
    "how do bees find home": [
        "Bees find their way home by the sun and by the landmarks around their hive.",
        "The first railway in the world to use steam locomotives opened in 1825.",
    ],
    "who wrote pride and prejudice": [
        "Pride and Prejudice is a novel by Jane Austen, published in 1813.",
        "Prejudice is an opinion about a person that is formed before knowing them.",
    ],
    "is the dead sea below sea level": [
        "The surface of the Dead Sea is more than 430 metres below sea level, the lowest shore on land.",
        "The Caspian Sea is the largest inland body of water.",
    ],
}


def test_ours_ranks_obvious_passages_right_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert packaged_models() == ["googleq-minilm-3"]
    model = CrossEncoder.from_pretrained("googleq-minilm-3")
    for query, passages in PAIRS_IN_ORDER.items():
        assert model.rank(query, passages[::-1])[0] == [1, 0], query
    assert (model.query_length, model.passage_length) == (64, 256) and model.is_plain
    assert len(model.backbone.encoder.layer) == 3


def test_sentence_transformers_gives_the_scores_of_ours():
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    theirs, model = (
        TheirCrossEncoder(str(OURS), device="cpu", trust_remote_code=False),
        CrossEncoder.from_pretrained(str(OURS)),
    )
    for query, passages in PAIRS_IN_ORDER.items():
        found = torch.from_numpy(theirs.predict([(query, passage) for passage in passages]))
        expected = torch.tensor([model.rank(query, [passage])[1][0] for passage in passages])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_ours_is_small_and_in_half_precision():
    assert sum(file.stat().st_size for file in OURS.rglob("*") if file.is_file()) < 40e6
    assert {tensor.dtype for tensor in load_file(OURS / "model.safetensors").values()} == {torch.float16}


def test_the_card_of_ours_names_data_licence_and_what_the_encoder_has_seen():
    card = (OURS / "README.md").read_text()
    data = ModelCard(card).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2" and data.license
    for words in ("CC BY-SA 3.0", "Natural Questions", "BoolQ", "MS MARCO", "## Measured", "interpolated", "## Limits"):
        assert words in card, words
    assert "PLACEHOLDER" not in card and "outputs/" not in card
    assert "ShareAlike" in (OURS / "LICENSE").read_text()


def test_the_preset_starts_from_ours():
    backbone = compose_config("train", "backbone=googleq-minilm-3").backbone
    assert (backbone.name, backbone.weights) == ("googleq-minilm-3", "pretrained")
    assert locate_model(backbone.name) == str(OURS)
