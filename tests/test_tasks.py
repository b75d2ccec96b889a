"""Tasks and suites: averages by hand, what is missing, what is resumed; windows against their definition."""

import csv
import json
import math
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from distill.config.suites import split_suite
from distill.errors import InputError, Unavailable
from distill.evaluation.averages import measure_together, suite_metrics
from distill.evaluation.measures import measure
from distill.evaluation.rerank import TaskReranker, window_starts
from distill.evaluation.tasks import read_task, read_tasks
from distill.models.cross_encoder import CrossEncoder
from distill.sources.qrels import read_qrels
from tests.helpers.commands import run_evaluate
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT
from tests.helpers.training import run_train


def suite_config(tasks: dict, **more):
    cfg = compose_config("evaluate", "task=files").task
    OmegaConf.set_struct(cfg, False)
    return OmegaConf.merge(
        cfg, {"name": "suite", "tasks": tasks, "means": ["arithmetic", "geometric", "quadratic"], **more}
    )


def values(*numbers: float) -> dict:
    return {f"q{place}": {"nDCG@10": number} for place, number in enumerate(numbers)}


# Two corpora and three tasks, worked by hand: corpus a has (0.2 + 0.4 + 0.9) / 3 = 0.5, corpus b 0.32
TASKS = {"one": {"corpus": "a"}, "two": {"corpus": "a"}, "three": {"corpus": "b"}}
MEASURED = {"one": values(0.2, 0.4), "two": values(0.9), "three": values(0.64, 0.0)}


def test_a_suite_averages_queries_within_a_corpus_and_then_corpora():
    results = suite_metrics("test", suite_config(TASKS, run="x"), MEASURED)
    assert results == {
        "test/suite-a/nDCG@10": pytest.approx(0.5),
        "test/suite-b/nDCG@10": pytest.approx(0.32),
        "test/suite-arithmetic-mean/nDCG@10": pytest.approx(0.41),
        "test/suite-geometric-mean/nDCG@10": pytest.approx(0.4),
        "test/suite-quadratic-mean/nDCG@10": pytest.approx(math.sqrt((0.25 + 0.1024) / 2)),
    }


def test_a_corpus_that_lacks_a_task_is_left_out_and_the_mean_says_so():
    measured = {name: MEASURED[name] for name in ("one", "three")}
    assert suite_metrics("test", suite_config(TASKS, run="x"), measured) == {
        "test/suite-b/nDCG@10": pytest.approx(0.32),
        "test/suite-arithmetic-mean-of-1/nDCG@10": pytest.approx(0.32),
        "test/suite-geometric-mean-of-1/nDCG@10": pytest.approx(0.32),
        "test/suite-quadratic-mean-of-1/nDCG@10": pytest.approx(0.32),
    }


def test_a_geometric_mean_with_a_zero_is_zero():
    measured = MEASURED | {"three": values(0.0)}
    assert suite_metrics("test", suite_config(TASKS, run="x"), measured)["test/suite-geometric-mean/nDCG@10"] == 0


def test_a_task_of_a_suite_has_what_it_does_not_override():
    cfg = suite_config({"a": {"depth": 7}, "b": {"measures": ["RR@10"]}}, run="x", passages="p", runs="r/{task}.run")
    one, two = split_suite(cfg)
    assert (one.name, one.depth, one.run, one.passages, one.measures) == ("a", 7, "r/a.run", "p", ["nDCG@10"])
    assert (two.name, two.depth, two.run, two.measures) == ("b", "auto", "r/b.run", ["RR@10"])


def suite_overrides(collection, missing: bool = True) -> list[str]:
    names = ("passages", "queries", "qrels")
    overrides = ["task=files", "task.name=pair", "task.means=[arithmetic]"]
    overrides += [f"task.{name}={collection[name]}" for name in names]
    tasks = {"first": collection["first_stage"], "second": collection["teacher"]}
    tasks |= {"absent": "nowhere.run"} if missing else {}
    return overrides + [f"+task.tasks.{name}.run={run}" for name, run in tasks.items()]


