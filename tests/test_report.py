"""`distill report` on small runs whose numbers are worked out by hand."""

import csv
import json
import math
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distill.errors import InputError
from distill.report.labels import Labels
from distill.report.markup import escape_latex, to_latex, to_markdown
from distill.report.published import read_published
from distill.report.runs import read_history, read_runs
from distill.report.table import choose_columns, make_table
from tests.helpers import commands
from tests.helpers.reports import DL19, make_grid, make_run, make_tested, named_rows, read_table, report_on


def test_labels_name_first_stage_and_teacher(tested):
    rows = read_table(report_on(tested, "labels=['first stage:BM25']", "published=false"))
    assert next(iter(rows)) == "BM25" and rows["BM25"]["kind"] == "reference"


def test_best_is_bold_and_second_underlined_and_what_is_printed_alike_ties(tmp_path):
    runs = make_grid(tmp_path, {("a", 1): [0.61234], ("b", 1): [0.61233], ("c", 1): [0.5], ("d", 1): [0.4]})
    runs, _ = read_runs([str(runs)])
    markdown = to_markdown(make_table("T", named_rows(runs), runs, [DL19], Labels()))
    assert "| loss=a | **0.6123** | 1 |" in markdown and "| loss=b | **0.6123** | 1 |" in markdown
    assert "| loss=c | <u>0.5000</u> | 1 |" in markdown and "| loss=d | 0.4000 | 1 |" in markdown
    latex = to_latex(make_table("T", named_rows(runs), runs, [DL19], Labels()))
    assert r"\textbf{0.6123}" in latex and r"\underline{0.5000}" in latex and r"\toprule" in latex


def test_less_is_better_for_seconds(tmp_path):
    make_grid(tmp_path, {("a", 1): [30.0], ("b", 1): [20.0]}, metric="train/seconds")
    runs, _ = read_runs([str(tmp_path)])
    assert "| loss=b | **20.00** | 1 |" in to_markdown(
        make_table("T", named_rows(runs), runs, ["train/seconds"], Labels())
    )


