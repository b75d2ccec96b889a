"""Several runs as one teacher: the same lists, and the same training, as fusing first and training on the fusion."""

import random
import re

import pytest

from distill.commands.fuse import fuse_files
from distill.config import local_files
from distill.config.checks import check_train
from distill.config.local_files import with_local_files
from distill.config.saved import as_plain, saved_text
from distill.errors import InputError
from distill.export.model_card import make_card
from distill.retrieval.fused_teacher import with_fused_teacher
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists
from tests.helpers.training import run_train


@pytest.fixture
def runs(collection, tmp_path, monkeypatch) -> list[str]:
    """The teacher's run, and another that lacks a query and has ties; a cache of their own."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    generator = random.Random(0)
    lines = [line.split() for line in collection["first_stage"].read_text().splitlines()]
    other = [f"{q} Q0 {d} {rank} {generator.randint(0, 5)} x" for q, _, d, rank, *_ in lines if q != "q3"]
    (tmp_path / "other.run").write_text("\n".join(other) + "\n")
    return [str(collection["teacher"]), str(tmp_path / "other.run")]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ([], ["loss=ranknet"]),
        (["method=z-score", "weights=[0.3,1]"], ["loss=marginmse"]),
        (["method=mean-rank", "run_depth=7"], ["teacher.first_stage=null"]),
        (["k=3"], ["data.depth=4"]),
    ],
)
def test_several_runs_teach_what_their_fusion_teaches(file_overrides, runs, tmp_path, options, more):
    together = f"[{','.join(runs)}]"
    fuse_files(compose_config("fuse", f"runs={together}", f"output={tmp_path}/fused.run", *options))
    cfg = compose_config("train", *file_overrides, *more, f"teacher.path={tmp_path}/fused.run")
    expected = as_tuples(decoded_lists(with_local_files(cfg)))
    fusion = [f"teacher.fusion.{option}" for option in options]
    cfg = compose_config("train", *file_overrides, *more, f"teacher.path={together}", *fusion)
    check_train(cfg)
    local = with_fused_teacher(with_local_files(cfg))
    assert as_tuples(decoded_lists(local)) == expected and len(expected) == 6
    with open(local.teacher.path) as ours, open(tmp_path / "fused.run") as theirs:
        assert ours.read() == theirs.read()


def test_a_training_on_several_runs_is_that_on_their_fusion(file_overrides, runs, tmp_path):
    together = f"[{','.join(runs)}]"
    fuse_files(compose_config("fuse", f"runs={together}", f"output={tmp_path}/fused.run"))
    short = [*file_overrides, "train.max_steps=2", "optimizer.warmup=1"]
    first = run_train(tmp_path / "first", *short, f"teacher.path={tmp_path}/fused.run")
    second = run_train(tmp_path / "second", *short, f"teacher.path={together}")
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    first, second = (
        {key: value for key, value in results.items() if "second" not in key and not key.startswith("memory/")}
        for results in (first, second)
    )
    assert first == second


def test_a_fusion_is_made_anew_where_a_run_has_changed(file_overrides, runs):
    cfg = compose_config("train", *file_overrides, f"teacher.path=[{','.join(runs)}]")
    before = with_fused_teacher(cfg).teacher.path
    assert with_fused_teacher(cfg).teacher.path == before
    with open(runs[1], "a") as file:
        file.write("q3 Q0 d1 1 1 x\n")
    assert with_fused_teacher(cfg).teacher.path != before
    cfg.teacher.fusion.k = 7
    assert with_fused_teacher(cfg).teacher.path != before


def test_one_run_is_left_as_it_is(file_overrides):
    cfg = compose_config("train", *file_overrides)
    assert with_fused_teacher(cfg) is cfg


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.path=[RUN]"], ": must be one source, or a list of two or more"),
        (["teacher.path=[RUN,7]"], ": must be one source, or a list of two or more"),
        (["teacher.path=7"], "teacher.path=7: must be one source, or a list of two or more"),
        (["teacher.path=[RUN,nope.run]"], ": nope.run: no such file: check the path"),
        (["teacher.path=[RUN,RUN]", "teacher.format=triples"], "teacher.format=triples with several runs"),
        (
            ["teacher.path=[RUN,RUN]", "teacher.fusion.weights=[1]"],
            "teacher.fusion.weights=[1.0]: must have one value for each run of teacher.path: 2",
        ),
        (["teacher.path=RUN", "teacher.fusion.weights=[1,2]"], "one value for each run of teacher.path: 1"),
        (["teacher.path=[RUN,RUN]", "teacher.fusion.weights=[1,-1]"], "-1.0: must be above 0"),
        (["teacher.path=[RUN,RUN]", "teacher.fusion.method=sum"], "sum is unknown: choose one of rrf, mean-rank"),
    ],
)
def test_what_cannot_be_fused_is_refused_with_key_and_remedy(file_overrides, runs, overrides, message):
    overrides = [override.replace("RUN", runs[0]) for override in overrides]
    with pytest.raises(InputError, match=re.escape(message)):
        check_train(compose_config("train", *file_overrides, *overrides))


def test_a_file_that_holds_the_texts_is_one():
    with pytest.raises(InputError, match="teacher=jsonl reads the texts from its file, too: give one file, or"):
        check_train(compose_config("train", "data=jsonl", "teacher=jsonl", "teacher.path=[README.md,LICENSE]"))


def test_addresses_in_a_list_are_downloaded_and_the_card_names_each_run(file_overrides, runs, monkeypatch):
    monkeypatch.setattr(local_files, "local_file", lambda address: f"/cache/{address[-5:]}")
    cfg = compose_config("train", *file_overrides, f"teacher.path=['https://host/a.run',{runs[1]}]")
    assert list(with_local_files(cfg).teacher.path) == ["/cache/a.run", runs[1]]
    assert "| Teacher | run (https://host/a.run, other.run) |" in make_card(cfg, {"train/steps": 1}, "python train.py")
    assert as_plain(cfg)["teacher"]["path"] == ["https://host/a.run", runs[1]]
    assert f"- {runs[1]}" in saved_text(cfg)