def test_a_suite_is_measured_task_by_task_resumed_and_says_what_is_missing(tmp_path, collection, backbone):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.save_pretrained(tmp_path / "model")
    overrides = [f"model={tmp_path / 'model'}", *suite_overrides(collection), "latency_queries=2"]
    run = run_evaluate(tmp_path / "out", *overrides)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    mean = (results["test/first/nDCG@10"] + results["test/second/nDCG@10"]) / 2
    assert results["test/pair-arithmetic-mean-of-2/nDCG@10"] == pytest.approx(mean)
    assert results["latency/first/seconds_per_query"] > 0 and results["memory/first/peak_bytes"] > 10**7
    assert "absent" in run.stdout and "missing: absent: nowhere.run: no such file" in run.stdout
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("run.txt")}
    assert [path.parent.name for path in sorted(written)] == ["first", "second"]
    for name in ("run.txt", "per_query.csv"):  # as if it had been stopped in the second task
        (tmp_path / "out" / "tasks" / "second" / name).unlink()
    (tmp_path / "out" / "results.json").unlink()
    again = run_evaluate(tmp_path / "out", *overrides, f"resume={tmp_path / 'out'}")
    assert again.returncode == 0 and "first: already re-ranked" in again.stderr, again.stderr
    changed = [path.parent.name for path, time in written.items() if path.stat().st_mtime_ns != time]
    assert changed == ["second"]
    resumed = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {k: v for k, v in resumed.items() if k.startswith(("test/", "first_stage/"))} == pytest.approx(
        {k: v for k, v in results.items() if k.startswith(("test/", "first_stage/"))}
    )
    assert resumed["latency/first/seconds_per_query"] == results["latency/first/seconds_per_query"]
    other = run_evaluate(tmp_path / "out", *overrides, f"resume={tmp_path / 'out'}", "task.depth=5")
    differs = "differs from that of the stopped evaluation (task.depth: auto -> 5)"
    assert other.returncode == 2 and differs in other.stderr


def test_a_bad_line_of_a_later_task_is_found_before_the_first_is_measured(tmp_path, collection):
    bad = tmp_path / "bad.txt"
    bad.write_text(collection["qrels"].read_text() + "q1 0 d1 high\n")
    run = run_evaluate(tmp_path / "out", "model=null", *suite_overrides(collection), f"+task.tasks.second.qrels={bad}")
    assert run.returncode == 2 and f"error: {bad}:" in run.stderr and "is not a whole number" in run.stderr
    assert not (tmp_path / "out").exists() or not [*(tmp_path / "out").iterdir()]


def test_lists_that_are_cut_are_counted(collection, caplog):
    caplog.set_level("INFO")
    run, qrels = collection["first_stage"], collection["qrels"]
    overrides = "task=files", f"task.run={run}", f"task.qrels={qrels}", "task.depth=4"
    read_task(compose_config("evaluate", *overrides).task, texts=False)
    assert f"depth=4: 6 of 6 lists of {run} are longer, and are cut (first: q0)" in caplog.text


def test_a_suite_of_which_nothing_is_here_is_one_line_and_exit_status_2(tmp_path, collection):
    overrides = ["task=files", "task.name=none", f"task.qrels={collection['qrels']}", "+task.tasks.a.run=nowhere.run"]
    run = run_evaluate(tmp_path / "out", "model=null", *overrides)
    assert run.returncode == 2
    assert "error: none: none of its 1 tasks is available: nowhere.run: no such file" in run.stderr


def test_an_unknown_collection_is_unavailable_in_a_suite_alone(collection, caplog):
    cfg = compose_config("evaluate", *suite_overrides(collection)).task
    assert [task.name for task in read_tasks(cfg, {})] == ["first", "second"]
    assert "absent: not measured: nowhere.run" in caplog.text
    with pytest.raises(Unavailable):
        read_task(split_suite(cfg)[2])


def test_a_wrong_key_in_a_task_of_a_suite_is_refused(tmp_path, collection):
    run = run_evaluate(tmp_path / "out", "model=null", *suite_overrides(collection), "+task.tasks.first.dept=3")
    assert run.returncode == 2 and "error: task.tasks.first.dept: did you mean task.tasks.first.depth?" in run.stderr


def test_training_validates_and_tests_on_suites(file_overrides, collection, tmp_path):
    suite = [one.replace("task.", "validation.").replace("task=", "task@validation=") for one in
             suite_overrides(collection, missing=False)]  # fmt: skip
    suite += [*suite_overrides(collection, missing=False), "task.untrained=true"]
    results = run_train(tmp_path / "run", *file_overrides, *suite)
    untrained = (results["untrained/first/nDCG@10"] + results["untrained/second/nDCG@10"]) / 2
    assert results["untrained/pair-arithmetic-mean/nDCG@10"] == pytest.approx(untrained)
    mean = (results["test/first/nDCG@10"] + results["test/second/nDCG@10"]) / 2
    assert results["test/pair-arithmetic-mean/nDCG@10"] == pytest.approx(mean)
    assert results["val/nDCG@10"] == pytest.approx(mean)  # the same queries, the best model
    assert (tmp_path / "run" / "tasks" / "first" / "per_query.csv").is_file()