def test_latex_is_escaped(tmp_path):
    assert escape_latex(r"a_b & 5% #1 {x} $ ~ ^ \\"[:-1]) == (
        r"a\_b \& 5\% \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    for loss, size, seed, value in (("adr_mse", 1, 0, 0.5), ("adr_mse", 1, 1, 0.7), ("lce", 2, 0, 0.4)):
        config = {"loss.name": loss, "data.list_size": size, "seed": seed}
        make_run(tmp_path / "runs" / f"{loss}{seed}", config, {DL19: value})
    latex = (report_on(tmp_path / "runs", "title='R&D 100%'") / "results.tex").read_text()
    assert r"\caption{R\&D 100\%}" in latex
    assert r"loss=adrmse, data.list\_size=1 & \textbf{0.6000 $\pm$ 0.1414} & 2 \\" in latex


@pytest.fixture
def tested(tmp_path) -> Path:
    return make_tested(tmp_path)


@pytest.mark.parametrize("baseline", ["loss=ranknet", "loss.name=ranknet", "loss=RankNet"])
def test_what_is_significant_is_marked(tested, baseline):
    out = report_on(tested, f"baseline='{baseline}'")
    rows = read_table(out)
    p = 0.0011725  # t = 0.1 / (0.0163299 / 2) = 12.2474 with 3 degrees of freedom
    assert float(rows["loss=adrmse"][f"{DL19} p"]) == pytest.approx(p, rel=1e-3)
    assert float(rows["loss=adrmse"][f"{DL19} p_holm"]) == pytest.approx(2 * p, rel=1e-3)
    assert float(rows["loss=lce"][f"{DL19} p"]) == pytest.approx(1)
    assert rows["loss=ranknet"][f"{DL19} p"] == ""
    markdown = (out / "results.md").read_text()
    assert "| loss=adrmse | **0.3500 ± 0.0141**† | 2 |" in markdown
    assert "0.2500 ± 0.0141</u> |" in markdown and markdown.count("†") == 2  # the second is in the note
    assert "† p < 0.05 against loss=ranknet" in markdown
    assert r"\textbf{0.3500 $\pm$ 0.0141}$^{\dagger}$" in (out / "results.tex").read_text()


def test_a_smaller_alpha_marks_nothing(tested):
    markdown = (report_on(tested, "baseline='loss=ranknet'", "alpha=0.002") / "results.md").read_text()
    assert markdown.count("†") == 1


def test_what_cannot_change_is_not_significant(tmp_path):
    """Recall of a list that is re-ranked whole: with three seeds, a mean of equal values may be another by rounding."""
    recalls = [0.025] * 10  # 0.025 + 0.025 + 0.025 = 0.07500000000000001
    for loss in ("lce", "ranknet"):
        for seed in range(3):
            config = {"loss.name": loss, "seed": seed}
            run = make_run(tmp_path / "runs" / f"{loss}{seed}", config, {DL19: 0.025}, recalls)
            (run / "first_stage.per_query.csv").write_text((run / "per_query.csv").read_text())
            results = {DL19: 0.025, DL19.replace("test/", "first_stage/"): 0.025}
            (run / "results.json").write_text(json.dumps(results))
    out = report_on(tmp_path / "runs", "baseline=first_stage", "published=false")
    assert {float(row[f"{DL19} p"]) for row in read_table(out).values() if row["kind"] == "ours"} == {1}
    markdown = (out / "results.md").read_text()
    assert markdown.count("†") == 1 and "Seeds vary more" not in markdown


def test_values_per_query_of_several_tasks_lie_in_folders(tested):
    for run in tested.iterdir():
        (run / "tasks" / "trec-dl-2019-bm25").mkdir(parents=True)
        (run / "per_query.csv").rename(run / "tasks" / "trec-dl-2019-bm25" / "per_query.csv")
    assert "0.0141**†" in (report_on(tested, "baseline='loss=ranknet'") / "results.md").read_text()


def test_other_queries_are_not_tested_and_named(tested):
    for seed in (0, 1):
        (tested / f"lce{seed}" / "per_query.csv").write_text("query_id,nDCG@10\nq0,0.2\nq9,0.3\n")
    markdown = (report_on(tested, "baseline='loss=ranknet'") / "results.md").read_text()
    assert "Not tested in every column, for want of values on the same queries: loss=lce." in markdown


def test_a_column_without_values_per_query_is_not_tested_and_named(tested):
    for run in tested.iterdir():
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps(results | {"val/nDCG@10": 0.5}))
    markdown = (report_on(tested, "baseline='loss=ranknet'", "metrics=[test/*,val/*]") / "results.md").read_text()
    assert "Not tested, for want of the baseline's values for two queries: val/nDCG@10." in markdown
    assert "0.0141**†" in markdown


def test_a_task_with_one_query_is_not_tested_and_the_others_are(tested):
    one = "test/one/nDCG@10"
    for run in tested.iterdir():
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps({one: 0.5} | results))  # the first column
        for task, text in {"one": "query_id,nDCG@10\nq0,0.5\n", "trec-dl-2019-bm25": None}.items():
            (run / "tasks" / task).mkdir(parents=True)
            text = text or (run / "per_query.csv").read_text()
            (run / "tasks" / task / "per_query.csv").write_text(text)
    markdown = (report_on(tested, "baseline='loss=ranknet'") / "results.md").read_text()
    assert f"Not tested, for want of the baseline's values for two queries: {one}." in markdown
    assert "0.0141**†" in markdown and "† p < 0.05 against loss=ranknet" in markdown


def test_first_stages_alone_have_no_row_to_test(tmp_path):
    values = [0.1, 0.2]
    results = {"first_stage/x/nDCG@10": 0.15}
    make_run(tmp_path / "runs" / "bm25", {"task.run": "a.run", "model": None}, results, values)
    markdown = (report_on(tmp_path / "runs", "baseline=first_stage", "published=false") / "results.md").read_text()
    assert "| first stage | 0.1500 |" in markdown
    assert "Not tested: baseline=first stage: there is no row to test: these runs measured only references" in markdown


