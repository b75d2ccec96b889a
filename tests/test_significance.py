"""Significance tests against plain formulas, numerical integration and published tables."""

import csv
import math
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest

from distill.errors import InputError
from distill.evaluation.results import write_task
from distill.evaluation.significance import (
    MIN_CELLS,
    PairedTest,
    adjust,
    compare,
    critical_difference,
    friedman,
    nemenyi,
    read_per_query,
    subtract,
    wilcoxon,
)
from distill.evaluation.worth import Worth
from distill.report.diagram import draw_critical_difference
from distill.sources.run_files import RankedList

ABS = 1e-9  # against formulas in plain Python
# Demsar (2006), table 5(a): the critical values q_0.05 and q_0.10 of Nemenyi's test for k = 2..10 methods
Q_05 = dict(zip(range(2, 11), (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164), strict=True))
Q_10 = dict(zip(range(2, 11), (1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920), strict=True))
# Demsar (2006), table 6: AUC of C4.5, and with m, cf and both tuned, on 14 data sets
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def simpson(f, low: float, high: float, num_steps: int = 4000) -> float:
    width = (high - low) / num_steps
    inner = sum((4 if i % 2 else 2) * f(low + i * width) for i in range(1, num_steps))
    return width / 3 * (f(low) + inner + f(high))


def two_sided_p(t: float, df: int) -> float:
    scale = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    return 1 - 2 * simpson(lambda x: scale * (1 + x * x / df) ** (-(df + 1) / 2), 0, abs(t))


def studentized_range_tail(q: float, k: int) -> float:
    """P(range of k standard normals > q) = 1 - k ∫ φ(z) (Φ(z) - Φ(z - q))^(k - 1) dz."""

    def cdf(z: float) -> float:
        return math.erfc(-z / math.sqrt(2)) / 2

    def density(z: float) -> float:
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (cdf(z) - cdf(z - q)) ** (k - 1)

    return 1 - k * simpson(density, -8, 8 + q)


def ranks_of(row: list[float]) -> list[float]:
    """1 = largest; equal values share the average of their places."""
    return [sum(other > value for other in row) + (row.count(value) + 1) / 2 for value in row]


def plain_friedman(values: np.ndarray) -> tuple[float, list[float]]:
    """The statistic 12 N / (k (k + 1)) (Σ R² - k (k + 1)² / 4), over the correction for ties, and the average ranks."""
    rows = values.tolist()
    num_cells, k = len(rows), len(rows[0])
    averages = [sum(column) / num_cells for column in zip(*map(ranks_of, rows), strict=True)]
    statistic = 12 * num_cells / (k * (k + 1)) * (sum(rank**2 for rank in averages) - k * (k + 1) ** 2 / 4)
    ties = sum(count**3 - count for row in rows for count in Counter(row).values())
    return statistic / (1 - ties / (num_cells * k * (k * k - 1))), averages


def plain_t_test(values: list[float], baseline: list[float]) -> tuple[float, float]:
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((difference - mean) ** 2 for difference in differences) / (len(differences) - 1)
    t = mean / math.sqrt(variance / len(differences))
    return t, two_sided_p(t, len(differences) - 1)


def named(*values: float) -> dict[str, float]:
    return {f"q{index}": value for index, value in enumerate(values)}


def test_paired_t_test_worked_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), so t = 2 sqrt(3); with two degrees of freedom
    # the p-value has a closed form, 1 - t / sqrt(2 + t²)
    (row,) = compare(named(0, 1, 2), {"adr_mse": named(1, 3, 5)})
    p = 1 - math.sqrt(12 / 14)
    assert row == PairedTest(
        name="adr_mse",
        mean=3.0,
        difference=2.0,
        t=pytest.approx(2 * math.sqrt(3)),
        p=pytest.approx(p),
        p_bonferroni=pytest.approx(p),
        p_holm=pytest.approx(p),
        num_queries=3,
    )


def test_p_value_at_a_published_critical_value():
    # t table: 2.776 is the two-sided 5 % point at four degrees of freedom
    spread = math.sqrt(5) / 2.776 / math.sqrt(2.5)  # so that differences 1 + spread * (-2..2) have t = 2.776
    (row,) = compare(named(*[0.0] * 5), {"x": named(*(1 + spread * step for step in (-2, -1, 0, 1, 2)))})
    assert row.t == pytest.approx(2.776) and row.p == pytest.approx(0.05, abs=5e-5)


