"""Agreement with the teacher on queries without judgments: by hand, beside ir_measures and scipy, and end to end."""

import csv
import json
import math
import random

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG
from scipy.stats import kendalltau, ttest_rel

from distill.config.checks import check_evaluate
from distill.errors import InputError
from distill.evaluation.tasks import Task
from distill.evaluation.teacher_agreement import TeacherAgreement, agree_on
from distill.sources.run_files import RankedList, average_ranks
from distill.sources.runs import read_run
from evaluate import evaluate
from tests.helpers.configuration import compose_config
from tests.helpers.models import make_model


def ranked(doc_ids, scores=None) -> RankedList:
    doc_ids = list(doc_ids)
    if scores is None:
        return RankedList.in_order(doc_ids, -np.arange(float(len(doc_ids))))
    values = np.array(scores, dtype=float)
    return RankedList(doc_ids, values, average_ranks(values, values))


def test_agreement_on_three_passages_is_that_worked_by_hand():
    # Gains of a, b, c: 10, 9, 8; discounts 1, 1 / log2(3), 1 / 2
    found = agree_on(ranked("bac"), ranked("abc"))
    assert found["nDCG@10"] == pytest.approx((9 + 10 / math.log2(3) + 4) / (10 + 9 / math.log2(3) + 4))
    assert found["tau"] == pytest.approx((2 - 1) / 3) and "overlap@10" not in found
    # The teacher ties b and c at rank 2.5, so both gain 8.5, and their order does not matter
    found = agree_on(ranked("acb"), ranked("abc", [2, 1, 1]))
    assert found == {"nDCG@10": pytest.approx(1), "tau": 1.0}
    assert agree_on(ranked("abc", [1, 1, 1]), ranked("abc"))["tau"] == 0.0  # all tie, so that nothing is ordered
    assert agree_on(ranked("abc"), ranked("abc", [1, 1, 1])) == {} == agree_on(ranked("abc"), ranked("xay"))
    assert agree_on(ranked("abx"), ranked("abc"))["nDCG@10"] < 1  # c is in the teacher's top, and not in the list
    many = [str(number) for number in range(40)]
    assert (
        agree_on(ranked(many), ranked(many, [1] * 40))
        == {}
        == agree_on(ranked(many), ranked(many, [1] * 30 + [0] * 10))
    )


def test_agreement_is_that_of_ir_measures_and_scipy():
    generator = random.Random(2)
    doc_ids = [f"d{n}" for n in range(30)]
    for _ in range(20):
        teacher, student = (generator.sample(doc_ids, 30) for _ in range(2))
        found = agree_on(ranked(student), ranked(teacher))
        qrels = {"q": {doc_id: 10 - place for place, doc_id in enumerate(teacher[:10])}}
        run = {"q": {doc_id: -float(place) for place, doc_id in enumerate(student)}}
        assert found["nDCG@10"] == pytest.approx(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])
        places = [[order.index(doc_id) for doc_id in doc_ids] for order in (student, teacher)]
        assert found["tau"] == pytest.approx(kendalltau(*places).statistic)
        assert found["overlap@10"] == len({*teacher[:10]} & {*student[:10]}) / 10


def task_of(first, teacher) -> Task:
    return Task("held", "held", first, {}, [], teacher, {}, {}, 1, None)


def test_rows_are_compared_on_the_same_queries_and_tested():
    generator = random.Random(3)
    orders = {f"q{n}": [f"d{i}" for i in generator.sample(range(30), 12 if n else 3)] for n in range(9)}
    first = {query_id: ranked(generator.sample(order, len(order))) for query_id, order in orders.items()}
    teacher = {query_id: ranked(order) for query_id, order in orders.items() if query_id != "q8"}
    student = {query_id: ranked([*order[1:], order[0]]) for query_id, order in orders.items()}
    agreed = TeacherAgreement.of(task_of(first, teacher), {"first_stage": first, "teacher": teacher, "test": student})
    results, values = agreed.results(), [agreed.rows[row]["nDCG@10"] for row in ("first_stage", "student")]
    assert [*values[0]] == [f"q{n}" for n in range(8)] == [*values[1]]
    assert results["agreement/student/held/queries"] == 8 and results["agreement/first_stage/held/queries"] == 8
    for row, by_query in zip(("first_stage", "student"), values, strict=True):
        assert results[f"agreement/{row}/held/nDCG@10"] == pytest.approx(np.mean([*by_query.values()]))
    assert results["agreement/student/held/p"] == pytest.approx(ttest_rel(*([*one.values()] for one in values)).pvalue)
    assert results["agreement/student/held/overlap@10"] == pytest.approx(0.9, abs=0.11)  # of the seven lists of 12
    assert (
        agreed.verdict()[1] and "agrees with the teacher more than the first stage does on held" in agreed.verdict()[0]
    )
    assert "student          " in agreed.table() and "8 queries" in agreed.table()
    with pytest.raises(InputError, match="orders no two passages of any list"):
        TeacherAgreement.of(task_of(first, {"x": ranked("ab")}), {"first_stage": first})


