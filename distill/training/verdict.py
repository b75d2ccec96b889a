"""The verdict of a training run, logged in one line at its end, and a warning if the loss did not fall.

    taus = measure_agreement(cfg, lists, model, precision)          # if no query is judged
    log_verdict(cfg, directory, results, measured, validation, taus)

- A task: the student is compared with the first stage on the first measure, by a paired t-test over queries.
- A suite: each task is tested separately. The line says on how many the student is better and on how many worse, and
  gives the means over the tasks.
- Only validation queries: their means are compared without a test, since they chose the model.
- No judgments: Kendall's tau with the teacher, on training lists that the student has seen.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from distill.data.teacher_lists import needs_first_stage
from distill.errors import InputError
from distill.evaluation.agreement import kendall_tau
from distill.evaluation.significance import ALPHA, compare, significance_in_words
from distill.targets import split_target, targets_of
from distill.training.optim import warmup_steps

log = logging.getLogger(__name__)

MAX_LISTS, MAX_PASSAGES = 50, 100  # training lists that the agreement is measured on, and passages of each
SAME = 0.02  # a loss that changes by less than this share has ended where it began

Values = dict[str, float]  # query id, or number of a list -> value


def log_verdict(
    cfg: DictConfig,
    directory: Path,
    results: dict[str, float],
    measured: dict[str, dict],
    validation: list,
    taus: dict[str, Values],
) -> None:
    """Warn if the loss did not fall, then log the verdict: as a warning, unless the student is better.

    measured: task -> row -> query id -> measure -> value. validation: the tasks that the model was chosen by.
    """
    problem = describe_loss(cfg, directory / "metrics.jsonl")
    if problem is not None:
        log.warning(problem)
    if measured and cfg.task.tasks:
        line, is_better = judge_suite(cfg.task, measured)
    elif measured:
        line, is_better = judge_task(*next(iter(measured.items())))
    elif validation:
        line, is_better = judge_validation(cfg.validation, results, validation)
    else:
        _, kind = split_target(targets_of(cfg.loss)[0])
        line, is_better = judge_agreement(taus, "labels" if kind == "label" else "teacher")
    log.log(logging.INFO if is_better else logging.WARNING, "verdict: %s", line)


def describe_loss(cfg: DictConfig, metrics: Path) -> str | None:
    """Return how a run's loss failed to fall and what may help; None if it fell, or was logged only once and not as 0.

    The mean over the first tenth of the logged lines is compared with that over the last tenth. Where the weights of a
    mixture change, both have the last ones.
    """
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    losses = [_loss_of(row, cfg.get("loss") or {}) for row in rows if "train/loss" in row]
    size = max(len(losses) // 10, 1)
    first, last = fmean(losses[:size] or [0.0]), fmean(losses[-size:] or [0.0])
    if losses and not any(losses):
        return "the loss was 0 in every step: the lists teach nothing: check their labels and the teacher's scores"
    if len(losses) < 2 or last < (1 - SAME) * first:
        return None
    steps, warmup = rows[-1]["step"], cfg.optimizer.warmup  # a directory may hold a variable's name for a number
    lr = cfg.optimizer.lr if isinstance(cfg.optimizer.lr, str) else f"{cfg.optimizer.lr:g}"
    lr = f"backbone.lr={lr}"
    if last > (1 + SAME) * first:
        return f"the loss rose ({first:.4g} -> {last:.4g}): try a lower learning rate than {lr}, or a longer warm-up"
    ended = f"the loss ended where it began ({first:.4g} -> {last:.4g})"
    if not isinstance(warmup, str) and warmup_steps(warmup, steps) >= steps:
        return f"{ended}: the learning rate was still rising: lower optimizer.warmup={warmup:g}"
    return f"{ended}: try more steps than {steps}, or a higher learning rate than {lr}"


def _loss_of(row: dict[str, float], loss: Mapping[str, Any]) -> float:
    """Return the loss of a logged line, of a mixture by the weights of its last step."""
    given = (loss.get("weights") or {}).items()
    weights = {name: weight[-1] if OmegaConf.is_list(weight) else weight for name, weight in given}
    if not weights or any(f"train/loss/{name}" not in row or isinstance(one, str) for name, one in weights.items()):
        return row["train/loss"]
    return sum(weight * row[f"train/loss/{name}"] for name, weight in weights.items())


def judge_task(name: str, rows: dict[str, dict]) -> tuple[str, bool]:
    """Return how the student ranks compared with the first stage of a task, and whether it ranks better."""
    measure, student, first = _first_measure(rows)
    word, test = _compare(student, first, "queries")
    line = f"the student ranks {word} than the first stage on {name}: {measure} {_beside(student, first)} ({test})"
    if "teacher" in rows:
        teacher = fmean(_values(rows["teacher"], measure).values())
        gained, gain = fmean(student.values()) - fmean(first.values()), teacher - fmean(first.values())
        if gain <= 0:
            line += f"; the teacher does not rank better either: {teacher:.4f}"
        else:
            line += f"; {f'{gained / gain:.0%}' if gained > 0 else 'none'} of the teacher's gain ({teacher:.4f})"
    return line, word == "better"


def judge_suite(cfg: DictConfig, measured: dict[str, dict]) -> tuple[str, bool]:
    """Return on how many tasks of a suite the student ranks better and worse, and whether better on more than worse."""
    tasks = [_first_measure(rows) for rows in measured.values()]
    words = [_compare(student, first, "queries")[0] for _, student, first in tasks]
    better, worse = words.count("better"), words.count("worse")
    main = tasks[0][0]
    alike = [(student, first) for measure, student, first in tasks if measure == main]  # a task may have another one
    student, first = (fmean(fmean(values.values()) for values in row) for row in zip(*alike, strict=True))
    counts = f"{better} of {len(words)} tasks of {cfg.name}, worse on {worse} (p < {ALPHA:g} each)"
    of = f" of {len(alike)}" if len(alike) < len(tasks) else ""
    means = f"mean {main}{of} {student:.4f} against {first:.4f}"
    return f"the student ranks better than the first stage on {counts}: {means}", better > worse


def judge_validation(cfg: DictConfig, results: dict[str, float], tasks: list) -> tuple[str, bool]:
    """Return how the student ranks compared with the first stage on the validation queries, and whether better."""
    from distill.evaluation.averages import measure_together

    name, first = next(iter(measure_together(tasks, [task.run for task in tasks]).items()))
    student = results[f"val/{name}"]
    word = "better" if student > first else "no better"
    line = (
        f"the student ranks {word} than the first stage on the validation queries: {name} {student:.4f} against "
        f"{first:.4f} (these queries chose the model: give task.run and task.qrels to test on others)"
    )
    return line, word == "better"


def judge_agreement(taus: dict[str, Values], teacher: str) -> tuple[str, bool]:
    """Return how well the student agrees with the teacher (or the labels), compared with the first stage.

    The second value is whether it agrees better.
    """
    number = len(taus["student"])
    where = f"on {number} of the lists that it was trained on, since no query is judged"
    whose = "the teacher" if teacher == "teacher" else "the labels"
    if not number:
        return f"none: no query is judged, and no training list has an order by {whose}", False
    if "first_stage" not in taus:
        tau = fmean(taus["student"].values())
        return f"the student agrees with {whose} by Kendall's tau {tau:.4f}, {where}", tau > 0
    word, test = _compare(taus["student"], taus["first_stage"], "lists")
    word = {"better": "more", "worse": "less", "no better": "no more"}[word]
    beside = _beside(taus["student"], taus["first_stage"])
    line = f"the student agrees with {whose} {word} than the first stage does: Kendall's tau {beside} ({test}), {where}"
    return line, word == "more"


def _first_measure(rows: dict[str, dict]) -> tuple[str, Values, Values]:
    """Return the first measure's name, and its values for the student and for the first stage."""
    name = next(iter(next(iter(rows["test"].values()))))
    student, first = _values(rows["test"], name), _values(rows["first_stage"], name)
    shared = [query_id for query_id in first if query_id in student]
    return (
        name,
        {query_id: student[query_id] for query_id in shared},
        {query_id: first[query_id] for query_id in shared},
    )


