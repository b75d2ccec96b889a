"""The rules between groups of a configuration, and one check for each command, before anything is loaded.

    check_train(cfg)            # raises InputError: one line with key, value, rule and remedy

A key has its type, its rule and what it needs beside it in distill/config/schema.py; `check_values` walks over them.
Here is only what spans groups: what a loss needs of a teacher, and what a task needs of a command.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.config.composition import command_overrides, is_sweep, options_of
from distill.config.datasets import check_datasets, data_sets
from distill.config.mixtures import check_mixture
from distill.config.nearest import keys_of, unknown_key
from distill.config.rules import check_rules, missing_file, missing_file_or_directory, options_of_key, shown
from distill.config.schema import PART_KEYS, Lora, TaskConfig
from distill.config.suites import BM25_DEPTH, has_tasks, split_suite, task_depth
from distill.errors import InputError
from distill.sources.literals import escaped
from distill.targets import (
    BY_SCORE,
    MAIN,
    kept_targets,
    learned_targets,
    own_targets,
    part_targets,
    parts_of,
    split_target,
    targets_of,
    teacher_keys,
)

GIVE_VALIDATION = "give validation.run, validation.queries and validation.qrels"
NEED_VALIDATION = {  # key: what the validation is to it
    "train.patience": "",
    "calibration.method": ", whose judgments it is fitted on",
    "train.soup": ", which chooses the checkpoints",
}
OF_A_TEST = ("untrained", "interpolate", "fused", "ideal", "teacher", "means")  # what a validation would not measure


def check_train(cfg: DictConfig) -> None:
    """Check the configuration of a training; raises InputError with key, value, rule and remedy."""
    _check_training(cfg)
    check_datasets(cfg)
    is_alone = not is_sweep()  # where a cell of a grid may leave out what another one needs
    if is_alone:
        _refuse_idle(cfg)
    for name, own in data_sets(cfg).items():
        if name != MAIN:
            try:
                _check_training(own)
                if is_alone:
                    _refuse_idle_of_data(own, f"datasets.{name}.")
            except InputError as error:
                raise InputError(f"datasets.{name}: {error}") from None


def _check_training(cfg: DictConfig) -> None:
    """Check the configuration of a training on one data set."""
    _check_one_source_of_texts(cfg.teacher)
    check_values(cfg)
    data, teacher, loss = cfg.data, cfg.teacher, cfg.loss
    for key in ("passages", "queries"):
        if data[key] is None:
            raise InputError(
                f"data.{key} is null: data={data.name} reads texts from teacher.texts, and teacher={teacher.name} has "
                "none: choose another teacher, or data=files"
            )
    if teacher.format == "triples":
        for key in ("depth", "num_negatives", "list_size"):
            if data[key] is not None:
                raise InputError(f"data.{key}={data[key]}: teacher.format=triples has lists of two: set it to null")
    for key in teacher_keys(cfg):
        _check_fusion(OmegaConf.select(cfg, key), key)
    _check_first_stage_score(cfg)
    _check_frozen(cfg)
    check_mixture(cfg)
    for part in parts_of(loss):
        for target in part_targets(loss, part):
            _check_target(cfg, part, target)
    if teacher.path is None and teacher.first_stage is None:
        raise InputError("teacher.first_stage is missing: labels need a run to draw the other passages from")
    if data.num_negatives is not None and "label" not in own_targets(loss):
        learned = " and ".join(f"{split_target(target)[1]}s" for target in targets_of(loss))
        raise InputError(
            f"data.num_negatives={data.num_negatives} draws negatives by label, but loss={loss.name} learns from "
            f"teacher {learned}: set data.num_negatives=null and cut lists by data.depth"
        )
    _check_negatives(cfg)
    _check_list_choice(cfg)
    _check_learn_from(cfg)
    _check_measured(cfg.validation, "validation", OF_A_TEST, "only a test measures that: give it to task")
    for name in ("validation", "task"):
        check_task(cfg[name], name)
        check_stride(cfg[name], name, cfg.model.passage_length)
    for key, why in NEED_VALIDATION.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not has_tasks(cfg.validation):
            raise InputError(f"{key}={value} needs a validation{why}: {GIVE_VALIDATION}, or set {key}=null")
    if cfg.train.soup is not None and cfg.model.lora.rank is not None and cfg.model.lora.save == "adapters":
        raise InputError(
            f"train.soup={cfg.train.soup} averages whole models, but model.lora.save=adapters keeps only what is "
            "trained: set model.lora.save=merged, or train.soup=null"
        )
    if not has_tasks(cfg.task) and cfg.task.untrained:
        raise InputError("task.untrained=true needs task.run: give one, or set task.untrained=false")
    _check_interpolation(cfg)


def check_evaluate(cfg: DictConfig) -> None:
    """Check the configuration of an evaluation; raises InputError like `check_train`."""
    check_values(cfg)
    if not has_tasks(cfg.task):
        raise InputError("task.run is missing: give the run to score or re-rank, as in task.run=bm25.run")
    _check_measured(cfg.task, "task", ("untrained",), "only a training has the student before it: leave it out")
    check_task(cfg.task, "task", texts=cfg.model is not None, by_teacher=True)
    if cfg.shard is not None and cfg.model is None:
        raise InputError(f"shard={cfg.shard}: without a model nothing is re-ranked: leave it out, or give model=DIR")
    if cfg.shard is not None and cfg.latency_queries:
        raise InputError(
            f"latency_queries={cfg.latency_queries} with shard={cfg.shard}: times are not joined: leave one of them out"
        )
    if cfg.latency_queries and cfg.task.windows > 1:
        raise InputError(
            f"latency_queries={cfg.latency_queries} with task.windows={cfg.task.windows}: queries are timed with "
            "one window of each passage: leave one of them out"
        )
    for key in ("latency_queries", "prompt", "base"):
        if cfg.model is None and cfg[key] and key in _given(""):
            raise InputError(f"{key}={cfg[key]} needs model=DIR, which it is about: give one, or leave it out")
    if cfg.model is None and any(part.interpolate is not None for part in split_suite(cfg.task)):
        raise InputError("task.interpolate needs a model, whose scores it takes: give model=DIR, or set it to null")
    if cfg.exit_keep is not None and cfg.task.windows > 1:
        raise InputError(
            f"exit_keep={cfg.exit_keep} with task.windows={cfg.task.windows}: passages of several windows cannot be "
            "pruned: set task.windows=1, or exit_keep=null"
        )
    _refuse_idle_stride(cfg.task, "task")
    if all(part.run != "bm25" for part in split_suite(cfg.task)):
        refuse_unused(["task.bm25"], "of a BM25 that is made here, but task.run is a file: set task.run=bm25")
    if cfg.cascade.model is not None and cfg.model is None:
        raise InputError(f"cascade.model={cfg.cascade.model} needs model, which scores all passages first: give one")
    if cfg.cascade.model is not None and any(part.interpolate == "auto" for part in split_suite(cfg.task)):
        raise InputError(
            "task.interpolate=auto: the weight in the model's files is for its own scores, not for those of a cascade: "
            "give a number from 0 to 1"
        )


def _refuse_idle(cfg: DictConfig) -> None:
    """Refuse keys of the command line that change nothing without another one; raises InputError."""
    of_lora = [f"model.lora.{one.name}" for one in fields(Lora) if one.name != "rank"]
    if cfg.model.lora.rank is None:
        refuse_unused(of_lora, "changes nothing while model.lora.rank=null")
    if cfg.model.exit_layer is None:
        refuse_unused(["model.exit_weight"], "changes nothing while model.exit_layer=null")
    if cfg.loss.name == "lambda" and cfg.loss.weighting != "ndcg-loss2++":
        refuse_unused(["loss.mu"], f"changes nothing with loss.weighting={cfg.loss.weighting}")
    if cfg.calibration.method is None:
        refuse_unused(["calibration.min_grade"], "changes nothing while calibration.method=null")
    if not cfg.datasets:
        refuse_unused(["sampling.temperature"], "is about several data sets, but there is only one")
    _refuse_idle_stride(cfg.validation, "validation")
    _refuse_idle_stride(cfg.task, "task")
    _refuse_idle_of_data(cfg, "")


def _refuse_idle_stride(task: DictConfig, key: str) -> None:
    """Refuse the distance between windows where no passage has two; raises InputError."""
    parts = {f"{key}.tasks.{part.name}" if task.tasks else key: part.windows for part in split_suite(task)}
    for place, windows in parts.items():
        if windows == 1:
            refuse_unused([f"{place}.window_stride"], f"changes nothing while {place}.windows=1")
    if max(parts.values(), default=1) == 1:
        refuse_unused([f"{key}.window_stride"], f"changes nothing while {key}.windows=1")


def _refuse_idle_of_data(cfg: DictConfig, prefix: str) -> None:
    """Refuse such keys of one data set; prefix: of its keys."""
    rules = cfg.data.negatives
    if all(rules[key] is None for key in BY_SCORE):
        key = f"{prefix}data.negatives.false_negatives"
        refuse_unused([key], f"changes nothing without a rule by score, such as {prefix}data.negatives.margin")
    if rules.max_percent_of_positive is None and rules.margin is None:
        why = "changes nothing without data.negatives.margin or data.negatives.max_percent_of_positive"
        refuse_unused([f"{prefix}data.negatives.positive"], why.replace("data.", f"{prefix}data."))
    if cfg.data.num_queries is None:
        refuse_unused([f"{prefix}data.subset_seed"], f"changes nothing while {prefix}data.num_queries=null")
    if cfg.data.list_size is None:
        refuse_unused([f"{prefix}data.list_choice"], f"chooses nothing while {prefix}data.list_size=null")
    if cfg.teacher.path is None or isinstance(cfg.teacher.path, str):
        refuse_unused([f"{prefix}teacher.fusion"], f"is about several runs, but {prefix}teacher.path is not a list")


def _check_interpolation(cfg: DictConfig) -> None:
    """Check what training can interpolate with; raises InputError."""
    asked = [part.interpolate for part in split_suite(cfg.task)]
    if cfg.task.interpolate is not None and not asked:
        raise InputError("task.interpolate needs task.run: give one, or set task.interpolate=null")
    if "fit" in asked:
        raise InputError(
            "task.interpolate=fit is for evaluate.py: a training chooses the weight on its validation queries: set "
            "task.interpolate=auto"
        )
    if "auto" in asked and not has_tasks(cfg.validation):
        raise InputError(
            f"task.interpolate=auto needs a validation, whose queries choose the weight: {GIVE_VALIDATION}, or a "
            "number from 0 to 1"
        )


def check_values(cfg: DictConfig) -> None:
    """Check that a configuration has no unknown and no missing keys, and that all values follow their rules.

    Raises InputError like `check_train`.
    """
    unknown = _unknown_keys(cfg)
    if unknown:
        raise InputError(unknown_key(unknown[0], keys_of(cfg)))
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        raise InputError(_missing_keys(cfg, [key for key in keys_of(cfg) if key in missing] or sorted(missing)))
    check_rules(cfg)


def _missing_keys(cfg: DictConfig, keys: list[str]) -> str:
    """Return what to say of keys without a value: all of them, with the options of those that have some."""
    options = {key: [*options_of_key(cfg, key)] or options_of(key) for key in keys}
    given = " ".join(f"{key}={options[key][0] if options[key] else 'VALUE'}" for key in keys)
    chosen = "".join(f"; {key} is one of {', '.join(some)}" for key, some in options.items() if some)
    verb, them = ("is", "it") if len(keys) == 1 else ("are", "them")
    return f"{', '.join(keys)} {verb} missing: give {them} on the command line, as in {given}{chosen}"


def check_task(task: DictConfig, key: str, texts: bool = True, by_teacher: bool = False) -> None:
    """Check that tasks have all that measuring needs and, for texts, re-ranking; raises InputError.

    by_teacher: whether a task that is no suite may have a teacher's ranking in place of judgments.
    """
    for name, part in task.tasks.items():
        _check_part(part, f"{key}.tasks.{name}")
    _check_reach(task, key, may_measure_nothing=not by_teacher)
    for part in split_suite(task):
        prefix = f"{key}.tasks.{part.name}." if task.tasks else f"{key}."
        _check_measures(part, key, prefix, reranked=texts)
        if key == "validation" and part.measures != task.measures:
            raise InputError(f"{prefix}measures={part.measures}: a validation has one mean: set {key}.measures instead")
        needed = ["passages", "queries"] if texts or part.run == "bm25" else []
        needed += ["qrels"] if task.tasks and part.run is not None else ["qrels", "run"]
        if by_teacher and not task.tasks and part.teacher is not None and part.qrels is None:
            needed.remove("qrels")
            _check_unjudged(part, key)
        for name in needed:
            if part[name] is None:
                instead = ", or the teacher's ranking as task.teacher" if by_teacher and name == "qrels" else ""
                raise InputError(f"{prefix}{name} is missing: give a file or an ir_datasets id{instead}")
        for name in [*needed, *(key for key in ("teacher", "fused") if part[key] is not None)]:
            fault = (missing_file_or_directory if name == "passages" else missing_file)(part[name])
            if fault is not None:
                raise InputError(f"{prefix}{name}={part[name]}{fault}")


def _check_unjudged(task: DictConfig, key: str) -> None:
    """Check that nothing is asked for that needs judgments, of a task without any; raises InputError."""
    for name, value in {"ideal": task.ideal, "interpolate": task.interpolate == "fit"}.items():
        if value:
            raise InputError(f"{key}.{name}={task[name]} needs judgments: give {key}.qrels, or leave it out")


def check_stride(task: DictConfig, key: str, passage_length: int) -> None:
    """Check that no tokens between two windows are left unread, given the length of a window; raises InputError."""
    if task.window_stride is not None and task.window_stride > passage_length:
        raise InputError(
            f"{key}.window_stride={task.window_stride} exceeds the window, model.passage_length={passage_length}: the "
            "tokens between two windows would never be read: lower it, or set it to null for half a window"
        )


def _check_part(part: Any, prefix: str) -> None:
    """Check the keys, types and values of one task of a suite, by the fields of a task."""
    if not OmegaConf.is_dict(part):
        raise InputError(f"{prefix}={part}: must be a task's keys and values: see conf/task/files.yaml")
    bm25 = part.get("bm25")
    for name in [*part, *(f"bm25.{key}" for key in (bm25 if OmegaConf.is_dict(bm25) else ()))]:
        if name not in PART_KEYS:
            raise InputError(unknown_key(f"{prefix}.{name}", [f"{prefix}.{one}" for one in PART_KEYS]))
    try:
        typed = OmegaConf.merge(TaskConfig, escaped(OmegaConf.to_container(part, resolve=True)))
    except OmegaConfBaseException as error:
        raise InputError(f"{prefix}.{error.full_key}: {str(error).splitlines()[0]}") from None
    check_rules(typed, f"{prefix}.")


def _check_reach(task: DictConfig, key: str, *, may_measure_nothing: bool) -> None:
    """Check that the command line gives no value that tasks of the suite, with one of their own, would not follow.

    may_measure_nothing: as a training may. Raises InputError.
    """
    given = _given(key)
    for name in (one.removeprefix(f"{key}.") for one in given):
        if task.runs is not None and name.startswith("tasks.") and name.endswith(".run"):
            raise InputError(
                f"{key}.{name}={shown(OmegaConf.select(task, name))} and {key}.runs={task.runs}, which replaces all "
                "tasks' runs: put the run there under the task's name, or leave one of them out"
            )
        value = OmegaConf.select(task, name)
        if OmegaConf.is_dict(value) or (name == "run" and task.runs is not None):  # runs replace those of all tasks
            continue
        for part, values in task.tasks.items():
            place = f"{key}.tasks.{part}.{name}"
            own = OmegaConf.select(values, name, default=value)
            if own == value or any(place == one or place.startswith(f"{one}.") for one in given):
                continue
            if (name, value) == ("run", None) and may_measure_nothing:
                nothing = "task=files" if key == "task" else f"task@{key}=files"
                raise InputError(
                    f"{key}.run=null: this suite's tasks have runs of their own: {nothing} measures nothing"
                )
            raise InputError(
                f"{key}.{name}={shown(value)}: {part} of this suite has a value of its own, {own}, and would not "
                f"follow: set {place}, too"
            )


def _check_measured(task: DictConfig, key: str, unused: tuple[str, ...], remedy: str) -> None:
    """Check that the command line asks for nothing of a task that would not be measured; raises InputError."""
    for place in _given(key):
        value = OmegaConf.select(task, place.removeprefix(f"{key}."))
        if place.rpartition(".")[2] in unused and value not in (None, False, []):
            raise InputError(f"{place}={shown(value)}: {remedy}")


def refuse_unused(keys: Sequence[str], why: str) -> None:
    """Refuse keys, or groups of them, that the command line gives a value and that would do nothing: InputError."""
    for name in _given(""):
        if name in keys or name.startswith(tuple(f"{key}." for key in keys)):
            raise InputError(f"{name}: {why}: leave it out")


def _given(key: str) -> list[str]:
    """Return the keys that the command line gives a value; those below `key`, if it is not empty."""
    names = [override.lstrip("+").partition("=")[0] for override in command_overrides("task")]
    return [name for name in names if not key or name.startswith(f"{key}.")]


def _check_measures(task: DictConfig, key: str, prefix: str, reranked: bool) -> None:
    """Check the depth, the measures' names, and that none looks below a default depth; raises InputError."""
    from distill.config.measures import parse_measures  # here: configurations without a task do not need it

    depth = task.depth
    if not task.measures:
        raise InputError(f"{key}.measures is empty: name at least one measure, as in {key}.measures=[nDCG@10]")
    limit = task_depth(task, reranked) or (BM25_DEPTH if task.run == "bm25" else None)
    for measure in parse_measures(task.measures):
        if not isinstance(depth, int) and limit is not None and measure.params.get("cutoff", 0) > limit:
            raise InputError(
                f"measure {measure}: looks below the {limit} passages a query that {prefix}depth={depth} leaves: set "
                f"{prefix}depth={measure['cutoff']}, or choose a smaller cut-off"
            )


