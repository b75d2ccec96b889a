"""No code of a model is ever run: each call that could run it says so, and such models are refused."""

import ast
import io
import json
import os
from pathlib import Path

import pytest
import torch

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.language_model import load_language_model
from distill.models.model_files import check_source
from distill.models.parts import load_tokenizer
from tests.helpers.backbones import make_backbone, make_language_model

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("distill", "benchmarks", "examples", "sample", "hydra_plugins", "kernels")
METHODS = ("from_pretrained", "from_config", "pipeline")
CLASSES = ("SentenceTransformer", "SparseEncoder", "TheirCrossEncoder")


def calls_of_libraries(file: Path) -> list[ast.Call]:
    """Return the calls that load a model with transformers or sentence-transformers; ours take no such argument."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    theirs = CLASSES
    if "from sentence_transformers import CrossEncoder\n" in text:
        theirs += ("CrossEncoder",)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        names = {part.id for part in ast.walk(node.func) if isinstance(part, ast.Name)}
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        of_ours = names & {"CrossEncoder", "cls"}
        if (method in METHODS and not of_ours) or (method is None and names & set(theirs)):
            found.append(node)
    return found


def test_every_call_that_loads_a_model_refuses_its_code():
    files = [*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
    calls = [(file, call) for file in files for call in calls_of_libraries(file)]
    assert len(calls) >= 20
    for file, call in calls:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        value = given.get("trust_remote_code")
        assert isinstance(value, ast.Constant) and value.value is False, f"{file.relative_to(ROOT)}:{call.lineno}"


def with_code(directory: Path, file: str, monkeypatch) -> None:
    """Let a directory come with code that leaves a mark, and answer "y" to every question."""
    (directory / "code.py").write_text(f"open({str(directory / 'was_run')!r}, 'w')\nclass Model: pass\n")
    parts = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    content = json.loads((directory / file).read_text())
    content["auto_map"] = {part: ["code.Model", "code.Model"] if "Tok" in part else "code.Model" for part in parts}
    (directory / file).write_text(json.dumps(content))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("how", ["backbone", "tokenizer", "language model", "model", "retrieve"])
def test_a_model_that_comes_with_code_is_refused_in_one_line(tmp_path, monkeypatch, how, file):
    path = tmp_path / "received"
    make_language_model(path) if how == "language model" else make_backbone(path)
    if how == "model":
        CrossEncoder.from_backbone(str(path), query_length=8, passage_length=20).save_pretrained(tmp_path / "model")
        path = tmp_path / "model"
    with_code(path, file, monkeypatch)
    opened = {
        "backbone": lambda: CrossEncoder.from_backbone(str(path), query_length=8, passage_length=20),
        "tokenizer": lambda: load_tokenizer(path),
        "language model": lambda: load_language_model(str(path), torch.float32, f"teacher.llm.model={path}"),
        "model": lambda: CrossEncoder.from_pretrained(str(path)),
        "retrieve": lambda: check_source(str(path)),
    }[how]
    with pytest.raises(InputError) as refused:
        opened()
    assert f"{file} asks for custom code (auto_map), which is never run here" in str(refused.value)
    assert "\n" not in str(refused.value) and not (path / "was_run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "a/b@main:c"},
        {"transformers_weights": "../x"},
    ],
)
def test_kernels_and_weights_elsewhere_are_refused(tmp_path, changes):
    file = make_backbone(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=f"config.json: {next(iter(changes))}=.*: remove it"):
        CrossEncoder.from_backbone(str(tmp_path), query_length=8, passage_length=20)


def test_an_adapter_of_a_model_elsewhere_is_refused(tmp_path):
    make_backbone(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "../other", "peft_type": "LORA"}')
    with pytest.raises(InputError, match="is an adapter .* of a model elsewhere"):
        CrossEncoder.from_backbone(str(tmp_path), query_length=8, passage_length=20)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json", "1_Pooling"])
def test_a_link_out_of_the_directory_is_not_followed(tmp_path, name):
    make_backbone(tmp_path / "b")
    model = tmp_path / "model"
    CrossEncoder.from_backbone(str(tmp_path / "b"), query_length=8, passage_length=20).save_pretrained(model)
    os.rename(model / name, tmp_path / "outside")
    (model / name).symlink_to(tmp_path / "outside")
    for opened in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match=f"{name}: is a link to .*, outside of the model's directory"):
            opened(str(model))


def test_the_links_of_the_hubs_cache_and_links_to_directories_and_within_them_are_followed(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    make_backbone(snapshot)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for file in list(snapshot.iterdir()):
        os.rename(file, tmp_path / "models--a--b" / "blobs" / file.name)
        file.symlink_to(Path("..", "..", "blobs", file.name))
    (tmp_path / "latest").symlink_to(snapshot)
    (snapshot / "vocab.txt").symlink_to("tokenizer.json")
    (tmp_path / "latest" / "README.md").symlink_to("../../blobs/README.md")  # not there: nothing is read
    CrossEncoder.from_backbone(str(tmp_path / "latest"), query_length=8, passage_length=20)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path):
    make_backbone(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "generation_config.json")
    with pytest.raises(InputError, match="generation_config.json: is neither a file nor a directory"):
        CrossEncoder.from_backbone(str(tmp_path), query_length=8, passage_length=20)


@pytest.mark.parametrize("elsewhere", ["../outside.safetensors", "/outside.safetensors", "a/b.safetensors", "C:\\x"])
def test_an_index_of_weights_names_only_files_beside_it(tmp_path, elsewhere):
    make_backbone(tmp_path / "model")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": elsewhere}}
    os.rename(tmp_path / "model" / "model.safetensors", tmp_path / "outside.safetensors")
    (tmp_path / "model" / "model-1.safetensors").write_bytes((tmp_path / "outside.safetensors").read_bytes())
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="weight_map names .*: must be a file beside it"):
        CrossEncoder.from_backbone(str(tmp_path / "model"), query_length=8, passage_length=20)
