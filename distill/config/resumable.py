"""The commands whose runs can be resumed, and what a directory's config.yaml says about the run there.

saved = read_saved(directory)               # {"loss": {"name": "ranknet"}, ...}
check_command(saved, command_of(cfg), directory)
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from distill.config.command_schema import AnnotateConfig, GenerateConfig, JudgeConfig
from distill.config.saved import MAX_BYTES, read_plain
from distill.config.schema import EvaluateConfig, TrainConfig
from distill.config.types import fault_of
from distill.errors import InputError

TEXTS = tuple(f"{task}.{part}{key}" for task in ("validation", "task") for part in ("", "tasks.*.")
              for key in ("passages", "queries", "run", "qrels", "teacher", "fused"))  # fmt: skip
TEXTS += ("validation.runs", "task.runs")

LLM_FREE = (  # none of it changes which answer a request gets
    *("teacher.llm.api_key_variable", "teacher.llm.base_url", "teacher.llm.batch_size", "teacher.llm.concurrency"),
    *("teacher.llm.device", "teacher.llm.max_cost", "teacher.llm.price_in", "teacher.llm.price_out"),
    *("teacher.llm.requests_per_minute", "teacher.llm.retries", "teacher.llm.timeout"),
    *("max_unusable", "teacher.llm.max_bytes", "teacher.llm.max_wait"),
)


@dataclass(frozen=True)
class Command:
    """A command whose runs can be resumed.

    key: a key at the top that no other command's configuration has. needs: the file that resuming needs. free: patterns
    of keys that change no result, or rounding at most. moved: keys of files, which only `resume=` may change. steps:
    keys of the length, which only `resume=` may raise.
    """

    noun: str
    name: str
    schema: type
    key: str
    needs: str
    stopped: tuple[str, ...]
    free: tuple[str, ...]
    moved: tuple[str, ...]
    steps: tuple[str, ...] = ()


TRAINING = Command(
    noun="training",
    name="train",
    schema=TrainConfig,
    key="train",
    needs="checkpoints/last.pt",
    stopped=("checkpoints/last.pt",),
    free=(
        *("logger.*", "train.device", "train.num_workers", "train.max_tokens", "train.compile"),
        *("train.checkpointing", "train.log_every", "train.save_every", "train.keep_previous"),
    ),
    moved=(
        *("data.passages", "data.queries", "teacher.path", "teacher.texts", "teacher.first_stage", "teacher.qrels"),
        *("teachers.*.path", "teachers.*.texts", "teachers.*.first_stage", "teachers.*.qrels"),
        *(f"datasets.*.data.{key}" for key in ("passages", "queries")),
        *(f"datasets.*.teacher.{key}" for key in ("path", "texts", "first_stage", "qrels")),
        *("backbone.name", *TEXTS),
    ),
    steps=("train.max_steps", "train.max_epochs"),
)
EVALUATION = Command(
    noun="evaluation",
    name="evaluate",
    schema=EvaluateConfig,
    key="max_tokens",
    needs="config.yaml",
    stopped=("run.txt", "tasks/*/run.txt"),
    free=("device", "max_tokens"),
    moved=TEXTS,
)
ANNOTATION = Command(
    noun="annotation",
    name="annotate",
    schema=AnnotateConfig,
    key="window",
    needs="config.yaml",
    stopped=("journal.jsonl",),
    free=("dry_run", "qrels", "reference", *LLM_FREE),
    moved=("passages", "queries", "run", "journal"),
)
GENERATION = Command(
    noun="generation",
    name="generate",
    schema=GenerateConfig,
    key="round_trip",
    needs="config.yaml",
    stopped=("journal.jsonl",),
    free=("dry_run", *LLM_FREE),
    moved=("passages", "logged", "journal", "round_trip_model"),
)
JUDGING = Command(
    noun="judgment",
    name="judge",
    schema=JudgeConfig,
    key="human_min_grade",
    needs="config.yaml",
    stopped=("journal.jsonl",),
    free=("dry_run", "human", "min_grade", "human_min_grade", "teacher_name", "annotation", *LLM_FREE),
    moved=("passages", "queries", "journal"),
)
COMMANDS = (TRAINING, EVALUATION, ANNOTATION, GENERATION, JUDGING)


def command_of(cfg: DictConfig | dict) -> Command:
    """Return the command that the configuration of a run belongs to."""
    return next(command for command in COMMANDS if command.key in cfg)


def command_and_fault(plain: dict) -> tuple[Command | None, str | None]:
    """Return the command that plain data belongs to, None if to none, and what is wrong with its types, if anything."""
    command = next((command for command in COMMANDS if command.key in plain), None)
    return command, fault_of(plain, command.schema) if command else None


def read_saved(directory: Path) -> dict:
    """Read the config.yaml of a run, as plain data; raises InputError if it is missing, damaged, or of no run."""
    path = directory / "config.yaml"
    if not path.exists():
        raise InputError(
            f"{directory}: holds files of a run, but no config.yaml: move them away, or use another directory"
        )
    if path.is_file() and not path.read_bytes()[:MAX_BYTES].strip():  # the disk was full when it was written
        raise InputError(
            f"{path}: is empty: write it anew with the command's --cfg job --resolve, or remove {directory} and start "
            "again"
        )
    plain = read_plain(path)
    command, fault = command_and_fault(plain)
    if command is None:
        raise InputError(f"{path}: belongs to no run: restore it, or use another directory")
    if fault is not None:
        raise InputError(f"{path}: {fault}: restore it, or use another directory")
    return plain


def check_command(saved: dict, command: Command, directory: Path) -> None:
    """Raise InputError for a directory of another command."""
    other = command_of(saved)
    if other is not command:
        raise InputError(f"{directory}: holds an output of {other.name}, not of {command.name}: use another")
