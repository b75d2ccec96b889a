"""What a loss learns from: the names of its targets, which every room writes in the same way.

targets_of(cfg.loss)            # ["rank"], or ["label", "llm.score"] of a mixture with a teacher of its own
split_target("llm.score")       # ("llm", "score"): of teachers.llm; ("", "score"): of `teacher`
"""

from typing import Any

BY_SCORE = ("max_percent_of_positive", "margin", "max_score")  # keys of data.negatives that need the teacher's scores
MAIN = "main"  # name of the data set that `data` and `teacher` make up, beside those of `datasets`


def parts_of(loss: Any) -> dict[str, Any]:
    """Return the configurations of a mixture's losses by name; of any other loss itself, under the name ""."""
    return dict(loss["parts"]) if "parts" in loss else {"": loss}


def part_targets(loss: Any, name: str) -> list[str]:
    """Return the names of what a part of a loss learns from: its target, then the scores that guide it, if any do."""
    part, teacher = parts_of(loss)[name], loss["teachers"].get(name) if name else None
    kinds = [part["target"], "score"] if part.get("guided") else [part["target"]]
    return [f"{teacher}.{kind}" if teacher else kind for kind in kinds]


def targets_of(loss: Any) -> list[str]:
    """Return the names of all that a loss learns from, in the order of its parts."""
    return list(dict.fromkeys(target for name in parts_of(loss) for target in part_targets(loss, name)))


def learned_targets(loss: Any) -> list[str]:
    """Return the names of what a loss learns from, without the scores that only guide it."""
    return list(dict.fromkeys(part_targets(loss, name)[0] for name in parts_of(loss)))


def own_targets(loss: Any) -> list[str]:
    """Return what a loss learns from `teacher` itself: rank, score, label."""
    return [target for target in targets_of(loss) if "." not in target]


def kept_targets(cfg: Any) -> list[str]:
    """Return the names of what training lists hold: what the loss learns from, and scores that choose passages."""
    is_by_score = cfg["data"]["list_choice"] == "quantiles" and cfg["data"]["list_size"] is not None
    return list(dict.fromkeys([*targets_of(cfg["loss"]), *(["score"] if is_by_score else [])]))


def teacher_keys(cfg: Any) -> list[str]:
    """Return the keys of a configuration's teachers: teacher, and teachers.NAME of each other one."""
    return ["teacher", *(f"teachers.{name}" for name in cfg["teachers"])]


def split_target(target: str) -> tuple[str, str]:
    """Return the name of the teacher that gives a target, "" for `teacher` itself, and rank, score or label."""
    teacher, _, kind = target.rpartition(".")
    return teacher, kind
