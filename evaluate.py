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
from distill.config.suites import split_suite
from distill.errors import InputError, Unavailable
from distill.jobs import open_run, run_job

log = logging.getLogger("evaluate")


def evaluate(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Evaluate as configured and return what results.json holds; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.device import choose_device
    from distill.distributed import start_ranks

    ranks = start_ranks(choose_device(cfg.device))
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.ERROR)
    with open_run(cfg, directory, ranks) as directory:
        return evaluate_tasks(cfg, directory, ranks)


def evaluate_tasks(cfg: DictConfig, directory: Path, ranks) -> dict[str, float]:
    """Do what `evaluate` says, in a directory that is this evaluation's own."""
    from distill.config.measures import parse_measures
    from distill.evaluation.averages import suite_results
    from distill.evaluation.results import format_results, task_directory, write_results

    model = load_model(cfg, ranks) if cfg.model is not None else None
    parts, results, missing = split_suite(cfg.task), {}, {}
    measured: dict[str, dict] = {}  # task -> row -> values of each query
    for part in parts:
        try:
            place = task_directory(directory, cfg.task, part.name)
            of_task, measured[part.name] = evaluate_task(cfg, part, model, place, ranks)
        except Unavailable as error:
            if not cfg.task.tasks:
                raise
            missing[part.name] = f"{error} ({part.licence})" if part.licence else str(error)
            log.warning("%s: not measured: %s", part.name, missing[part.name])
            continue
        results |= of_task
    if not measured:
        raise Unavailable(f"{cfg.task.name}: none of its {len(parts)} tasks is here: {next(iter(missing.values()))}")
    results |= suite_results(cfg.task, measured)
    if ranks.is_first:
        write_results(directory / "results.json", results)
        num_queries = {name: len(values["first_stage"]) for name, values in measured.items()}
        print(format_results(results, cfg.task.name, num_queries, parse_measures(cfg.task.measures), missing))
    ranks.finish()
    log.info("runs, values per query and results: %s", directory)
    return results


def load_model(cfg: DictConfig, ranks):
    """Load the model onto its device."""
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.onnx import OnnxScorer

    model = CrossEncoder.from_pretrained(cfg.model, cfg.layout, cfg.prompt).to(ranks.device)
    check_stride(cfg.task, "task", model.passage_length)
    is_graph = isinstance(model.backbone, OnnxScorer)
    if is_graph and cfg.precision == "bfloat16":
        raise InputError(f"precision=bfloat16: {cfg.model} is an ONNX graph, which has its own: leave it out")
    if ranks.device.type == "cuda" and not is_graph:
        model.backbone.compile(dynamic=True)
    return model


def evaluate_task(cfg: DictConfig, part: DictConfig, model, directory: Path, ranks) -> tuple[dict, dict]:
    """Evaluate one task; return its results, and for each ranking that was measured the values of each query.

    What a stopped evaluation has re-ranked is not re-ranked again.
    """
    from distill.device import choose_precision
    from distill.evaluation.averages import measure_rows
    from distill.evaluation.rerank import Reranker
    from distill.evaluation.results import write_per_query, write_task
    from distill.evaluation.tasks import read_task
    from distill.sources.runs import read_run

    done = cfg.resume is not None and ranks.gather((directory / "per_query.csv").is_file())[0]
    # With its texts also where it is done: what has none is left out of the first stage
    task = read_task(part, texts=model is not None)
    rows, latency = {"first_stage": task.run}, {}
    if task.teacher:
        rows["teacher"] = task.teacher
    if model is not None and done:
        log.info("%s: re-ranked before", part.name)
        rows["test"] = read_run(str(directory / "run.txt"))
        check_same_passages(rows["test"], task.run, directory)
        if (directory / "latency.json").is_file():
            latency = json.loads((directory / "latency.json").read_text())
    elif model is not None:
        precision = choose_precision(cfg.precision, ranks.device)
        rows["test"] = Reranker(task, model, ranks=ranks).rerank(model, cfg.max_tokens, precision)
        warn_of_ties(rows["test"], part.name)
        latency = time_queries(task, model, cfg, precision)
    results, values = measure_rows(task, rows)
    if ranks.is_first and done:
        write_per_query(
            directory, values["test" if model is not None else "first_stage"]
        )  # judgments may be others now
    elif ranks.is_first:
        name, tag = ("test", Path(cfg.model).name) if model is not None else ("first_stage", "first_stage")
        directory.mkdir(parents=True, exist_ok=True)
        if latency:
            (directory / "latency.json").write_text(json.dumps(latency) + "\n")
        write_task(directory, rows[name], values[name], tag)
    return results | latency, values


def warn_of_ties(run, name: str) -> None:
    """Warn of lists in which most scores are equal, as those of a saturated sigmoid are: chance orders them."""
    from distill.teachers.pointwise import mostly_tie

    tied = [query_id for query_id, ranked in run.items() if len(ranked) > 1 and mostly_tie(ranked.scores.tolist())]
    if tied:
        log.warning(
            "%s: in %d of %d lists more than half of the passages share their score: nothing ranks these (first: %s)",
            *(name, len(tied), len(run), tied[0]),
        )


def check_same_passages(reranked, run, directory: Path) -> None:
    """Raise InputError where the run is not the one that was re-ranked in this directory before."""
    for query_id, ranked in reranked.items():
        if query_id not in run or set(run[query_id].doc_ids) != set(ranked.doc_ids):
            raise InputError(
                f"{directory}/run.txt: re-ranks other passages of query {query_id} than task.run has: give the run "
                "that it was made from, or take another directory"
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


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Evaluate one configuration and return its objective; bad input is answered with one line and exit status 2."""
    return run_job(cfg, check_evaluate, evaluate)


if __name__ == "__main__":
    register_schemas()
    main()
