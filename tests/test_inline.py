"""Training lines with inline texts stand for queries, passages, qrels and a run, and bad ones are refused by line."""

import json

import pytest
from conftest import as_tuples, compose_config, decoded_lists

import distill.trec
from distill.collection import read_passages, read_queries
from distill.config import check_train
from distill.errors import InputError
from distill.trec import read_qrels, read_run

LINES = [
    {
        "query": "a bee finds",
        "pos": ["bee home"],
        "neg": ["trains", "iron  rails"],
        "pos_scores": [3],
        "neg_scores": [1.5, 2],
    },
    {"query": "snow", "pos": ["rain", "snow"], "neg": ["ant"], "pos_scores": [0.1, 0.9], "neg_scores": [-4]},
]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))

    def write_lines(lines) -> str:
        path = tmp_path / "lines.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return str(path)

    return write_lines


def compose(path, backbone, *more):
    overrides = ["data=jsonl", "teacher=jsonl", f"teacher.path={path}", "backbone=hf", f"backbone.name={backbone}"]
    return compose_config("train", *overrides, "train.patience=null", *more)


def test_a_line_gives_query_passages_labels_and_a_ranking(write, backbone):
    path = write(LINES)
    cfg = compose(path, backbone, "loss=ranknet")
    check_train(cfg)
    assert read_queries(path) == {"1": "a bee finds", "2": "snow"}
    passages = {"1+1": "bee home", "1-1": "trains", "1-2": "iron rails", "2+1": "rain", "2+2": "snow", "2-1": "ant"}
    assert read_passages(path, set(passages)) == passages
    assert as_tuples(decoded_lists(cfg)) == [
        ("1", ["1+1", "1-2", "1-1"], [1, 2, 3]),
        ("2", ["2+2", "2+1", "2-1"], [1, 2, 3]),
    ]
    assert read_qrels(path) == {"1": {"1+1": 1}, "2": {"2+1": 1, "2+2": 1}}


@pytest.mark.parametrize("loss", ["lce", "bce", "hinge"])
def test_lines_without_scores_serve_losses_that_learn_from_labels(write, backbone, loss):
    lines = [{key: line[key] for key in ("query", "pos", "neg")} for line in LINES]
    cfg = compose(write(lines), backbone, f"loss={loss}")
    check_train(cfg)
    assert [sorted(one.target) for one in decoded_lists(cfg)] == [[0, 0, 1], [0, 1, 1]]


def test_lines_without_scores_are_no_ranking(write, backbone):
    lines = [{key: line[key] for key in ("query", "pos", "neg")} for line in LINES]
    with pytest.raises(InputError, match="all passages of every list tie.*pos_scores and neg_scores.*loss=lce"):
        decoded_lists(compose(write(lines), backbone, "loss=ranknet"))


def test_a_large_file_goes_through_the_run_cache(write, monkeypatch):
    path = write(LINES)
    expected = dict(read_run(path))
    monkeypatch.setattr(distill.trec, "LARGE_FILE", 10)
    cached = read_run(path)
    assert list(cached) == list(expected)
    assert all(cached[query_id].doc_ids == expected[query_id].doc_ids for query_id in expected)


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", r"lines.jsonl:2: is no JSON object"),
        ({"pos": ["a"], "neg": []}, r"lines.jsonl:2: lacks a `query`"),
        ({"query": "q", "pos": "a", "neg": []}, r"lines.jsonl:2: `pos` is no list of texts"),
        ({"query": "q", "pos": ["a"]}, r"lines.jsonl:2: `neg` is no list of texts"),
        ({"query": "q", "pos": [], "neg": ["a"]}, r"lines.jsonl:2: `pos` is empty"),
        ({**LINES[1], "neg_scores": [1, 2]}, r"lines.jsonl:2: 2 `neg_scores` for 1 passages in `neg`"),
        ({**LINES[1], "neg_scores": None}, r"lines.jsonl:2: no `neg_scores` for 1 passages"),
        ({**LINES[1], "pos_scores": [1, "2"]}, r"lines.jsonl:2: `pos_scores` '2' is no number"),
        ({**LINES[1], "neg_scores": [float("nan")]}, r"lines.jsonl:2: `neg_scores` nan is not finite"),
    ],
)
def test_a_bad_line_is_answered_with_file_line_and_reason(write, backbone, line, message):
    with pytest.raises(InputError, match=message):
        decoded_lists(compose(write([LINES[0], line]), backbone, "loss=ranknet"))