def test_several_comparisons_by_the_plain_formula_and_corrected_over_the_others():
    draw = random.Random(0)
    baseline = [draw.random() for _ in range(43)]
    shifts = {"worse": -0.06, "same": 0.0, "better": 0.08}
    others = {name: [value + draw.gauss(shift, 0.2) for value in baseline] for name, shift in shifts.items()}
    rows = compare(named(*baseline), {name: named(*values) for name, values in others.items()})
    assert [row.name for row in rows] == list(others)
    for row in rows:
        t, p = plain_t_test(others[row.name], baseline)
        assert (row.t, row.p) == (pytest.approx(t, abs=ABS), pytest.approx(p, abs=ABS))
        assert row.difference == pytest.approx(sum(others[row.name]) / 43 - sum(baseline) / 43, abs=ABS)
        assert row.p_bonferroni == pytest.approx(min(1, 3 * p), abs=ABS) and row.num_queries == 43
    smallest, middle, largest = sorted(rows, key=lambda row: row.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.p)
    assert middle.p_holm == pytest.approx(max(3 * smallest.p, 2 * middle.p))
    assert largest.p_holm == pytest.approx(max(3 * smallest.p, 2 * middle.p, largest.p))


def test_values_are_paired_by_query_and_not_by_their_order():
    baseline, values = named(0.1, 0.5, 0.9), named(0.2, 0.4, 0.7)
    backwards = dict(reversed(values.items()))
    assert compare(baseline, {"x": backwards}) == compare(baseline, {"x": values})


def test_identical_values_have_p_1():
    (row,) = compare(named(0.1, 0.5), {"x": named(0.1, 0.5)})
    assert (row.difference, row.t, row.p, row.p_bonferroni, row.p_holm) == (0, 0, 1, 1, 1)


def mean_of_seeds(values: dict[str, float], num_seeds: int) -> dict[str, float]:
    """Each query's mean over seeds that all have its value: not always that value."""
    return {query_id: math.fsum([value] * num_seeds) / num_seeds for query_id, value in values.items()}


@pytest.mark.parametrize("num_seeds", [3, 5, 7])
def test_values_that_differ_by_the_rounding_of_a_mean_over_seeds_are_equal(num_seeds):
    constant = named(*[0.025] * 10)
    draw = random.Random(0)
    recalls = named(*(draw.randint(1, size) / size for size in (draw.randint(20, 150) for _ in range(43))))
    for baseline in (constant, recalls):
        values = mean_of_seeds(baseline, num_seeds)
        (row,) = compare(baseline, {"x": values})
        assert (row.difference, row.t, row.p) == (0, 0, 1)
        assert Worth.of(baseline, values).p == 1 and Worth.of(baseline, values).shares()["unchanged"] == 1
    assert values != baseline
    # one query differs, the others by rounding: t = d / (d / sqrt(1)) = 1, as it would be without seeds
    (row,) = compare(recalls, {"x": mean_of_seeds(recalls, num_seeds) | {"q0": recalls["q0"] + 0.1}})
    assert row.t == pytest.approx(1) and row.p == pytest.approx(two_sided_p(1, 42), abs=ABS)


def test_a_small_difference_is_no_rounding():
    assert subtract([0.5, 0.5, 1e-12, 0.0], [0.5 + 1e-8, 0.5 + 1e-10, 2e-12, 1e-300]).tolist() == [
        pytest.approx(-1e-8), 0, -1e-12, -1e-300
    ]  # fmt: skip
    (row,) = compare(named(1e-12, 2e-12, 3e-12), {"x": named(2e-12, 4e-12, 6e-12)})
    assert row.t == pytest.approx(2 * math.sqrt(3))


def test_a_constant_difference_has_infinite_t_and_the_sign_tests_p():
    (row,) = compare(named(1, 2, 3), {"x": named(0, 1, 2)})
    assert (row.t, row.p) == (-math.inf, 0.25)
    (row,) = compare(named(0.1, 0.2, 0.7), {"x": named(0.4, 0.5, 1.0)})  # 0.3 but for rounding
    assert (row.t, row.p) == (math.inf, 0.25)
    (row,) = compare(named(0.5, 0.5), {"x": named(1, 1)})
    assert row.p == binomtest(2, 2).pvalue == 0.5


@pytest.mark.parametrize(
    ("query_ids", "message"),
    [
        ("ad", "adr_mse: lacks 2 of the baseline's 3 queries and has 1 more (first: b): evaluate both"),
        ("ab", "adr_mse: lacks 1 of the baseline's 3 queries and has 0 more (first: c)"),
        ("abcd", "adr_mse: lacks 0 of the baseline's 3 queries and has 1 more (first: d)"),
    ],
)
def test_other_queries_than_the_baseline_are_refused(query_ids, message):
    with pytest.raises(InputError) as error:
        compare(dict.fromkeys("abc", 0.5), {"adr_mse": dict.fromkeys(query_ids, 0.6)})
    assert str(error.value).startswith(message)


