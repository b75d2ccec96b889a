"""Re-rank runs with a model and measure them, or measure runs as they are.

    python evaluate.py model=DIR_OR_HUB_ID task=files task.passages=P.tsv task.queries=Q.tsv task.run=R.run \
        task.qrels=QRELS task.depth=100
    python evaluate.py model=null task=files task.run=R.run task.qrels=QRELS
    python evaluate.py model=DIR task=files ... task.teacher=teacher.run      without judgments: beside the teacher
    python evaluate.py model=SMALL cascade.model=LARGE cascade.keep=20 task=files ...     SMALL's best, scored by LARGE
    python evaluate.py model=DIR_OR_HUB_ID task=trec-dl             a suite, task by task; see conf/task/
    python evaluate.py resume=outputs/evaluate/DATE/TIME            resume a stopped evaluation, with its configuration
    torchrun --nproc-per-node 8 evaluate.py ...                     queries divided among several GPUs
    python evaluate.py -m shard=0/4,1/4,2/4,3/4 hydra/launcher=slurm ...    or among jobs: see docs/clusters.md

Prints a table, and writes config.yaml, results.json, run.txt (TREC) and per_query.csv to its output directory; a suite
has the last two for each task, in tasks/TASK/.
"""

if __name__ == "__main__":  # before the slow imports
    from distill.interrupt import answer_stops

    answer_stops()

import json
import logging
import statistics
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_evaluate, check_stride
from distill.config.command import start
from distill.config.overrides import as_override
from distill.config.resumable import command_of
from distill.errors import InputError
from distill.jobs import command_line, open_run, run_job, shown_path

log = logging.getLogger("evaluate")

PRECISION = "precision.json"  # in the output directory: what was measured, for an evaluation that is resumed


