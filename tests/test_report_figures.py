"""The figures of a report: what they show, and when there are any."""

import json
import math
from pathlib import Path

import pytest

from distill.report.figures import draw_curves, draw_dots
from distill.report.labels import Labels, read_labels
from distill.report.panels import wrap
from distill.report.runs import read_runs
from distill.report.table import make_table
from tests.helpers.reports import DL19, make_grid, make_run, make_tested, named_rows, report_on


@pytest.fixture
def tested(tmp_path) -> Path:
    return make_tested(tmp_path)


def test_dots_show_intervals_where_nothing_is_swept(tested):
    out = report_on(tested, "published=false")
    assert {path.stem for path in (out / "figures").iterdir()} == {"effectiveness"}
    runs, _ = read_runs([str(tested)])
    rows = named_rows(runs)
    panels, caption = draw_dots(make_table("T", rows, runs, [DL19], Labels()), rows)
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
    panels, caption = draw_dots(make_table("T", rows, runs, [DL19], Labels()), rows)
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
