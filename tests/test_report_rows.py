"""The rows of a report: which runs share one, and what it is called."""

import math

import pytest

from distill.config.overrides import quoted
from distill.report.labels import Labels, read_labels, shorten
from distill.report.paired import per_query
from distill.report.rows import find_row, make_rows, name_rows
from distill.report.runs import read_runs
from distill.report.table import _reference_rows, lower_is_better
from tests.helpers.reports import DL19, make_grid, make_run, named_rows, read_table, report_on


def test_seeds_form_one_row_with_mean_and_sample_deviation(tmp_path):
    make_grid(tmp_path / "runs", {("ranknet", 50): [0.5, 0.7], ("adr_mse", 50): [0.4, 0.5, 0.6]})
    rows = read_table(report_on(tmp_path / "runs", "published=false"))
    assert list(rows) == ["loss=adrmse", "loss=ranknet"]
    for name, mean, std, seeds in (("ranknet", 0.6, math.sqrt(0.02), "2"), ("adrmse", 0.5, 0.1, "3")):
        row = rows[f"loss={name}"]
        assert float(row[DL19]) == pytest.approx(mean, abs=1e-12) and row["kind"] == "ours"
        assert float(row[f"{DL19} std"]) == pytest.approx(std, abs=1e-12) and row[f"{DL19} seeds"] == seeds
    assert "| **0.6000 ± 0.1414** | 2 |" in (tmp_path / "out" / "results.md").read_text()


def test_a_row_is_named_by_what_differs_and_not_by_what_its_loss_implies(tmp_path):
    for number, (loss, target, depth) in enumerate([("lce", "label", 10), ("adr_mse", "rank", 50)]):
        config = {"loss.name": loss, "loss.target": target, "backbone.lr": 1e-5, "data.depth": depth}
        make_run(tmp_path / str(number), config | {"optimizer.lr": 1e-5, "seed": number}, {DL19: 0.5})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert [row.name for row in rows] == ["loss=lce, data.depth=10", "loss=adrmse, data.depth=50"]


def test_a_command_run_twice_is_no_second_seed(tmp_path):
    for number, value in enumerate([0.4, 0.6]):
        make_run(tmp_path / str(number), {"loss.name": "lce", "seed": 0}, {DL19: value})
    (row,) = named_rows(read_runs([str(tmp_path), str(tmp_path / "1")])[0])
    assert row.by_seed(DL19) == {0: 0.5} and len(row.runs) == 2


def test_evaluations_stand_in_the_row_of_the_run_that_trained_the_model(tmp_path):
    for seed in (0, 1):
        run = make_run(tmp_path / "train" / str(seed), {"loss.name": "lce", "seed": seed}, {"train/steps": 9})
        (run / "model").mkdir()
        for task in ("a", "b"):
            config = {"model": str(run / "model"), "task.name": task, "task.run": f"{task}.run", "device": "cpu"}
            make_run(tmp_path / "evaluate" / f"{task}-{seed}", config, {f"test/{task}/nDCG@10": 0.5 + seed / 10})
    (row,) = named_rows(read_runs([str(tmp_path)])[0])
    assert row.by_seed("test/a/nDCG@10") == row.by_seed("test/b/nDCG@10") == {0: 0.5, 1: 0.6}


def test_evaluations_that_compute_something_else_have_rows_of_their_own(tmp_path):
    run = make_run(tmp_path / "train", {"loss.name": "lce", "seed": 0}, {DL19: 0.5})
    (run / "model").mkdir()
    for number, (key, value) in enumerate([("passage_length", 128), ("exit_keep", 20), ("cascade.model", "BIG")]):
        config = {"model": str(run / "model"), "device": "cpu", "passage_length": None, key: value}
        make_run(tmp_path / str(number), config, {DL19: 0.6 + number / 10})
    shard = {"model": str(run / "model"), "shard": "0/4"}
    make_run(tmp_path / "shard", shard, {"shard/a/queries": 3})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert sorted(row.by_seed(DL19)[0] for row in rows) == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert all(len(row.runs) == 1 for row in rows)


