"""`distill report` on small runs whose numbers are worked out by hand."""

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from distill.commands.report import quote_value, report
from distill.config.checks import check_report
from distill.errors import InputError
from distill.report.markup import escape_latex, to_latex, to_markdown
from distill.report.published import read_published
from distill.report.rows import make_rows
from distill.report.runs import read_history, read_runs
from distill.report.table import choose_columns, make_table, per_query
from tests.helpers import commands
from tests.helpers.configuration import compose_config

DL19 = "test/trec-dl-2019-bm25/nDCG@10"
VOID = {"meta", "br", "hr", "img", "input", "link"}


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


def report_on(directory: Path, *overrides: str, out: Path | None = None) -> Path:
    out = out or directory.parent / "out"
    out.mkdir(exist_ok=True)
    cfg = compose_config("report", f"runs='{directory}'", *overrides)
    check_report(cfg)
    report(cfg, out)
    return out


def read_table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def test_seeds_form_one_row_with_mean_and_sample_deviation(tmp_path):
    make_grid(tmp_path / "runs", {("ranknet", 50): [0.5, 0.7], ("adr_mse", 50): [0.4, 0.5, 0.6]})
    rows = read_table(report_on(tmp_path / "runs", "published=false"))
    assert list(rows) == ["loss.name=adr_mse", "loss.name=ranknet"]
    for name, mean, std, seeds in (("ranknet", 0.6, math.sqrt(0.02), "2"), ("adr_mse", 0.5, 0.1, "3")):
        row = rows[f"loss.name={name}"]
        assert float(row[DL19]) == pytest.approx(mean, abs=1e-12) and row["kind"] == "ours"
        assert float(row[f"{DL19} std"]) == pytest.approx(std, abs=1e-12) and row[f"{DL19} seeds"] == seeds
    assert "| **0.6000 ± 0.1414** | 2 |" in (tmp_path / "out" / "results.md").read_text()


def test_a_row_is_named_by_what_differs_and_not_by_what_its_loss_implies(tmp_path):
    for number, (loss, target, depth) in enumerate([("lce", "label", 10), ("adr_mse", "rank", 50)]):
        config = {"loss.name": loss, "loss.target": target, "backbone.lr": 1e-5, "data.depth": depth}
        make_run(tmp_path / str(number), config | {"optimizer.lr": 1e-5, "seed": number}, {DL19: 0.5})
    rows = make_rows(read_runs([str(tmp_path)])[0])
    assert [row.name for row in rows] == ["loss.name=lce, data.depth=10", "loss.name=adr_mse, data.depth=50"]


def test_a_command_run_twice_is_no_second_seed(tmp_path):
    for number, value in enumerate([0.4, 0.6]):
        make_run(tmp_path / str(number), {"loss.name": "lce", "seed": 0}, {DL19: value})
    (row,) = make_rows(read_runs([str(tmp_path), str(tmp_path / "1")])[0])
    assert row.by_seed(DL19) == {0: 0.5} and len(row.runs) == 2


def test_evaluations_stand_in_the_row_of_the_run_that_trained_the_model(tmp_path):
    for seed in (0, 1):
        run = make_run(tmp_path / "train" / str(seed), {"loss.name": "lce", "seed": seed}, {"train/steps": 9})
        (run / "model").mkdir()
        for task in ("a", "b"):
            config = {"model": str(run / "model"), "task.name": task, "task.run": f"{task}.run", "device": "cpu"}
            make_run(tmp_path / "evaluate" / f"{task}-{seed}", config, {f"test/{task}/nDCG@10": 0.5 + seed / 10})
    (row,) = make_rows(read_runs([str(tmp_path)])[0])
    assert row.by_seed("test/a/nDCG@10") == row.by_seed("test/b/nDCG@10") == {0: 0.5, 1: 0.6}


