"""The recipes go all the way with small settings, and do nothing twice."""

import json
import os
import subprocess
import sys

import pytest

from distill.sources.runs import read_run
from tests.helpers.paths import ROOT


def run_recipe(name: str, **variables: str) -> str:
    environment = os.environ | {"PYTHON": sys.executable} | variables
    command = ["bash", str(ROOT / "recipes" / name)]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture
def llm_url():
    """The address of examples/llm_server.py, a process of its own."""
    command = [sys.executable, "-m", "examples.llm_server", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def own_corpus(collection, llm_url, tmp_path) -> dict[str, str]:
    names = {"PASSAGES": "passages", "QUERIES": "queries", "TEST_QUERIES": "queries", "QRELS": "qrels"}
    few = "model.passage_length=16 train.batch_size=2 train.max_epochs=null train.max_steps=2 optimizer.warmup=1"
    return {variable: str(collection[name]) for variable, name in names.items()} | {
        **{"LLM_URL": llm_url, "LLM": "stand-in", "BACKBONE": "tiny", "DEPTH": "10", "TRAIN": few},
        **{"OUT": str(tmp_path / "out"), "DISTILL_CACHE": str(tmp_path / "cache")},
    }


@pytest.mark.slow
def test_own_corpus_goes_all_the_way_and_nothing_is_done_twice(own_corpus, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    out = tmp_path / "out"
    first = run_recipe("own-corpus.sh", **own_corpus)
    assert "requests, about" in first  # of the dry run
    lists, ranked = read_run(str(out / "train.run")), read_run(str(out / "teacher" / "teacher.run"))
    assert lists.keys() == ranked.keys()
    assert any(lists[query_id].doc_ids != ranked[query_id].doc_ids for query_id in lists)
    results = json.loads((out / "test" / "results.json").read_text())
    assert {"first_stage/files/nDCG@10", "test/files/nDCG@10", "test/files/RR@10"} <= results.keys()
    assert (out / "onnx-int8" / "onnx" / "model.onnx").is_file() and (out / "report" / "index.html").is_file()
    again = run_recipe("own-corpus.sh", **own_corpus | {"LLM_URL": "http://127.0.0.1:9/v1"})
    assert again.count(": skipped") == 8 and "requests, about" not in again


def test_own_corpus_stops_after_the_estimate(own_corpus):
    commands = run_recipe("own-corpus.sh", **own_corpus | {"PYTHON": "echo", "DRY": "1"})  # prints each command
    assert "dry_run=true" in commands and "DRY=1: stopped" in commands and "train.py" not in commands


def test_own_corpus_says_what_is_missing(own_corpus):
    del own_corpus["QRELS"]
    run = subprocess.run(["bash", ROOT / "recipes" / "own-corpus.sh"], env=os.environ | own_corpus, capture_output=True)
    assert run.returncode != 0 and b"QRELS: judgments of the test queries" in run.stderr


@pytest.mark.slow
def test_the_sample_goes_all_the_way(tmp_path):
    few = "validation.depth=10 task.depth=10"
    settings = {"LOSSES": "ranknet,adrmse", "SEEDS": "0", "STEPS": "2", "TRAIN": few, "OUT": str(tmp_path / "out")}
    run_recipe("sample.sh", **settings, DISTILL_CACHE=str(tmp_path / "cache"))
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "The bundled sample" in page and "ranknet" in page and "adrmse" in page
    results = json.loads((tmp_path / "out" / "top-20" / "results.json").read_text())
    assert 0.4 < results["first_stage/sample/nDCG@10"] < 0.5 and "test/sample/nDCG@10" in results
    assert (tmp_path / "out" / "lightning-ir" / "model.safetensors").is_file()
