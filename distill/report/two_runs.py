"""Two rankings of the same queries, read with what is known of them: judgments, texts, and what a model reads.

    two = read_two_runs(cfg)              # cfg.run and cfg.baseline: the directory of a command, or a run
    texts = two.read_passages({"d7", "d9"})

The directory of a training, an evaluation or an annotation names its first stage, judgments and texts; keys that are
given come before those.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill.config.composition import ROOT
from distill.config.local_files import with_local_files
from distill.config.resumable import ANNOTATION, TRAINING, command_of, read_saved
from distill.config.resuming import EARLIER_BM25
from distill.config.suites import split_suite, task_depth
from distill.errors import InputError
from distill.evaluation.tasks import read_task
from distill.report.reading import Reading, open_reading
from distill.sources.fields import Fields
from distill.sources.literals import escaped
from distill.sources.qrels import Qrels, read_qrels
from distill.sources.run_files import Run
from distill.sources.runs import read_run
from distill.sources.texts import Texts, read_passages, read_queries

log = logging.getLogger(__name__)

FIELD_KEYS = {  # of a source -> the keys that say which fields of it are read
    "passages": ("id_field", "text_fields"),
    "queries": ("query_id_field", "query_text_fields"),
}
RUN_FILES = ("run.txt", "interpolated.run.txt", "teacher.run")  # that commands leave beside a config.yaml


@dataclass
class TwoRuns:
    """Two rankings of the same queries, `before` and `after`."""

    before_name: str
    after_name: str
    before: Run
    after: Run  # of the same queries, which give the order
    qrels: Qrels  # of these queries; empty without judgments
    queries: Texts  # empty if unknown
    passages_source: str | None
    fields: Fields
    reading: Reading | None  # of the model
    max_passage: bool = False  # whether the qrels judge articles, and the passages were cut from them
    notes: list[str] = field(default_factory=list)
    teacher: DictConfig | None = None  # the configuration of the annotation that made `after`
    teacher_lists: Run = field(default_factory=dict)  # that it ranks, if it is compared with another ranking

    def read_passages(self, doc_ids: set[str]) -> Texts:
        """Return the texts of passages, of those that have one; raises InputError where none has."""
        if self.passages_source is None or not doc_ids:
            return {}
        texts = read_passages(self.passages_source, doc_ids, self.fields)
        if not texts:
            raise InputError(
                f"{self.passages_source}: has none of the {len(doc_ids)} passages to show, such as {min(doc_ids)}: "
                "give the collection of the run"
            )
        lacking = doc_ids - texts.keys()
        if lacking:
            text = f"{self.passages_source} lacks {len(lacking)} of {len(doc_ids)} passages: they have no text here"
            self.notes.append(f"{text}.")
            log.warning("%s (first: %s)", text, min(lacking))
        return texts


@dataclass
class Directory:
    """What the directory of a command says about its run."""

    task: DictConfig | None = None  # measured by training and evaluation
    annotation: DictConfig | None = None  # its configuration
    first_stage: str | None = None  # of an annotation
    passages: str | None = None
    queries: str | None = None
    qrels: str | None = None
    passage_fields: Fields = field(default_factory=Fields)
    query_fields: Fields = field(default_factory=Fields)
    depth: int | None = None
    model: str | None = None
    windows: int = 1
    window_stride: int | None = None
    passage_length: int | None = None  # tokens, where an evaluation read another number than the model's own


def read_two_runs(cfg: DictConfig) -> TwoRuns:
    """Read the two rankings that a configuration names; raises InputError for bad input."""
    cfg = with_local_files(cfg)
    path, known = locate("run", cfg.run)
    known = _with_given(known, cfg)
    before_name, before, qrels = read_baseline(cfg, known)
    after = {query_id: ranked.cut(cfg.run_depth) for query_id, ranked in read_run(path).items()}
    shared = [query_id for query_id in after if query_id in before]
    if not shared:
        raise InputError(f"{path}: shares no query with {before_name}: compare rankings of the same queries")
    queries = read_queries(known.queries, known.query_fields) if known.queries else {}
    two = TwoRuns(
        before_name,
        path,
        {query_id: before[query_id].cut(cfg.run_depth) for query_id in shared},
        {query_id: after[query_id] for query_id in shared},
        {query_id: qrels[query_id] for query_id in shared if query_id in qrels},
        {query_id: queries[query_id] for query_id in shared if query_id in queries},
        known.passages,
        known.passage_fields,
        open_reading(known.model, known.windows, known.window_stride, known.passage_length),
        max_passage=known.task is not None and known.task.max_passage,
        teacher=known.annotation,
    )
    if cfg.baseline is not None and known.first_stage is not None:
        two.teacher_lists = read_first_stage(known)
    _check_shared(two, known, len(after), len(before), len(qrels))
    return two


def locate(key: str, value: str) -> tuple[str, Directory]:
    """Return the run that a key names, and what its directory says; raises InputError for one without a run."""
    path = Path(value)
    if not path.is_dir() and path.name not in RUN_FILES:
        return value, Directory()
    place = path if path.is_dir() else path.parent
    task = place.name if place.parent.name == "tasks" else None  # DIR/tasks/NAME, of a suite
    home = place.parent.parent if task else place
    if not (home / "config.yaml").is_file():
        if not path.is_dir():
            return value, Directory()
        raise InputError(
            f"{key}={value}: has no config.yaml: give the output directory of train.py, evaluate.py or annotate, or a "
            "run"
        )
    saved = OmegaConf.create(escaped(read_saved(home)))
    file = path / ("teacher.run" if command_of(saved) is ANNOTATION else "run.txt") if path.is_dir() else path
    if not file.is_file():
        parts = sorted(str(one.parent) for one in home.glob("tasks/*/run.txt"))
        remedy = "give the directory of a finished evaluation or annotation, of a training with a task, or a run"
        if parts:
            remedy = f"it has several tasks: give one, as in {key}={parts[0]}"
        raise InputError(f"{key}={value}: has no {file.name}: {remedy}")
    try:
        return str(file), _annotation(saved) if command_of(saved) is ANNOTATION else _measured(saved, home, task)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{home / 'config.yaml'}: {reason}: restore it, or give the run and its baseline") from None


def _annotation(saved: DictConfig) -> Directory:
    saved = OmegaConf.merge(OmegaConf.load(ROOT / "conf" / "fields.yaml"), saved)  # an older version lacked them
    return Directory(
        annotation=saved,
        first_stage=saved.run,
        passages=saved.passages,
        queries=saved.queries,
        qrels=saved.qrels,
        passage_fields=Fields.of(saved),
        query_fields=Fields.of(saved, "queries"),
        depth=saved.depth,
    )


def _measured(saved: DictConfig, home: Path, name: str | None) -> Directory:
    """Return what a training or an evaluation says about its task, or about the one with this name in its suite."""
    usual = OmegaConf.load(ROOT / "conf" / "task" / "files.yaml")  # for keys that an older version did not have
    del usual["defaults"]
    usual["bm25"] = dict(EARLIER_BM25)
    parts = split_suite(OmegaConf.merge({"task": usual}, saved).task)
    task = next((part for part in parts if name in (None, part.name)), None)
    if task is None:
        raise InputError(f"{home / 'config.yaml'}: has no task {name or ''}: give the run, and its baseline")
    is_training = command_of(saved) is TRAINING
    task.depth = task_depth(task, is_training or saved.model is not None)
    task.teacher = task.fused = None  # they are not looked at
    return Directory(
        task=task,
        passages=task.passages,
        queries=task.queries,
        qrels=task.qrels,
        passage_fields=Fields.of(task),
        query_fields=Fields.of(task, "queries"),
        depth=task.depth,
        model=str(home / "model") if is_training else saved.model,
        windows=task.windows,
        window_stride=task.window_stride,
        passage_length=None if is_training else saved.get("passage_length"),
    )


def _with_given(known: Directory, cfg: DictConfig) -> Directory:
    """Put what the command line gives in place of what the directory says."""
    for key in ("passages", "queries", "qrels", "model"):
        if cfg[key] is not None:
            setattr(known, key, cfg[key])
    for source, keys in FIELD_KEYS.items():
        for key in keys:
            if cfg[source] is None and cfg[key] is not None:
                raise InputError(f"{key}={cfg[key]} is about {source}=...: give that, too, or leave it out")
    if cfg.passages is not None:
        known.passage_fields = Fields.of(cfg)
    if cfg.queries is not None:
        known.query_fields = Fields.of(cfg, "queries")
    if known.task is not None:
        groups = [*((source, *keys) for source, keys in FIELD_KEYS.items()), ("qrels",)]
        known.task.update({key: cfg[key] for group in groups if cfg[group[0]] is not None for key in group})
    if cfg.model is not None and not os.path.isdir(cfg.model):
        raise InputError(f"model={cfg.model}: no such directory: give that of a trained model, or leave it out")
    if cfg.model is not None:
        known.passage_length = None
    return known


def read_baseline(cfg: DictConfig, known: Directory) -> tuple[str, Run, Qrels]:
    """Return the name of what the run is compared with, that ranking, and the judgments.

    Raises InputError where no baseline is given, and the run's directory names none.
    """
    if cfg.baseline is None and known.task is not None:
        task = read_task(known.task, texts=False)
        return f"first stage ({known.task.run})", task.run, task.qrels
    qrels = read_qrels(known.qrels) if known.qrels else {}
    if cfg.baseline is not None:
        path, _ = locate("baseline", cfg.baseline)
        return path, read_run(path), qrels
    if known.first_stage is None:
        raise InputError(
            f"baseline is missing: {cfg.run} does not say which first stage it ranks: give it, as in baseline=bm25.run"
        )
    return f"first stage ({known.first_stage})", read_first_stage(known), qrels


def read_first_stage(known: Directory) -> Run:
    """Return the lists that an annotation ranks."""
    assert known.first_stage is not None
    return {query_id: ranked.cut(known.depth) for query_id, ranked in read_run(known.first_stage).items()}


def _check_shared(two: TwoRuns, known: Directory, num_after: int, num_before: int, num_judged: int) -> None:
    """Note what is left out and what is judged.

    Raises InputError for judgments or texts that belong to none of the queries.
    """
    num_shared = len(two.after)
    for name, number in ((two.after_name, num_after), (two.before_name, num_before)):
        if number > num_shared:
            two.notes.append(f"{number - num_shared} of {number} queries of {name} are only there: left out.")
    for key, found in (("qrels", two.qrels), ("queries", two.queries)):
        if getattr(known, key) and not found:
            raise InputError(
                f"{getattr(known, key)}: has none of the {num_shared} queries of {two.after_name}: use the {key} that "
                "belong to the run"
            )
    if two.qrels and two.max_passage:
        two.notes.append(
            "Articles are judged and measured, each by its best passage; passages have their articles' grades."
        )
    if two.qrels and len(two.qrels) < num_shared:
        two.notes.append(f"{num_shared - len(two.qrels)} of {num_shared} queries have no judgments: not measured.")
    if num_judged > len(two.qrels) and two.qrels:
        log.info("%d of %d judged queries are not in both rankings: left out", num_judged - len(two.qrels), num_judged)
    if two.queries and len(two.queries) < num_shared:
        two.notes.append(f"{num_shared - len(two.queries)} of {num_shared} queries have no text in {known.queries}.")
