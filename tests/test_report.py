"""`distill report` on small runs whose numbers are worked out by hand."""

import csv
import json
import math
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from distill.commands.report import report
from distill.config.checks import check_values
from distill.config.overrides import quoted
from distill.errors import InputError
from distill.report.figures import draw_curves, draw_dots
from distill.report.labels import read_labels, shorten
from distill.report.markup import escape_latex, to_latex, to_markdown
from distill.report.page import results_tables
from distill.report.paired import per_query
from distill.report.panels import wrap
from distill.report.provenance import read_commands
from distill.report.published import read_published
from distill.report.rows import find_row, make_rows, name_rows
from distill.report.runs import read_history, read_runs
from distill.report.table import choose_columns, make_table
from tests.helpers import commands
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

DL19 = "test/trec-dl-2019-bm25/nDCG@10"
VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


def make_run(directory: Path, config: dict, results: dict | None, per_query: list[float] | None = None) -> Path:
    """Write a run directory; config by dotted keys, per_query the nDCG@10 of queries q0, q1, ..."""
    directory.mkdir(parents=True)
    nested: dict = {}
    for key, value in config.items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(nested, sort_keys=False))
    if results is not None:
        (directory / "results.json").write_text(json.dumps(results, indent=2))
    if per_query is not None:
        lines = [f"q{index},{value}\n" for index, value in enumerate(per_query)]
        (directory / "per_query.csv").write_text("query_id,nDCG@10\n" + "".join(lines))
    return directory


def make_grid(directory: Path, values: dict[tuple[str, int], list[float]], metric: str = DL19) -> Path:
    """Write runs of losses and depths, a value for each seed."""
    for (loss, depth), by_seed in values.items():
        for seed, value in enumerate(by_seed):
            config = {"loss.name": loss, "data.depth": depth, "seed": seed, "logger.run_name": f"{loss}-{seed}"}
            make_run(directory / f"{loss}-{depth}-{seed}", config, {metric: value})
    return directory


def named_rows(runs: list) -> list:
    rows = make_rows(runs)
    name_rows(rows, read_labels([], [row.config for row in rows]))
    return rows


def report_on(directory: Path, *overrides: str, out: Path | None = None) -> Path:
    out = out or directory.parent / "out"
    out.mkdir(exist_ok=True)
    cfg = compose_config("report", f"runs='{directory}'", *overrides)
    check_values(cfg)
    report(cfg, out)
    return out


def read_table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


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


def test_runs_without_a_configuration_stay_apart(tmp_path):
    for number in range(3):
        (make_run(tmp_path / str(number), {}, {DL19: 0.5}) / "config.yaml").unlink()
    (tmp_path / "2" / ".hydra").mkdir()
    (tmp_path / "2" / ".hydra" / "config.yaml").write_text("model: org/name\n")
    names = [row.name for row in named_rows(read_runs([str(tmp_path)])[0])]
    assert names == ["directory=0", "directory=1", "model=org/name"]


def test_one_metric_measured_at_two_depths_takes_two_rows(tmp_path):
    for depth, value in ((100, 0.5), (1000, 0.6)):
        make_run(tmp_path / str(depth), {"model": "org/name", "task.depth": depth}, {DL19: value})
    rows = named_rows(read_runs([str(tmp_path)])[0])
    assert [row.name for row in rows] == ["task.depth=100", "task.depth=1000"]


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


def test_labels_name_first_stage_and_teacher(tested):
    rows = read_table(report_on(tested, "labels=['first stage:BM25']", "published=false"))
    assert next(iter(rows)) == "BM25" and rows["BM25"]["kind"] == "reference"


def test_best_is_bold_and_second_underlined_and_what_is_printed_alike_ties(tmp_path):
    runs = make_grid(tmp_path, {("a", 1): [0.61234], ("b", 1): [0.61233], ("c", 1): [0.5], ("d", 1): [0.4]})
    runs, _ = read_runs([str(runs)])
    markdown = to_markdown(make_table("T", named_rows(runs), runs, [DL19]))
    assert "| loss=a | **0.6123** | 1 |" in markdown and "| loss=b | **0.6123** | 1 |" in markdown
    assert "| loss=c | <u>0.5000</u> | 1 |" in markdown and "| loss=d | 0.4000 | 1 |" in markdown
    latex = to_latex(make_table("T", named_rows(runs), runs, [DL19]))
    assert r"\textbf{0.6123}" in latex and r"\underline{0.5000}" in latex and r"\toprule" in latex