def test_annotations_are_no_runs_to_report_on(tested, caplog):
    caplog.set_level("INFO")
    results = {"teacher/p": 0.01, "first_stage/nDCG@10": 0.3, "test/x/nDCG@10": 0.4}
    make_run(tested / "teacher", {"teacher.llm.model": "judge", "window": 20}, results)
    (tested / "split").mkdir()
    (tested / "split" / "results.json").write_text('{"queries": 9, "train": 8, "heldout": 1}')
    rows = read_table(report_on(tested, "published=false"))
    assert {row["row"] for row in rows.values()} == {"first stage", "loss=ranknet", "loss=adrmse", "loss=lce"}
    assert "left out: 2 results of other commands than train.py and evaluate.py" in caplog.text
    with pytest.raises(InputError, match="teacher: has only 1 results of other commands"):
        report_on(tested / "teacher")


def test_first_stage_and_published_rows_stand_above_and_below(tested):
    out = report_on(tested)
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["row"], rows[0]["kind"], float(rows[0][DL19])) == ("first stage", "reference", 0.48)
    published = {row["row"]: row for row in rows[4:]}
    assert {row["kind"] for row in published.values()} == {"published"} and len(published) == 18
    row = published["two-stage, RankZephyr over ColBERTv2, RankNet"]
    assert (row[DL19], row["source"]) == ("0.72", "Schlatt et al. 2025, Table 1")
    markdown = (out / "results.md").read_text()
    assert "| RankGPT-4 (published, Schlatt et al. 2025, Table 1) | 0.713 |" in markdown
    assert "arXiv 2405.07920" in markdown
    assert "published" not in (report_on(tested, "published=false") / "results.md").read_text()


def test_the_printed_g_mean_of_tirex_is_the_quadratic_mean():
    (table,) = [table for table in read_published()[0] if "Table 2" in table.title]
    corpora, (arithmetic, quadratic) = table.columns[:14], table.columns[14:]
    assert len(table.rows) == 7
    for row in table.rows:
        values = [row.cells[name].mean for name in corpora]
        assert row.cells[arithmetic].mean == pytest.approx(sum(values) / 14, abs=1.1e-3)
        assert row.cells[quadratic].mean == pytest.approx(math.sqrt(sum(v * v for v in values) / 14), abs=1e-3)


def test_a_model_free_evaluation_gives_the_first_stage_alone(tmp_path):
    make_run(tmp_path / "runs" / "0", {"model": None, "task.name": "a"}, {"first_stage/a/nDCG@10": 0.4})
    rows = read_table(report_on(tmp_path / "runs"))
    assert list(rows) == ["first stage"] and rows["first stage"]["test/a/nDCG@10"] == "0.4"