def test_a_model_measured_by_its_run_and_once_more_stands_in_one_row(tmp_path):
    run = make_run(tmp_path / "0", {"loss.name": "lce", "task.depth": 100, "seed": 0}, {DL19: 0.5})
    (run / "model").mkdir()
    config = {"model": str(run / "model"), "task.depth": 100, "device": "cpu"}
    make_run(tmp_path / "1", config, {DL19: 0.5, "test/a/nDCG@10": 0.4}, [0.4, 0.6])
    (row,) = make_rows(read_runs([str(tmp_path)])[0])
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
    names = [row.name for row in make_rows(read_runs([str(tmp_path)])[0])]
    assert names == [f"directory={tmp_path / '0'}", f"directory={tmp_path / '1'}", "model=org/name"]


def test_one_metric_measured_at_two_depths_takes_two_rows(tmp_path):
    for depth, value in ((100, 0.5), (1000, 0.6)):
        make_run(tmp_path / str(depth), {"model": "org/name", "task.depth": depth}, {DL19: value})
    rows = make_rows(read_runs([str(tmp_path)])[0])
    assert [row.name for row in rows] == ["task.depth=100", "task.depth=1000"]


def test_second_stages_of_other_seeds_first_stages_form_one_row(tmp_path):
    for seed in (0, 1):
        first = {"backbone.name": "electra", "loss.name": "lce", "seed": seed}
        run = make_run(tmp_path / "one" / str(seed), first, {DL19: 0.5})
        (run / "model").mkdir()
        second = {"backbone.name": str(run / "model"), "loss.name": "ranknet", "seed": seed}
        make_run(tmp_path / "two" / str(seed), second, {DL19: 0.6 + seed / 10})
    rows = make_rows(read_runs([str(tmp_path)])[0])
    assert [(row.name, len(row.runs)) for row in rows] == [("loss.name=lce", 2), ("loss.name=ranknet", 2)]
    assert rows[1].config["backbone.name"] == "electra" and rows[1].config["backbone.from.loss.name"] == "lce"


def test_best_is_bold_and_second_underlined_and_what_is_printed_alike_ties(tmp_path):
    runs = make_grid(tmp_path, {("a", 1): [0.61234], ("b", 1): [0.61233], ("c", 1): [0.5], ("d", 1): [0.4]})
    runs, _ = read_runs([str(runs)])
    markdown = to_markdown(make_table("T", make_rows(runs), runs, [DL19]))
    assert "| loss.name=a | **0.6123** | 1 |" in markdown and "| loss.name=b | **0.6123** | 1 |" in markdown
    assert "| loss.name=c | <u>0.5000</u> | 1 |" in markdown and "| loss.name=d | 0.4000 | 1 |" in markdown
    latex = to_latex(make_table("T", make_rows(runs), runs, [DL19]))
    assert r"\textbf{0.6123}" in latex and r"\underline{0.5000}" in latex and r"\toprule" in latex


def test_less_is_better_for_seconds(tmp_path):
    make_grid(tmp_path, {("a", 1): [30.0], ("b", 1): [20.0]}, metric="train/seconds")
    runs, _ = read_runs([str(tmp_path)])
    assert "| loss.name=b | **20.00** | 1 |" in to_markdown(make_table("T", make_rows(runs), runs, ["train/seconds"]))