def test_a_model_measured_by_its_run_and_once_more_stands_in_one_row(tmp_path):
    run = make_run(tmp_path / "0", {"loss.name": "lce", "task.depth": 100, "seed": 0}, {DL19: 0.5})
    (run / "model").mkdir()
    config = {"model": str(run / "model"), "task.depth": 100, "device": "cpu"}
    make_run(tmp_path / "1", config, {DL19: 0.5, "test/a/nDCG@10": 0.4}, [0.4, 0.6])
    (row,) = named_rows(read_runs([str(tmp_path)])[0])
    assert row.by_seed(DL19) == {0: 0.5} and len(row.runs) == 2
    assert per_query(row, DL19) == {}  # of two tasks, per_query.csv does not say whose it is
    (tmp_path / "1" / "tasks" / "trec-dl-2019-bm25").mkdir(parents=True)
    (tmp_path / "1" / "per_query.csv").rename(tmp_path / "1" / "tasks" / "trec-dl-2019-bm25" / "per_query.csv")
    assert per_query(row, DL19) == {"q0": 0.4, "q1": 0.6}


def test_a_command_that_was_run_twice_counts_once_for_each_query_too(tmp_path):
    for name, seed, value in (("a", 0, 0.0), ("b", 0, 0.0), ("c", 1, 0.9)):
        make_run(tmp_path / name, {"loss.name": "lce", "seed": seed}, {DL19: value}, [value, value])
    (row,) = named_rows(read_runs([str(tmp_path)])[0])
    assert row.by_seed(DL19) == {0: 0.0, 1: 0.9}
    assert per_query(row, DL19) == {"q0": 0.45, "q1": 0.45}


def test_a_line_of_a_reference_holds_what_one_run_found(tmp_path):
    ndcg, recall, other = (DL19, DL19.replace("nDCG@10", "R@100"), "test/other/nDCG@10")
    of = lambda name: name.replace("test/", "first_stage/")  # noqa: E731
    found = [{ndcg: 0.5, recall: 0.6}, {ndcg: 0.5, recall: 0.7}, {ndcg: 0.4, recall: 0.8}, {other: 0.1}, {ndcg: 0.4}]
    for number, values in enumerate(found):
        make_run(tmp_path / str(number), {"seed": number}, {of(name): value for name, value in values.items()})
    lines = _reference_rows(read_runs([str(tmp_path)])[0], [ndcg, recall, other], Labels())
    assert [{name: cell.mean for name, cell in line.cells.items()} for line in lines] == [
        {ndcg: 0.5, recall: 0.6, other: 0.1},
        {ndcg: 0.5, recall: 0.7},
        {ndcg: 0.4, recall: 0.8},
    ]


@pytest.mark.parametrize(
    ("metric", "less"),
    [
        ("test/glossary/nDCG@10", False),
        ("train/loss", True),
        ("train/loss/ranknet", True),
        ("train/pairs_per_second", False),
        ("train/seconds", True),
        ("latency/t/seconds_per_query", True),
        ("memory/train/peak_bytes", True),
        ("calibration/t/after", True),
    ],
)
def test_less_is_better_for_times_memory_losses_and_errors(metric, less):
    assert lower_is_better(metric) is less


def test_runs_without_a_configuration_stay_apart(tmp_path):
    for number in range(3):
        (make_run(tmp_path / str(number), {}, {DL19: 0.5}) / "config.yaml").unlink()
    (tmp_path / "2" / ".hydra").mkdir()
    (tmp_path / "2" / ".hydra" / "config.yaml").write_text("model: org/name\n")
    names = [row.name for row in named_rows(read_runs([str(tmp_path)])[0])]
    assert names == ["directory=0", "directory=1", "model=org/name"]


@pytest.mark.parametrize(
    ("different", "names"),
    [
        ([{"task.run": "/a/one.run"}, {"task.run": "/a/two.run"}], ["task.run=one.run", "task.run=two.run"]),
        ([{"task.depth": 8, "device": "cpu"}, {"task.depth": 9, "device": "cuda"}], ["task.depth=8", "task.depth=9"]),
        ([{"task.measures": ["RR"]}, {"task.measures": ["P@1"]}], None),  # the file has changed in between, say
    ],
)
def test_references_are_named_by_what_tells_their_measurements_apart(tmp_path, different, names):
    metric = DL19.replace("test/", "first_stage/")
    for number, config in enumerate(different):
        make_run(tmp_path / str(number), {"model": None, "task.name": "trec-dl-2019-bm25"} | config, {metric: number})
    lines = _reference_rows(read_runs([str(tmp_path)])[0], [DL19], Labels())
    expected = [f"first stage, {name}" for name in names] if names else ["first stage", "first stage (2)"]
    assert [(line.name, line.cells[DL19].mean) for line in lines] == [(expected[0], 0), (expected[1], 1)]