def test_friedman_over_complete_cells(tmp_path):
    values = {(loss, depth): [score] for depth in (10, 50) for loss, score in (("a", 0.3), ("b", 0.2), ("c", 0.1))}
    make_grid(tmp_path / "runs", values | {("a", 100): [0.3], ("b", 100): [0.2]})
    out = report_on(tmp_path / "runs", "compare=loss")
    # 12 / (2 · 3 · 4) · (2² + 4² + 6²) − 3 · 2 · 4 = 4, and e^(−4 / 2) = 0.135
    section = "test over 2 cells and 3 values (1 incomplete one left out): χ² = 4.00, p = 0.135."
    assert section in (out / "results.md").read_text() and section in (out / "index.html").read_text()
    with open(out / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss"], float(row["average_rank"])) for row in rows] == [("a", 1), ("b", 2), ("c", 3)]
    assert float(rows[0]["c"]) == float(rows[2]["a"]) < float(rows[0]["b"]) < 1
    assert {"critical-difference.png", "critical-difference.svg"} <= {path.name for path in (out / "figures").iterdir()}


def test_keys_that_come_with_the_compared_one_do_not_part_the_cells(tmp_path):
    for loss in ("a", "b", "c"):
        for depth in (10, 50):
            config = {"loss.name": loss, "teacher.name": f"of {loss}", "data.depth": depth, "train.batch_size": 1}
            config |= {"train.batch_size": depth * ord(loss)}  # follows from both
            make_run(tmp_path / "runs" / f"{loss}{depth}", config, {DL19: ord(loss) / 200})
    assert (
        "over 2 cells and 3 values:" in (report_on(tmp_path / "runs", "compare=loss.name") / "results.md").read_text()
    )


def test_unfinished_runs_are_counted_and_named(tmp_path):
    make_grid(tmp_path / "runs", {("lce", 1): [0.5]})
    late = make_run(tmp_path / "runs" / "late", {"loss.name": "lce", "seed": 3}, None)
    wandb = tmp_path / "runs" / "late" / "wandb" / "files"  # holds a config.yaml that is no run's
    wandb.mkdir(parents=True)
    (wandb / "config.yaml").write_text("a: 1\n")
    out = report_on(tmp_path / "runs")
    assert f"Unfinished and left out (1): {late}." in (out / "results.md").read_text()
    text = (out / "index.html").read_text()
    assert "1 run in 1 row, 1 unfinished left out" in text
    assert f"<li>{late}</li>" in text.replace("<wbr>", "")


def test_half_a_line_of_metrics_is_passed_over(tmp_path):
    run = make_run(tmp_path / "0", {"seed": 0}, {DL19: 0.5})
    (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5}\n{"step": 2, "tra')
    assert read_history(read_runs([str(tmp_path)])[0][0]) == [{"step": 1, "train/loss": 0.5}]


def test_metrics_are_chosen_by_pattern(tmp_path):
    results = {"test/a/nDCG@10": 0.5, "test/a/RR@10": 0.6, "test/b/nDCG@10": 0.7, "val/nDCG@10": 0.8, "train/steps": 9}
    make_run(tmp_path / "0", {"seed": 0}, results)
    runs, _ = read_runs([str(tmp_path)])
    assert choose_columns(runs, None) == ["test/a/nDCG@10", "test/a/RR@10", "test/b/nDCG@10"]
    assert choose_columns(runs, ["test/*/nDCG@10", "val/*"]) == ["test/a/nDCG@10", "test/b/nDCG@10", "val/nDCG@10"]
    with pytest.raises(InputError, match=r"metrics=\[dev/\*\]: no such metric in these runs: known are test/a/nDCG@10"):
        choose_columns(runs, ["dev/*"])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("results.json", '{\n  "a": 1,\n  oops\n}', "results.json:3: is not JSON"),
        ("results.json", '{\n  "a": 1,\n  "b": "x"\n}', 'results.json:3: b is "x": expected a finite number'),
        ("results.json", '{"a": NaN}', "results.json:1: a is NaN: expected a finite number"),
        ("results.json", "[1]", "results.json:1: holds no object"),
        ("config.yaml", "a: 1\nb: [1\n", "config.yaml:3: is not YAML"),
        ("metrics.jsonl", '{"step": 1}\nnope\n', "metrics.jsonl:2: is not a JSON object"),
        ("metrics.jsonl", '{"loss": 1}\n', "metrics.jsonl:1: has no step"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, file, text, message):
    runs = make_grid(tmp_path / "runs", {("lce", 1): [0.5]})
    (runs / "lce-1-0" / file).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        report_on(runs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("baseline='loss=hinge'", "baseline=loss=hinge: matches no row: choose one: loss=lce, data.depth=1; "),
        ("baseline='loss=lce'", "baseline=loss=lce: means several rows: add what tells them apart: "),
        ("compare=data.list_size", "compare=data.list_size: no key of these runs; those that vary: loss, data.depth"),
        ("labels=[RankNet]", "labels=[RankNet]: expected ROW:LABEL, as in labels=[loss=ranknet:RankNet]"),
        ("labels=['loss=hinge:Hinge']", "labels=[loss=hinge:Hinge]: loss=hinge fits no row: choose one of: loss=lce, "),
        ("labels=['loss=lce,data.depth=1:A','loss=lce,data.depth=2:A']", "labels: 2 rows are called A: give each"),
        ("correction=sidak", "correction=sidak is unknown: choose one of holm, bonferroni"),
        ("alpha=1", "alpha=1.0: must be below 1"),
        ("runs=5", "runs=5: must be a directory or a list of them"),
        ("runs=nowhere", "runs=nowhere: no such directory"),
    ],
)
def test_a_wrong_option_is_answered_with_key_value_and_remedy(tmp_path, override, message):
    runs = make_grid(tmp_path / "runs", {(loss, depth): [0.5] for loss in ("lce", "ranknet") for depth in (1, 2)})
    with pytest.raises(InputError, match=re.escape(message)):
        report_on(runs, override)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("baseline='loss=lce, data.depth=2'", "baseline=loss=lce, data.depth=2: no per_query.csv"),
        (
            "compare=loss",
            "compare=loss: ranknet against lce in 2 complete cells of 2: a paired test needs",
        ),
        (
            "compare=train.batch_size",
            "compare=train.batch_size: does not vary between these rows; those that vary: ",
        ),
    ],
)
def test_a_test_that_cannot_be_made_is_a_note_on_the_page(tmp_path, override, problem):
    values = {(loss, depth): [0.5] for loss in ("lce", "ranknet") for depth in (1, 2)}
    for config in make_grid(tmp_path / "runs", values).rglob("config.yaml"):
        config.write_text(config.read_text() + "train:\n  batch_size: 8\n")
    out = report_on(tmp_path / "runs", override)
    assert f"- Not tested: {problem}" in (out / "results.md").read_text()
    assert f'<ul class="problems">\n<li>{problem}' in (out / "index.html").read_text()
    assert not (out / "comparison.csv").exists()


