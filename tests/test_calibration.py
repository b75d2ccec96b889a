"""Calibration: the fits beside independent ones, the error by hand, and what a trained model's files and users get."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from distill.config.checks import check_train
from distill.errors import InputError
from distill.evaluation.tasks import Task
from distill.models.calibration import Isotonic, Platt, read_calibration, sigmoid
from distill.models.cross_encoder import CrossEncoder
from distill.serving.scoring import Scorer
from distill.training.calibration import (
    expected_calibration_error,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    judged_scores,
)
from tests.helpers.configuration import compose_config
from tests.helpers.rankings import ranked
from tests.helpers.training import run_train


def sample(number: int, slope: float, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and which passages are relevant if the probability is σ(slope · score + offset)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(3, 5, number)
    return scores, rng.random(number) < sigmoid(slope * scores + offset)


def test_platt_finds_the_parameters_that_made_the_labels():
    slope, offset = fit_platt(*sample(200_000, 0.4, -2.0))
    assert slope == pytest.approx(0.4, rel=0.02) and offset == pytest.approx(-2.0, rel=0.02)


@pytest.mark.parametrize("number, slope, offset", [(50, 1.0, 0.0), (3000, 0.1, -4.0), (400, 30.0, -50.0)])
def test_platt_has_the_highest_likelihood(number, slope, offset):
    scores, relevant = sample(number, slope, offset)
    targets = np.where(relevant, (relevant.sum() + 1) / (relevant.sum() + 2), 1 / ((~relevant).sum() + 2))

    def loss(weights):
        logits = weights[0] * scores + weights[1]
        return (np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0) - targets * logits).sum()

    found = fit_platt(scores, relevant)
    reference = minimize(
        loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 9999}
    )
    assert found == pytest.approx(reference.x.tolist(), rel=1e-4, abs=1e-6)
    probabilities = sigmoid(found[0] * scores + found[1])  # at the maximum both derivatives are 0
    assert (probabilities - targets).sum() == pytest.approx(0, abs=1e-6)
    assert ((probabilities - targets) * scores).sum() == pytest.approx(0, abs=1e-5)


def test_a_perfect_order_gets_no_infinite_slope():
    scores, relevant = np.array([1e4, 2e4, -1e4, -2e4]), np.array([True, True, False, False])
    slope, offset = fit_platt(scores, relevant)
    assert 0 < slope < 1 and np.isfinite(offset)


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_is_the_min_max_of_means(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=40).round(1)  # with ties
    relevant = rng.random(40) < sigmoid(scores)
    curve = Isotonic(*fit_isotonic(scores, relevant), 1, 40)
    different = np.unique(scores)
    sums = [(relevant[scores == score].sum(), (scores == score).sum()) for score in different]
    mean = lambda a, b: sum(s for s, _ in sums[a : b + 1]) / sum(n for _, n in sums[a : b + 1])  # noqa: E731
    last = len(different) - 1
    expected = [max(min(mean(a, b) for b in range(i, last + 1)) for a in range(i + 1)) for i in range(last + 1)]
    np.testing.assert_allclose(curve.probabilities(different), expected, atol=1e-12)
    assert curve.probabilities([-99.0, 99.0]).tolist() == pytest.approx([expected[0], expected[-1]])


def test_the_expected_calibration_error_worked_by_hand():
    probabilities = np.array([0.05, 0.15, 0.12, 0.95, 1.0, 0.55])
    relevant = np.array([False, True, False, True, True, False])
    # Bins: {0.05}: 0.05; {0.15, 0.12}: |0.135 - 0.5|; {0.55}: 0.55; {0.95, 1}: |0.975 - 1|
    by_hand = (1 * 0.05 + 2 * 0.365 + 1 * 0.55 + 2 * 0.025) / 6
    assert expected_calibration_error(probabilities, relevant) == pytest.approx(by_hand)


def test_a_large_score_of_either_sign_has_a_probability():
    platt = Platt(0.001, 0.0, 1, 9)
    assert platt.probabilities([-1e6, 0.0, 1e6]).tolist() == [0.0, 0.5, 1.0]
    assert platt.describe() == "σ(score / 0.001 + 0)"


def train_calibrated(directory, file_overrides, method: str) -> dict:
    return run_train(directory, *file_overrides, f"calibration.method={method}", "optimizer.lr=0.02")


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_trained_model_keeps_its_calibration(file_overrides, tmp_path, method):
    results = train_calibrated(tmp_path / "with", file_overrides, method)
    plain = run_train(tmp_path / "without", *file_overrides, "optimizer.lr=0.02")
    measured = [name for name in plain if name.startswith(("val/", "test/"))]
    assert [results[name] for name in measured] == [plain[name] for name in measured]  # the order is the same
    names = {f"calibration/{task}/{row}" for task in ("validation", "files") for row in ("before", "after")}
    names |= {"calibration/temperature", "calibration/offset"} if method == "platt" else set()
    assert results.keys() - plain.keys() == names
    assert results["calibration/validation/after"] < results["calibration/validation/before"]
    model = CrossEncoder.from_pretrained(str(tmp_path / "with" / "model"))
    assert model.calibration is not None and model.calibration.num_passages == 60  # six queries of ten
    query, passages = "a bee finds its home", ["a bee", "trains follow rails", "an ant", "home by the sun"]
    _, scores = model.rank(query, passages)
    probabilities = model.probabilities(scores)
    assert (np.diff(probabilities) <= 0).all() and ((probabilities >= 0) & (probabilities <= 1)).all()
    if method == "platt":
        expected = 1 / (
            1 + np.exp(-(np.array(scores) / results["calibration/temperature"] + results["calibration/offset"]))
        )
        np.testing.assert_allclose(probabilities, expected)
    served = Scorer(model, 1000, None).returned(np.array(scores), raw=False)
    np.testing.assert_array_equal(served, probabilities)
    assert Scorer(model, 1000, None).returned(np.array(scores), raw=True).tolist() == scores
    card = (tmp_path / "with" / "model" / "README.md").read_text()
    assert ("| Probability | σ(score / " if method == "platt" else "| Probability | the isotonic curve") in card
    plain_model = CrossEncoder.from_pretrained(str(tmp_path / "without" / "model"))
    with pytest.raises(InputError, match="this model's files hold no calibration: train it with calibration.method="):
        plain_model.probabilities(scores)


@pytest.mark.parametrize(
    "found",
    [
        "platt",
        {"method": "platt", "temperature": 0.0, "offset": 1.0, "min_grade": 1, "num_passages": 3},
        {"method": "platt", "temperature": float("nan"), "offset": 1.0, "min_grade": 1, "num_passages": 3},
        {"method": "isotonic", "scores": [1, 1], "values": [0, 1], "min_grade": 1, "num_passages": 3},
        {"method": "isotonic", "scores": [1, 2], "values": [0.5, 0.4], "min_grade": 1, "num_passages": 3},
        {"method": "isotonic", "scores": [], "values": [], "min_grade": 1, "num_passages": 3},
        {"method": "beta", "min_grade": 1, "num_passages": 3},
    ],
)
def test_a_calibration_that_no_training_wrote_is_refused(found, tmp_path):
    with pytest.raises(
        InputError, match=r"distill.json: calibration=.*: must hold the method platt with a temperature"
    ):
        read_calibration({"calibration": found}, tmp_path / "distill.json")


def test_what_is_written_is_read_again(tmp_path):
    for calibration in (Platt(1.5, -2.0, 1, 60), Isotonic((0.0, 1.5), (0.1, 0.9), 2, 60), None):
        written = {"calibration": calibration.as_json()} if calibration else {}
        assert read_calibration(json.loads(json.dumps(written)), tmp_path / "distill.json") == calibration


def test_scores_that_say_nothing_of_relevance_are_not_calibrated(caplog, monkeypatch):
    cfg = compose_config("train", "calibration.method=platt").calibration
    of = "distill.training.calibration.judged_scores"
    for scores, relevant, reason in [
        ([1.0, 2.0], [True, False], "relevant passages score no higher than others"),
        ([1.0, 2.0], [False, False], "no passage is relevant"),
        ([1.0, 2.0], [True, True], "all passages are relevant"),
    ]:
        monkeypatch.setattr(of, lambda *_, s=scores, r=relevant: (np.array(s), np.array(r)))
        assert fit_calibration(cfg, [], []) is None and caplog.messages[-1].endswith(reason)


def test_a_passage_of_a_relevant_article_is_relevant():
    run = {"q": ranked({"d7#2": 3.0, "d9#0": 2.0, "d7#0": 1.0})}
    task = Task("t", "t", run, {"q": {"d7": 1}}, [], None, {}, {}, 1, None)
    assert judged_scores([task], [run], 1)[1].tolist() == [False, False, False]
    task.max_passage = True
    assert judged_scores([task], [run], 1)[1].tolist() == [True, False, True]


def test_a_calibration_without_validation_is_refused(file_overrides):
    with pytest.raises(
        InputError, match="calibration.method=platt needs a validation, whose judgments it is fitted on"
    ):
        check_train(compose_config("train", *file_overrides, "calibration.method=platt", "validation.run=null"))