def _unknown_keys(node: Any, prefix: str = "") -> list[str]:
    """Keys that no schema has; Hydra lets `+key=value` add them, but nothing would read them."""
    schema = OmegaConf.get_type(node)
    known = {part.name for part in fields(schema)} if is_dataclass(schema) else set(node)
    unknown = [f"{prefix}{name}" for name in node if name not in known]
    parts = [name for name in node if not OmegaConf.is_missing(node, name) and OmegaConf.is_dict(node[name])]
    return unknown + [key for name in parts for key in _unknown_keys(node[name], f"{prefix}{name}.")]


def _check_one_source_of_texts(teacher: DictConfig) -> None:
    """Check that a file that also holds the texts is one; raises InputError."""
    written = OmegaConf.to_container(teacher, resolve=False)  # "???" of a value that is missing
    texts = written["texts"]
    if isinstance(written["path"], list) and isinstance(texts, str) and "${" in texts and ".path" in texts:
        raise InputError(
            f"teacher.path={teacher.path}: teacher={teacher.name} reads the texts from its file, too: give one file, "
            "or teacher.texts=FILE"
        )


def _check_fusion(teacher: DictConfig, key: str) -> None:
    """Check that several runs can be fused; raises InputError."""
    weights, is_several = teacher.fusion.weights, OmegaConf.is_list(teacher.path)
    number = len(teacher.path) if is_several else 1
    if weights is not None and len(weights) != number:
        raise InputError(f"{key}.fusion.weights={weights}: must have one value for each run of {key}.path: {number}")
    if is_several and teacher.format != "run":
        raise InputError(
            f"{key}.format={teacher.format} with several runs in {key}.path: only runs are fused: give one"
        )