def test_rows_of_two_versions_are_not_compared_as_one(tmp_path):
    for loss in ("adrmse", "ranknet"):
        for seed, more in ((0, {}), (1, {"train.new_key": 1})):  # the second run is of a version with one key more
            make_run(tmp_path / "runs" / f"{loss}{seed}", {"loss.name": loss, "seed": seed} | more, {DL19: 0.5})
    text = (report_on(tmp_path / "runs", "compare=loss", "published=false") / "results.md").read_text()
    assert "- Not tested: compare=loss: " in text and "differ only in keys that one of them lacks" in text


def test_seeds_before_and_after_a_key_was_added_that_is_null_form_one_row(tmp_path):
    for seed, more in enumerate(({}, {"train.new_key": None}, {"train.new_key": None})):
        make_run(tmp_path / "runs" / str(seed), {"loss.name": "lce", "seed": seed} | more, {DL19: 0.5 + 0.1 * seed})
    text = (report_on(tmp_path / "runs", "published=false") / "results.md").read_text()
    assert "0.6000 ± 0.1000" in text and "new_key" not in text


def test_a_first_stage_that_differs_between_runs_is_no_baseline(tmp_path):
    for number, value in enumerate((0.4, 0.6)):
        place = make_run(tmp_path / "runs" / str(number), {"loss.name": f"l{number}"}, {DL19: 0.5}, [0.4, 0.6])
        results = json.loads((place / "results.json").read_text())
        reference = DL19.replace("test/", "first_stage/")
        (place / "results.json").write_text(json.dumps(results | {reference: value}))
        rows = (place / "per_query.csv").read_text().replace("0.4", str(value)).replace("0.6", str(value))
        (place / "first_stage.per_query.csv").write_text(rows)
    text = (report_on(tmp_path / "runs", "baseline=first_stage", "published=false") / "results.md").read_text()
    assert "baseline=first stage: the runs have different ones: report on runs of one first stage and depth" in text


def test_three_values_in_a_single_cell_are_answered_with_a_baseline(tmp_path):
    make_grid(tmp_path / "runs", {(loss, 1): [0.5] for loss in ("lce", "ranknet", "hinge")})
    text = (report_on(tmp_path / "runs", "compare=loss") / "results.md").read_text()
    assert "compare=loss: 3 values (hinge, lce, ranknet) in 1 complete cell of 1: Friedman's test needs two" in text
    assert "as in baseline=loss=hinge" in text


