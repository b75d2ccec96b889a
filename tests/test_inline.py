"""Training lines with inline texts stand for queries, passages, qrels and a run, and bad ones are refused by line."""

import json

import pytest

import distill.sources.opening
from distill.config.checks import check_train
from distill.errors import InputError
from distill.sources.fields import Fields
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists

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
    monkeypatch.setattr(distill.sources.opening, "LARGE_FILE", 10)
    cached = read_run(path)
    assert list(cached) == list(expected)
    assert all(cached[query_id].doc_ids == expected[query_id].doc_ids for query_id in expected)


@pytest.mark.parametrize("more", [{}, {"neg_scores": None}, {"neg_scores": []}])
def test_a_line_without_negatives_needs_no_scores_of_them(write, more):
    path = write([{"query": "snow", "pos": ["rain", "snow"], "neg": [], "pos_scores": [0.1, 0.9]} | more])
    assert ranking(path) == {"1": [("1+2", 0.9, 1), ("1+1", 0.1, 2)]}
    assert read_qrels(path) == {"1": {"1+1": 1, "1+2": 1}}


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", r"lines.jsonl:2: is not a JSON object"),
        ({"pos": ["a"], "neg": []}, r"lines.jsonl:2: lacks a `query`"),
        ({"query": "q", "pos": "a", "neg": []}, r"lines.jsonl:2: `pos` is not a list of texts"),
        ({"query": "q", "pos": ["a"]}, r"lines.jsonl:2: `neg` is not a list of texts"),
        ({"query": "q", "pos": [], "neg": ["a"]}, r"lines.jsonl:2: `pos` is empty"),
        ({**LINES[1], "neg_scores": [1, 2]}, r"lines.jsonl:2: 2 `neg_scores` for 1 passages in `neg`"),
        ({**LINES[1], "neg_scores": None}, r"lines.jsonl:2: no `neg_scores` for 1 passages"),
        ({**LINES[1], "pos_scores": None}, r"lines.jsonl:2: no `pos_scores` for 2 passages"),
        ({**LINES[1], "neg": [], "neg_scores": [1]}, r"lines.jsonl:2: 1 `neg_scores` for 0 passages"),
        ({**LINES[1], "pos_scores": [1, "2"]}, r"lines.jsonl:2: `pos_scores` '2' is not a number"),
        ({**LINES[1], "neg_scores": [float("nan")]}, r"lines.jsonl:2: `neg_scores` nan is not finite"),
    ],
)
def test_a_bad_line_is_answered_with_file_line_and_reason(write, backbone, line, message):
    with pytest.raises(InputError, match=message):
        decoded_lists(compose(write([LINES[0], line]), backbone, "loss=ranknet"))


TEVATRON = {
    "query_id": "t7",
    "query": "a bee finds",
    "positive_passages": [{"docid": "d1", "title": "bee", "text": "home"}],
    "negative_passages": [{"docid": 5, "text": "trains"}, {"docid": "d3", "title": "", "text": "iron rails"}],
}
RANK_LLM = {
    "query": {"text": "snow", "qid": 264014},
    "candidates": [
        {"docid": "d3", "score": 9.5, "doc": {"contents": "snow"}},
        {"docid": "d1", "score": 9.5, "doc": {"title": "an", "text": "ant"}},
        {"docid": "d2", "score": 1, "doc": "rain"},
    ],
}
DOCS = {"query": "snow", "docs": ["ant", "rain", "snow"], "labels": [0, 1, 2]}
TUPLE = {"anchor": "snow", "positive": "rain", "negative": "ant", "negative_2": "trains", "scores": [3.5, 1, 2]}


def ranking(path: str) -> dict:
    return {
        q: list(zip(one.doc_ids, one.scores.tolist(), one.ranks.tolist(), strict=True))
        for q, one in read_run(path).items()
    }


def test_tevatron_lines_keep_their_ids(write):
    other = TEVATRON | {"query_id": "t8", "positive_passages": [{"docid": "d3", "text": "iron rails"}]}
    path = write([TEVATRON, other | {"negative_passages": [{"docid": "d1", "title": "bee", "text": "home"}]}])
    assert read_queries(path) == {"t7": "a bee finds", "t8": "a bee finds"}
    assert read_passages(path, {"d1", "5", "d3"}) == {"d1": "bee home", "5": "trains", "d3": "iron rails"}
    assert read_qrels(path) == {"t7": {"d1": 1}, "t8": {"d3": 1}}
    assert ranking(path)["t7"] == [("d1", 0, 2), ("5", 0, 2), ("d3", 0, 2)]  # no order: all tie


