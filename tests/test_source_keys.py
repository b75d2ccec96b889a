"""Only keys that name sources are downloaded."""

import pytest
from omegaconf import OmegaConf

from distill.config import local_files
from distill.config.composition import COMMAND_SCHEMAS, flatten
from distill.config.saved import as_plain
from tests.helpers.configuration import compose_config

ADDRESS = "https://host/file.tsv"
TASK = ("passages", "queries", "run", "qrels", "teacher", "fused")
SOURCES = {
    "train": {
        *("data.passages", "data.queries", "teacher.path", "teacher.texts", "teacher.first_stage", "teacher.qrels"),
        *(f"{task}.{key}" for task in ("task", "validation") for key in TASK),
    },
    "evaluate": {f"task.{key}" for key in TASK},
    "cut": {"passages"},
    "generate": {"passages", "logged"},
    "split": {"queries", "origins", "passages"},
    "retrieve": {"passages", "queries", "run"},
    "fuse": {"qrels"},  # its runs are a list, each opened where it is
    "annotate": {"passages", "queries", "run", "qrels", "reference"},
    "judge": {"passages", "queries", "human"},  # its runs are a list, each opened where it is
    "export": {"passages", "queries", "run"},
    "join": set(),
    "journals": set(),
    "report": {"queries"},
    "serve": set(),
    "inspect": {"run", "baseline", "passages", "queries", "qrels"},
    "verdict": set(),
    "dashboards": set(),
}


@pytest.mark.parametrize("name", COMMAND_SCHEMAS)
def test_an_address_is_downloaded_where_a_source_is_meant_and_nowhere_else(name, monkeypatch):
    monkeypatch.setattr(local_files, "local_file", lambda address: f"/cache/{address[-3:]}")
    cfg = compose_config(name)
    texts = {key for key, value in flatten(OmegaConf.to_container(cfg, resolve=False)).items() if key[0] != "_"}
    for key in texts:
        try:  # where the schema takes text
            OmegaConf.update(cfg, key, ADDRESS)
        except Exception:  # a number or a list
            continue
    given = {key for key, value in flatten(as_plain(cfg)).items() if value == ADDRESS}
    local = flatten(local_files.with_local_files(cfg))
    assert {key for key in given if local[key] != ADDRESS} == SOURCES[name]
    assert SOURCES[name] <= given and (name != "train" or {"teacher.citation", "backbone.name", "licence"} <= given)


def test_the_sources_of_a_task_of_a_suite_are_downloaded(monkeypatch):
    from distill.config.schema import TaskConfig

    monkeypatch.setattr(local_files, "local_file", lambda address: f"/cache/{address[-3:]}")
    part = OmegaConf.create(dict.fromkeys(TASK, ADDRESS) | {"licence": ADDRESS, "bm25": {"stemmer": ADDRESS}})
    local = local_files.with_local_files(part, schema=TaskConfig)
    assert local_files.sources_of(TaskConfig) == TASK
    assert local == dict.fromkeys(TASK, "/cache/tsv") | {"licence": ADDRESS, "bm25": {"stemmer": ADDRESS}}
