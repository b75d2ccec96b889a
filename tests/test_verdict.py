"""What a run says of itself at its end: beside the first stage, by a test, and whether its loss went anywhere."""

import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from distill.evaluation.agreement import kendall_tau
from distill.evaluation.tasks import read_tasks
from distill.sources.literals import escaped
from distill.training.verdict import (
    describe_loss,
    judge_agreement,
    judge_suite,
    judge_task,
    judge_validation,
)
from tests.helpers.configuration import compose_config
from tests.helpers.training import run_train

FIRST = {"q1": 0.1, "q2": 0.2, "q3": 0.3, "q4": 0.4}


def rows(student: dict[str, float], teacher: dict[str, float] | None = None) -> dict[str, dict]:
    found = {"first_stage": FIRST, "test": student} | ({"teacher": teacher} if teacher else {})
    return {row: {query: {"nDCG@10": value} for query, value in values.items()} for row, values in found.items()}


def raised(*by: float) -> dict[str, float]:
    return {query: value + more for (query, value), more in zip(FIRST.items(), by, strict=True)}


def test_a_student_that_ranks_better_is_said_to_by_a_paired_test():
    line, better = judge_task("sample", rows(raised(0.4, 0.5, 0.4, 0.5), raised(0.5, 0.5, 0.5, 0.5)))
    # Differences of mean 0.45 and deviation 0.0577: t = 15.59 with 3 degrees of freedom
    assert line == (
        "the student ranks better than the first stage on sample: nDCG@10 0.7000 against 0.2500 (4 queries, "
        "significant: p < 0.001); 90% of the teacher's gain (0.7500)"
    )
    assert better


def test_a_student_that_ranks_worse_is_said_to():
    line, better = judge_task("files", rows(raised(-0.1, -0.2, -0.1, -0.2), raised(0.1, 0.1, 0.1, 0.1)))
    assert line == (
        "the student ranks worse than the first stage on files: nDCG@10 0.1000 against 0.2500 (4 queries, "
        "significant: p = 0.014); none of the teacher's gain (0.3500)"
    )
    assert not better


def test_a_difference_that_chance_explains_is_no_better():
    line, better = judge_task("files", rows(raised(0.3, -0.1, 0.1, -0.1), raised(0, -0.1, 0, 0)))
    # Differences of mean 0.05 and deviation 0.1915: t = 0.522 with 3 degrees of freedom
    assert line == (
        "the student ranks no better than the first stage on files: nDCG@10 0.3000 against 0.2500 (4 queries, "
        "not significant: p = 0.64); the teacher does not rank better either: 0.2250"
    )
    assert not better


def test_the_same_ranking_and_a_single_query_are_no_better():
    assert "no better" in judge_task("files", rows(FIRST))[0] and "p = 1)" in judge_task("files", rows(FIRST))[0]
    one = {row: {"q1": {"nDCG@10": value}} for row, value in (("first_stage", 0.1), ("test", 0.9))}
    assert judge_task("files", one)[0].endswith(
        "no better than the first stage on files: nDCG@10 0.9000 against 0.1000 (fewer than two queries, too few to "
        "tell)"
    )


def test_of_a_suite_the_tasks_are_counted():
    cfg = compose_config("train", "task=sample-suite").task
    better, same, worse = raised(0.4, 0.5, 0.4, 0.5), FIRST, raised(-0.1, -0.2, -0.1, -0.2)
    line, is_better = judge_suite(cfg, {"a": rows(better), "b": rows(same), "c": rows(better), "d": rows(worse)})
    assert line == (
        "the student ranks better than the first stage on 2 of 4 tasks of sample-suite, worse on 1 (p < 0.05 each): "
        "mean nDCG@10 0.4375 against 0.2500"
    )
    assert is_better


def test_a_suites_mean_is_over_the_tasks_with_one_first_measure():
    cfg = compose_config("train", "task=sample-suite").task
    other = {row: {query: {"RR@10": 0.9} for query in FIRST} for row in ("first_stage", "test")}
    line, _ = judge_suite(cfg, {"a": rows(raised(0.4, 0.5, 0.4, 0.5)), "b": other})
    assert line.endswith("mean nDCG@10 of 1 0.7000 against 0.2500")