def test_less_is_better_for_seconds(tmp_path):
    make_grid(tmp_path, {("a", 1): [30.0], ("b", 1): [20.0]}, metric="train/seconds")
    runs, _ = read_runs([str(tmp_path)])
    assert "| loss=b | **20.00** | 1 |" in to_markdown(make_table("T", named_rows(runs), runs, ["train/seconds"]))


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
    """A baseline; one loss 0.1 above it on each query, give or take 0.02; one as often above as below."""
    baseline = [0.1, 0.2, 0.3, 0.4]
    changes = {"ranknet": [0] * 4, "adr_mse": [0.1, 0.12, 0.08, 0.1], "lce": [0.1, -0.1, 0.05, -0.05]}
    for loss, change in changes.items():
        for seed, noise in enumerate((-0.01, 0.01)):  # leaves the mean over seeds as it is
            values = [value + one + noise for value, one in zip(baseline, change, strict=True)]
            results = {DL19: sum(values) / 4, DL19.replace("test/", "first_stage/"): 0.48}
            make_run(tmp_path / "runs" / f"{loss}{seed}", {"loss.name": loss, "seed": seed}, results, values)
    return tmp_path / "runs"


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
    assert "Not tested, for want of the baseline's values per query: val/nDCG@10." in markdown
    assert "0.0141**†" in markdown


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


class Page(HTMLParser):
    """Checks that every element is closed in its turn, and gathers what the page refers to."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_refers_to_nothing_outside(tmp_path):
    runs = make_grid(tmp_path / "r", {(x, d): [0.1 * d, 0.2] for x in ("<a>", "b", "c") for d in (1, 2)})
    for run in runs.iterdir():
        lines = [{"step": step, "train/loss": 1 / step} for step in (1, 2)] + [{"step": 2, "val/nDCG@10": 0.5}]
        lines += [{"step": 4, "val/nDCG@10": 0.6}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        results = json.loads((run / "results.json").read_text())
        results |= {"latency/trec-dl-2019-bm25/seconds_per_query": 0.1}
        (run / "results.json").write_text(json.dumps(results | {"train/steps": 1234, "train/seconds": 9}))
    make_run(runs / "late", {"loss.name": "b", "seed": 3}, None)
    out = report_on(runs, "compare=loss")
    text = (out / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags
    assert page.references and all(value.startswith(("#", "data:image/png;base64,")) for value in page.references)
    assert "://" not in text and "@import" not in text
    own = {value[1:] for value in page.references if value[0] == "#"} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert own <= set(page.ids) and len(set(page.ids)) == len(page.ids)
    assert text.count("<svg") == 6 and "&lt;a&gt;" in text and "<a>" not in text
    assert "1,234" in text and "All 11 tables" in text and "prefers-color-scheme: dark" in text
    names = ("effectiveness-over-depth", "curves", "latency", "critical-difference")
    assert {path.name for path in (out / "figures").iterdir()} == {f"{n}.{s}" for n in names for s in ("png", "svg")}


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
        ("metrics.jsonl", '{"step": 1}\nnope\n', "metrics.jsonl:2: is not JSON"),
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


def test_seeds_that_vary_more_than_rows_differ_are_noted(tmp_path):
    values = {("best", 1): [0.60, 0.64], ("close", 1): [0.60, 0.62], ("far", 1): [0.50, 0.51], ("one", 1): [0.61]}
    make_grid(tmp_path / "runs", values)
    notes = (report_on(tmp_path / "runs", "published=false") / "results.md").read_text()
    # standard deviation of the best: 0.04 / sqrt(2) = 0.0283
    assert "so take more seeds before you rank them: loss=close and loss=best (trec-dl-2019-bm25/nDCG@10: " in notes
    assert (
        "difference -0.0100, standard deviation 0.0283); loss=one and loss=best (" in notes and "far and" not in notes
    )


def test_the_page_says_when_from_what_and_by_which_commands_it_was_made(tmp_path):
    sweep = make_grid(tmp_path / "sweep", {("lce", 1): [0.5, 0.6]})
    overrides = {"task": ["loss=lce", "seed=0,1", "data.queries=my file.tsv"], "hydra": ["hydra.mode=MULTIRUN"]}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"job": {"name": "train"}, "overrides": overrides}}))
    single = make_run(tmp_path / "single", {"loss.name": "ranknet", "seed": 0}, {DL19: 0.5})
    (single / "model").mkdir()
    (single / "model" / "README.md").write_text("## Train it again\n\n```\npython train.py loss=ranknet\n```\n")
    runs, _ = read_runs([str(sweep), str(single)])
    commands = ["python train.py -m loss=lce seed=0,1 'data.queries=my file.tsv'", "python train.py loss=ranknet"]
    assert read_commands(runs) == commands
    text = (report_on(tmp_path, "title='A <b> & c'") / "index.html").read_text()
    assert "<title>A &lt;b&gt; &amp; c</title>" in text and "<h1>A &lt;b&gt; &amp; c</h1>" in text
    assert f"<dt>Written</dt><dd>{datetime.now():%Y-%m-}" in text
    assert ("<dt>Commit</dt>" in text) == (ROOT / ".git").exists()
    assert "<code>python train.py loss=ranknet</code>" in text
    assert "<code>python train.py -m loss=lce seed=0,1 &#39;data.queries=my file.tsv&#39;</code>" in text


def test_a_broken_sweep_file_leaves_out_its_command(tmp_path):
    runs = make_grid(tmp_path / "runs", {("lce", 1): [0.5]})
    for text in ("hydra: [", "hydra: null", "[]", "hydra: {job: {name: train}}"):
        (runs / "multirun.yaml").write_text(text)
        assert read_commands(read_runs([str(runs)])[0]) == []


def css_rules(media: str = "") -> dict[str, dict[str, str]]:
    """The declarations of page.css by selector, at the top level or within one media query."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "distill/report/page.css").read_text(), flags=re.S)
    blocks = re.findall(r"@media ([^{]+) \{((?:[^{}]*\{[^{}]*\})*)\s*\}", text)
    chosen = dict(blocks)[media] if media else re.sub(r"@media [^{]+\{(?:[^{}]*\{[^{}]*\})*\s*\}", "", text)
    rules: dict[str, dict[str, str]] = {}
    for selectors, declarations in re.findall(r"([^{}]+)\{([^{}]*)\}", chosen):
        pairs = dict(re.findall(r"([\w-]+):\s*([^;]+);", declarations))
        for selector in selectors.split(","):
            rules.setdefault(selector.strip(), {}).update(pairs)
    return rules