def test_a_single_query_is_refused():
    with pytest.raises(InputError, match="baseline: a paired t-test needs two queries or more, not 1"):
        compare(named(0.5), {"x": named(0.6)})


def test_bonferroni_and_holm_on_a_worked_example():
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert adjust(p_values, "bonferroni") == pytest.approx([0.04, 0.16, 0.12, 0.02])
    assert adjust(p_values, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 0.04 is raised to 2 * 0.03


def test_corrected_p_values_stop_at_1_and_equal_ones_stay_equal():
    assert adjust([0.6, 0.2], "bonferroni") == [1, 0.4] and adjust([0.9, 0.6, 0.4], "holm") == [1, 1, 1]
    assert adjust([0.02, 0.02], "holm") == [0.04, 0.04]
    for correction in ("holm", "bonferroni"):
        assert adjust([0.3], correction) == [0.3] and adjust([], correction) == []


def test_the_verdict_of_a_training_run_needs_no_package_of_the_report():
    code = (
        "import sys; from distill.evaluation.significance import compare\n"
        "[test] = compare({'a': 0.1, 'b': 0.2, 'c': 0.3}, {'student': {'a': 0.2, 'b': 0.4, 'c': 0.4}})\n"
        "assert test.p_holm == test.p_bonferroni == test.p < 1\n"
        "assert not {'statsmodels', 'scikit_posthocs', 'matplotlib', 'pandas', 'jinja2'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_wilcoxon_by_its_exact_distribution():
    # all of n cells on one side: 2 of the 2^n signs are as extreme
    none = [0.0] * 6
    assert wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], none) == pytest.approx(2 / 64) and MIN_CELLS == 6
    assert wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5], none[1:]) == pytest.approx(2 / 32)
    # rank 1 below, ranks 2 to 6 above: sums up to 1 come of 2 of 64 signs on either side
    assert wilcoxon([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6], none) == pytest.approx(4 / 64)
    assert wilcoxon(none, none) == 1.0


def test_wilcoxon_knows_no_differences_by_rounding():
    values = [0.525, 0.7, 0.025, 0.35, 0.8, 0.65]
    means = [sum([value] * 3) / 3 for value in values]
    assert means != values and wilcoxon(means, values) == 1
    # all differ by 0.1, one of them downwards: as in a sign test, 1 + 6 of 64 signs are as extreme on either side
    assert wilcoxon([0.9, 0.7, 0.1, 0.0, 0.3, 0.5], [0.8, 0.6, 0.0, 0.1, 0.2, 0.4]) == pytest.approx(14 / 64)


def test_friedman_on_demsars_example():
    statistic, p, ranks = friedman(DEMSAR)
    # section 3.2.2: average ranks 3.143, 2.000, 2.893, 1.964 and, without the correction for ties, 9.28
    assert [round(float(rank), 3) for rank in ranks] == [3.143, 2.0, 2.893, 1.964]
    assert round(12 * 14 / 20 * (float(ranks @ ranks) - 25), 2) == 9.28
    expected, averages = plain_friedman(DEMSAR)
    assert statistic == pytest.approx(expected, abs=ABS) and ranks == pytest.approx(averages, abs=ABS)

    def density(y: float) -> float:  # of chi-square at three degrees of freedom; x = y² smooths the root at 0
        return 2 * y * y * math.exp(-y * y / 2) / math.sqrt(2 * math.pi)

    assert p == pytest.approx(1 - simpson(density, 0, math.sqrt(statistic)), abs=ABS)


def test_friedman_without_ties_worked_by_hand():
    # ranks 1 2 3 in all four cells: 12 * 4 / 12 * (1 + 4 + 9 - 12) = 8, and exp(-8 / 2) at two degrees of freedom
    statistic, p, ranks = friedman(np.array([[3, 2, 1]] * 4))
    assert (statistic, p) == (pytest.approx(8), pytest.approx(math.exp(-4))) and ranks.tolist() == [1, 2, 3]


def test_equal_values_share_their_average_rank():
    values = np.array([[0.5, 0.5, 0.1], [0.2, 0.4, 0.2], [0.3, 0.3, 0.3], [0.9, 0.1, 0.5]])
    statistic, _, ranks = friedman(values)
    expected, _ = plain_friedman(values)
    assert ranks.tolist() == [(1.5 + 2.5 + 2 + 1) / 4, (1.5 + 1 + 2 + 3) / 4, (3 + 2.5 + 2 + 2) / 4]
    assert statistic == pytest.approx(expected, abs=ABS)


