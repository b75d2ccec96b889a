"""Several data sets in one training: how lists are drawn from each, and what cannot be mixed."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from distill.config.checks import check_train
from distill.config.datasets import data_sets
from distill.data.batch import Batch
from distill.data.lists import read_lists
from distill.data.loader import BatchLoader
from distill.data.mixing import ROUND, MixedLoader, lists_of_a_round, make_loader
from distill.data.pairs import PairTemplate
from distill.distributed import Ranks
from distill.errors import InputError
from distill.models.parts import load_tokenizer
from distill.training.checkpoint import load_checkpoint
from distill.training.state import TrainingState
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.training import run_train
from train import train


def shares(sizes: dict, temperature: float = 1.0, weights: dict | None = None) -> list[int]:
    sampling = OmegaConf.create({"temperature": temperature, "weights": weights or {}})
    return [*lists_of_a_round(sizes, sampling).values()]


def test_the_shares_of_a_round_worked_by_hand():
    sizes = {"main": 100, "qa": 900}
    assert shares(sizes) == [100, 900]
    assert shares(sizes, temperature=2) == [250, 750]  # roots: 10 to 30
    assert shares(sizes, temperature=1e9) == [500, 500]
    assert shares(sizes, weights={"qa": 1, "main": 3}) == [750, 250]
    assert shares({"main": 1, "a": 1, "b": 1}) == [334, 333, 333]
    assert shares({"main": 10**7, "qa": 30}, temperature=1000) == [503, 497]  # no overflow
    with pytest.raises(
        InputError, match="sampling: main would get fewer than 1 of 1000 lists: raise sampling.weights.m"
    ):
        shares({"main": 1, "qa": 10_000})


@pytest.fixture
def two_sets(file_overrides, collection, tmp_path) -> list[str]:
    """The small collection, and another data set: two of its queries, under other ids, with labels turned round."""
    queries = dict(line.split("\t") for line in collection["queries"].read_text().splitlines())
    chosen = [*queries][:2]
    (tmp_path / "q.tsv").write_text("".join(f"other-{query_id}\t{queries[query_id]}\n" for query_id in chosen))
    lines = [line.split() for line in collection["teacher"].read_text().splitlines()]
    of_chosen = [f"other-{one[0]} {' '.join(one[1:])}\n" for one in lines if one[0] in chosen]
    (tmp_path / "t.run").write_text("".join(of_chosen))
    more = {"data.passages": collection["passages"], "data.queries": tmp_path / "q.tsv", "data.list_size": 4}
    more |= {"teacher.path": tmp_path / "t.run"}
    groups = ["+data@datasets.other=files", "+teacher@datasets.other.teacher=run"]
    return [*file_overrides, *groups, *(f"datasets.other.{key}={value}" for key, value in more.items())]


def loader_of(overrides: list[str], rank: int = 0, size: int = 1) -> MixedLoader:
    cfg = compose_config("train", *overrides)
    check_train(cfg)
    sets, tokenizer = data_sets(cfg), load_tokenizer(cfg.backbone.name)
    lists = {name: read_lists(own, tokenizer) for name, own in sets.items()}
    loader = make_loader(lists, sets, PairTemplate.of(tokenizer), Ranks(rank, size, torch.device("cpu")))
    assert isinstance(loader, MixedLoader)
    return loader


def test_every_round_takes_its_shares_and_every_list_of_a_data_set_comes_once_an_epoch(two_sets):
    loader = loader_of([*two_sets, "train.batch_size=10", "+sampling.weights={main:3,other:1}"])
    stream = [query_id for step in range(2 * ROUND // 10) for query_id in loader.query_ids(step)]
    others = [query_id for query_id in stream if query_id.startswith("other-")]
    assert len(others) == 500 and sum(one.startswith("other-") for one in stream[:ROUND]) == 250
    assert all(len({*others[start : start + 2]}) == 2 for start in range(0, 500, 2))
    main = [query_id for query_id in stream if not query_id.startswith("other-")]
    assert all(len({*main[start : start + 6]}) == 6 for start in range(0, 1500, 6))
    flags = np.array([one.startswith("other-") for one in stream])
    assert (flags[:ROUND] != flags[ROUND:]).any()  # each round is shuffled anew


def test_lists_keep_the_rules_of_their_data_set_and_a_batch_is_a_function_of_the_step(two_sets):
    loader, again = loader_of(two_sets), loader_of(two_sets)
    sizes = dict[str, int]()
    for step in (7, 2, 5, 0, 1, 3):
        batch, same = loader[step], again[step]
        assert torch.equal(batch.tokens, same.tokens) and torch.equal(batch.targets["rank"], same.targets["rank"])
        assert batch.query_ids == loader.query_ids(step)
        sizes |= dict(zip(batch.query_ids, batch.list_sizes.tolist(), strict=True))
    assert {size for query_id, size in sizes.items() if query_id.startswith("other-")} == {4}
    assert {size for query_id, size in sizes.items() if not query_id.startswith("other-")} == {10}


def test_ranks_share_the_lists_of_a_step(two_sets):
    overrides = [*two_sets, "train.batch_size=8"]
    whole = loader_of(overrides)[0]
    parts: list[Batch] = [loader_of(overrides, rank, 2)[0] for rank in range(2)]
    assert sorted(parts[0].query_ids + parts[1].query_ids) == sorted(whole.query_ids)
    assert all(part.query_ids for part in parts)


def test_a_stopped_and_resumed_training_on_two_data_sets_ends_the_same(two_sets, tmp_path, monkeypatch):
    overrides = [*two_sets, "train.validate_every=6", "train.save_every=3", "task.run=null"]
    run_train(tmp_path / "whole", *overrides)
    note = TrainingState.note
    monkeypatch.setattr(TrainingState, "note", lambda self, *args: note(self, *args) if self.step < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_train(tmp_path / "stopped", *overrides)
    monkeypatch.undo()
    train(resumed(tmp_path / "stopped"), tmp_path / "stopped")
    last, same = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "stopped"))
    assert all(torch.equal(weight, same["model"][name]) for name, weight in last["model"].items())
    assert last["lists"] == [6, 60, 2, 20]
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert "passages.tsv" in card and card.count("t.run") == 1


def test_one_data_set_has_the_loader_that_it_always_had(file_overrides):
    cfg = compose_config("train", *file_overrides)
    sets, tokenizer = data_sets(cfg), load_tokenizer(cfg.backbone.name)
    assert [*sets.values()] == [cfg]
    lists = {name: read_lists(own, tokenizer) for name, own in sets.items()}
    loader = make_loader(lists, sets, PairTemplate.of(tokenizer), Ranks(0, 1, torch.device("cpu")))
    assert type(loader) is BatchLoader


@pytest.mark.parametrize(
    "overrides, message",
    [
        ("+sampling.weights={main:1}", r"sampling.weights={'main': 1.0}: must have one weight for each of main, other"),
        ("+sampling.weights={main:1,other:0}", "sampling.weights.other=0.0: must be a number above 0"),
        ("sampling.temperature=0", "sampling.temperature=0.0: must be above 0"),
        ("loss=marginmse", "datasets.other: the loss needs a score for every passage, but teacher=run gives rank: add"),
        (
            "model.first_stage_score=min-max",
            "datasets.other: model.first_stage_score=min-max needs teacher.first_stage",
        ),
        ("+teacher@teachers.llm=run teachers.llm.path=T", "teachers.llm"),
        ("datasets.other.data.depth=1", "datasets.other.data.depth=1: must be at least 2"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(two_sets, overrides, message):
    overrides = overrides.replace("=T", f"={next(one for one in two_sets if 'teacher.path' in one).partition('=')[2]}")
    with pytest.raises(InputError) as error:
        check_train(compose_config("train", *two_sets, *overrides.split()))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_data_set_without_a_teacher_and_weights_for_only_one_are_refused(two_sets, file_overrides):
    without = [one for one in two_sets if "datasets.other.teacher" not in one]
    with pytest.raises(InputError, match="datasets.other.teacher"):
        check_train(compose_config("train", *without))
    with pytest.raises(
        InputError, match="sampling.weights=.* is about several data sets, but there is only one: add one"
    ):
        check_train(compose_config("train", *file_overrides, "+sampling.weights={main:1}"))