def test_means_of_suites_that_share_a_name_but_not_their_tasks_take_two_rows(tmp_path):
    for other, value in (("b", 0.5), ("c", 0.3)):
        config = {"model": "org/name", "task.name": "s", "task.tasks.a.run": "a", f"task.tasks.{other}.run": other}
        values = {"test/a/nDCG@10": 0.6, f"test/{other}/nDCG@10": 2 * value - 0.6, "test/s/nDCG@10": value}
        make_run(tmp_path / other, config, values)
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert [row.by_seed("test/s/nDCG@10") for row in rows] == [{None: 0.5}, {None: 0.3}]
    assert [row.name for row in rows] == [f"model=org/name [{tmp_path}/{each}]" for each in "bc"]


def test_one_metric_measured_at_two_depths_takes_two_rows(tmp_path):
    for depth, value in ((100, 0.5), (1000, 0.6)):
        make_run(tmp_path / str(depth), {"model": "org/name", "task.depth": depth}, {DL19: value})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert [row.name for row in rows] == ["task.depth=100", "task.depth=1000"]


SUITE = {"model": "org/name", "task.depth": 8, "task.drop_identical": False, "task.runs": None}
SUITE |= {"task.bm25.stemmer": "porter", "task.tasks.a.run": "a.run", "task.tasks.b.run": "b.run"}
OF_SUITE = {"test/a/nDCG@10": 0.6, "test/b/nDCG@10": 0.7}


@pytest.mark.parametrize(
    ("key", "value", "usual"),
    [("depth", 2, "8"), ("bm25.stemmer", "none", "porter"), ("drop_identical", True, "false")],
)
def test_a_task_measured_otherwise_than_the_rest_of_its_suite_takes_a_row(tmp_path, key, value, usual):
    make_run(tmp_path / "0", SUITE, OF_SUITE)
    make_run(tmp_path / "1", SUITE | {f"task.tasks.a.{key}": value}, OF_SUITE | {"test/a/nDCG@10": 0.3})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    changed = str(value).lower()
    assert [row.name for row in rows] == [f"task.tasks.a.{key}={usual}", f"task.tasks.a.{key}={changed}"]
    assert [row.by_seed("test/a/nDCG@10") for row in rows] == [{None: 0.6}, {None: 0.3}]


def test_one_way_of_measuring_that_is_said_in_several_ways_is_one_row(tmp_path):
    each = {"task.depth": 2, "task.tasks.a.depth": 8, "task.tasks.b.depth": 8, "latency_queries": 20}
    files = {f"task.tasks.{name}.run": None for name in "ab"} | {"task.runs": "{task}.run", "task.tasks.a.fused": "f"}
    make_run(tmp_path / "0", SUITE | {"latency_queries": 0}, OF_SUITE)
    make_run(tmp_path / "1", SUITE | each, OF_SUITE)
    make_run(tmp_path / "2", SUITE | files, OF_SUITE)
    single = {"model": "org/name", "task.name": "a", "task.depth": 8, "task.run": "a.run"}
    make_run(tmp_path / "3", single | {"latency_queries": 5}, {"test/a/nDCG@10": 0.6})
    (row,) = named_rows(read_runs([str(tmp_path)])[0])
    assert (row.name, len(row.runs)) == ("model=org/name", 4)


def test_the_suite_of_a_training_does_not_say_how_an_evaluation_measures(tmp_path):
    task = {"task.depth": 8, "task.tasks.a.run": "a.run"}
    run = make_run(tmp_path / "0", {"loss.name": "lce", "seed": 0} | task | {"task.tasks.a.depth": 2}, OF_SUITE)
    (run / "model").mkdir()
    make_run(tmp_path / "1", {"model": str(run / "model")} | task, OF_SUITE | {"test/a/nDCG@10": 0.3})
    assert [row.name for row in named_rows(read_runs([str(tmp_path)])[0])] == [
        "task.tasks.a.depth=2", "task.tasks.a.depth=8",
    ]  # fmt: skip