def test_methods_that_tie_in_every_cell_do_not_differ():
    statistic, p, ranks = friedman(np.array([[0.1] * 3, [0.2] * 3]))
    assert (statistic, p, ranks.tolist()) == (0, 1, [2, 2, 2])
    assert nemenyi(np.array([[0.1] * 3, [0.2] * 3])) == pytest.approx(np.ones((3, 3)))


def test_methods_that_differ_by_the_rounding_of_a_mean_over_seeds_tie():
    values = np.array([[k / 40, sum([k / 40] * 3) / 3, sum([k / 40] * 5) / 5] for k in range(1, 41)])
    assert (values != values[:, :1]).any()
    statistic, p, ranks = friedman(values)
    assert (statistic, p, ranks.tolist()) == (0, 1, [2, 2, 2])
    assert nemenyi(values) == pytest.approx(np.ones((3, 3)))
    better = np.column_stack([values[:, 1:], values[:, 0] + 0.5])  # ranks 2.5, 2.5, 1
    assert friedman(better)[2].tolist() == [2.5, 2.5, 1]
    assert nemenyi(better)[0].tolist() == pytest.approx([1, 1, 0], abs=1e-6)


def test_six_objectives_in_54_cells():
    draw = random.Random(1)
    values = np.array([[round(draw.gauss(0.1 * method, 0.4), 1) for method in range(6)] for _ in range(54)])
    statistic, p, ranks = friedman(values)
    expected, averages = plain_friedman(values)
    assert statistic == pytest.approx(expected, abs=ABS) and ranks == pytest.approx(averages, abs=ABS)
    assert ranks.sum() == pytest.approx(21) and ranks.argmin() == 5 and 0 < p < 0.05
    p_values = nemenyi(values)
    assert p_values.shape == (6, 6) and (p_values == p_values.T).all() and (p_values.diagonal() == 1).all()
    for a, b in ((0, 5), (1, 4), (2, 3)):
        q = abs(averages[a] - averages[b]) / math.sqrt(6 * 7 / (6 * 54)) * math.sqrt(2)
        assert p_values[a, b] == pytest.approx(studentized_range_tail(q, 6), abs=1e-7)
    differences = np.abs(ranks[:, None] - ranks)
    assert ((p_values < 0.05) == (differences > critical_difference(6, 54))).all()
    assert critical_difference(6, 54) == pytest.approx(2.850 * math.sqrt(42 / 324), abs=5e-4)


@pytest.mark.parametrize("k", range(3, 11))
def test_critical_differences_are_demsars(k):
    scale = math.sqrt(k * (k + 1) / (6 * 30))
    assert critical_difference(k, 30) / scale == pytest.approx(Q_05[k], abs=1e-3)
    assert critical_difference(k, 30, alpha=0.10) / scale == pytest.approx(Q_10[k], abs=1e-3)


def test_critical_difference_of_demsars_example():
    assert round(critical_difference(4, 14), 2) == 1.25 and round(critical_difference(4, 14, 0.1), 2) == 1.12


def test_a_difference_as_large_as_the_critical_one_has_p_of_5_percent():
    q = critical_difference(3, 24) / math.sqrt(3 * 4 / (6 * 24)) * math.sqrt(2)
    assert studentized_range_tail(q, 3) == pytest.approx(0.05, abs=1e-7)


def test_nemenyi_on_demsars_example():
    p_values = nemenyi(DEMSAR)
    _, averages = plain_friedman(DEMSAR)
    for a in range(4):
        for b in range(a):
            q = abs(averages[a] - averages[b]) / math.sqrt(4 * 5 / (6 * 14)) * math.sqrt(2)
            assert p_values[a, b] == p_values[b, a] == pytest.approx(studentized_range_tail(q, 4), abs=1e-7)
    # section 3.2.2: at 10 %, C4.5 is worse than C4.5+m and than C4.5+m+cf, and nothing else is significant
    assert np.argwhere(np.triu(p_values < 0.10)).tolist() == [[0, 1], [0, 3]]


@pytest.mark.parametrize("test", [friedman, nemenyi, lambda values: critical_difference(*values.shape[::-1])])
@pytest.mark.parametrize(
    ("shape", "message"), [((5, 2), "2 methods: .* need three or more"), ((1, 3), "1 cells: .* need two or more")]
)
def test_too_few_methods_or_cells_are_refused(test, shape, message):
    with pytest.raises(InputError, match=message):
        test(np.arange(float(np.prod(shape))).reshape(shape))