def test_the_value_of_a_validation_suite_is_the_mean_over_corpora(collection):
    cfg = compose_config("evaluate", *suite_overrides(collection, missing=False)).task
    tasks = list(read_tasks(cfg, {}))
    runs = [task.run for task in tasks]
    one, two = (measure(run, task.qrels, task.measures)[0]["nDCG@10"] for task, run in zip(tasks, runs, strict=True))
    assert measure_together(tasks, runs)["nDCG@10"] == pytest.approx((one + two) / 2)


def test_queries_without_a_text_are_left_out_of_a_task_and_counted(collection, caplog):
    lines = collection["queries"].read_text().splitlines()
    collection["queries"].write_text(
        "\n".join([lines[0], "q1\t ", *lines[2:5], "other\ta bee"]) + "\n"
    )  # q5 is missing
    sources = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    cfg = compose_config("evaluate", "task=files", *sources, f"task.run={collection['first_stage']}").task
    task = read_task(cfg)
    assert list(task.run) == list(task.qrels) == ["q0", "q2", "q3", "q4"]
    assert f"{collection['queries']}: 1 of 6 queries have no text: left out (first: q1)" in caplog.text
    assert f"2 of 6 queries have no text in {collection['queries']}: left out (first: q1)" in caplog.text
    collection["queries"].write_text("other\ta bee\n")
    with pytest.raises(
        InputError, match="first_stage.txt:1: query q0 is not in .*queries.tsv, nor is any other of the 6"
    ):
        read_task(cfg)


def small_task(collection, *more: str):
    sources = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    return compose_config("evaluate", "task=files", *sources, f"task.run={collection['first_stage']}", *more).task


def test_judged_queries_that_a_run_lacks_are_counted(collection, caplog):
    lines = collection["first_stage"].read_text().splitlines(keepends=True)
    collection["first_stage"].write_text("".join(lines[:30]))
    task = read_task(small_task(collection))
    message = "lacks 3 of 6 judged queries: they get the value that the measure defines, mostly 0 (first: q3)"
    assert message in caplog.text and len(task.run) == 3
    collection["qrels"].write_text("q0 0 elsewhere 1\n")
    read_task(small_task(collection))
    assert "none of its passages are judged: check that the judgments belong" in caplog.text


def test_a_teacher_of_other_queries_or_passages_is_refused(collection, tmp_path, caplog):
    teacher = tmp_path / "t.run"
    teacher.write_text("Q0 Q0 d1 1 1 t\n")
    with pytest.raises(InputError, match="t.run: shares no query with .*first_stage.txt: use the teacher's ranking of"):
        read_task(small_task(collection, f"task.teacher={teacher}"))
    teacher.write_text("q0 Q0 x1 1 1 t\n")
    with pytest.raises(InputError, match="t.run: shares no passage with"):
        read_task(small_task(collection, f"task.teacher={teacher}"))
    first = collection["first_stage"].read_text().splitlines(keepends=True)[0]
    teacher.write_text(first)
    read_task(small_task(collection, f"task.teacher={teacher}"))
    assert "t.run: lacks 5 of 6 judged queries" in caplog.text


def test_texts_of_a_task_may_lie_in_named_fields(collection, tmp_path):
    for name, fields in (("passages", "sku,body"), ("queries", "nr,question")):
        rows = (line.replace("\t", ",") for line in collection[name].read_text().splitlines())
        (tmp_path / f"{name}.csv").write_text("\n".join([fields, *rows]) + "\n")
    sources = [f"task.{name}={tmp_path / name}.csv" for name in ("passages", "queries")]
    sources += [f"task.qrels={collection['qrels']}", f"task.run={collection['first_stage']}", "task.id_field=sku"]
    cfg = compose_config("evaluate", "task=files", *sources, "task.text_fields=[body]", "task.query_id_field=nr").task
    task = read_task(cfg)
    plain = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    expected = read_task(compose_config("evaluate", "task=files", *plain, f"task.run={collection['first_stage']}").task)
    assert (task.queries, task.passages) == (expected.queries, expected.passages)


def test_a_passage_with_its_querys_id_is_dropped_on_request(collection):
    text = collection["first_stage"].read_text()
    first = text.split()[2]
    collection["first_stage"].write_text(text.replace(f"q0 Q0 {first} ", "q0 Q0 q0 "))
    with open(collection["passages"], "a") as file:
        file.write("q0\tthe query itself\n")
    overrides = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    overrides += ["task=files", f"task.run={collection['first_stage']}"]
    kept = read_task(compose_config("evaluate", *overrides).task)
    overrides += [f"task.{name}={collection['first_stage']}" for name in ("teacher", "fused")]
    dropped = read_task(compose_config("evaluate", *overrides, "task.drop_identical=true").task)
    assert kept.run["q0"].doc_ids == ["q0", *dropped.run["q0"].doc_ids]
    for beside in (dropped.teacher, dropped.fused):
        assert beside["q0"].doc_ids == dropped.run["q0"].doc_ids


