"""Re-rank a run with a model and measure it, or measure a run as it stands.

    python evaluate.py model=DIR_OR_HUB_ID task=files task.passages=P.tsv task.queries=Q.tsv task.run=R.run \
        task.qrels=QRELS task.depth=100
    torchrun --nproc-per-node 8 evaluate.py ...         the queries shared out among several GPUs
    python evaluate.py model=null task=files task.run=R.run task.qrels=QRELS

Prints a table, and leaves run.txt (TREC), per_query.csv and results.json in its output directory.
"""

import csv
import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distill.config import check_evaluate, register_schemas
from distill.errors import exit_on_bad_input

log = logging.getLogger("evaluate")


def evaluate(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Evaluate as configured and return what results.json holds; raises InputError for bad input."""
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.device import choose_device
    from distill.distributed import start_ranks
    from distill.download import with_local_files
    from distill.rerank import measure, read_task, task_metrics
    from distill.tracking import format_results, write_results
    from distill.trec import write_run

    ranks = start_ranks(choose_device(cfg.device))
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.ERROR)
    task = read_task(with_local_files(cfg).task, texts=cfg.model is not None)
    results = task_metrics("first_stage", task, task.run)
    if task.teacher:
        results |= task_metrics("teacher", task, task.teacher)
    run = task.run
    if cfg.model is not None:
        run = rerank_with(cfg, task, ranks)
        results |= task_metrics("test", task, run)
    if ranks.is_first:
        write_run(run, directory / "run.txt", tag=Path(cfg.model).name if cfg.model else "first_stage")
        write_per_query(directory / "per_query.csv", measure(run, task.qrels, task.measures)[1])
        write_results(directory / "results.json", results)
        print(format_results(results, task.name, len(task.qrels), [str(name) for name in task.measures]))
    ranks.finish()
    log.info("run, values per query and results: %s", directory)
    return results


def rerank_with(cfg: DictConfig, task, ranks):
    """Load the model and return its ranking of the task's run."""
    from distill.device import choose_precision
    from distill.model import CrossEncoder
    from distill.rerank import Reranker

    model = CrossEncoder.from_pretrained(cfg.model, layout=cfg.layout).to(ranks.device)
    if ranks.device.type == "cuda":
        model.backbone.compile(dynamic=True)
    precision = choose_precision(cfg.precision, ranks.device)
    return Reranker(task, model, ranks=ranks).rerank(model, cfg.max_tokens, precision)


def write_per_query(path: Path, per_query: dict[str, dict[str, float]]) -> None:
    """Write one line a query: its id and its value of each measure."""
    measures = list(next(iter(per_query.values())))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", *measures])
        writer.writerows([query_id, *(values[name] for name in measures)] for query_id, values in per_query.items())


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Evaluate one configuration; bad input is answered with one line and exit status 2."""
    with exit_on_bad_input(sweep=HydraConfig.get().mode == RunMode.MULTIRUN):
        check_evaluate(cfg)
        evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    register_schemas()
    main()
