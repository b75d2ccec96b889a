"""What a ranking is worth, and how far rankings agree beside answers at random."""

import math

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.stats import kendalltau, ttest_rel

from distill.commands.inspect import compare_teachers
from distill.evaluation.agreement import Agreement, agree, overlap, tau_of_orders
from distill.evaluation.worth import Worth
from distill.report.two_runs import read_two_runs
from distill.sources.run_files import RankedList, write_run
from distill.teachers.consistency import Consistency
from distill.teachers.listwise import Windows
from distill.teachers.worth import TeacherWorth, drawn_from, random_answers
from tests.helpers.configuration import compose_config

LISTS = {f"q{n}": [f"{n}-{place}" for place in range(100)] for n in range(30)}


def ordered(doc_ids) -> RankedList:
    return RankedList.in_order(list(doc_ids), np.arange(float(len(doc_ids)), 0, -1))


def teacher(seed: int, skill: float) -> dict[str, list[str]]:
    """Rank the lists by windows, as a teacher that knows which passages are better up to noise; skill 0: none."""
    generator, found = np.random.default_rng(seed), {}
    windows = Windows("listwise", 20, 10, 1)
    for query_id, doc_ids in LISTS.items():
        truth = {doc_id: -int(doc_id.split("-")[1]) * 7 % 100 for doc_id in doc_ids}
        order = list(doc_ids)
        for start, end in windows.of(len(order)):
            noisy = {doc_id: skill * truth[doc_id] / 100 + generator.random() for doc_id in order[start:end]}
            order[start:end] = sorted(noisy, key=noisy.__getitem__, reverse=True)
        found[query_id] = order
    return found


def test_tau_and_overlap_are_those_worked_by_hand():
    assert tau_of_orders("abcd", "abdc") == pytest.approx((5 - 1) / 6)  # one of six pairs is turned
    assert tau_of_orders("axbc", "cbya") == -1 and tau_of_orders("ab", "bc") is None
    order, other = (np.random.default_rng(seed).permutation(40).tolist() for seed in (1, 2))
    places = [[ranking.index(one) for one in range(40)] for ranking in (order, other)]
    assert tau_of_orders(order, other) == pytest.approx(kendalltau(*places).statistic)
    assert overlap(range(12), range(6, 18)) == 0.4  # 6, 7, 8, 9 of the first ten
    assert overlap(range(10), range(12)) is None  # any order of ten has the same top ten


def test_worth_is_that_worked_by_hand():
    before, after = {"a": 0.5, "b": 0.2, "c": 0.0, "d": 0.1}, {"a": 0.25, "b": 0.6, "c": 0.0, "d": 0.3}
    worth = Worth.of(before, after)
    assert worth.shares() == {"helped": 0.5, "harmed": 0.25, "unchanged": 0.25}
    assert dict(worth.describe("nDCG@10")) == {
        "nDCG@10": "0.2000 → 0.2875 (+0.0875)",
        "helped": "2 (50%), by +0.3000 on average",
        "harmed": "1 (25%), by -0.2500 on average",
        "unchanged": "1 (25%)",
        "paired t-test": f"p = {ttest_rel([*before.values()], [*after.values()]).pvalue:.2g}",
    }
    assert Worth.of({"a": 0.1}, {"a": 0.2}).p is None


def test_random_answers_in_sliding_windows_agree_and_are_still_called_noise():
    at_random = drawn_from(LISTS, Windows("listwise", 20, 10, 1).at_random)
    noise = agree(teacher(1, skill=0), teacher(2, skill=0), at_random)
    assert noise.taus.mean > 0.55 and noise.overlaps.mean > 0.25  # most passages stay near their first-stage rank
    for one in (noise.taus, noise.overlaps):
        assert one.chance == pytest.approx(one.mean, abs=0.04) and one.is_noise
    assert noise.is_noise and noise.describe().endswith("): noise")
    skilled = agree(teacher(1, skill=2), teacher(2, skill=2), at_random)
    assert not skilled.is_noise and skilled.overlaps.mean > skilled.overlaps.chance + 0.15
    one_bad = agree(teacher(1, skill=2), teacher(2, skill=0), at_random)
    assert one_bad.is_noise


def test_a_small_agreement_of_few_lists_cannot_be_told_from_chance():
    few, many = Agreement(), Agreement()
    for number in range(400):
        for one in [few, many] if number < 4 else [many]:
            one.taus.add(0.2 + 0.5 * (-1) ** number, 0.0)  # 0.7 and -0.3
    assert few.taus.mean == pytest.approx(0.2) and few.is_noise and not many.is_noise
    assert not Agreement().is_noise


def test_shuffled_windows_unmask_a_model_that_repeats_the_order_shown():
    repeats, ranks = Consistency(), Consistency()
    for number in range(20):
        shown = [list(range(5)), list(range(4, -1, -1))]
        repeats.add_orders(shown)  # each order as it was shown
        ranks.add_orders([[2, 0, 1, 3, 4], [2, 1, 0, 3, 4]] if number % 2 else [[0, 1, 2, 3, 4]] * 2)
        repeats.add_answer(range(5))
        ranks.add_answer([2, 0, 1, 3, 4])
    assert (
        repeats.found()["shuffles"].taus.mean == -1 and repeats.found()["shuffles"].is_noise and repeats.mostly_as_shown
    )
    assert ranks.found()["shuffles"].taus.mean == pytest.approx(0.9) and not ranks.found()["shuffles"].is_noise
    assert not ranks.mostly_as_shown and not ranks.passes.taus.values
    assert [one.found()["shuffles"].results()["noise"] for one in (repeats, ranks)] == [1, 0]


def test_a_finished_annotation_is_compared_with_another_teacher(tmp_path):
    for name, orders in (("first", LISTS), ("a", teacher(1, skill=0)), ("b", teacher(2, skill=0))):
        write_run({q: ordered(doc_ids) for q, doc_ids in orders.items()}, tmp_path / f"{name}.run", name)
    (tmp_path / "queries.tsv").write_text("".join(f"{query_id}\tbees\n" for query_id in LISTS))
    files = [f"queries={tmp_path}/queries.tsv", f"run={tmp_path}/first.run", f"reference={tmp_path}/b.run"]
    cfg = compose_config("annotate", "passages=unused", *files, "teacher.llm.model=m")
    runs = [{q: ordered(doc_ids) for q, doc_ids in orders.items()} for orders in (LISTS, teacher(1, skill=0))]
    worth = TeacherWorth.of(*runs, cfg, random_answers(cfg))
    lines, results = dict(worth.describe()), worth.results()
    assert lines["against reference"].endswith("): noise") and "against first stage" in lines
    assert results["tau/reference"] == pytest.approx(results["chance/tau/reference"], abs=0.03)
    assert results["noise/reference"] == 1 and "noise/first_stage" not in results  # it has no chance to compare with
    assert math.isfinite(results["overlap@10/first_stage"]) and "chance/tau/first_stage" not in results

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    write_run(runs[1], tmp_path / "out" / "teacher.run", "teacher")
    names = [f"run={tmp_path}/out", f"baseline={tmp_path}/b.run"]
    two = read_two_runs(compose_config("inspect", *names))
    [(name, text)] = compare_teachers(two)
    assert name == "agreement" and text == lines["against reference"]
    assert compare_teachers(read_two_runs(compose_config("inspect", names[0]))) == []
