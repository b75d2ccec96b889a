"""How Hydra composes a configuration: the schemas that come first, the resolvers, and what the command line chose.

    register_schemas()                                # once, before Hydra's main function

Imports neither torch nor transformers: `--help` stays quick.
"""

import atexit
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from distill.config.command_schema import (
    AnnotateConfig,
    CutConfig,
    DashboardsConfig,
    ExportConfig,
    FuseConfig,
    GenerateConfig,
    InspectConfig,
    JoinConfig,
    JournalsConfig,
    JudgeConfig,
    ReportConfig,
    RetrieveConfig,
    ServeConfig,
    SplitConfig,
    VerdictConfig,
)
from distill.config.interpolations import answer_tokens
from distill.config.losses import LOSS_SCHEMAS
from distill.config.schema import EvaluateConfig, TrainConfig
from distill.errors import InputError, exit_on_bad_input

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (PACKAGE / "_data").is_dir()  # then it has what a checkout has beside distill/
ROOT = PACKAGE / "_data" if INSTALLED else PACKAGE.parent
COMMAND_SCHEMAS: dict[str, type] = {  # by command: conf/NAME.yaml has the values
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "cut": CutConfig,
    "generate": GenerateConfig,
    "split": SplitConfig,
    "retrieve": RetrieveConfig,
    "fuse": FuseConfig,
    "annotate": AnnotateConfig,
    "join": JoinConfig,
    "judge": JudgeConfig,
    "journals": JournalsConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
    "report": ReportConfig,
    "inspect": InspectConfig,
    "verdict": VerdictConfig,
    "dashboards": DashboardsConfig,
}
SWEEP_MARKS = ("multirun.yaml", "sweep.lock")  # files by Hydra's sweeper and our launcher in a sweep's directory


def register_schemas() -> None:
    """Register the schemas and resolvers; call once before Hydra's main function.

    `${sample:NAME}` is a file of the bundled sample, wherever the command is started from.
    `${prompt:NAME}` is a file of distill/teachers/prompts/.
    `${answer_tokens:WINDOW}` is how many tokens an LLM may write to put so many passages in order.
    `${divide:PAIRS,SIZE}` is how many lists of that size make so many pairs, at least 1.
    `${output_dir:GIVEN,NEW}` is the given directory, else a new one: it is made, as NEW, NEW-2, NEW-3, ...
    `${sweep_name:RESUME}` names the sweep that the run is a job of; null for a run by itself.
    """
    store = ConfigStore.instance()
    for name, schema in COMMAND_SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for name, schema in LOSS_SCHEMAS.items():
        store.store(group="schema/loss", name=name, node=schema)
    OmegaConf.register_new_resolver("sample", sample_file, replace=True)
    OmegaConf.register_new_resolver("prompt", prompt_file, replace=True)
    OmegaConf.register_new_resolver("answer_tokens", answer_tokens, replace=True)
    OmegaConf.register_new_resolver("divide", lambda pairs, size: max(pairs // size, 1), replace=True)
    # Cached in the configuration, which a sweep's jobs take over: it is asked for several times, and made once
    OmegaConf.register_new_resolver("output_dir", _output_directory, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)


def sample_file(name: str) -> str:
    """Return the path of a file of the bundled sample."""
    return str(ROOT / "sample" / name)


def prompt_file(name: str) -> str:
    """Return the path of a bundled prompt."""
    return str(PACKAGE / "teachers" / "prompts" / f"{name}.yaml")


def _output_directory(given: str | None, new: str) -> str:
    """Return the given directory, else make a new one; of several ranks, only the first one's is used."""
    if given or "--resolve" in sys.argv:  # a configuration that is only printed makes no directory
        return given or new
    if os.environ.get("RANK", "0") != "0":
        return _private_directory()
    with exit_on_bad_input(sweep=False):
        return str(make_directory(Path(new)))


def _private_directory() -> str:
    """Return a new directory that only this user can enter, removed when the process ends.

    One of a fixed name could be made before us, by anyone, as a link to another place.
    """
    directory = tempfile.mkdtemp(prefix=f"distill-rank-{os.environ['RANK']}-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def make_directory(path: Path) -> Path:
    """Make a new directory: PATH, or PATH-2, PATH-3, ... if another command has made that one.

    Raises InputError if none can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made, numbers = path, itertools.count(2)
        while True:
            with contextlib.suppress(FileExistsError):
                made.mkdir()
                return made
            made = path.with_name(f"{path.name}-{next(numbers)}")
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}): start from another directory") from None


def run_directory() -> Path:
    """Return Hydra's output directory, absolute; read unresolved, since Hydra does not escape a `${` in its name."""
    return Path(OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)["output_dir"])


def _sweep_name(resume: str | None) -> str | None:
    """Return the name of the sweep's directory, with the date before it if the name is only a time of day.

    Most jobs run in their own process, without a sweep in Hydra's settings, but below the directory that it has marked.
    """
    if resume is not None:
        directory = Path(resume).absolute()
    elif not HydraConfig.initialized():
        return None
    elif HydraConfig.get().mode == RunMode.MULTIRUN:
        return _group_name(Path(HydraConfig.get().sweep.dir))
    else:
        directory = run_directory()
    marked = (parent for parent in directory.parents if any((parent / mark).is_file() for mark in SWEEP_MARKS))
    sweep = next(marked, None)  # hydra.sweep.subdir may have several levels
    return _group_name(sweep) if sweep else None


def _group_name(sweep: Path) -> str:
    return f"{sweep.parent.name}_{sweep.name}" if sweep.parent.parent.name == "multirun" else sweep.name


def command_overrides(kind: str) -> list[str]:
    """Return the overrides of the command line, of the kind "task" or "hydra", as given: ${...} is not resolved."""
    if not HydraConfig.initialized():
        return []
    return OmegaConf.to_container(HydraConfig.get().overrides, resolve=False)[kind]


def is_sweep() -> bool:
    """Whether Hydra runs this process as a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def chosen_experiment() -> str | None:
    """Return the option of the group `experiment` that the command line chose; None for none."""
    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


def options_of(group: str) -> list[str]:
    """Return the options of a group that conf/ has; an empty list for an unknown group."""
    directory = ROOT / "conf" / group
    return sorted(str(path.relative_to(directory).with_suffix("")) for path in directory.rglob("*.yaml"))


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a configuration, with its interpolations resolved, as {"loss.name": "ranknet", ...}."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        return {prefix: plain}
    parts = [flatten(part, f"{prefix}.{name}".strip(".")) for name, part in plain.items()]
    return {key: value for part in parts for key, value in part.items()}