def test_bm25_keeps_as_many_passages_whether_one_is_dropped_or_not(collection, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    collection["passages"].write_text("".join(f"{doc_id}\tsome bees\n" for doc_id in ("q0", "a", "b", "c", "d")))
    collection["queries"].write_text("q0\tbees\nq1\tbees\n")
    collection["qrels"].write_text("q0 0 a 1\nq1 0 a 1\n")
    overrides = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    cfg = compose_config("evaluate", *overrides, "task=files", "task.run=bm25", "task.depth=3").task
    assert read_task(cfg).run["q0"].doc_ids == ["q0", "a", "b"]
    cfg.drop_identical = True
    run = read_task(cfg).run
    assert (run["q0"].doc_ids, run["q1"].doc_ids) == (["a", "b", "c"], ["q0", "a", "b"])


def test_a_suites_task_may_set_a_key_to_null():
    (task,) = split_suite(
        suite_config({"all": {"run": "all.run", "depth": None, "teacher": None}}, depth=5, teacher="t")
    )
    assert task.depth is None and task.teacher is None and task.run == "all.run"


def test_a_suites_task_may_differ_in_one_key_of_bm25():
    tasks = {"en": {"run": "bm25"}, "de": {"run": "bm25", "bm25": {"stemmer": "german"}}}
    english, german = split_suite(suite_config(tasks, bm25={"stop_words": "none"}))
    assert english.bm25 == {"k1": 0.9, "b": 0.4, "stemmer": "porter", "stop_words": "none"}
    assert german.bm25 == {"k1": 0.9, "b": 0.4, "stemmer": "german", "stop_words": "none"}
    for cfg in (compose_config("train", "task@validation=nano-beir", "validation.bm25.b=0.7").validation,
                compose_config("evaluate", "task=nano-beir", "task.bm25.b=0.7").task):  # fmt: skip
        assert {part.bm25.b for part in split_suite(cfg)} == {0.7}


@pytest.mark.parametrize(
    ("num_tokens", "expected"), [(0, [0]), (4, [0]), (5, [0, 2]), (6, [0, 2]), (7, [0, 2, 4]), (9, [0, 2, 4, 6])]
)
def test_windows_reach_the_end_of_a_passage(num_tokens, expected):
    assert list(window_starts(num_tokens, length=4, stride=2)) == expected


def test_a_long_passage_has_the_score_of_its_best_window(collection, backbone):
    overrides = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    overrides += ["task=files", f"task.run={collection['first_stage']}", "task.windows=3", "task.window_stride=2"]
    task = read_task(compose_config("evaluate", *overrides).task)
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=4).eval()
    reranked = TaskReranker(task, model).rerank(model, max_tokens=200)
    num_long = 0
    for query_id, ranked in reranked.items():
        for doc_id, score in zip(ranked.doc_ids, ranked.scores, strict=True):
            words = task.passages[doc_id].split()[: 4 + 2 * 2]  # three windows read so many; a word is a token
            windows = [" ".join(words[start : start + 4]) for start in window_starts(len(words), 4, 2)]
            num_long += len(windows) > 1
            scores = [model.rank(task.queries[query_id], [window])[1][0] for window in windows]
            assert score == pytest.approx(max(scores), abs=1e-5)
    assert num_long > 10


@pytest.mark.shared
@pytest.mark.parametrize("name", ["bm25", "colbert"])
def test_values_per_query_are_those_of_ir_measures_own_command(shared, tmp_path, name):
    folder = shared / "data" / "trec-dl-2019"
    files = [f"task.run={folder / name}.run.gz", f"task.qrels={folder / 'qrels.txt'}", "task.depth=100"]
    run = run_evaluate(tmp_path / "out", "model=null", "task=files", *files)
    assert run.returncode == 0, run.stderr
    command = [sys.executable, "-m", "ir_measures", "-q", "--no_summary"]
    command += [folder / "qrels.txt", tmp_path / "out" / "run.txt", "nDCG@10"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split("\n")
    theirs = {columns[0]: float(columns[2]) for columns in map(str.split, lines) if len(columns) == 3}
    with open(tmp_path / "out" / "per_query.csv", newline="") as file:
        ours = {row["query_id"]: float(row["nDCG@10"]) for row in csv.DictReader(file)}
    assert len(ours) == len(read_qrels(str(folder / "qrels.txt"))) == 43
    assert theirs == pytest.approx(ours, abs=5e-5)  # the command prints four digits
