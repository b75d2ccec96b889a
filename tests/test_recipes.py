"""The recipes go all the way with small settings, and do nothing twice."""

import json
import os
import re
import subprocess
import sys

import pytest

from distill.sources.runs import read_run
from tests.helpers.paths import ROOT
from tests.helpers.warm_python import warm_python


def run_recipe(name: str, python: str, **variables: str) -> str:
    environment = os.environ | {"PYTHON": python} | variables
    command = ["bash", str(ROOT / "recipes" / name)]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture
def python(tmp_path):
    """The command that a recipe starts Python with."""
    with warm_python(tmp_path) as script:
        yield script


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
        **{"LLM_URL": llm_url, "LLM": "stand-in", "BACKBONE": "tiny", "DEPTH": "10", "TRAIN": few, "NOISE_OK": "1"},
        **{"OUT": str(tmp_path / "out"), "DISTILL_CACHE": str(tmp_path / "cache")},
    }


@pytest.mark.slow
def test_own_corpus_goes_all_the_way_and_nothing_is_done_twice(own_corpus, python, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    out = tmp_path / "out"
    first = run_recipe("own-corpus.sh", python, **own_corpus)
    assert "requests, about" in first  # of the dry run
    lists, ranked = read_run(str(out / "train.run")), read_run(str(out / "teacher" / "teacher.run"))
    assert lists.keys() == ranked.keys()
    assert any(lists[query_id].doc_ids != ranked[query_id].doc_ids for query_id in lists)
    results = json.loads((out / "test" / "results.json").read_text())
    assert {"first_stage/files/nDCG@10", "test/files/nDCG@10", "test/files/RR@10"} <= results.keys()
    assert (out / "onnx-int8" / "onnx" / "model.onnx").is_file() and (out / "report" / "index.html").is_file()
    again = run_recipe("own-corpus.sh", python, **own_corpus | {"LLM_URL": "http://127.0.0.1:9/v1"})
    assert again.count(": skipped") == 9 and "requests, about" not in again


def commands(*arguments: str, status: int = 0, **variables: str) -> list[str]:
    """Return the commands of own-corpus.sh, each of which is only printed, and its errors."""
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    run = subprocess.run(
        ["bash", str(ROOT / "recipes" / "own-corpus.sh"), *arguments],
        env=clean | {"PYTHON": "echo", "OUT": "nowhere"} | variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == status, run.stdout + run.stderr
    return [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("== ")]


def stages(lines: list[str]) -> list[str]:
    """Return the names of the commands, each time that one is started; those that only estimate have a ?."""
    names = [re.search(r"-m distill (\S+)|(train|evaluate)\.py", line) for line in lines]
    shown = [(name[1] or name[2], line) for name, line in zip(names, lines, strict=True) if name]
    return [f"{name}?" if "dry_run=true" in line else name for name, line in shown if "Serve it" not in line]


def test_own_corpus_goes_from_a_corpus_to_a_verdict_and_estimates_first():
    lines = commands("articles", LLM="judge", LLM_URL="http://localhost:1/v1")
    assert stages(lines) == [
        *("cut", "generate?", "generate", "split", "retrieve", "retrieve"),
        *("annotate?", "annotate", "annotate?", "annotate", "annotate?", "annotate"),
        *("train", "evaluate", "judge?", "judge", "evaluate", "verdict", "inspect", "report", "export"),
    ]
    noise, teacher, heldout = (line for line in lines if " annotate " in line and "dry_run" not in line)
    assert "num_queries=20 shuffles=2" in noise and "train.tsv" in teacher and "heldout.tsv" in heldout
    assert "task.teacher=nowhere/teacher-heldout/teacher.run" in next(line for line in lines if "evaluate.py" in line)


def test_own_corpus_goes_without_an_llm():
    lines = commands("articles", CROSS_ENCODER="A,B", ENCODER="bi", LOGGED="log.tsv", EXPORT="")
    assert stages(lines) == [
        *("cut", "generate", "split", "retrieve", "retrieve", "annotate", "annotate"),
        *("retrieve", "fuse", "retrieve", "fuse", "train", "evaluate", "verdict", "inspect"),
    ]
    assert "num_queries=0" in lines[1] and "logged=log.tsv" in lines[1]
    trained = next(line for line in lines if "train.py" in line)
    assert "teacher.path=nowhere/train.fused.run" in trained and "train.max_epochs=null" in trained


def test_own_corpus_stops_after_the_estimate(own_corpus):
    lines = commands(**own_corpus | {"PYTHON": "echo", "DRY": "1"})
    assert stages(lines) == ["retrieve", "retrieve", "annotate?"] and lines[-1].startswith("DRY=1: stopped")
    assert stages(commands("articles", LLM="judge", DRY="1")) == ["cut", "generate?"]


def test_own_corpus_spends_money_only_if_told_to():
    paid = {"LLM": "judge", "LLM_KEY": "OPENAI_API_KEY"}
    refused = commands("articles", **paid, status=2)
    assert stages(refused) == ["cut", "generate?"] and refused[-1].startswith("error: not confirmed: CONFIRM=1 ")
    assert stages(commands("articles", **paid, CONFIRM="1"))[-1] == "export"
    limited = commands("articles", **paid, MAX_COST="10", PRICE_IN="0.5", PRICE_OUT="2")
    assert all("teacher.llm.max_cost=10" in line for line in limited if re.search(" (generate|annotate|judge) ", line))


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"LLM": "m"}, "no corpus: "),
        (["articles"], {}, "no teacher: give LLM"),
        (["articles"], {"CROSS_ENCODER": "dir"}, "no queries: a cross-encoder writes none: give LOGGED or QUERIES"),
        (["articles"], {"LLM": "m", "TEST_QUERIES": "t.tsv"}, "TEST_QUERIES without QRELS: "),
        (["articles"], {"LLM": "m", "QRELS": "q.txt"}, "QRELS without TEST_QUERIES: "),
        ([], {"LLM": "m", "PASSAGES": "p.tsv", "FIELDS": "id_field=sku"}, "FIELDS without CORPUS: "),
    ],
)
def test_own_corpus_says_what_is_missing(arguments, variables, said):
    [line] = commands(*arguments, **variables, status=2)
    assert line.startswith(f"error: {said}")


@pytest.mark.slow
def test_the_sample_goes_all_the_way(python, tmp_path):
    few = "validation.depth=10 task.depth=10"
    settings = {"LOSSES": "ranknet,adrmse", "SEEDS": "0", "STEPS": "2", "TRAIN": few, "OUT": str(tmp_path / "out")}
    run_recipe("sample.sh", python, **settings, DISTILL_CACHE=str(tmp_path / "cache"))
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "The bundled sample" in page and "ranknet" in page and "adrmse" in page
    results = json.loads((tmp_path / "out" / "top-20" / "results.json").read_text())
    assert 0.4 < results["first_stage/sample/nDCG@10"] < 0.5 and "test/sample/nDCG@10" in results
    assert (tmp_path / "out" / "lightning-ir" / "model.safetensors").is_file()