def test_rank_llm_lines_are_a_ranking(write):
    path = write([RANK_LLM, {**RANK_LLM, "query": "rain"}])
    assert read_queries(path) == {"264014": "snow", "2": "rain"}
    assert read_passages(path, {"d1", "d2", "d3"}) == {"d3": "snow", "d1": "an ant", "d2": "rain"}
    assert ranking(path)["264014"] == [("d3", 9.5, 1), ("d1", 9.5, 2), ("d2", 1, 3)]  # equal scores: as they stand
    bare = [{key: one[key] for key in ("docid", "doc")} for one in RANK_LLM["candidates"]]
    assert ranking(write([{**RANK_LLM, "candidates": bare}]))["264014"] == [("d3", -1, 1), ("d1", -2, 2), ("d2", -3, 3)]


def test_labelled_documents_of_sentence_transformers_are_read(write):
    scored = {**DOCS, "qid": "s2", "labels": [0.25, 0.5, -1]}
    assert ranking(write([DOCS, scored])) == {
        "1": [("1.3", 2, 1), ("1.2", 1, 2), ("1.1", 0, 3)],
        "s2": [("2.2", 0.5, 1), ("2.1", 0.25, 2), ("2.3", -1, 3)],
    }
    assert read_qrels(write([DOCS])) == {"1": {"1.2": 1, "1.3": 2}}
    with pytest.raises(InputError, match="lines.jsonl:2: its labels are fractions.*: scores are not grades"):
        read_qrels(write([DOCS, scored]))
    with pytest.raises(InputError, match="lines.jsonl: holds no judgment"):
        read_qrels(write([scored]))
    with pytest.raises(InputError, match="lines.jsonl:1: grade 2000 is beyond"):
        read_qrels(write([DOCS | {"labels": [1, 0, 2000]}]))


def test_tuples_of_sentence_transformers_are_read(write, tmp_path):
    path = write([TUPLE, {"question": "rain", "answer": "snow", "negative_1": "ant"}])
    assert read_queries(path) == {"1": "snow", "2": "rain"}
    assert ranking(path)["1"] == [("1+1", 3.5, 1), ("1-2", 2, 2), ("1-1", 1, 3)]
    assert read_qrels(path) == {"1": {"1+1": 1}, "2": {"2+1": 1}}
    (tmp_path / "a.csv").write_text('anchor,positive,negative\nsnow,"rain, and snow",ant\n')
    assert read_passages(str(tmp_path / "a.csv"), {"2+1", "2-1"}) == {"2+1": "rain, and snow", "2-1": "ant"}


@pytest.mark.parametrize("row", [
    {"query": "snow", "answer": "rain", "label": 0},
    {"query": "snow", "positive": "rain", "negative": "ant", "score": 4.2},
])  # fmt: skip
def test_one_value_for_a_tuple_is_refused_instead_of_ignored(write, row):
    path = write([row])
    with pytest.raises(InputError, match=r":1: `(label|score)` is one value, and no list with one for each of [12]"):
        read_qrels(str(path))


def test_a_csv_of_tuples_serves_losses_that_learn_from_labels(tmp_path, backbone):
    (tmp_path / "a.csv").write_text("anchor,positive,negative\nbee,a bee,ant\nsun,rain,snow\n")
    cfg = compose(str(tmp_path / "a.csv"), backbone, "loss=lce")
    assert as_tuples(decoded_lists(cfg)) == [("2", ["2+1", "2-1"], [1, 0]), ("3", ["3+1", "3-1"], [1, 0])]


def test_questions_with_answers_and_ids_are_no_tuples(tmp_path):
    (tmp_path / "faq.jsonl").write_text('{"id": "f1", "question": "a bee?", "answer": "yes"}\n')
    fields = Fields(None, ("question", "answer"))
    assert read_passages(str(tmp_path / "faq.jsonl"), {"f1"}, fields) == {"f1": "a bee? yes"}
    assert read_queries(str(tmp_path / "faq.jsonl")) == {"f1": "a bee?"}


