"""A task or a suite of tasks in the configuration.

for task in split_suite(cfg.task):                # a single task is its only part
    depth = task_depth(task, reranked=True)
"""

from omegaconf import DictConfig, OmegaConf

from distill.sources.literals import escaped

RERANKED_DEPTH = 100  # passages a query, where task.depth=auto and a model re-ranks
BM25_DEPTH = 1000  # of task.run=bm25, if no depth is set


def has_tasks(task: DictConfig) -> bool:
    """Whether there is anything to measure."""
    return task.run is not None or bool(task.tasks)


def split_suite(task: DictConfig) -> list[DictConfig]:
    """Return the tasks of a suite, each with all its keys; a single task is its only part."""
    if not has_tasks(task):
        return []
    own = OmegaConf.to_container(task, resolve=True)
    tasks = []
    for name, part in (own["tasks"] or {own["name"]: {}}).items():
        merged = own | part | {"name": name, "tasks": {}}
        merged["bm25"] = own["bm25"] | (part.get("bm25") or {})
        if own["runs"] is not None:
            merged["run"] = own["runs"].replace("{task}", name)
        if merged["fused"] is not None:
            merged["fused"] = merged["fused"].replace("{task}", name)
        tasks.append(OmegaConf.create(escaped(merged)))
    return tasks


def task_depth(task: DictConfig, reranked: bool) -> int | None:
    """Return how many passages a query are re-ranked or measured; None for all of the run."""
    return (RERANKED_DEPTH if reranked else None) if task.depth == "auto" else task.depth