def test_a_validations_measure_may_have_another_name(collection):
    sources = [f"validation.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    run = f"validation.run={collection['first_stage']}"
    cfg = compose_config("train", *sources, run, "validation.measures=[MRR@10]").validation
    line, _ = judge_validation(cfg, {"val/RR@10": 1.0}, list(read_tasks(cfg, {})))
    assert "on the validation queries: RR@10 1.0000 against" in line


def test_without_judgments_the_agreement_with_the_teacher_is_told():
    taus = {"student": {"0": 0.8, "1": 0.7, "2": 0.9}, "first_stage": {"0": 0.1, "1": 0.1, "2": 0.1}}
    assert judge_agreement(taus, "teacher") == (
        "the student agrees with the teacher more than the first stage does: Kendall's tau 0.8000 against 0.1000 "
        "(3 lists, significant: p = 0.0067), on 3 of the lists that it was trained on, since no query is judged",
        True,
    )
    del taus["first_stage"]
    assert judge_agreement(taus, "labels")[0].startswith(
        "the student agrees with the labels by Kendall's tau 0.8000, on"
    )
    assert judge_agreement({"student": {}}, "teacher")[0].startswith("none: no query is judged")


def test_kendalls_tau_by_hand():
    target = np.array([3.0, 2.0, 1.0, 1.0])  # five pairs are told apart
    assert kendall_tau(np.array([4.0, 3.0, 2.0, 1.0]), target) == 1
    assert kendall_tau(np.array([1.0, 2.0, 3.0, 4.0]), target) == -1
    assert kendall_tau(np.array([2.0, 3.0, 1.0, 1.0]), target) == pytest.approx(3 / 5)  # one pair the other way round
    assert kendall_tau(np.array([5.0, 5.0, 5.0, 1.0]), target) == pytest.approx(2 / 5)  # three pairs tie
    assert kendall_tau(np.array([5.0, -np.inf, -np.inf, 1.0]), target) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([0.693, 0.691], "the loss ended where it began (0.693 -> 0.691): try more steps than 20, or a higher learning "
         "rate than backbone.lr=0.002"),
        ([0.693, 0.5, 0.2], None),
        ([0.5, 0.9], "the loss rose (0.5 -> 0.9): try a lower learning rate than backbone.lr=0.002, or a longer "
         "warm-up"),
        ([0.7], None),
        ([0.0], "the loss was 0 in every step: the lists teach nothing: check their labels and the teacher's scores"),
        ([0.0, 0.0], "the loss was 0 in every step: the lists teach nothing: check their labels and the teacher's "
         "scores"),
        ([1.0] * 2 + [0.1] * 16 + [0.99] * 2, "the loss ended where it began (1 -> 0.99): try more steps than 20, or a "
         "higher learning rate than backbone.lr=0.002"),
    ],
)  # fmt: skip
def test_a_loss_that_went_nowhere_is_told_with_the_remedy(tmp_path, losses, said):
    lines = [{"step": 20 + place - len(losses) + 1, "train/loss": loss} for place, loss in enumerate(losses)]
    lines.insert(1, {"step": 1, "val/nDCG@10": 0.5})
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["step"]))
    )
    assert describe_loss(compose_config("train", "optimizer.warmup=0"), tmp_path / "metrics.jsonl") == said


def test_a_loss_that_went_nowhere_under_a_warmup_names_the_warmup(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "train/loss": 0.69}\n{"step": 15, "train/loss": 0.69}\n')
    said = describe_loss(compose_config("train", "optimizer.warmup=100"), tmp_path / "metrics.jsonl")
    assert said.endswith("(0.69 -> 0.69): the learning rate was still rising: lower optimizer.warmup=100")


def test_changing_weights_of_a_mixture_are_no_rise_of_the_loss(tmp_path):
    parts = [(0, 0.69, 1.0), (10, 0.6, 0.9), (20, 0.5, 0.8)]  # step, RankNet's loss and LCE's: both fall
    lines = [
        {
            "step": step,
            "train/loss": (0.1 + 0.045 * step) * ranknet + lce,
            "train/loss/ranknet": ranknet,
            "train/loss/lce": lce,
        }
        for step, ranknet, lce in parts
    ]
    assert lines[-1]["train/loss"] > lines[0]["train/loss"]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    cfg = compose_config("train", "loss=ranknet-lce", "loss.weights.ranknet=[0.1,1.0]")
    assert describe_loss(cfg, tmp_path / "metrics.jsonl") is None


def test_a_learning_rate_that_only_its_variable_has_is_named_so(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "train/loss": 0.69}\n{"step": 15, "train/loss": 0.69}\n')
    saved = {"optimizer": {"lr": "${oc.env:LR}", "warmup": "${oc.env:WARMUP}"}}
    said = describe_loss(OmegaConf.create(escaped(saved)), tmp_path / "metrics.jsonl")
    assert said.endswith("try more steps than 15, or a higher learning rate than backbone.lr=${oc.env:LR}")


def test_a_run_without_judgments_ends_with_its_agreement(file_overrides, tmp_path, caplog):
    caplog.set_level("INFO")
    nothing = ["validation.run=null", "task.run=null", "train.max_steps=60", "backbone.lr=0.01", "model.dropout=0.0"]
    results = run_train(tmp_path / "run", *file_overrides, *nothing)
    student, first = results["agreement/student/tau"], results["agreement/first_stage/tau"]
    assert -1 <= first < student <= 1
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    last = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("verdict: "))
    assert last.startswith("verdict: the student agrees with the teacher ")
    assert f"Kendall's tau {student:.4f} against {first:.4f} (6 lists, " in last
    assert last.endswith("on 6 of the lists that it was trained on, since no query is judged")


def test_a_run_that_is_only_validated_is_judged_by_that(file_overrides, tmp_path, caplog):
    caplog.set_level("INFO")
    results = run_train(tmp_path / "run", *file_overrides, "task.run=null")
    assert not [name for name in results if name.startswith("agreement/")]
    last = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("verdict: "))
    assert f"on the validation queries: nDCG@10 {results['val/nDCG@10']:.4f} against 0." in last


def test_a_first_stage_that_cannot_be_read_does_not_end_a_trained_run(file_overrides, tmp_path, caplog):
    broken = tmp_path / "broken.run"
    broken.write_text("q0 Q0 d0\n")
    nothing = ["validation.run=null", "task.run=null", f"teacher.first_stage={broken}"]
    results = run_train(tmp_path / "run", *file_overrides, *nothing)
    assert "agreement/student/tau" in results and "agreement/first_stage/tau" not in results
    assert "no comparison with teacher.first_stage" in caplog.text