def _values(per_query: dict[str, dict[str, float]], measure: str) -> Values:
    """Return the measure's values by query, without queries that it is undefined for."""
    return {query_id: values[measure] for query_id, values in per_query.items() if values.get(measure) is not None}


def _compare(student: Values, first: Values, unit: str) -> tuple[str, str]:
    """Return "better", "worse" or "no better", and the paired t-test behind it, in words."""
    if len(student) < 2:
        return "no better", f"fewer than two {unit}, too few to tell"
    [result] = compare(first, {"student": student})
    word = ("better" if result.difference > 0 else "worse") if result.p < ALPHA else "no better"
    return word, f"{len(student)} {unit}, {significance_in_words(result.p)}"


def _beside(student: Values, first: Values) -> str:
    return f"{fmean(student.values()):.4f} against {fmean(first.values()):.4f}"


def measure_agreement(cfg: DictConfig, lists, model, precision) -> dict[str, Values]:
    """Return Kendall's tau with the loss's first target, by row and list: for student, and for first_stage if known.

    Measured on up to 50 training lists, chosen by cfg.seed, and up to 100 passages of each.
    Pairs that tie in the target do not count; pairs that tie in the ranking count 0.
    """
    import torch

    from distill.data.batch import make_batch
    from distill.device import half_precision
    from distill.models.parts import evaluating

    target = targets_of(cfg.loss)[0]
    generator = np.random.default_rng(cfg.seed)
    chosen = np.sort(generator.choice(len(lists), min(MAX_LISTS, len(lists)), replace=False))
    first_stage = _read_first_stage(cfg)
    taus: dict[str, Values] = {"student": {}}
    if first_stage is not None:
        taus["first_stage"] = {}
    with evaluating(model):
        for index in chosen.tolist():
            (rows, targets), numbers = lists[index], lists.numbers_of(index)
            known = np.flatnonzero(~np.isnan(targets[target]))
            kept = np.sort(known[generator.permutation(len(known))[:MAX_PASSAGES]])
            rows, values = rows[kept], targets[target][kept]
            values = -values if split_target(target)[1] == "rank" else values  # higher is better
            if len(np.unique(values)) < 2:
                continue
            query, query_id = lists.queries[lists.query_rows[index]], lists.query_id(index)
            if first_stage is not None:
                if query_id not in first_stage:
                    continue
                places = {doc_id: -place for place, doc_id in enumerate(first_stage[query_id].doc_ids)}
                order = np.array([places.get(lists.passages.text_id(row), -np.inf) for row in rows])
                taus["first_stage"][str(index)] = kendall_tau(order, values)
            passages = [lists.passages[row] for row in rows]
            pairs = model.template.join_all(query, passages, None if numbers is None else numbers[kept])
            batch = make_batch([query_id], [pairs])
            with torch.inference_mode(), half_precision(model.device, precision):
                scores = model.score(batch, cfg.train.max_tokens)[0].cpu().numpy()
            taus["student"][str(index)] = kendall_tau(scores, values)
    return taus


def agreement_results(taus: dict[str, Values]) -> dict[str, float]:
    """Return the means under the names used in results.json."""
    return {f"agreement/{row}/tau": fmean(values.values()) for row, values in taus.items() if values}


def _read_first_stage(cfg: DictConfig):
    """Return the first stage's run, or None if there is none or it cannot be read.

    A run that training did not read is only read now if it is a local file that is not large.
    """
    from distill.sources.opening import open_source
    from distill.sources.runs import read_run

    source = cfg.teacher.first_stage
    if source is None:
        return None
    try:
        if not needs_first_stage(cfg) and (not os.path.isfile(source) or open_source(source, "run").is_large):
            return None
        return read_run(source)
    except InputError as error:  # the model is already trained: nothing here may end the run
        log.warning("no comparison with teacher.first_stage: %s", error)
        return None
