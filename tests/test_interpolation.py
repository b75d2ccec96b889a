"""Interpolation of a student with its first stage, against values worked out by hand."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config.checks import check_evaluate, check_train
from distill.config.measures import parse_measures
from distill.errors import InputError
from distill.evaluation.interpolation import choose_weight, interpolate_run, interpolated_row
from distill.evaluation.measures import measure
from distill.evaluation.tasks import Task, first_stage_name, perfect_order, read_task
from distill.models.cross_encoder import CrossEncoder
from distill.models.interpolation import Interpolation, interpolate
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from tests.helpers.commands import run_evaluate, start_ranks
from tests.helpers.configuration import compose_config
from tests.helpers.models import without_checksums
from tests.helpers.rankings import ranked
from tests.helpers.reports import make_run, report_on
from tests.helpers.training import run_train

FIRST = {"q1": ranked({"a": 3.0, "b": 2.0, "c": 1.0}), "q2": ranked({"d": 9.0, "e": 5.0, "f": 1.0})}
STUDENT = {"q1": ranked({"c": 4.0, "b": 3.0, "a": -7.0}), "q2": ranked({"d": 2.0, "f": 1.0, "e": 0.0})}
SCORES = st.lists(st.sampled_from([0.0, 1e-20, 1.0, 1.0000001, 2.0, -3.5, 1e8]), min_size=1, max_size=6)


def make_task(qrels: dict, **more) -> Task:
    measures = parse_measures(["RR@10", "nDCG@10"])
    return Task("hand", "hand", FIRST, qrels, measures, None, {}, {}, 1, None, "bm25.run", **more)


def model_with(backbone, directory, interpolation: Interpolation | None) -> CrossEncoder:
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.interpolation = interpolation
    model.save_pretrained(directory)
    return model.eval()


def read_csv(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# The formula


def test_two_passages_by_hand():
    # z = ±1 for any two different scores: 0.75 · 1 − 0.25 · 1 = 0.5
    order, scores = interpolate(np.array([1.0, 3.0]), np.array([80.0, 70.0]), 0.75)
    assert order.tolist() == [1, 0] and scores.tolist() == [0.5, -0.5]


def test_three_passages_by_hand():
    # student 1, 2, 3: z = −√1.5, 0, √1.5; first stage 6, 3, 0: z = √1.5, 0, −√1.5
    order, scores = interpolate(np.array([1.0, 2.0, 3.0]), np.array([6.0, 3.0, 0.0]), 0.3)
    assert order.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, [0.4 * math.sqrt(1.5), 0, -0.4 * math.sqrt(1.5)], atol=1e-15)


def test_a_constant_list_leaves_the_order_to_the_other():
    assert interpolate(np.array([1.0, 3.0, 2.0]), np.full(3, 0.1), 0.05)[0].tolist() == [1, 2, 0]
    assert interpolate(np.full(3, 0.1), np.array([1.0, 3.0, 2.0]), 0.95)[0].tolist() == [1, 2, 0]


@given(SCORES.flatmap(lambda s: st.tuples(st.just(s), st.lists(st.floats(-10, 10), min_size=len(s), max_size=len(s)))))
def test_weight_1_gives_the_students_order_and_weight_0_the_first_stages(lists):
    student, first = (np.array(one) for one in lists)
    for weight, decides in ((1, student), (0, first)):
        expected = sorted(range(len(student)), key=lambda place, scores=decides: -scores[place])
        assert interpolate(student, first, weight)[0].tolist() == expected


def test_a_run_is_interpolated_query_by_query_with_the_scores_of_its_passages():
    run = interpolate_run(STUDENT, FIRST, 0.5)
    # q1: student a −7, b 3, c 4: mean 0, sd √(74 / 3); first stage: z = √1.5, 0, −√1.5
    z = np.array([-7, 3, 4]) / math.sqrt(74 / 3)
    by_hand = dict(zip("abc", 0.5 * z + 0.5 * np.array([math.sqrt(1.5), 0, -math.sqrt(1.5)]), strict=True))
    assert run["q1"].doc_ids == sorted(by_hand, key=by_hand.get, reverse=True) == ["b", "a", "c"]
    np.testing.assert_allclose(run["q1"].scores, sorted(by_hand.values(), reverse=True), atol=1e-15)
    assert interpolate_run(STUDENT, FIRST, 0)["q1"].doc_ids == FIRST["q1"].doc_ids
    assert interpolate_run(STUDENT, FIRST, 1)["q2"].doc_ids == STUDENT["q2"].doc_ids


# The weight


def test_the_best_weight_is_chosen_on_the_first_measure_and_the_largest_of_equals():
    # b is first in q1 only in between: 0.5 z_b = 0.302 w > its rivals' where w is neither near 0 nor near 1
    chosen = choose_weight([make_task({"q1": {"b": 1}, "q2": {"d": 1}})], [STUDENT])
    values = {}
    for weight in [step / 20 for step in range(21)]:
        order = interpolate_run(STUDENT, FIRST, weight)
        values[weight] = sum(1 / (1 + order[q].doc_ids.index(d)) for q, d in (("q1", "b"), ("q2", "d"))) / 2
    assert values[0.0] == values[1.0] == 0.75 and max(values.values()) == 1
    best = max(weight for weight, value in values.items() if value == 1)
    assert chosen == Interpolation(best, ("bm25.run",), "RR@10", 2) and 0 < best < 1


def test_where_every_weight_is_as_good_the_student_decides():
    assert choose_weight([make_task({"q2": {"d": 1}})], [STUDENT]).weight == 1


def test_a_first_stage_without_scores_costs_a_warning(caplog):
    flat = {q: RankedList(one.doc_ids, np.ones(3), one.ranks) for q, one in FIRST.items()}
    task = make_task({"q1": {"b": 1}}, interpolate=0.1)
    task.run = flat
    row = interpolated_row(task, STUDENT, None)["interpolated"]
    assert [row[q].doc_ids for q in row] == [STUDENT[q].doc_ids for q in row]
    assert len(caplog.messages) == 1
    assert "hand: bm25.run gives all passages the same score in 2 of 2 lists: there the student's" in caplog.text


def test_auto_takes_the_models_weight_and_warns_of_another_first_stage(caplog):
    task = make_task({"q1": {"b": 1}}, interpolate="auto")
    own = Interpolation(0.5, ("bm25.run",), "RR@10", 2)
    assert interpolated_row(task, STUDENT, own)["interpolated"]["q1"].doc_ids == ["b", "a", "c"]
    assert not caplog.messages
    interpolated_row(task, STUDENT, Interpolation(0.5, ("splade.run",), "RR@10", 2))
    assert "hand: the weight 0.5 was chosen with the first stage splade.run, not with bm25.run" in caplog.text


def test_fit_only_says_which_weight_is_best(caplog):
    caplog.set_level("INFO")
    assert interpolated_row(make_task({"q2": {"f": 1}}, interpolate="fit"), STUDENT, None) == {}
    assert "best weight beside bm25.run is 1: RR@10 0.5000 on 1 queries" in caplog.text
    assert "hand: chosen on these queries, so use it on others: task.interpolate=1" in caplog.text


def test_a_first_stage_is_called_by_its_file_or_id():
    assert first_stage_name("runs/bm25.dev.run.gz") == "bm25.dev.run.gz" and first_stage_name("bm25") == "bm25"
    assert first_stage_name("msmarco-passage/dev/small") == "msmarco-passage/dev/small"
    assert first_stage_name("hf://datasets/a/b/runs/c.run.gz#test") == "c.run.gz"


def test_the_perfect_order_follows_the_grades_and_keeps_the_run_within_one():
    ideal = perfect_order(FIRST, {"q1": {"c": 2, "b": -1, "z": 3}, "q2": {"f": 1, "d": 3}})
    assert ideal["q1"].doc_ids == ["c", "a", "b"] and ideal["q2"].doc_ids == ["d", "f", "e"]
    # z is not in the list: (2 / log2(2)) / (3 / log2(2) + 2 / log2(3))
    values, _ = measure(ideal, {"q1": {"c": 2, "b": -1, "z": 3}}, parse_measures(["nDCG@10"]))
    assert values["nDCG@10"] == pytest.approx(2 / (3 + 2 / math.log2(3)))


# The model's files, and rank()


def test_the_weight_is_in_the_models_files_and_models_without_one_open_as_before(tmp_path, backbone):
    own = Interpolation(0.65, ("bm25",), "nDCG@10", 200)
    model_with(backbone, tmp_path / "with", own)
    assert CrossEncoder.from_pretrained(str(tmp_path / "with")).interpolation == own
    settings = json.loads((tmp_path / "with" / "distill.json").read_text())
    assert {key: value for key, value in settings.items() if key != "crc32"} == {
        "query_length": 8,
        "passage_length": 16,
        "interpolation": {"weight": 0.65, "first_stages": ["bm25"], "measure": "nDCG@10", "num_queries": 200},
    }
    model_with(backbone, tmp_path / "without", None)
    assert json.loads((tmp_path / "without" / "distill.json").read_text()).keys() == settings.keys() - {"interpolation"}
    assert CrossEncoder.from_pretrained(str(tmp_path / "without")).interpolation is None


@pytest.mark.parametrize("damage", [{"weight": 2}, {"weight": True}, {"first_stages": "bm25"}, {"num_queries": None}])
def test_a_damaged_weight_is_refused(tmp_path, backbone, damage):
    model_with(backbone, tmp_path / "m", Interpolation(0.65, ("bm25",), "nDCG@10", 200))
    file = without_checksums(tmp_path / "m") / "distill.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"interpolation": settings["interpolation"] | damage}))
    with pytest.raises(InputError, match="distill.json: interpolation=.* must hold a weight from 0 to 1"):
        CrossEncoder.from_pretrained(str(tmp_path / "m"))


def test_rank_interpolates_with_the_given_weight_or_the_models_own(tmp_path, backbone):
    model = model_with(backbone, tmp_path / "m", Interpolation(0.25, ("bm25",), "nDCG@10", 200))
    query, passages, first = "a bee", ["the sun", "trains follow", "an ant and rain", "home of iron"], [4, 1, 3, 2]
    places, student = model.rank(query, passages)
    in_order = np.empty(4)
    in_order[places] = student
    for weight, expected in ((None, 0.25), (0.7, 0.7)):
        order, scores = interpolate(in_order, np.array(first, float), expected)
        found = model.rank(query, passages, first_stage_scores=first, weight=weight)
        assert found == (order.tolist(), pytest.approx(scores.tolist()))
    assert model.rank(query, passages, first_stage_scores=first, weight=1)[0] == places
    assert model.rank(query, passages, first_stage_scores=np.array(first), weight=np.float32(0))[0] == [0, 2, 3, 1]
    assert model.rank(query, [], first_stage_scores=[]) == ([], [])
    several = model.rank([query] * 2, [passages] * 2, first_stage_scores=np.array([first, first]), weight=1)
    assert several == [model.rank(query, passages, first_stage_scores=first, weight=1)] * 2
    with pytest.raises(InputError, match="first_stage_scores has 0 lists: give one for each of 2 queries"):
        model.rank([query] * 2, [passages] * 2, first_stage_scores=[])


def test_pyterrier_interpolates_with_the_column_score(tmp_path, backbone):
    pytest.importorskip("pyterrier", reason="python-terrier is not installed")
    import pandas as pd

    from distill.pyterrier import Reranker

    model = model_with(backbone, tmp_path / "m", Interpolation(0.25, ("bm25",), "nDCG@10", 200))
    passages, first = ["the sun", "trains follow", "an ant and rain"], [4.0, 1.0, 3.0]
    rows = [("q1", "a bee", str(number), passages[number], first[number], number) for number in range(3)]
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])
    for share, weight in (("auto", 0.25), (0.7, 0.7)):
        order, scores = model.rank("a bee", passages, first_stage_scores=first, weight=weight)
        found = Reranker(model, interpolate=share)(frame)
        assert found["docno"].tolist() == list(map(str, order)) and found["score"].tolist() == scores
    assert Reranker(model)(frame)["score"].tolist() == model.rank("a bee", passages)[1]
    with pytest.raises(InputError, match="weight=2: must be a number from 0"):
        Reranker(model, interpolate=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_stage_scores": [1, 2]}, "this model's files hold no weight to interpolate with: give one, as in rank"),
        ({"first_stage_scores": [1], "weight": 0.5}, "first_stage_scores holds 1 scores for 2 passages: give one for"),
        ({"first_stage_scores": [1, 2], "weight": 1.5}, r"weight=1.5: must be a number from 0 \(the first stage's"),
        ({"first_stage_scores": [1, math.nan], "weight": 0.5}, "first_stage_scores: passage 1 has the score nan"),
        ({"first_stage_scores": ["a", "b"], "weight": 0.5}, "first_stage_scores=.* must be a list of numbers"),
        ({"weight": 0.5}, "weight without first_stage_scores: give the first stage's score of each passage, too"),
    ],
)
def test_rank_refuses_in_one_line_what_it_cannot_interpolate(backbone, options, message):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    with pytest.raises(InputError, match=message):
        model.rank("a bee", ["the sun", "rain"], **options)


# train.py and evaluate.py


def test_a_training_chooses_the_weight_writes_it_and_measures_with_it(file_overrides, tmp_path, collection):
    options = ["task.interpolate=auto", "task.ideal=true", f"task.fused={collection['teacher']}"]
    results = run_train(tmp_path / "out", *file_overrides, *options)
    own = CrossEncoder.from_pretrained(str(tmp_path / "out" / "model")).interpolation
    assert (own.first_stages, own.measure, own.num_queries) == (("first_stage.txt",), "nDCG@10", 6)
    for row in ("first_stage", "fused", "ideal", "interpolated"):
        values = read_csv(tmp_path / "out" / f"{row}.per_query.csv")
        mean = sum(float(line["nDCG@10"]) for line in values) / 6
        assert mean == pytest.approx(results[f"{row}/files/nDCG@10"])
    # Validation and test have the same queries here: nothing is above the best weight, or above the perfect order
    assert results["interpolated/files/nDCG@10"] >= results["test/files/nDCG@10"] - 1e-9
    assert results["ideal/files/nDCG@10"] == 1.0
    run, first = read_run(str(tmp_path / "out" / "run.txt")), read_run(str(collection["first_stage"]))
    interpolated = read_run(str(tmp_path / "out" / "interpolated.run.txt"))
    expected = interpolate_run(run, first, own.weight)
    assert {q: one.doc_ids for q, one in interpolated.items()} == {q: one.doc_ids for q, one in expected.items()}
    # A training that has ended is measured again: the same weight, though the best validation's runs are gone
    again = run_train(tmp_path / "out", *file_overrides, *options, f"resume={tmp_path / 'out'}")
    assert again["interpolated/files/nDCG@10"] == results["interpolated/files/nDCG@10"]
    assert CrossEncoder.from_pretrained(str(tmp_path / "out" / "model")).interpolation == own


def test_without_being_asked_a_training_only_writes_the_weight(file_overrides, tmp_path):
    results = run_train(tmp_path / "out", *file_overrides)
    assert {name.split("/")[0] for name in results} == {"val", "train", "memory", "first_stage", "test"}
    assert CrossEncoder.from_pretrained(str(tmp_path / "out" / "model")).interpolation is not None
    assert not (tmp_path / "out" / "interpolated.run.txt").exists()


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("evaluate", ["task.interpolate=0.5"], "task.interpolate needs a model, whose scores it takes"),
        ("evaluate", ["model=m", "task.interpolate=1.5"], "task.interpolate=1.5: must be the student's weight"),
        ("evaluate", ["model=m", "task.interpolate=best"], "task.interpolate=best: must be the student's weight"),
        ("evaluate", ["task.fused=no.run"], "task.fused=no.run: no such file"),
        ("train", ["task.interpolate=fit"], "task.interpolate=fit is for evaluate.py"),
        (
            "train",
            ["task.interpolate=auto", "validation.run=null", "train.patience=null"],
            "task.interpolate=auto needs a validation",
        ),
        ("train", ["task.interpolate=0.5", "task.run=null", "task.untrained=false"], "task.interpolate needs task.run"),
    ],
)
def test_what_cannot_be_interpolated_is_refused_before_anything_is_loaded(command, overrides, message):
    cfg = compose_config(command, *overrides)
    with pytest.raises(InputError, match=message):
        (check_train if command == "train" else check_evaluate)(cfg)


def task_overrides(collection) -> list[str]:
    names = ("passages", "queries", "qrels")
    files = [f"task.{name}={collection[name]}" for name in names]
    return ["task=files", *files, f"task.run={collection['first_stage']}"]


def test_auto_with_a_model_without_a_weight_is_one_line_with_the_remedy(tmp_path, collection, backbone):
    model_with(backbone, tmp_path / "m", None)
    options = [f"model={tmp_path / 'm'}", *task_overrides(collection), "task.interpolate=auto"]
    run = run_evaluate(tmp_path / "out", *options)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert f"error: task.interpolate=auto: {tmp_path / 'm'} holds no weight" in run.stderr


def test_a_suite_is_interpolated_with_each_tasks_weight_and_resumed(tmp_path, collection, backbone):
    model_with(backbone, tmp_path / "m", Interpolation(0.25, ("first_stage.txt",), "nDCG@10", 6))
    files = [one for one in task_overrides(collection) if not one.startswith("task.run=")]
    tasks = {"one": "first_stage", "two": "teacher"}
    suite = [f"+task.tasks.{name}.run={collection[run]}" for name, run in tasks.items()]
    suite += ["task.name=pair", "task.means=[arithmetic]", "task.interpolate=auto", "+task.tasks.two.interpolate=0"]
    options = [f"model={tmp_path / 'm'}", *files, *suite, "task.ideal=true"]
    run = run_evaluate(tmp_path / "out", *options)
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "out" / "results.json").read_text()
    results = json.loads(text)
    assert results["interpolated/two/nDCG@10"] == pytest.approx(results["first_stage/two/nDCG@10"])
    mean = (results["interpolated/one/nDCG@10"] + results["interpolated/two/nDCG@10"]) / 2
    assert results["interpolated/pair-arithmetic-mean/nDCG@10"] == pytest.approx(mean)
    assert "perfect order" in run.stdout and "interpolated" in run.stdout
    for name in ("results.json", "tasks/two/per_query.csv", "tasks/one/interpolated.run.txt"):
        (tmp_path / "out" / name).unlink()  # as if it had been stopped in the second task
    again = run_evaluate(tmp_path / "out", f"resume={tmp_path / 'out'}")
    assert again.returncode == 0 and "one: already re-ranked" in again.stderr, again.stderr
    assert (tmp_path / "out" / "results.json").read_text() == text
    assert (tmp_path / "out" / "tasks" / "one" / "interpolated.run.txt").is_file()


def test_two_ranks_interpolate_as_one_does(tmp_path, collection, backbone):
    model_with(backbone, tmp_path / "m", None)
    for size in (1, 2):
        options = [f"model={tmp_path / 'm'}", *task_overrides(collection), "task.interpolate=0.4"]
        for rank in start_ranks(size, "evaluate.py", *options, f"hydra.run.dir={tmp_path / str(size)}"):
            assert rank.wait() == 0, rank.communicate()
    one, two = ((tmp_path / name / "interpolated.per_query.csv").read_text() for name in ("1", "2"))
    assert one == two


def test_a_fusion_of_other_queries_is_refused(tmp_path, collection):
    (tmp_path / "f.run").write_text("q99 Q0 d1 1 1.0 f\n")
    cfg = compose_config("evaluate", *task_overrides(collection), f"task.fused={tmp_path / 'f.run'}").task
    with pytest.raises(InputError, match="f.run: shares no query with .*first_stage.txt: use the fusion of this run"):
        read_task(cfg)


# The report


def make_measured(directory) -> None:
    """Write two runs whose student is 0.1 above the first stage, give or take 0.02, and 0.2 when interpolated."""
    first = [0.1, 0.2, 0.3, 0.4]
    for loss in ("ranknet", "lce"):
        student = [value + change for value, change in zip(first, (0.1, 0.12, 0.08, 0.1), strict=True)]
        rows = {
            "first_stage": first,
            "ideal": [1.0] * 4,
            "test": student,
            "interpolated": [one + 0.1 for one in student],
        }
        results = {f"{row}/a/nDCG@10": sum(values) / 4 for row, values in rows.items()}
        config = {"loss.name": loss, "seed": 0, "task.interpolate": "auto"}
        run = make_run(directory / loss, config, results, student)
        for row, values in rows.items():
            if row != "test":
                lines = [f"q{index},{value}\n" for index, value in enumerate(values)]
                (run / f"{row}.per_query.csv").write_text("query_id,nDCG@10\n" + "".join(lines))


def test_the_report_shows_the_rows_and_tests_against_the_first_stage(tmp_path):
    make_measured(tmp_path / "runs")
    markdown = (report_on(tmp_path / "runs", "baseline=first_stage", "published=false") / "results.md").read_text()
    assert "|  | a/nDCG@10 | interpolated/a/nDCG@10 |" in markdown
    assert "| first stage | 0.2500 | 0.2500 |" in markdown and "| perfect order | 1.0000 | 1.0000 |" in markdown
    assert "| loss=lce | **0.3500**† | **0.4500**† |" in markdown
    assert "† p < 0.05 against first stage" in markdown


def test_evaluations_that_differ_only_in_interpolation_share_a_row(tmp_path):
    make_run(tmp_path / "runs" / "0", {"model": "m", "task.interpolate": None}, {"test/a/nDCG@10": 0.5})
    both = {"test/a/nDCG@10": 0.5, "interpolated/a/nDCG@10": 0.6}
    make_run(tmp_path / "runs" / "1", {"model": "m", "task.interpolate": 0.5}, both)
    markdown = (report_on(tmp_path / "runs", "published=false") / "results.md").read_text()
    assert markdown.count("| 0.5000 | 0.6000 |") == 1
    make_run(tmp_path / "runs" / "2", {"model": "m", "task.interpolate": 0.9}, both | {"interpolated/a/nDCG@10": 0.7})
    markdown = (report_on(tmp_path / "runs", "published=false") / "results.md").read_text()
    assert "0.6000" in markdown and "0.7000" in markdown