def test_names_wrap_and_numbers_do_not():
    rules = css_rules()
    assert rules["td"]["white-space"] == "nowrap" and rules["th"]["white-space"] == "normal"
    assert rules["th"]["overflow-wrap"] == rules["td.text"]["overflow-wrap"] == "anywhere"
    assert rules["table"]["max-width"] == "100%" and rules["code"]["white-space"] == "pre-wrap"


def test_on_a_phone_a_row_is_a_block_with_a_line_for_each_number():
    rules = css_rules("(max-width: 48rem)")
    assert {rules[f".stack{part}"]["display"] for part in ("", " tbody", " tr", " th")} == {"block"}
    assert rules[".stack thead"]["display"] == "none" and rules[".stack td"]["display"] == "flex"
    assert rules[".stack td::before"]["content"] == "attr(data-head)"
    assert rules["figure .wide"]["display"] == "none" and rules["figure .narrow"]["display"] == "block"


def test_columns_that_do_not_fit_stand_in_a_table_below(tmp_path):
    for number in range(2):
        results = {f"test/task-{index}/nDCG@10": 0.5 + index / 100 for index in range(7)}
        make_run(tmp_path / "runs" / str(number), {"loss.name": f"l{number}", "seed": 0}, results)
    runs, _ = read_runs([str(tmp_path / "runs")])
    tables = results_tables(make_table("T", named_rows(runs), runs, choose_columns(runs, None)))
    assert [len(table.heads) - 2 for table in tables] == [4, 3]  # of 7 columns at most 6 fit
    assert tables[1].heads == ["", "task-4/nDCG@10", "task-5/nDCG@10", "task-6/nDCG@10", "seeds"]
    assert [[cell.text for cell in line.cells] for line in tables[1].lines] == [["0.5400", "0.5500", "0.5600", "1"]] * 2
    text = (report_on(tmp_path / "runs") / "index.html").read_text()
    assert '<td data-head="task-6/nDCG@10"><span><strong>0.5600</strong></span></td>' in text
    assert (
        '<th scope="col">task-6/<wbr>nDCG@10</th>' in text
        and '<meta name="viewport" content="width=device-width' in text
    )


def test_dots_show_intervals_where_nothing_is_swept(tested):
    out = report_on(tested, "published=false")
    assert {path.stem for path in (out / "figures").iterdir()} == {"effectiveness"}
    runs, _ = read_runs([str(tested)])
    rows = named_rows(runs)
    panels, caption = draw_dots(make_table("T", rows, runs, [DL19]), rows)
    reference, *_, ranknet = panels.dots["trec-dl-2019-bm25/nDCG@10"]
    assert (reference.name, reference.low, reference.high, reference.is_reference) == ("first stage", 0.48, 0.48, True)
    assert ranknet.seeds == pytest.approx([0.24, 0.26]) and ranknet.value == pytest.approx(0.25)
    assert (ranknet.low, ranknet.high) == pytest.approx((0.25 - 0.0141421, 0.25 + 0.0141421), abs=1e-6)
    assert "ticks are its seeds" in caption


