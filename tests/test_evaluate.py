"""evaluate.py as its user types it."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.sources.runs import read_run
from tests.helpers.commands import run_evaluate, start_ranks


@pytest.fixture
def overrides(collection) -> list[str]:
    names = ("passages", "queries", "qrels")
    return [
        "task=files",
        *(f"task.{name}={collection[name]}" for name in names),
        f"task.run={collection['first_stage']}",
    ]


def test_a_model_reranks_a_run_and_leaves_run_values_and_results(tmp_path, overrides, backbone):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.save_pretrained(tmp_path / "model")
    run = run_evaluate(tmp_path / "out", f"model={tmp_path / 'model'}", *overrides, "task.measures=[nDCG@10,RR@10]")
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) == {f"{row}/files/{name}" for row in ("first_stage", "test") for name in ("nDCG@10", "RR@10")}
    with open(tmp_path / "out" / "per_query.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query_id"] for row in rows] == [f"q{i}" for i in range(6)]
    for name in ("nDCG@10", "RR@10"):
        assert sum(float(row[name]) for row in rows) / 6 == pytest.approx(results[f"test/files/{name}"])
    assert f"{results['test/files/nDCG@10']:.4f}" in run.stdout
    again = run_evaluate(
        tmp_path / "again", *overrides, f"task.run={tmp_path / 'out' / 'run.txt'}", "task.measures=[nDCG@10]"
    )
    assert again.returncode == 0, again.stderr
    measured = json.loads((tmp_path / "again" / "results.json").read_text())["first_stage/files/nDCG@10"]
    assert measured == pytest.approx(results["test/files/nDCG@10"])
    assert len(read_run(str(tmp_path / "out" / "run.txt"))["q0"]) == 10


def test_passages_are_read_to_another_length_if_asked_for(tmp_path, overrides, backbone):
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.save_pretrained(tmp_path / "long")
    model.read_passages_to(5)
    model.save_pretrained(tmp_path / "short")
    for name, length in (("long", "passage_length=5"), ("short", "passage_length=null")):
        assert run_evaluate(tmp_path / name, f"model={tmp_path / name}", *overrides, length).returncode == 0
    run, other = (read_run(str(tmp_path / name / "run.txt")) for name in ("long", "short"))
    assert all(run[query_id].doc_ids == ranked.doc_ids for query_id, ranked in other.items())
    refused = run_evaluate(tmp_path / "no", f"model={tmp_path / 'long'}", *overrides, "passage_length=200")
    assert refused.returncode == 2 and "error: query_length=8 and passage_length=200 make pairs of" in refused.stderr


def test_a_model_that_cuts_whole_pairs_is_not_said_to_read_more(tmp_path, backbone):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.template = replace(model.template, max_length=30)
    with pytest.raises(InputError, match="passage_length=28: this model reads pairs of 30 tokens, .*: lower it to 27"):
        model.read_passages_to(28)
    model.read_passages_to(10)
    assert model.max_length == 21


def test_windows_that_leave_tokens_unread_are_refused_when_the_model_is_known(tmp_path, overrides, backbone):
    CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).save_pretrained(tmp_path / "model")
    run = run_evaluate(
        tmp_path / "out", f"model={tmp_path / 'model'}", *overrides, "task.windows=2", "task.window_stride=17"
    )
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1] == (
        "error: task.window_stride=17 exceeds the window, model.passage_length=16: the tokens between two windows "
        "would never be read: lower it, or set it to null for half a window"
    )


def test_a_run_as_it_stands_needs_no_texts(tmp_path, collection):
    files = [f"task.run={collection['first_stage']}", f"task.qrels={collection['qrels']}"]
    run = run_evaluate(tmp_path / "out", "model=null", "task=files", *files)
    assert run.returncode == 0, run.stderr
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"first_stage/files/nDCG@10"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=nowhere/at/all", "nowhere/at/all: no such directory"),
        ("task.run=nope.run", "task.run=nope.run: no such file"),
        ("task.measures=[nope]", "measure nope: unknown to ir_measures"),
        ("task.measures=[ERR@20]", "measure ERR@20: cannot be computed here ("),
        ("task.measures=[nDCG@0]", "measure nDCG@0: a cut-off must be 1 or more"),
        ("task.measures=[R@1000]", "measure R@1000: looks below the 100 passages a query that task.depth=auto leaves"),
        ("device=cuda:99", "device=cuda:99: not usable here"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(tmp_path, overrides, override, message, backbone):
    CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).save_pretrained(tmp_path / "model")
    run = run_evaluate(tmp_path / "out", f"model={tmp_path / 'model'}", *overrides, override)
    assert run.returncode == 2
    assert [line for line in run.stderr.splitlines() if line.startswith(f"error: {message}")], run.stderr
    assert "Traceback" not in run.stderr
    assert not list((tmp_path / "out").glob("*.txt"))


def test_two_ranks_share_the_queries_and_leave_the_run_of_one(tmp_path, overrides, backbone):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.save_pretrained(tmp_path / "model")
    for size in (1, 2):
        options = [f"model={tmp_path / 'model'}", *overrides, f"hydra.run.dir={tmp_path / str(size)}"]
        for rank in start_ranks(size, "evaluate.py", *options):
            assert rank.wait() == 0, rank.communicate()
    one, two = ({q: r.doc_ids for q, r in read_run(str(tmp_path / n / "run.txt")).items()} for n in ("1", "2"))
    assert one == two and list(one) == list(two)
    assert (tmp_path / "1" / "per_query.csv").read_text() == (tmp_path / "2" / "per_query.csv").read_text()