def _check_first_stage_score(cfg: DictConfig) -> None:
    """Check that there are scores to read if the model reads those of the first stage; raises InputError."""
    given = f"model.first_stage_score={cfg.model.first_stage_score}"
    if cfg.model.first_stage_score is None:
        return
    if cfg.teacher.format == "triples":
        raise InputError(f"{given}: triples come without a first stage's list: set it to null")
    if cfg.teacher.first_stage is None:
        raise InputError(
            f"{given} needs teacher.first_stage, the run whose scores are read: give one, or set it to null"
        )


def _check_frozen(cfg: DictConfig) -> None:
    """Check that LoRA, which freezes the backbone, is not asked to freeze parts of it, nor to save too little."""
    model = cfg.model
    for key in ("embeddings", "layers"):
        if model.lora.rank is not None and model.freeze[key]:
            raise InputError(
                f"model.freeze.{key}={model.freeze[key]}: model.lora.rank freezes the whole backbone: leave one of "
                "them out"
            )
    if model.lora.save == "adapters" and model.lora.rank is None:
        raise InputError("model.lora.save=adapters needs model.lora.rank: give one, as in model.lora.rank=16")
    if model.lora.save == "adapters" and model.exit_layer is not None:
        raise InputError(
            f"model.exit_layer={model.exit_layer}: model.lora.save=adapters has no place for that score: set "
            "model.lora.save=merged"
        )
    if model.lora.save == "adapters" and cfg.backbone.weights == "random":
        raise InputError("model.lora.save=adapters: random weights could not be had again: set it to merged")


