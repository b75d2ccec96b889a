"""Configurations as the entry points compose them, and the lists that one reads."""

import copy
import functools
from typing import NamedTuple

from tests.helpers.paths import ROOT

OPTIONS = ("backbone", "data", "loss", "teacher", "task", "logger")  # groups of train.py


def compose_config(name: str, *overrides: str):
    """Compose like `composed_by_hydra`, in a tenth of the time.

    Each choice of groups is composed once per process. The values are then set in a copy, by Hydra's own code.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl  # here: tests/gpu runs where there is no Hydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    values = [override for override in overrides if not _chooses(override)]
    try:
        parsed = OverridesParser.create().parse_overrides(values)
        if not any(override.is_sweep_override() for override in parsed):
            cfg = copy.deepcopy(_composed_once(name, tuple(filter(_chooses, overrides))))
            ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
            return cfg
    except HydraException:
        pass  # Hydra says below what is wrong, in its own order
    return composed_by_hydra(name, *overrides)


def composed_by_hydra(name: str, *overrides: str):
    """Compose conf/NAME.yaml with command-line overrides, as the entry points do."""
    from hydra import compose, initialize_config_dir

    _register_once()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@functools.cache
def _composed_once(name: str, choices: tuple[str, ...]):
    return composed_by_hydra(name, *choices)


@functools.cache
def _register_once() -> None:
    from distill.config.composition import register_schemas

    register_schemas()


def _chooses(override: str) -> bool:
    """Whether an override chooses from a group, or is about Hydra itself."""
    key, _, value = override.partition("=")
    key = key.lstrip("+~").partition("@")[0]
    return key.startswith("hydra") or ((ROOT / "conf" / key).is_dir() and not value.startswith("{"))


class Decoded(NamedTuple):
    """A training list with the ids of its passages."""

    query_id: str
    doc_ids: list[str]
    targets: dict

    @property
    def target(self):
        """The only target."""
        [target] = self.targets.values()
        return target


def decoded_lists(cfg) -> list[Decoded]:
    """Read the training lists, with the ids of their queries and passages back in place of the rows."""
    from distill.data.lists import read_lists
    from distill.models.parts import load_tokenizer

    lists = read_lists(cfg, load_tokenizer(cfg.backbone.name))
    decoded = []
    for index in range(len(lists)):
        rows, targets = lists[index]
        doc_ids = [lists.passages.text_id(row) for row in rows]
        decoded.append(Decoded(lists.query_id(index), doc_ids, targets))
    return decoded


def as_tuples(lists) -> list[tuple]:
    """What two equal lists agree in."""
    return [(one.query_id, one.doc_ids, one.target.tolist()) for one in lists]


def resumed(directory, *overrides, name: str = "train"):
    """Compose `resume=DIR` with overrides, as the entry points do."""
    from distill.config.overrides import as_override
    from distill.config.resuming import resumed_config

    named = tuple(one.lstrip("+").partition("=")[0] for one in overrides)
    options = [one for one, key in zip(overrides, named, strict=True) if key in OPTIONS]
    cfg = compose_config(name, *overrides, as_override("resume", directory))
    return resumed_config(cfg, compose_config(name, *options), named)