def test_latex_is_escaped(tmp_path):
    assert escape_latex(r"a_b & 5% #1 {x} $ ~ ^ \\"[:-1]) == (
        r"a\_b \& 5\% \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    make_grid(tmp_path / "runs", {("adr_mse", 1): [0.5, 0.7], ("lce", 1): [0.4]})
    latex = (report_on(tmp_path / "runs", "title='R&D 100%'") / "results.tex").read_text()
    assert r"\caption{R\&D 100\%}" in latex
    assert r"loss.name=adr\_mse & \textbf{0.6000 $\pm$ 0.1414} & 2 \\" in latex


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
    assert float(rows["loss.name=adr_mse"][f"{DL19} p"]) == pytest.approx(p, rel=1e-3)
    assert float(rows["loss.name=adr_mse"][f"{DL19} p_holm"]) == pytest.approx(2 * p, rel=1e-3)
    assert float(rows["loss.name=lce"][f"{DL19} p"]) == pytest.approx(1)
    assert rows["loss.name=ranknet"][f"{DL19} p"] == ""
    markdown = (out / "results.md").read_text()
    assert "| loss.name=adr_mse | **0.3500 ± 0.0141**† | 2 |" in markdown
    assert "0.2500 ± 0.0141</u> |" in markdown and markdown.count("†") == 2  # the second is in the note
    assert "† p < 0.05 against loss.name=ranknet" in markdown
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
    assert "Not tested in every column, for want of values on the same queries: loss.name=lce." in markdown


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
    section = "Friedman over 2 cells and 3 values; 1 incomplete cells left out: χ² = 4.00, p = 0.135."
    assert section in (out / "results.md").read_text() and section in (out / "index.html").read_text()
    with open(out / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss.name"], float(row["average_rank"])) for row in rows] == [("a", 1), ("b", 2), ("c", 3)]
    assert float(rows[0]["c"]) == float(rows[2]["a"]) < float(rows[0]["b"]) < 1
    assert {"critical-difference.png", "critical-difference.svg"} <= {path.name for path in (out / "figures").iterdir()}


def test_keys_that_come_with_the_compared_one_do_not_part_the_cells(tmp_path):
    for loss in ("a", "b", "c"):
        for depth in (10, 50):
            config = {"loss.name": loss, "teacher.name": f"of {loss}", "data.depth": depth, "train.batch_size": 1}
            config |= {"train.batch_size": depth * ord(loss)}  # follows from both
            make_run(tmp_path / "runs" / f"{loss}{depth}", config, {DL19: ord(loss) / 200})
    assert "2 cells and 3 values:" in (report_on(tmp_path / "runs", "compare=loss.name") / "results.md").read_text()


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
    assert text.count("<svg") == 3 and "&lt;a&gt;" in text and "<a>" not in text
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
    assert "1 runs in 1 rows, 1 unfinished left out" in text and f"<li>{late}</li>" in text


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
        ("results.json", '{\n  "a": 1,\n  oops\n}', "results.json:3: is no JSON"),
        ("results.json", '{\n  "a": 1,\n  "b": "x"\n}', 'results.json:3: b is "x": expected a finite number'),
        ("results.json", '{"a": NaN}', "results.json:1: a is NaN: expected a finite number"),
        ("results.json", "[1]", "results.json:1: holds no object"),
        ("config.yaml", "a: 1\nb: [1\n", "config.yaml:3: is no YAML"),
        ("metrics.jsonl", '{"step": 1}\nnope\n', "metrics.jsonl:2: is no JSON"),
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
        ("baseline='loss=hinge'", "baseline=loss=hinge: is no row: choose one: loss.name=lce, data.depth=1; "),
        ("baseline='loss=lce'", "baseline=loss=lce: means several rows: add what tells them apart: "),
        ("baseline='loss=lce, data.depth=2'", "baseline=loss.name=lce, data.depth=2: no per_query.csv"),
        (
            "compare=data.list_size",
            "compare=data.list_size: no key that varies between these runs; those that do: loss",
        ),
        (
            "compare=loss",
            "compare=loss: 2 values (lce, ranknet) over 2 complete cells of 2: Friedman's test needs three",
        ),
        ("correction=sidak", "correction=sidak is unknown: choose one of holm, bonferroni"),
        ("alpha=1", "alpha=1.0: must be below 1"),
        ("runs=5", "runs=5: expected a directory or a list of them"),
        ("runs=nowhere", "runs=nowhere: no such directory"),
    ],
)
def test_a_wrong_option_is_answered_with_key_value_and_remedy(tmp_path, override, message):
    runs = make_grid(tmp_path / "runs", {(loss, depth): [0.5] for loss in ("lce", "ranknet") for depth in (1, 2)})
    with pytest.raises(InputError, match=re.escape(message)):
        report_on(runs, override)


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


def test_a_value_with_an_equals_sign_is_quoted_for_hydra():
    assert quote_value("baseline=loss=ranknet,data.depth=50") == "baseline='loss=ranknet,data.depth=50'"
    for argument in ("alpha=0.1", "baseline='a=b'", "metrics=[a=b]", "--help"):
        assert quote_value(argument) == argument