def evaluate(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Evaluate as configured and return the contents of results.json; raises InputError for bad input."""
    # Imported here, so that --help and the first line of output do not wait for torch
    from distill.device import choose_device, choose_precision, describe_device, must_measure
    from distill.distributed import start_ranks
    from distill.evaluation.interpolation import interpolated_row
    from distill.evaluation.results import task_directory, write_results, write_rows, write_task
    from distill.evaluation.suite import SuiteNumbers
    from distill.evaluation.tasks import check_later_tasks, read_tasks
    from distill.evaluation.teacher_agreement import TeacherAgreement
    from distill.storage.writing import write_text

    # ---- 1. Device, directory and model ------------------------------------------------------------------------------
    ranks = start_ranks(choose_device(cfg.device))
    if cfg.model is not None:
        given = None if must_measure(cfg.precision, ranks.device) else choose_precision(cfg.precision, ranks.device)
        log.info("%s", describe_device(ranks.device, given, ranks.size))
    with open_run(cfg, directory, ranks) as directory:
        check_later_tasks(cfg.task)
        models = load_models(cfg, ranks.device)
        model = models[0] if models else None
        precision = precision_of(cfg, directory, models, ranks) if models else None
        measured_row, tag = ("test", tag_of(cfg)) if model is not None else ("first_stage", "first_stage")

        # ---- 2. Task by task; a resumed evaluation skips re-ranking that is done -------------------------------------
        missing: dict[str, str] = {}  # tasks of a suite that are not available here -> why
        numbers, agreements = SuiteNumbers(cfg.task, missing), list[TeacherAgreement]()
        for task in read_tasks(cfg.task, missing, texts=model is not None, shard=cfg.shard):
            place = task_directory(directory, cfg.task, task.name)
            is_done = cfg.resume is not None and ranks.gather((place / "run.txt").is_file())[0]
            rows, latency = task.rows, {}
            if model is not None and precision is not None:
                TeacherAgreement.of(task, rows)  # a teacher that orders nothing is refused before the work
                scored = reranked_before(place, task) if is_done else rerank(cfg, task, models, ranks, precision.dtype)
                rows["test"], latency = scored
                if precision.is_measured and ranks.is_first:  # a resumed evaluation keeps it
                    write_text(directory / PRECISION, json.dumps(precision.results()) + "\n")
                if cfg.shard is not None:  # measured once they are joined
                    numbers.means[f"shard/{task.name}/queries"] = len(rows["test"])
                    if ranks.is_first and not is_done:
                        write_task(place, rows["test"], None, tag)
                    continue
                rows |= interpolated_row(task, rows["test"], model.interpolation)
            numbers.add(task, rows)
            numbers.means |= latency
            if (agreed := TeacherAgreement.of(task, rows)) is not None:
                numbers.means |= agreed.results()
                agreements.append(agreed)
            if ranks.is_first:
                place.mkdir(parents=True, exist_ok=True)
                if latency:
                    write_text(place / "latency.json", json.dumps(latency) + "\n")
                if agreed is not None:
                    agreed.write(place)
                keep = is_done and model is not None  # without a model, task.run may be another one by now
                write_rows(place, rows, numbers.per_query[task.name], measured_row, tag, keep_run=keep)

        # ---- 3. The suite's averages ---------------------------------------------------------------------------------
        results = numbers.results() | kept_of_lists(cfg)
        if precision is not None and precision.is_measured:
            results |= precision.results()
        if ranks.is_first:
            write_results(directory / "results.json", results)
            if cfg.shard is None:
                print("\n\n".join(filter(None, [numbers.table(results), *(agreed.table() for agreed in agreements)])))
                for line, is_better in filter(None, (agreed.verdict() for agreed in agreements)):
                    log.log(logging.INFO if is_better else logging.WARNING, "verdict: %s", line)
            say_what_is_next(cfg, directory, is_judged=any(numbers.per_query.values()))
        ranks.finish()
        return results


def say_what_is_next(cfg: DictConfig, directory: Path, *, is_judged: bool) -> None:
    """Log where the results are, and the command that reads them."""
    if cfg.shard is not None:
        log.info("shard %s: %s", cfg.shard, shown_path(directory))
        log.info("next, with all shards: %s", command_line("join", "shards=[DIR,DIR]", "output=NEW"))
        return
    log.info("runs, values of each query and results: %s", shown_path(directory))
    command, key = ("report", "runs") if is_judged else ("inspect", "run")
    log.info("next: %s", command_line(command, as_override(key, shown_path(directory))))


def load_models(cfg: DictConfig, device) -> list:
    """Load the model onto its device, and after it that of a cascade; none if the run is measured as it is."""
    from distill.evaluation.cascade import check_second
    from distill.evaluation.interpolation import check_weight
    from distill.models.pruned import check_keep

    if cfg.model is None:
        return []
    model = load_model(cfg, cfg.model, cfg.prompt, cfg.base, device)
    check_weight(cfg.task, cfg.model, model.interpolation)
    check_keep(model, cfg.exit_keep)
    if cfg.cascade.model is None:
        return [model]
    second = load_model(cfg, cfg.cascade.model, cfg.cascade.prompt, None, device)
    check_second(second, cfg.cascade.model)
    return [model, second]


def load_model(cfg: DictConfig, name: str, prompt: str | None, base: str | None, device):
    """Load a model onto its device."""
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.onnx import OnnxScorer
    from distill.models.precision import check_precision

    model = CrossEncoder.from_pretrained(name, cfg.layout, prompt, base).to(device)
    if cfg.passage_length is not None:
        model.read_passages_to(cfg.passage_length)
    check_stride(cfg.task, "task", model.passage_length)
    check_precision(model, name, cfg.precision)
    if device.type == "cuda" and not isinstance(model.backbone, OnnxScorer):
        model.backbone.compile(dynamic=True)
    return model


def precision_of(cfg: DictConfig, directory: Path, models: list, ranks):
    """Return the precision of scoring; that of the first part if an evaluation is resumed.

    A shard's is not measured, so that all shards are scored in the same one.
    """
    from distill.device import ScoringPrecision, choose_precision, must_measure, num_weights
    from distill.models.precision import fastest_precision, read_precision

    chosen = None
    if ranks.is_first:
        is_begun = any(any(directory.glob(pattern)) for pattern in command_of(cfg).stopped)
        if is_begun and (directory / PRECISION).is_file():
            chosen = read_precision(directory / PRECISION)
        elif is_begun or cfg.shard is not None:
            chosen = ScoringPrecision(choose_precision(cfg.precision, ranks.device))
        else:
            chosen = fastest_precision(max(models, key=num_weights), cfg.precision)
        if must_measure(cfg.precision, ranks.device):
            log.info("%s", chosen.describe())
    return ranks.gather(chosen)[0]


def tag_of(cfg: DictConfig) -> str:
    """Return the tag of a run's lines: the model, and what was pruned or scored again."""
    tag = Path(cfg.model).name
    if cfg.exit_keep is not None:
        tag += f"-exit-{cfg.exit_keep}"
    return tag if cfg.cascade.model is None else f"{tag}-then-{Path(cfg.cascade.model).name}-{cfg.cascade.keep}"


def kept_of_lists(cfg: DictConfig) -> dict[str, float]:
    """Return how many passages of a list went through all layers, and through the second model, for results.json."""
    kept = {"exit/keep": cfg.exit_keep, "cascade/keep": cfg.cascade.keep}
    return {name: value for name, value in kept.items() if value is not None}


def rerank(cfg: DictConfig, task, models: list, ranks, precision) -> tuple:
    """Return a task's run in the models' order, and its latency if asked for."""
    from distill.evaluation.cascade import best_of, joined
    from distill.evaluation.rerank import TaskReranker

    model, *others = models
    reranker = TaskReranker(task, model, ranks=ranks, once=True)
    reranked = reranker.rerank(model, cfg.max_tokens, precision, cfg.exit_keep)
    for second in others:
        best = best_of(task, reranked, cfg.cascade.keep)
        reranker = TaskReranker(best, second, ranks=ranks, once=True)
        reranked = joined(reranked, reranker.rerank(second, cfg.max_tokens, precision))
    warn_of_ties(reranked, task.name)
    return reranked, time_queries(task, models, cfg, precision)


def reranked_before(directory: Path, task) -> tuple:
    """Return the re-ranked run of a stopped evaluation, and its latency; raises InputError if task.run has changed."""
    from distill.sources.runs import read_run
    from distill.storage.small_files import read_numbers

    log.info("%s: already re-ranked", task.name)
    reranked = read_run(str(directory / "run.txt"))
    check_same_passages(reranked, task.run, directory)
    latency = directory / "latency.json"
    return reranked, read_numbers(latency) if latency.is_file() else {}


def check_same_passages(reranked, run, directory: Path) -> None:
    """Raise InputError if the run is not the one that was re-ranked in this directory."""
    lacking = [query_id for query_id, ranked in run.items() if len(ranked) and query_id not in reranked]
    if lacking:
        raise InputError(
            f"{directory}/run.txt: lacks {len(lacking)} queries of task.run (first: {lacking[0]}): give the run that "
            "it was made from, or use another directory"
        )
    for query_id, ranked in reranked.items():
        if query_id not in run or set(run[query_id].doc_ids) != set(ranked.doc_ids):
            raise InputError(
                f"{directory}/run.txt: re-ranks other passages of query {query_id} than task.run has: give the run "
                "that it was made from, or use another directory"
            )


def warn_of_ties(run, name: str) -> None:
    """Warn about lists in which most scores are equal, as from a saturated sigmoid: the model does not order them."""
    from distill.teachers.pointwise import mostly_tie

    tied = [query_id for query_id, ranked in run.items() if len(ranked) > 1 and mostly_tie(ranked.scores.tolist())]
    if tied:
        log.warning(
            "%s: in %d of %d lists more than half of the passages share a score: nothing ranks those (first: %s)",
            *(name, len(tied), len(run), tied[0]),
        )


def time_queries(task, models: list, cfg: DictConfig, precision) -> dict[str, float]:
    """Return the median time of single queries in seconds, from text to ranking, and the peak memory in bytes.

    One extra query first is not counted. The memory is the GPU's or, without one, this process's.
    """
    from distill.device import peak_memory

    model, *others = models
    query_ids = [query_id for query_id, ranked in task.run.items() if len(ranked)]
    if not cfg.latency_queries or not query_ids:
        return {}
    seconds = []
    for query_id in query_ids[: cfg.latency_queries + 1]:
        ranked = task.run[query_id]
        passages = [task.passages[doc_id] for doc_id in ranked.doc_ids]
        given = {"first_stage_scores": ranked.scores} if model.first_stage_score is not None else {}
        start = time.perf_counter()
        order, _ = model.rank(
            task.queries[query_id], passages, cfg.max_tokens, precision, exit_keep=cfg.exit_keep, **given
        )
        for second in others:
            best = [passages[index] for index in order[: cfg.cascade.keep]]
            second.rank(task.queries[query_id], best, cfg.max_tokens, precision)
        seconds.append(time.perf_counter() - start)
    peak = peak_memory(model.device)
    names = f"latency/{task.name}/seconds_per_query", f"memory/{task.name}/peak_bytes"
    return dict(zip(names, (statistics.median(seconds[1:] or seconds), peak), strict=True))


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    if cfg.model is not None:
        second = (
            f", then its {cfg.cascade.keep} best with {cfg.cascade.model}," if cfg.cascade.model is not None else ""
        )
        return f"re-ranking with {cfg.model}{second} on task={cfg.task.name}"
    return f"measuring {cfg.task.run or 'the first stages'} on task={cfg.task.name}"


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Evaluate one configuration and return its objective; bad input ends with a one-line message and status 2."""
    return run_job(cfg, describe, check_evaluate, evaluate)


if __name__ == "__main__":
    start(main, "evaluate")