def _check_negatives(cfg: DictConfig) -> None:
    """Check that there are labels, and scores to choose negatives by; raises InputError."""
    rules, teacher = cfg.data.negatives, cfg.teacher
    by_score = [key for key in BY_SCORE if rules[key] is not None]
    given = by_score + (["ranks"] if rules.ranks is not None else [])
    if not given:
        return
    setting = f"data.negatives.{given[0]}={rules[given[0]]}"
    if teacher.format == "triples":
        raise InputError(f"{setting}: triples have one negative: set it to null")
    if "label" not in own_targets(cfg.loss):
        raise InputError(f"{setting} is about negatives by label, but loss={cfg.loss.name} has none: set it to null")
    if by_score and (teacher.path is None or not teacher.scores):
        raise InputError(
            f"{setting} needs the teacher's scores: give teacher.path with teacher.scores=true, or set it to null"
        )


def _check_learn_from(cfg: DictConfig) -> None:
    """Check that lists are longer than what is learned of them, as far as their length is set; raises InputError."""
    learn_from, data = cfg.train.learn_from, cfg.data
    lengths = {f"data.list_size={data.list_size}": data.list_size}
    if "label" not in learned_targets(cfg.loss):  # relevant passages may be added
        lengths[f"data.depth={data.depth}"] = data.depth
    if data.num_negatives is not None:
        lengths[f"data.num_negatives={data.num_negatives}"] = data.num_negatives + 1
    if cfg.teacher.format == "triples":
        lengths["teacher.format=triples"] = 2
    for setting, length in lengths.items():
        if None not in (learn_from, length) and learn_from >= length:
            raise InputError(
                f"train.learn_from={learn_from} leaves nothing out of the {length} passages of lists with {setting}: "
                "set train.learn_from=null"
            )


