"""Fit the probability of relevance to judged queries, and measure how far off probabilities are.

    model.calibration = fit_calibration(cfg.calibration, validation, runs)
    results |= calibration_errors("validation", [task], [run], model.calibration)

A passage of a run without a judgment counts as irrelevant, as it does for the measures.
"""

import logging

import numpy as np
from omegaconf import DictConfig

from distill.evaluation.tasks import Task
from distill.models.calibration import Calibration, Isotonic, Platt, sigmoid
from distill.sources.run_files import Run

log = logging.getLogger(__name__)

BINS = 10  # of the expected calibration error, of equal width
MAX_STEPS = 100  # of Newton's method, which needs about ten


def fit_calibration(cfg: DictConfig, tasks: list[Task], runs: list[Run]) -> Calibration | None:
    """Return the calibration that fits the runs of judged tasks best; None if none is asked for, or none fits.

    cfg: calibration.method and min_grade. runs: the student's, one for each task.
    """
    if cfg.method is None:
        return None
    scores, relevant = judged_scores(tasks, runs, cfg.min_grade)
    fault = "no passage is relevant" if not relevant.any() else "all passages are relevant" if relevant.all() else None
    if fault is None and cfg.method == "platt":
        slope, offset = fit_platt(scores, relevant)
        if slope > 0:
            return Platt(1 / slope, offset, cfg.min_grade, len(scores))
        fault = "relevant passages score no higher than others"
    elif fault is None:
        return Isotonic(*fit_isotonic(scores, relevant), cfg.min_grade, len(scores))
    log.warning("calibration.method=%s: nothing can be fitted on the validation queries: %s", cfg.method, fault)
    return None


def judged_scores(tasks: list[Task], runs: list[Run], min_grade: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores [N] of all passages of judged queries, and whether each is relevant, or its article is."""
    scores, relevant = [np.zeros(0)], [np.zeros(0, bool)]
    for task, run in zip(tasks, runs, strict=True):
        for query_id, ranked in run.items():
            if query_id in task.qrels:
                judged = task.qrels[query_id]
                scores.append(np.asarray(ranked.scores, np.float64))
                grades = [judged.get(task.judged_as(doc_id), 0) for doc_id in ranked.doc_ids]
                relevant.append(np.array([grade >= min_grade for grade in grades], bool))
    return np.concatenate(scores), np.concatenate(relevant)


def fit_platt(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Return slope a and offset b of σ(a·s + b) with the highest likelihood, by Newton's method.

    The targets are Platt's, (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) in place of 1 and 0, so that a perfect order does not
    get an infinite slope.
    """
    centre, spread = scores.mean(), scores.std() or 1.0
    inputs = np.stack([(scores - centre) / spread, np.ones(len(scores))])  # [2, N]
    num_relevant, num_others = int(relevant.sum()), int((~relevant).sum())
    targets = np.where(relevant, (num_relevant + 1) / (num_relevant + 2), 1 / (num_others + 2))

    def loss(weights: np.ndarray) -> float:
        logits = weights @ inputs
        return float((np.logaddexp(0.0, logits) - targets * logits).sum())

    weights = np.array([0.0, np.log((num_relevant + 1) / (num_others + 1))])
    for _ in range(MAX_STEPS):
        probabilities = sigmoid(weights @ inputs)
        gradient = inputs @ (probabilities - targets)
        if np.abs(gradient).max() < 1e-9 * len(scores):
            break
        curvature = (inputs * (probabilities * (1 - probabilities))) @ inputs.T + 1e-12 * np.eye(2)
        step, before = np.linalg.solve(curvature, gradient), loss(weights)
        while loss(weights - step) > before and np.abs(step).max() > 1e-15:
            step = step / 2
        weights = weights - step
    slope = weights[0] / spread
    return float(slope), float(weights[1] - slope * centre)


def fit_isotonic(scores: np.ndarray, relevant: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return ascending scores and their probabilities: the curve that never falls with the least squared error.

    Pool adjacent violators: neighbours whose share of relevant passages falls are joined, until none falls. Each block
    gives its lowest and its highest score.
    """
    different, places = np.unique(scores, return_inverse=True)
    sizes = np.bincount(places).astype(float)
    shares = np.bincount(places, weights=relevant) / sizes
    blocks: list[list[float]] = []  # share, size, lowest score, highest score
    for share, size, score in zip(shares.tolist(), sizes.tolist(), different.tolist(), strict=True):
        blocks.append([share, size, score, score])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            share, size, _, highest = blocks.pop()
            first = blocks[-1]
            first[0] = (first[0] * first[1] + share * size) / (first[1] + size)
            first[1], first[3] = first[1] + size, highest
    curve = [(score, share) for share, _, lowest, highest in blocks for score in sorted({lowest, highest})]
    return tuple(score for score, _ in curve), tuple(share for _, share in curve)


def expected_calibration_error(probabilities: np.ndarray, relevant: np.ndarray) -> float:
    """Return Σ_b n_b / N · |mean probability − share of relevant passages| over bins of equal width (Naeini, 2015)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, probabilities, BINS) - np.bincount(bins, relevant, BINS)
    return float(np.abs(gaps).sum() / len(probabilities))


def calibration_errors(
    name: str, tasks: list[Task], runs: list[Run], calibration: Calibration | None
) -> dict[str, float]:
    """Return the expected calibration error of σ(score) and of the calibrated probabilities, named as in results.json.

    Nothing without a calibration, or without a judged query.
    """
    if calibration is None:
        return {}
    scores, relevant = judged_scores(tasks, runs, calibration.min_grade)
    if not len(scores):
        return {}
    rows = {"before": sigmoid(scores), "after": calibration.probabilities(scores)}
    errors = {f"calibration/{name}/{row}": expected_calibration_error(p, relevant) for row, p in rows.items()}
    log.info(
        "calibration: %s; expected calibration error on %s: %.4f, and %.4f without it (%d passages)",
        *(calibration.describe(), name, *[*errors.values()][::-1], len(scores)),
    )
    if isinstance(calibration, Platt):
        errors |= {"calibration/temperature": calibration.temperature, "calibration/offset": calibration.offset}
    return errors