@pytest.mark.parametrize("test", [friedman, nemenyi])
def test_a_cell_without_a_value_is_refused(test):
    values = np.arange(6.0).reshape(2, 3)
    values[1, 2] = math.nan
    with pytest.raises(InputError, match=r"values\[1, 2\]=nan: not a finite number"):
        test(values)


def test_values_per_query_are_read_as_evaluate_writes_them(tmp_path):
    run = {"q1": RankedList(["d1"], np.ones(1), np.ones(1))}
    per_query = {"q1": {"nDCG@10": 1 / 3, "RR@10": 1.0}, 'q,"2': {"nDCG@10": 0.0, "RR@10": 1e-17}}
    write_task(tmp_path, run, per_query, "tag")
    assert read_per_query(tmp_path / "per_query.csv") == {
        "nDCG@10": {"q1": 1 / 3, 'q,"2': 0.0},
        "RR@10": {"q1": 1.0, 'q,"2': 1e-17},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: header ``: expected `query_id,<measure>,...`"),
        ("qid,nDCG@10\nq1,0.5\n", ":1: header `qid,nDCG@10`"),
        ("query_id\nq1\n", ":1: header `query_id`"),
        ("query_id,RR,RR\nq1,1,1\n", ":1: header `query_id,RR,RR`"),
        ("query_id,RR\n", ":1: no query below the header"),
        ("query_id,RR\nq1,0.5\nq2\n", ":3: 0 values instead of 1"),
        ("query_id,RR\nq1,0.5,1\n", ":2: 2 values instead of 1"),
        ("query_id,RR,AP\nq1,0.5,high\n", ":2: AP is 'high': expected a finite number"),
        ("query_id,RR\nq1,nan\n", ":2: RR is 'nan': expected a finite number"),
        ("query_id,RR\nq1,1\n\nq1,0\n", ":4: query q1 appears twice"),
        (b"query_id,RR\nq\xff,1\n", ": cannot be read ('utf-8' codec"),
        (f"query_id,RR\nq1,1\n{'q' * (csv.field_size_limit() + 1)},1\n", ":3: cannot be read (field larger than"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "per_query.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        read_per_query(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="none.csv: no such file: give the per-query CSV"):
        read_per_query(tmp_path / "none.csv")


def test_the_diagram_names_every_method_with_its_rank(tmp_path):
    from matplotlib import rc_context

    _, _, ranks = friedman(DEMSAR)
    names = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
    with rc_context({"svg.fonttype": "none"}):  # text as text
        draw_critical_difference(names, ranks, nemenyi(DEMSAR), tmp_path / "diagram.svg")
    text = (tmp_path / "diagram.svg").read_text()
    for label in ("(3.14) C4.5<", "C4.5+m (2.00)<", "(2.89) C4.5+cf<", "C4.5+m+cf (1.96)<"):
        assert f">{label}" in text
    draw_critical_difference(names, ranks, nemenyi(DEMSAR), str(tmp_path / "diagram.png"))
    assert (tmp_path / "diagram.png").read_bytes().startswith(b"\x89PNG")


def test_the_diagram_joins_what_is_not_significant(tmp_path, monkeypatch):
    import scikit_posthocs

    drawn = {}
    draw = scikit_posthocs.critical_difference_diagram
    monkeypatch.setattr(scikit_posthocs, "critical_difference_diagram", lambda *a, **k: drawn.update(draw(*a, **k)))
    p_values = np.array([[1, 0.2, 0.01], [0.2, 1, 0.04], [0.01, 0.04, 1]])
    draw_critical_difference(["a", "b", "c"], np.array([1.25, 1.75, 3.0]), p_values, tmp_path / "diagram.png")
    ((bar,),) = drawn["crossbars"]
    assert sorted(bar.get_xdata()) == [1.25, 1.75]


@pytest.mark.parametrize(
    ("names", "file", "message"),
    [
        ("abc", "diagram.pdf", "diagram.pdf: no known kind of figure: let the name end in .png or .svg"),
        ("aba", "diagram.png", "names=\\['a', 'b', 'a'\\]: a name appears twice"),
    ],
)
def test_a_bad_diagram_is_refused(tmp_path, names, file, message):
    with pytest.raises(InputError, match=message):
        draw_critical_difference(list(names), np.array([1, 2, 3]), np.ones((3, 3)), tmp_path / file)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    with pytest.raises(InputError, match="^scikit_posthocs is not installed: pip install -r requirements-report.txt$"):
        nemenyi(np.arange(6.0).reshape(2, 3))