def test_two_values_take_a_paired_test_in_each_cell(tested):
    for path in tested.glob("lce*/config.yaml"):
        path.unlink()
        path.with_name("results.json").unlink()
    out = report_on(tested, "compare=loss", "correction=bonferroni")
    with open(out / "comparison.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["cell"] == "trec-dl-2019-bm25/nDCG@10" and row["queries"] == "4"
    values = [float(row[name]) for name in ("adrmse", "ranknet", "difference", "t", "p", "p, Bonferroni")]
    # as in test_what_is_significant_is_marked, with the sign of ranknet less adrmse; a single cell needs no correction
    assert values == pytest.approx([0.35, 0.25, -0.1, -12.2474, 0.0011725, 0.0011725], rel=1e-3)
    markdown = (out / "results.md").read_text()
    assert "ranknet less adrmse in 1 complete cell: paired two-sided t-tests over queries" in markdown
    assert "| trec-dl-2019-bm25/nDCG@10 | 0.3500 | 0.2500 | -0.1000 | 4 | -12.25 | 0.00117 | 0.00117 |" in markdown
    assert "Wilcoxon" not in markdown and not (out / "figures" / "critical-difference.png").exists()


def test_two_values_over_six_cells_without_values_per_query_take_wilcoxons_test(tmp_path):
    values = {("a", depth): [0.5 + depth / 100] for depth in range(6)} | {("b", depth): [0.5] for depth in range(6)}
    values[("b", 0)] = [0.6]  # b is better by 0.1 in one cell, worse by 0.01 to 0.05 in the others
    markdown = (report_on(make_grid(tmp_path / "runs", values), "compare=loss") / "results.md").read_text()
    # the ranks of what is worse are 1 to 5, of what is better 6: a sum of 6 or less comes of 14 of 64 signs on a side
    assert "b less a in 6 complete cells: means over seeds. Wilcoxon" in markdown
    assert f"Wilcoxon's signed-rank test over the cells: p = {2 * 14 / 64:.3g}." in markdown
    assert "| data.depth=1, trec-dl-2019-bm25/nDCG@10 | 0.5100 | 0.5000 | -0.0100 | – | – | – | – |" in markdown


def test_cells_that_differ_by_rounding_have_p_1(tmp_path):
    larger = [0.003, 0.006, 0.011, 0.012, 0.022, 0.023]
    assert all(sum([value] * 3) / 3 > value for value in larger)
    values = {("a", depth): [value] for depth, value in enumerate(larger)}
    values |= {("b", depth): [value] * 3 for depth, value in enumerate(larger)}
    markdown = (report_on(make_grid(tmp_path / "runs", values), "compare=loss") / "results.md").read_text()
    assert "Wilcoxon's signed-rank test over the cells: p = 1." in markdown
    assert markdown.count("| +0.0000 |") == 6


def test_seeds_that_vary_more_than_rows_differ_are_noted(tmp_path):
    values = {("best", 1): [0.60, 0.64], ("close", 1): [0.60, 0.62], ("far", 1): [0.50, 0.51], ("one", 1): [0.61]}
    make_grid(tmp_path / "runs", values)
    notes = (report_on(tmp_path / "runs", "published=false") / "results.md").read_text()
    # standard deviation of the best: 0.04 / sqrt(2) = 0.0283
    assert "so take more seeds before you rank them: loss=close and loss=best (trec-dl-2019-bm25/nDCG@10: " in notes
    assert (
        "difference -0.0100, standard deviation 0.0283); loss=one and loss=best (" in notes and "far and" not in notes
    )


def test_a_report_is_not_written_into_the_directory_of_a_run(tmp_path):
    runs = make_grid(tmp_path / "runs", {("lce", 1): [0.5]})
    with pytest.raises(InputError, match="lce-1-0: holds a run: choose another directory for the report"):
        report_on(runs, out=runs / "lce-1-0")
    assert {path.name for path in (runs / "lce-1-0").iterdir()} <= {"config.yaml", "results.json"}


def test_a_second_report_takes_the_place_of_the_first_and_of_nothing_else(tmp_path):
    values = {(loss, depth): [0.1 * depth + 0.01 * place] for place, loss in enumerate("abc") for depth in (1, 2)}
    runs = make_grid(tmp_path / "runs", values)
    out = report_on(runs, "compare=loss")
    first = {path.name for path in out.rglob("*") if path.is_file()}
    assert {"comparison.csv", "critical-difference.svg", "effectiveness-over-depth.png"} <= first
    for name in ("notes.csv", "figures/latency.pdf", "figures/mine.png"):
        (out / name).write_text("mine")
    for path in runs.glob("*-2-0/*.*"):
        path.unlink()
    report_on(runs)
    again = {path.name for path in out.rglob("*") if path.is_file()}
    gone = {f"{name}.{kind}" for name in ("critical-difference", "effectiveness-over-depth") for kind in ("png", "svg")}
    assert first - again == gone | {"comparison.csv"}
    assert again - first == {"notes.csv", "latency.pdf", "mine.png", "effectiveness.png", "effectiveness.svg"}


def test_what_lies_where_no_report_is_yet_stays(tmp_path):
    for name in ("comparison.csv", "figures/curves.png"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    report_on(make_grid(tmp_path / "runs", {("lce", 1): [0.5]}))
    assert [(tmp_path / "out" / name).read_text() for name in ("comparison.csv", "figures/curves.png")] == ["mine"] * 2


def test_the_command_writes_the_report_and_answers_bad_input_with_one_line(tmp_path):
    make_grid(tmp_path / "depth=1", {("lce", 1): [0.5]})
    (tmp_path / "empty").mkdir()
    for runs, status in (("depth=1", 0), ("empty", 2)):
        done = commands.run(
            "-m", "distill", "report", f"runs={tmp_path / runs}", f"output={tmp_path / 'out'}", cwd=tmp_path
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
    assert f"error: runs={tmp_path / 'empty'}: no run directory there or below" in done.stderr
    assert (tmp_path / "out" / "index.html").is_file() and not (tmp_path / "out" / ".hydra").exists()
    assert OmegaConf.load(tmp_path / "out" / "report.yaml").runs == str(tmp_path / "depth=1")


def test_only_the_queries_of_a_file_count_in_means_and_tests(tmp_path):
    queries = tmp_path / "some.tsv"
    queries.write_text("q0\tfirst\nq1\tsecond\nq9\tnot measured\n")
    out = report_on(make_tested(tmp_path), f"queries={queries}", "baseline='loss=lce'", "published=false")
    rows = read_table(out)
    # lce is 0.2, 0.1 on these two, adrmse 0.2, 0.32: differences 0 and 0.22, so t = 0.11 / (0.22 / 2) = 1
    assert float(rows["loss=ranknet"][DL19]) == pytest.approx(0.15)
    assert float(rows["loss=adrmse"][DL19]) == pytest.approx(0.26)
    assert float(rows["loss=adrmse"][f"{DL19} p"]) == pytest.approx(0.5)  # Student's t with one degree of freedom
    assert "first stage" not in rows  # its values per query are not there


def test_means_that_other_queries_are_part_of_are_left_out(tmp_path):
    queries = tmp_path / "some.tsv"
    queries.write_text("q0\tfirst\nq1\tsecond\n")
    runs = make_tested(tmp_path)
    more = {"agreement/student/x/tau": 0.5, "calibration/x/test": 0.1, "val/nDCG@10": 0.3, "train/seconds": 3.0}
    for run in runs.iterdir():
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps(results | more))
    columns = read_table(report_on(runs, f"queries={queries}", "metrics=['*']", "published=false"))["loss=lce"]
    assert {DL19, "train/seconds"} <= columns.keys() and not more.keys() - {"train/seconds"} & columns.keys()


def test_a_file_without_measured_queries_is_refused(tmp_path):
    queries = tmp_path / "none.tsv"
    queries.write_text("q8\teight\n")
    with pytest.raises(InputError, match="none.tsv: no run has values of any of its 1 queries"):
        report_on(make_tested(tmp_path), f"queries={queries}")
