"""Re-rank runs with a model and measure them, or measure runs as they stand.

    python evaluate.py model=DIR_OR_HUB_ID task=files task.passages=P.tsv task.queries=Q.tsv task.run=R.run \
        task.qrels=QRELS task.depth=100
    python evaluate.py model=null task=files task.run=R.run task.qrels=QRELS
    python evaluate.py model=DIR_OR_HUB_ID task=trec-dl             a suite, task by task; see conf/task/
    python evaluate.py resume=outputs/evaluate/DATE/TIME            the stopped evaluation there, with its configuration
    torchrun --nproc-per-node 8 evaluate.py ...                     the queries shared out among several GPUs

Prints a table, and leaves config.yaml and results.json in its output directory, with run.txt (TREC) and per_query.csv
there, or of each task of a suite in tasks/TASK/.
"""

if __name__ == "__main__":  # before the slow imports
    from distill.interrupt import answer_stops

    answer_stops()

import json
import logging
import resource
import statistics
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_evaluate, check_stride
from distill.config.composition import register_schemas
from distill.config.overrides import as_override
from distill.config.suites import split_suite
from distill.errors import InputError, Unavailable
from distill.jobs import command_line, open_run, run_job

log = logging.getLogger("evaluate")


def evaluate(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Evaluate as configured and return what results.json holds; raises InputError for bad input."""
    # Imported here, so that --help and the first line of output need not wait for torch
    from distill.device import choose_device, choose_precision, describe_device
    from distill.distributed import start_ranks
    from distill.evaluation.results import task_directory, write_per_query, write_results, write_task
    from distill.evaluation.suite import SuiteNumbers
    from distill.evaluation.tasks import read_task

    # ---- 1. Device, directory and model ------------------------------------------------------------------------------
    ranks = start_ranks(choose_device(cfg.device))
    if cfg.model is not None:
        log.info("%s", describe_device(ranks.device, choose_precision(cfg.precision, ranks.device), ranks.size))
    with open_run(cfg, directory, ranks) as directory:
        model = load_model(cfg, ranks.device) if cfg.model is not None else None
        measured_row, tag = ("test", Path(cfg.model).name) if model is not None else ("first_stage", "first_stage")

        # ---- 2. Task by task; what a stopped evaluation has re-ranked is not re-ranked again -------------------------
        numbers = SuiteNumbers(cfg.task)
        for part in split_suite(cfg.task):
            place = task_directory(directory, cfg.task, part.name)
            is_done = cfg.resume is not None and ranks.gather((place / "per_query.csv").is_file())[0]
            try:
                task = read_task(part, texts=model is not None)
            except Unavailable as error:
                if not cfg.task.tasks:
                    raise
                numbers.missing[part.name] = f"{error} ({part.licence})" if part.licence else str(error)
                log.warning("%s: not measured: %s", part.name, numbers.missing[part.name])
                continue
            rows, latency = task.rows, {}
            if model is not None:
                rows["test"], latency = reranked_before(place, task) if is_done else rerank(cfg, task, model, ranks)
            numbers.means |= numbers.add(task, rows) | latency
            values = numbers.per_query[task.name][measured_row]
            if ranks.is_first and is_done:
                write_per_query(place, values)  # the judgments may be others now
            elif ranks.is_first:
                place.mkdir(parents=True, exist_ok=True)
                if latency:
                    (place / "latency.json").write_text(json.dumps(latency) + "\n")
                write_task(place, rows[measured_row], values, tag)

        # ---- 3. The suite's averages ---------------------------------------------------------------------------------
        if not numbers.per_query:
            reason = next(iter(numbers.missing.values()))
            raise Unavailable(f"{cfg.task.name}: none of its {len(numbers.missing)} tasks is here: {reason}")
        results = numbers.results()
        if ranks.is_first:
            write_results(directory / "results.json", results)
            print(numbers.table(results))
            log.info("runs, values of each query and results: %s", directory)
            log.info("next: %s", command_line("report", as_override("runs", directory)))
        ranks.finish()
        return results


def load_model(cfg: DictConfig, device):
    """Load the model onto its device."""
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.onnx import OnnxScorer

    model = CrossEncoder.from_pretrained(cfg.model, cfg.layout, cfg.prompt).to(device)
    check_stride(cfg.task, "task", model.passage_length)
    is_graph = isinstance(model.backbone, OnnxScorer)
    if is_graph and cfg.precision == "bfloat16":
        raise InputError(f"precision=bfloat16: {cfg.model} is an ONNX graph, which has its own: leave it out")
    if device.type == "cuda" and not is_graph:
        model.backbone.compile(dynamic=True)
    return model


def rerank(cfg: DictConfig, task, model, ranks) -> tuple:
    """Return a task's run in the model's order, and its latency where that is asked for."""
    from distill.device import choose_precision
    from distill.evaluation.rerank import TaskReranker

    precision = choose_precision(cfg.precision, ranks.device)
    reranked = TaskReranker(task, model, ranks=ranks).rerank(model, cfg.max_tokens, precision)
    warn_of_ties(reranked, task.name)
    return reranked, time_queries(task, model, cfg, precision)


def reranked_before(directory: Path, task) -> tuple:
    """Return the run that a stopped evaluation has left, and its latency; raises InputError where it is of another."""
    from distill.sources.runs import read_run

    log.info("%s: re-ranked before", task.name)
    reranked = read_run(str(directory / "run.txt"))
    check_same_passages(reranked, task.run, directory)
    latency = directory / "latency.json"
    return reranked, json.loads(latency.read_text()) if latency.is_file() else {}


def check_same_passages(reranked, run, directory: Path) -> None:
    """Raise InputError where the run is not the one that was re-ranked in this directory before."""
    for query_id, ranked in reranked.items():
        if query_id not in run or set(run[query_id].doc_ids) != set(ranked.doc_ids):
            raise InputError(
                f"{directory}/run.txt: re-ranks other passages of query {query_id} than task.run has: give the run "
                "that it was made from, or take another directory"
            )


def warn_of_ties(run, name: str) -> None:
    """Warn of lists in which most scores are equal, as those of a saturated sigmoid are: chance orders them."""
    from distill.teachers.pointwise import mostly_tie

    tied = [query_id for query_id, ranked in run.items() if len(ranked) > 1 and mostly_tie(ranked.scores.tolist())]
    if tied:
        log.warning(
            "%s: in %d of %d lists more than half of the passages share their score: nothing ranks these (first: %s)",
            *(name, len(tied), len(run), tied[0]),
        )


def time_queries(task, model, cfg: DictConfig, precision) -> dict[str, float]:
    """Return the median seconds of single queries, from text to ranking, and the peak of memory in bytes.

    One query before is not counted. The memory is the GPU's or, without one, this process's.
    """
    import torch

    query_ids = [query_id for query_id, ranked in task.run.items() if len(ranked)]
    if not cfg.latency_queries or not query_ids:
        return {}
    seconds = []
    for query_id in query_ids[: cfg.latency_queries + 1]:
        passages = [task.passages[doc_id] for doc_id in task.run[query_id].doc_ids]
        start = time.perf_counter()
        model.rank(task.queries[query_id], passages, cfg.max_tokens, precision)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if model.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    names = f"latency/{task.name}/seconds_per_query", f"memory/{task.name}/peak_bytes"
    return dict(zip(names, (statistics.median(seconds[1:] or seconds), peak), strict=True))


def describe(cfg: DictConfig) -> str:
    """Return the first words that the user reads."""
    what = f"measuring {cfg.task.run}" if cfg.model is None else f"re-ranking with {cfg.model}"
    return f"{f'resuming {cfg.resume}: ' if cfg.resume else ''}{what} on task={cfg.task.name}"


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Evaluate one configuration and return its objective; bad input is answered with one line and exit status 2."""
    return run_job(cfg, describe, check_evaluate, evaluate)


if __name__ == "__main__":
    register_schemas()
    main()