def test_without_judgments_an_evaluation_compares_with_the_teacher(collection, tmp_path, caplog, capsys):
    files = ["task=files", f"task.run={collection['first_stage']}", f"task.teacher={collection['teacher']}"]
    cfg = compose_config("evaluate", *files, "model=null")
    check_evaluate(cfg)
    results = evaluate(cfg, tmp_path / "out")
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    names = ("nDCG@10", "tau", "queries")  # lists of ten passages have no overlap@10
    assert {*results} == {f"agreement/first_stage/files/{name}" for name in names}
    assert (
        results["agreement/first_stage/files/queries"] == 6 and 0 < results["agreement/first_stage/files/nDCG@10"] < 1
    )
    with open(tmp_path / "out" / "agreement.first_stage.per_query.csv") as file:
        rows = [*csv.DictReader(file)]
    assert [*rows[0]] == ["query_id", "nDCG@10", "tau"] and len(rows) == 6
    assert np.mean([float(row["tau"]) for row in rows]) == pytest.approx(results["agreement/first_stage/files/tau"])
    assert not (tmp_path / "out" / "per_query.csv").exists() and (tmp_path / "out" / "run.txt").is_file()
    assert "agreement with the teacher: 6 queries" in capsys.readouterr().out


def test_lists_that_are_cut_are_compared_with_the_whole_ranking_of_the_teacher(collection, tmp_path):
    files = ["task=files", "model=null", f"task.run={collection['first_stage']}"]
    files += [f"task.teacher={collection['teacher']}", "task.depth=4"]
    evaluate(compose_config("evaluate", *files), tmp_path / "out")
    with open(tmp_path / "out" / "agreement.first_stage.per_query.csv") as file:
        found = {row["query_id"]: float(row["tau"]) for row in csv.DictReader(file)}
    first, teacher = (read_run(str(collection[name])) for name in ("first_stage", "teacher"))
    assert len(found) == 6
    for query_id, tau in found.items():
        places = [teacher[query_id].doc_ids.index(doc_id) for doc_id in first[query_id].doc_ids[:4]]
        assert tau == pytest.approx(kendalltau(range(4), places).statistic)


def test_queries_that_are_not_compared_are_counted(caplog):
    first = {f"q{n}": ranked("abc") for n in range(4)}
    fused = {query_id: first[query_id] for query_id in ("q0", "q2", "q3")}
    teacher = {query_id: ranked("acb") for query_id in ("q0", "q1", "q2")} | {"q3": ranked("axy")}
    agreed = TeacherAgreement.of(task_of(first, teacher), {"first_stage": first, "fused": fused})
    assert agreed.num_queries == 2
    assert "held: 2 of 4 queries that the teacher ranks are not compared with it" in caplog.text
    assert "(first: q1)" in caplog.text


def test_a_teacher_that_orders_nothing_is_refused_before_the_work(collection, tmp_path, monkeypatch):
    lines = [line.split() for line in collection["teacher"].read_text().splitlines()]
    (tmp_path / "tied.run").write_text("".join(f"{q} Q0 {doc_id} 0 1 t\n" for q, _, doc_id, *_ in lines))
    files = ["task=files", *(f"task.{name}={collection[name]}" for name in ("passages", "queries"))]
    files += [f"task.run={collection['first_stage']}", f"task.teacher={tmp_path / 'tied.run'}", "model=any"]
    monkeypatch.setattr("evaluate.load_models", lambda *_: [make_model(tmp_path, "bert")])
    monkeypatch.setattr("evaluate.rerank", None)  # not called
    with pytest.raises(InputError, match="task.teacher of files: orders no two passages of any list"):
        evaluate(compose_config("evaluate", *files), tmp_path / "out")


def test_with_judgments_the_agreement_is_beside_them(collection, tmp_path):
    files = ["task=files", "model=null", f"task.qrels={collection['qrels']}"]
    files += [f"task.run={collection['first_stage']}"]
    plain = evaluate(compose_config("evaluate", *files), tmp_path / "plain")
    both = evaluate(compose_config("evaluate", *files, f"task.teacher={collection['teacher']}"), tmp_path / "both")
    assert plain.items() < both.items() and not any(name.startswith("agreement") for name in plain)
    assert both["teacher/files/nDCG@10"] > 0 and both["agreement/first_stage/files/queries"] == 6


@pytest.mark.parametrize(("overrides", "reason"), [
    ([], "task.qrels is missing: give a file or an ir_datasets id, or the teacher's ranking as task.teacher"),
    (["task.teacher=T", "task.ideal=true"], "task.ideal=True needs judgments"),
    (["task.teacher=T", "task.interpolate=fit"], "task.interpolate=fit needs judgments"),
    (["task.teacher=missing.run"], "task.teacher=missing.run: no such file"),
])  # fmt: skip
def test_what_needs_judgments_is_refused_without_them(collection, overrides, reason):
    overrides = [one.replace("=T", f"={collection['teacher']}") for one in overrides]
    files = ["task=files", "model=m", f"task.run={collection['first_stage']}"]
    files += [f"task.{name}={collection[name]}" for name in ("passages", "queries")]
    with pytest.raises(InputError, match=reason):
        check_evaluate(compose_config("evaluate", *files, *overrides))
