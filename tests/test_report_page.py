"""The page of a report: whole, on its own, readable on a phone; and where it says that its runs come from."""

import json
import re
from datetime import datetime

import yaml

from distill.report.labels import Labels
from distill.report.page import results_tables
from distill.report.provenance import read_commands
from distill.report.runs import read_runs
from distill.report.table import choose_columns, make_table
from tests.helpers.pages import Page
from tests.helpers.paths import ROOT
from tests.helpers.reports import DL19, make_grid, make_run, named_rows, report_on


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
    tables = results_tables(make_table("T", named_rows(runs), runs, choose_columns(runs, None), Labels()))
    assert [len(table.heads) - 2 for table in tables] == [4, 3]  # of 7 columns at most 6 fit
    assert tables[1].heads == ["", "task-4/nDCG@10", "task-5/nDCG@10", "task-6/nDCG@10", "seeds"]
    assert [[cell.text for cell in line.cells] for line in tables[1].lines] == [["0.5400", "0.5500", "0.5600", "1"]] * 2
    text = (report_on(tmp_path / "runs") / "index.html").read_text()
    assert '<td data-head="task-6/nDCG@10"><span><strong>0.5600</strong></span></td>' in text
    assert (
        '<th scope="col">task-6/<wbr>nDCG@10</th>' in text
        and '<meta name="viewport" content="width=device-width' in text
    )
