"""The libraries that benchmarks/peers.py compares learn from the same lists, with losses that equal ours."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.peer_lists import TextCutter, training_lists, training_overrides
from benchmarks.peer_table import format_table, summarise
from benchmarks.peer_workers import gains, sentence_transformers_labels, sentence_transformers_loss
from benchmarks.time_to_quality import time_to_reach
from distill.losses import lce, ranknet
from tests.helpers.configuration import compose_config
from tests.helpers.models import make_model
from tests.helpers.paths import ROOT

SCORES = torch.tensor([[0.3, -1.2, 2.0, 0.1], [-0.5, 0.7, 0.6, 4.0], [30.0, -40.0, 3.0, 2.0]])  # [B, K]
LABELS = torch.tensor([[2.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]])
RANKS = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3]])
CASES = [("lce", lce, LABELS), ("ranknet", ranknet, RANKS)]


@pytest.mark.parametrize("name, ours, target", CASES)
def test_sentence_transformers_loss_equals_ours(name, ours, target):
    pytest.importorskip("sentence_transformers")

    class Model:  # gives a passage the score that is its text
        num_labels, device = 1, torch.device("cpu")

        def preprocess(self, pairs, **_) -> dict:
            return {"places": torch.tensor([int(passage) for _, passage in pairs])}

        def __call__(self, tokens: dict) -> dict:
            return {"scores": theirs.flatten()[tokens["places"]][:, None]}

    theirs, scores = SCORES.clone().requires_grad_(), SCORES.clone().requires_grad_()
    loss = sentence_transformers_loss(Model(), name)
    labels = [torch.tensor(sentence_transformers_labels(name, of_list)) for of_list in target.tolist()]
    texts = [[str(4 * row + column) for column in range(4)] for row in range(3)]
    value = loss([["q"] * 3, texts], labels)
    expected = ours(scores, target, torch.ones_like(target, dtype=torch.bool))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    value.backward(), expected.backward()
    torch.testing.assert_close(theirs.grad, scores.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name, ours, target", CASES)
def test_lightning_ir_loss_equals_ours(name, ours, target):
    losses = pytest.importorskip("lightning_ir")
    loss = losses.InfoNCE() if name == "lce" else losses.RankNet()
    batch = SimpleNamespace(targets=torch.tensor([gains(name, of_list) for of_list in target.tolist()]))
    value = loss.compute_loss(SimpleNamespace(scores=SCORES), batch)
    expected = ours(SCORES, target, torch.ones_like(target, dtype=torch.bool))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def test_cut_text_has_the_tokens_that_are_read(tmp_path):
    model = make_model(tmp_path, "bert")
    cut = TextCutter(model)
    text = " ".join(["bees", "honeycomb,", "unrecognisable"] * 10)
    for kind, limit in (("query", 8), ("passage", 20)):
        (whole, read) = (
            model.tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, cut(text, kind))
        )
        assert len(whole) > limit and read == whole[:limit]
    assert cut("short", "query") == "short" and cut.num_changed == 0


def options_of(collection, backbone, **others) -> list[str]:
    paths = {"encoder": backbone, "passages": collection["passages"], "run": collection["first_stage"]}
    paths |= {name: collection["queries"] for name in ("queries", "test-queries")}
    paths |= {name: collection["qrels"] for name in ("qrels", "test-qrels")} | {"test-run": collection["first_stage"]}
    sizes = {"negatives": 2, "steps": 4, "batch-size": 2, "query-length": 4, "passage-length": 8, "dropout": 0}
    sizes |= {"lr": 1e-3, "warmup": 2, "threads": 1, "test-depth": 10, "device": "cpu"}
    return [word for name, value in (paths | sizes | others).items() for word in (f"--{name}", str(value))]


@pytest.mark.parametrize("loss", ["lce", "ranknet"])
def test_lists_are_those_of_the_training_steps(collection, backbone, tmp_path, loss, monkeypatch):
    from benchmarks.peers import parse
    from distill.data.lists import read_lists
    from distill.data.loader import BatchLoader
    from distill.models.cross_encoder import CrossEncoder

    options = options_of(collection, backbone, teacher=collection["teacher"], depth=5, output=tmp_path / "o.json")
    monkeypatch.setattr(sys, "argv", ["peers", loss, *options])
    arguments = parse()
    model = CrossEncoder.from_backbone(str(backbone), query_length=4, passage_length=8)
    model.save_pretrained(tmp_path / "student")
    lists = list(training_lists(arguments, 3, tmp_path, TextCutter(model)))
    assert len(lists) == 4 * 2 and {len(each["passages"]) for each in lists} == {3 if loss == "lce" else 5}
    cfg = compose_config("train", *training_overrides(arguments, tmp_path / "student", 3))
    loader = BatchLoader(read_lists(cfg, model.tokenizer), model.template, cfg)
    for step in range(4):
        batch, of_step = loader[step], lists[2 * step : 2 * step + 2]
        assert batch.query_ids == [each["query_id"] for each in of_step]
        assert batch.targets[cfg.loss.target].tolist() == [each["targets"] for each in of_step]
        pairs = [(each["query"], passage) for each in of_step for passage in each["passages"]]
        tokens = [token for pair in pairs for token in model.tokenizer(*pair)["input_ids"]]
        assert batch.tokens.tolist() == tokens


def test_means_and_tests_by_hand():
    def row(name: str, seed: int, values: list[float], seconds: float) -> dict:
        mean = sum(values) / len(values)
        times = {"seconds": seconds, "process_seconds": 2 * seconds, "peak_bytes": seconds * 1e9}
        return {"name": name, "seed": seed, "measures": {"RR": mean}, "per_query": {"RR": values}} | times

    rows = [
        row("ours", 0, [1.0, 0.5, 0.3], 60),
        row("ours", 1, [0.0, 0.5, 0.5], 120),
        row("other", 0, [0.4, 0.6, 0.2], 60),
    ]
    rows.append({"name": "third", "seed": 0, "left_out": "not installed"})
    found = summarise(rows)
    ours, other = found["summary"]
    assert ours["RR"] == pytest.approx({"mean": (0.6 + 1 / 3) / 2, "deviation": (0.6 - 1 / 3) / 2**0.5})
    assert (ours["seconds"], ours["peak_bytes"], other["RR"]["deviation"]) == (90, 120e9, None)
    (test,) = found["tests"]  # on seed 0, which both have: differences -0.6, 0.1, -0.1
    assert test["difference"] == pytest.approx(-0.2) and test["t"] == pytest.approx(-0.2 / (0.13 / 3) ** 0.5)
    table = format_table({"RR": 0.25}, rows)
    assert "third, seed 0: left out: not installed" in table and "0.4667 ± 0.1886" in table


def test_time_to_the_best_value_of_the_other_library_by_hand():
    theirs = [[(2, 10.0, 0.3), (4, 20.0, 0.5)], [(2, 9.0, 0.4), (4, 18.0, 0.45)]]
    rows = [{"name": "sentence-transformers", "curve": curve} for curve in theirs]
    assert time_to_reach([{"name": "ours", "curve": [(2, 5.0, 0.6)]}]) == {}
    ours = {"name": "ours", "curve": [(2, 5.0, 0.4), (4, 9.5, 0.5), (6, 14.0, 0.6)]}
    expected = {"sentence-transformers": 20.0, "ours": 9.5}
    assert time_to_reach([*rows, ours]) == {"value": 0.5, "seconds_to_value": expected}
    ours["curve"] = ours["curve"][:1]
    assert time_to_reach([*rows, ours])["seconds_to_value"] == expected | {"ours": None}


@pytest.mark.long
def test_both_sides_have_a_curve_whose_clock_stands_still_at_its_points(collection, backbone, tmp_path):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("datasets")
    output = tmp_path / "time.json"
    options = options_of(collection, backbone, output=output, work=tmp_path / "work", every=3, pooling="mean")
    ours = "optimizer.lr=2e-3 optimizer.head_lr=1e-2"
    options += ["--lrs", "1e-3,2e-3:1e-2/3", "--ours", ours]
    command = [sys.executable, "-m", "benchmarks.time_to_quality", "lce", *options]
    environment = os.environ | {"DISTILL_CACHE": str(tmp_path / "cache")}
    for _ in range(2):  # the second time, nothing is missing
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    rows = {row["options"]: row for row in json.loads(output.read_text())["rows"]}
    assert list(rows) == ["lr=1e-3", "lr=2e-3:1e-2/3", ours]
    for name, row in rows.items():
        steps = [3] if name.endswith("/3") else [3, 4]
        assert [step for step, _, _ in row["curve"]] == steps and len(row["losses"]) == steps[-1]
        seconds = [0.0, *(moment for _, moment, _ in row["curve"]), row["seconds"]]
        assert seconds == sorted(seconds)
    assert rows["lr=1e-3"]["losses"][0] == pytest.approx(rows[ours]["losses"][0], abs=1e-5)  # one student, one list


@pytest.mark.long
def test_libraries_train_alike_and_a_finished_row_is_kept(collection, backbone, tmp_path):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("datasets")
    output = tmp_path / "peers.json"

    def run(**others) -> subprocess.CompletedProcess:
        alike = {"pooling": "mean", "head-lr": 1e-2}  # ten times the other rate: in the losses from the second step
        options = options_of(collection, backbone, output=output, work=tmp_path / "work", **alike | others)
        command = [sys.executable, "-m", "benchmarks.peers", "lce", *options, "--lightning-ir", str(tmp_path / "none")]
        environment = os.environ | {"DISTILL_CACHE": str(tmp_path / "cache")}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    assert "lightning-ir, seed 0: left out: none: No such file or directory" in done.stdout
    found = json.loads(output.read_text())
    assert {"device", "date", "versions", "commit", "command", "settings", "first_stage"} <= found.keys()
    assert str(tmp_path) not in output.read_text()  # nor any other machine's folders
    ours, theirs, left_out = found["rows"]
    assert all(row["device"] == found["device"] and row["commit"] == found["commit"] for row in found["rows"])
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5) and len(ours["losses"]) == 4
    assert theirs["reranked_by_ours"]["largest_score_difference"] < 1e-4
    assert "left_out" in left_out and ours["training"] == {"lists": 8, "pairs": 24, "cuts_that_change_tokens": 0}
    assert min(ours["seconds"], ours["peak_bytes"], theirs["seconds"], theirs["peak_bytes"]) > 0
    assert run().returncode == 0
    assert json.loads(output.read_text())["rows"][:2] == [ours, theirs]
    refused = run(steps=5)
    assert refused.returncode == 2 and "have other settings" in refused.stderr