def test_dots_of_a_single_seed_have_the_interval_over_queries(tmp_path):
    for number, values in enumerate([[0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5]]):
        make_run(tmp_path / str(number), {"loss.name": f"l{number}", "seed": 0}, {DL19: sum(values) / 4}, values)
    runs, _ = read_runs([str(tmp_path)])
    rows = named_rows(runs)
    panels, caption = draw_dots(make_table("T", rows, runs, [DL19]), rows)
    (first, _) = panels.dots["trec-dl-2019-bm25/nDCG@10"]
    # t table: 3.182 at three degrees of freedom; standard error sqrt(0.05 / 3) / 2 = 0.0645
    assert first.high - first.value == pytest.approx(3.182 * 0.0645497, abs=1e-4) and "over queries" in caption


def test_learning_curves_of_all_losses_share_a_panel(tmp_path):
    runs = make_grid(tmp_path / "runs", {("a", 1): [0.5, 0.5], ("b", 1): [0.5]})
    for run, scale in zip(sorted(runs.iterdir()), (1, 3, 10), strict=True):
        lines = [{"step": step, "train/loss": scale / step} for step in (1, 2)]
        lines += [{"step": step, "val/nDCG@10": scale * step} for step in (1, 2)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    panels, _ = draw_curves(named_rows(read_runs([str(runs)])[0]), read_labels([], []))
    assert panels.points["val/nDCG@10"] == {
        "loss=a": [(1, 2, pytest.approx(math.sqrt(2))), (2, 4, pytest.approx(math.sqrt(8)))],
        "loss=b": [(1, 10, 0), (2, 20, 0)],
    }
    loss = panels.points["train/loss, relative to its first value"]  # scales of their own: 1, 3 and 10
    assert loss == {"loss=a": [(1, 1, 0), (2, 0.5, 0)], "loss=b": [(1, 1, 0), (2, 0.5, 0)]} and len(panels.points) == 2


def test_many_rows_share_the_curves_of_their_first_keys(tmp_path):
    values = {(loss, depth): [0.5] for loss in ("a", "b") for depth in range(1, 6)}
    runs = make_grid(tmp_path / "runs", values)
    for run in runs.iterdir():
        (run / "metrics.jsonl").write_text('{"step": 1, "val/nDCG@10": 0.5}\n{"step": 2, "val/nDCG@10": 0.6}\n')
    panels, caption = draw_curves(named_rows(read_runs([str(runs)])[0]), read_labels([], []))
    assert list(panels.points["val/nDCG@10"]) == ["loss=a", "loss=b"] and "rows that share a line" in caption


def test_figures_that_would_say_nothing_are_left_out(tmp_path):
    for number, (loss, depth) in enumerate([("a", 10), ("b", 50)]):  # no line has two points over data.depth
        results = {DL19: 0.5, "latency/trec-dl-2019-bm25/seconds_per_query": 0.1} if number else {DL19: 0.4}
        make_run(tmp_path / "runs" / str(number), {"loss.name": loss, "data.depth": depth, "seed": 0}, results)
        (tmp_path / "runs" / str(number) / "metrics.jsonl").write_text('{"step": 1, "val/nDCG@10": 0.5}\n')
    out = report_on(tmp_path / "runs", "published=false")
    assert {path.stem for path in (out / "figures").iterdir()} == {"effectiveness"}


def test_any_swept_number_has_a_figure(tmp_path):
    for number, lr in enumerate([1e-5, 1e-4]):
        make_run(tmp_path / "runs" / str(number), {"loss.name": "a", "optimizer.lr": lr, "seed": 0}, {DL19: lr})
    out = report_on(tmp_path / "runs", "published=false")
    assert {path.stem for path in (out / "figures").iterdir()} == {"effectiveness-over-optimizer.lr"}


def test_names_in_figures_break_after_their_punctuation():
    assert wrap("loss=ranknet, teacher.path=rankzephyr/oracle.train.run", 24).split("\n") == [
        "loss=ranknet,", "teacher.path=rankzephyr/", "oracle.train.run",
    ]  # fmt: skip
    assert wrap("short", 24) == "short"


def test_a_report_is_not_written_into_the_directory_of_a_run(tmp_path):
    runs = make_grid(tmp_path / "runs", {("lce", 1): [0.5]})
    with pytest.raises(InputError, match="lce-1-0: holds a run: choose another directory for the report"):
        report_on(runs, out=runs / "lce-1-0")
    assert {path.name for path in (runs / "lce-1-0").iterdir()} <= {"config.yaml", "results.json"}


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