def test_timing_some_queries_does_not_part_a_models_evaluations(tmp_path):
    for number, task in enumerate("ab"):
        config = {"model": "org/name", "latency_queries": 20 * number, "task.name": task, "task.run": f"{task}.run"}
        make_run(tmp_path / task, config, {f"test/{task}/nDCG@10": 0.5})
    (row,) = named_rows(read_runs([str(tmp_path)])[0])
    assert row.by_seed("test/a/nDCG@10") == row.by_seed("test/b/nDCG@10") == {None: 0.5}


def test_a_relative_model_is_looked_up_where_its_run_was_started(tmp_path, monkeypatch, caplog):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    make_run(elsewhere / "outputs" / "one0", {"loss.name": "hinge", "seed": 7}, {DL19: 0.1})  # of the same name
    for seed in (0, 1):
        make_run(home / "outputs" / f"one{seed}", {"loss.name": "lce", "seed": seed}, {DL19: 0.5})
        second = {"loss.name": "ranknet", "backbone.name": f"outputs/one{seed}/model", "seed": seed}
        make_run(home / "outputs" / f"two{seed}", second, {DL19: 0.6})
        evaluation = {"model": f"outputs/two{seed}/model"}
        make_run(home / "outputs" / "evaluate" / str(seed), evaluation, {"test/a/nDCG@10": 0.7})
    monkeypatch.chdir(elsewhere)
    for place in (home, "../home/outputs"):
        rows = named_rows(read_runs([str(place)])[0])
        assert [(row.name, len(row.runs)) for row in rows] == [("loss=ranknet, stages=2", 4), ("loss=lce, stages=1", 2)]
        assert rows[0].by_seed("test/a/nDCG@10") == {0: 0.7, 1: 0.7} and rows[0].config["stage1.loss.name"] == "lce"
    make_run(tmp_path / "moved" / "0", {"model": "outputs/one0/model"}, {DL19: 0.2})
    assert read_runs([str(tmp_path / "moved")])[0][0].config["loss.name"] == "hinge" and not caplog.messages


