"""The training lists of a run, from one data set or several.

lists = read_data_sets(data_sets(cfg), reader, directory)
"""

from pathlib import Path

from omegaconf import DictConfig

from distill.config.local_files import with_local_files
from distill.data.lists import TrainingLists, read_lists
from distill.data.negatives import report_path
from distill.data.teacher_lists import unused_sources
from distill.errors import InputError
from distill.models.starting import Reader
from distill.retrieval.fused_teacher import with_fused_teacher


def read_data_sets(sets: dict[str, DictConfig], reader: Reader, directory: Path | None) -> dict[str, TrainingLists]:
    """Return the lists of each data set, given its configuration. Files are downloaded, and several teachers are fused.

    reader: what the model that is to be trained reads with. directory: gets the report of false negatives; None: there
    is none, as on all ranks but the first. Raises InputError for bad input.
    """
    lists = {}
    for name, own in sets.items():
        local = with_fused_teacher(with_local_files(own, unused_sources(own)))
        report = report_path(directory, name) if directory is not None else None
        lists[name] = read_lists(local, reader.tokenizer, reader.forms, report)
    _check_learn_from(next(iter(sets.values())).train.learn_from, lists)
    return lists


def _check_learn_from(learn_from: int | None, lists: dict[str, TrainingLists]) -> None:
    """Raise InputError if all lists are so short that all of their passages would be learned from."""
    longest = max(own.longest for own in lists.values())
    if learn_from is not None and learn_from >= longest:
        raise InputError(
            f"train.learn_from={learn_from} leaves nothing out, since the longest list has {longest} passages: "
            "set train.learn_from=null"
        )