@pytest.mark.parametrize("key", ["qid", "query_id"])
def test_a_querys_own_id_is_kept_in_every_shape_but_ranked_ones(write, key):
    for line in (LINES[0], DOCS, TUPLE, {k: v for k, v in TEVATRON.items() if k != "query_id"}):
        assert list(read_queries(write([{**line, key: 4}]))) == ["4"]


def test_a_text_with_an_id_is_no_training_line(write):
    path = write([{"_id": "q1", "text": "a bee", "candidates": ["x"], "docs": ["y"], "query": "z", "labels": [1]}])
    assert read_queries(path) == {"q1": "a bee"}


def test_equal_texts_may_differ_in_white_space(write):
    path = write([TEVATRON, TEVATRON | {"query_id": "t8", "negative_passages": [{"docid": "5", "text": " trains "}]}])
    assert read_passages(path, {"5"}) == {"5": "trains"}


def test_lists_in_which_all_passages_tie_are_counted(write, backbone, caplog):
    line = {key: LINES[0][key] for key in ("query", "pos", "neg")}
    assert len(decoded_lists(compose(write([LINES[1], line]), backbone, "loss=ranknet"))) == 2
    assert "in 1 of 2 lists all passages tie, which teaches no order (first: 2)" in caplog.text


@pytest.mark.parametrize("loss", ["lce", "bce", "hinge"])
def test_tevatron_lines_serve_losses_that_learn_from_labels(write, backbone, loss):
    cfg = compose(write([TEVATRON]), backbone, f"loss={loss}")
    check_train(cfg)
    assert as_tuples(decoded_lists(cfg)) == [("t7", ["d1", "5", "d3"], [1, 0, 0])]


def test_rank_llm_lines_teach(write, backbone):
    cfg = compose(write([RANK_LLM]), backbone, "loss=ranknet")
    check_train(cfg)
    assert as_tuples(decoded_lists(cfg)) == [("264014", ["d3", "d1", "d2"], [1, 2, 3])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (TEVATRON | {"positive_passages": []}, "lines.jsonl:1: `positive_passages` is empty"),
        (TEVATRON | {"negative_passages": [{"docid": "d1", "text": "x"}]}, "lines.jsonl:1: passage d1 appears twice"),
        (TEVATRON | {"query_id": "a b"}, "lines.jsonl:1: query_id 'a b' holds a space"),
        (TEVATRON | {"negative_passages": ["trains"]}, "lines.jsonl:1: `negative_passages` is not a list of objects"),
        (RANK_LLM | {"candidates": []}, "lines.jsonl:1: `candidates` is empty"),
        (
            RANK_LLM | {"candidates": [{"docid": "d1", "score": 1}]},
            "lines.jsonl:1: candidate 1 has no `doc` with a text",
        ),
        (RANK_LLM | {"candidates": [*RANK_LLM["candidates"], {"docid": "d9", "doc": "x"}]}, "3 of 4 candidates have a"),
        (RANK_LLM | {"query": {"qid": 1}}, "lines.jsonl:1: lacks a `query`"),
        (DOCS | {"labels": [1, 0]}, "lines.jsonl:1: 2 `labels` for 3 passages in `docs`"),
        (TUPLE | {"scores": [1, 2]}, "lines.jsonl:1: 2 `scores` for 3 passages in the tuple"),
        (TUPLE | {"negative": ["ant"]}, "lines.jsonl:1: `negative` is a list: expected a text"),
    ],
)
def test_bad_lines_of_other_shapes_are_refused(write, line, message):
    with pytest.raises(InputError, match=message):
        read_run(write([line]))


def test_one_passage_with_two_texts_is_refused(write):
    other = TEVATRON | {"query_id": "t8", "positive_passages": [{"docid": "d1", "text": "another"}]}
    path = write([TEVATRON, other | {"negative_passages": []}])
    with pytest.raises(InputError, match="lines.jsonl:2: passage d1 has a different text in an earlier line"):
        read_passages(path, {"d1"})


def test_a_line_without_a_query_text_is_left_out_and_counted(write, backbone, caplog):
    path = write([*LINES, {"query": " ", "pos": ["a"], "neg": ["b"], "pos_scores": [1], "neg_scores": [0]}])
    assert len(decoded_lists(compose(path, backbone, "loss=ranknet"))) == 2
    assert "1 of 3 queries have no text" in caplog.text