def test_a_relative_model_that_is_nowhere_is_warned_of_once(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloaded" / "model").mkdir(parents=True)
    for number, model in enumerate(["gone/model", "gone/model", "downloaded/model", "org/name", "/nowhere/model"]):
        make_run(tmp_path / str(number), {"model": model, "task.name": str(number)}, {DL19: 0.5})
    read_runs([str(tmp_path)])
    assert caplog.messages == [
        f"gone/model: found neither in {tmp_path} nor in a directory above the run that names it, so that its seeds "
        "have rows of their own: call report where that run was started"
    ]


def test_second_stages_of_other_seeds_first_stages_form_one_row(tmp_path):
    for seed in (0, 1):
        first = {"backbone.name": "electra", "loss.name": "lce", "seed": seed}
        run = make_run(tmp_path / "one" / str(seed), first, {DL19: 0.5})
        (run / "model").mkdir()
        second = {"backbone.name": str(run / "model"), "loss.name": "ranknet", "seed": seed}
        make_run(tmp_path / "two" / str(seed), second, {DL19: 0.6 + seed / 10})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert [(row.name, len(row.runs)) for row in rows] == [("loss=lce, stages=1", 2), ("loss=ranknet, stages=2", 2)]
    assert rows[1].config["backbone.name"] == "electra" and rows[1].config["stage1.loss.name"] == "lce"
    assert not any(key.startswith("stage") for key in rows[0].config if key != "stages")


def test_second_stages_after_other_first_stages_are_told_by_them(tmp_path):
    for loss in ("lce", "adr_mse"):
        run = make_run(tmp_path / "one" / loss, {"backbone.name": "electra", "loss.name": loss, "seed": 0}, {DL19: 0.5})
        (run / "model").mkdir()
        second = {"backbone.name": str(run / "model"), "loss.name": "ranknet", "seed": 0}
        run = make_run(tmp_path / "two" / loss, second, {DL19: 0.6})
        (run / "model").mkdir()
        third = {"backbone.name": str(run / "model"), "loss.name": "hinge", "seed": 0}
        make_run(tmp_path / "three" / loss, third, {DL19: 0.6})
    rows = named_rows(read_runs([str(tmp_path / "two")])[0])
    assert [row.name for row in rows] == ["stage1.loss=adrmse", "stage1.loss=lce"]
    rows = named_rows(read_runs([str(tmp_path / "three")])[0])
    assert [row.name for row in rows] == ["stage1.loss=adrmse", "stage1.loss=lce"]
    assert rows[0].config["stages"] == 3 and rows[0].config["stage2.loss.name"] == "ranknet"


def test_old_names_of_losses_are_those_of_today(tmp_path):
    for number, loss in enumerate(["adr_mse", "adrmse", "margin_mse", "marginmse"]):
        make_run(tmp_path / str(number), {"loss.name": loss, "seed": number}, {DL19: number / 10})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert [(row.name, len(row.runs)) for row in rows] == [("loss=adrmse", 2), ("loss=marginmse", 2)]
    labels = read_labels([], [])
    assert find_row(rows, "loss=adr_mse", "baseline", labels) is rows[0]
    assert find_row(rows, "loss.name=MarginMSE", "baseline", labels) is rows[1]


def test_a_path_is_named_by_its_last_part_or_as_many_as_tell_it_from_others():
    paths = ["/data/a/oracle.run", "/data/b/oracle.run", "/data/b/other.run", "outputs/12-00-00/model"]
    url = "https://zenodo.org/records/1/files/__bm25__train.run?download=1#md5=835"
    assert list(shorten([*paths, url]).values()) == [
        "a/oracle.run", "b/oracle.run", "other.run", "12-00-00", "__bm25__train.run",
    ]  # fmt: skip
    assert shorten(["/x/model", "/x"]) == {"/x/model": "/x/model", "/x": "/x"}  # the same parts: nothing shorter tells


def test_rows_show_short_paths_and_are_found_by_them(tmp_path):
    for number, folder in enumerate("ab"):
        config = {"loss.name": "lce", "teacher.name": "run", "teacher.path": f"/data/{folder}/oracle.run", "seed": 0}
        make_run(tmp_path / str(number), config, {DL19: 0.5})
    runs, _ = read_runs([str(tmp_path)])
    rows = make_rows(runs)
    labels = read_labels([], [row.config for row in rows])
    name_rows(rows, labels)
    assert [row.name for row in rows] == ["teacher.path=a/oracle.run", "teacher.path=b/oracle.run"]
    for wanted in ("teacher.path=b/oracle.run", "teacher.path=/data/b/oracle.run"):
        assert find_row(rows, wanted, "baseline", labels) is rows[1]


def test_labels_name_a_row_or_stand_for_their_values_in_several(tmp_path):
    make_grid(tmp_path / "runs", {(loss, depth): [0.5] for loss in ("ranknet", "adr_mse", "lce") for depth in (1, 2)})
    given = "labels=[loss=ranknet:RankNet,'loss=adrmse,data.depth=1:ADR-MSE (ours)',loss=lce,data.depth=2:InfoNCE]"
    rows = read_table(report_on(tmp_path / "runs", "published=false", quoted(given), "compare=loss"))
    assert list(rows) == [
        "ADR-MSE (ours)", "loss=adrmse, data.depth=2", "loss=lce, data.depth=1", "InfoNCE",
        "RankNet, data.depth=1", "RankNet, data.depth=2",
    ]  # fmt: skip
    text = (tmp_path / "out" / "index.html").read_text()
    assert '<th scope="col">RankNet</th>' in text  # of the comparison
    assert ">RankNet</text>" in text and ">loss=adrmse</text>" in text  # legend of the figure over data.depth


def test_a_mean_that_its_queries_do_not_have_is_warned_of_once(tmp_path, caplog):
    make_run(tmp_path / "whole", {"loss.name": "lce"}, {DL19: 0.15}, [0.1, 0.2])
    make_run(tmp_path / "flipped", {"loss.name": "ranknet"}, {DL19: 0.25}, [0.1, 0.2])  # 1 ^ 3 in a digit
    for run in read_runs([str(tmp_path)])[0] * 2:
        assert run.per_query("test", "trec-dl-2019-bm25")["nDCG@10"] == {"q0": 0.1, "q1": 0.2}
    (warning,) = caplog.messages
    assert "flipped/per_query.csv: the mean of nDCG@10 is 0.15, but results.json says 0.25" in warning