def _check_list_choice(cfg: DictConfig) -> None:
    """Check that there are passages to choose, and scores to choose them by; raises InputError."""
    if "score" not in kept_targets(cfg) or "score" in own_targets(cfg.loss):
        return
    if cfg.teacher.path is None or not cfg.teacher.scores:
        raise InputError(
            f"data.list_choice={cfg.data.list_choice} needs the teacher's scores: give teacher.path with "
            "teacher.scores=true, or use stratified, which goes by rank"
        )


def _check_target(cfg: DictConfig, part: str, target: str) -> None:
    """Check that a teacher has what a part of the loss learns from; raises InputError."""
    name, kind = split_target(target)
    key, teacher = (f"teachers.{name}", cfg.teachers[name]) if name else ("teacher", cfg.teacher)
    gives = {
        "rank": (teacher.path is not None, f"{key}.path, a run ranked by the teacher"),
        "score": (
            teacher.path is not None and teacher.scores,
            f"{key}.path with {key}.scores=true, if the scores of that run mean more than its order",
        ),
        "label": (teacher.qrels is not None or teacher.format == "triples", f"{key}.qrels"),
    }
    given, remedy = gives[kind]
    if not given:
        able = ", ".join(name for name, (present, _) in gives.items() if present) or "nothing"
        raise InputError(
            f"{f'loss.parts.{part}' if part else 'the loss'} needs a {kind} for every passage, but "
            f"{key}={teacher.name} gives {able}: add {remedy}, or choose another loss"
        )
