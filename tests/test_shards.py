"""Shards: an evaluation and an annotation in parts, joined, leave what the whole leaves, byte for byte."""

import json
import shutil
from pathlib import Path

import pytest

from distill.commands.annotate import annotate
from distill.commands.join import find_shards, join, join_journals
from distill.config.checks import check_evaluate
from distill.config.saved import saved_text
from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.report.runs import read_runs
from distill.sources import shards
from distill.sources.shards import Shard, is_shard, starts_of_batches
from distill.teachers.entries import line_of
from evaluate import evaluate
from tests.helpers.chat_server import overrides_of
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config, resumed


def join_all(tmp_path: Path, place: str = "shards") -> Path:
    join(compose_config("join", f"shards=[{tmp_path / place}]", f"output={tmp_path / 'joined'}"))
    return tmp_path / "joined"


def assert_same_files(whole: Path, joined: Path, names: list[str]) -> None:
    for name in names:
        assert (joined / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.fixture
def model(backbone, tmp_path) -> Path:
    CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# Shares


def test_shares_follow_each_other_and_end_where_batches_end_if_there_are_enough(monkeypatch):
    query_ids = list("abcdefg")
    assert [Shard(place, 3).take(query_ids, "run") for place in range(3)] == [["a", "b"], ["c", "d"], ["e", "f", "g"]]
    monkeypatch.setattr(shards, "PAIRS_AT_ONCE", 10)
    sizes = [4, 6, 1, 12, 0, 3, 7]  # batches: a b, c, d, e f g
    assert starts_of_batches(sizes) == [0, 2, 3, 4]
    taken = [Shard(place, 2).take(query_ids, "run", sizes) for place in range(2)]
    assert taken == [["a", "b", "c"], ["d", "e", "f", "g"]]
    assert Shard(0, 7).take(query_ids, "run", sizes) == ["a"]  # more shards than batches: by lists
    with pytest.raises(InputError, match=r"shard=0/8: run has only 7 queries to rank: use 7 shards at most"):
        Shard(0, 8).take(query_ids, "run", sizes)


def test_a_shard_is_a_place_from_0_and_a_number():
    assert all(map(is_shard, ("0/1", "3/4", "10/12")))
    assert not any(map(is_shard, ("4/4", "0/0", "-1/4", "1", "a/b", "1/4/2", "1 / 4")))
    with pytest.raises(InputError, match="shard=4/4: must name one of several shards, from 0, as in 0/4"):
        evaluate_check("shard=4/4")
    with pytest.raises(InputError, match="shard=0/4: without a model nothing is re-ranked"):
        evaluate_check("shard=0/4")
    with pytest.raises(InputError, match="latency_queries=3 with shard=0/4: times are not joined"):
        evaluate_check("shard=0/4", "model=x", "latency_queries=3")


def evaluate_check(*overrides: str) -> None:
    check_evaluate(compose_config("evaluate", *overrides))


# Evaluations


@pytest.mark.parametrize("suite", [False, True])
def test_a_joined_evaluation_is_that_of_the_whole(collection, model, tmp_path, monkeypatch, suite):
    monkeypatch.setattr(shards, "PAIRS_AT_ONCE", 20)  # two lists
    overrides = [f"model={model}", "task=files", "task.name=pair", "task.interpolate=0.5", "task.ideal=true"]
    overrides += [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    runs = {"first": collection["first_stage"], "second": collection["teacher"]}
    overrides += [f"+task.tasks.{name}.run={run}" for name, run in runs.items()] if suite else []
    overrides += [] if suite else [f"task.run={runs['first']}", f"task.teacher={runs['second']}"]
    evaluate(compose_config("evaluate", *overrides), tmp_path / "whole")
    for place in (2, 0, 1):
        results = evaluate(compose_config("evaluate", *overrides, f"shard={place}/3"), tmp_path / "shards" / str(place))
        assert results == dict.fromkeys([f"shard/{task}/queries" for task in (runs if suite else ["pair"])], 2)
        assert not list((tmp_path / "shards").rglob("*per_query.csv"))
    joined = join_all(tmp_path)
    finished = evaluate(resumed(joined, name="evaluate"), joined)
    assert finished == json.loads((tmp_path / "whole" / "results.json").read_text())
    names = [f"{part}{name}" for part in (("tasks/first/", "tasks/second/") if suite else ("",)) for name in (
        *("run.txt", "per_query.csv", "first_stage.per_query.csv", "ideal.per_query.csv", "interpolated.run.txt"),
    )]  # fmt: skip
    assert_same_files(tmp_path / "whole", joined, ["results.json", "config.yaml", *names])


def test_a_joined_run_without_some_of_the_first_stages_queries_is_not_measured(collection, model, tmp_path):
    overrides = [f"model={model}", "task=files", f"task.run={collection['first_stage']}"]
    overrides += [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    for place in range(2):
        evaluate(compose_config("evaluate", *overrides, f"shard={place}/2"), tmp_path / "shards" / str(place))
    joined = join_all(tmp_path)
    lines = collection["first_stage"].read_text().splitlines()
    collection["first_stage"].write_text("\n".join([*lines, "q9 Q0 d0 1 1 x"]) + "\n")
    collection["queries"].write_text(collection["queries"].read_text() + "q9\tone more\n")
    with pytest.raises(InputError, match=r"run.txt: lacks 1 queries of task.run \(first: q9\)"):
        evaluate(resumed(joined, name="evaluate"), joined)


# Annotations


def test_a_joined_annotation_by_an_llm_sends_no_request_and_is_that_of_the_whole(collection, serve, tmp_path):
    server = serve()
    qrels = f"qrels={collection['qrels']}"
    overrides = [*overrides_of(collection, server, "journal=none"), qrels]
    annotate(compose_config("annotate", *overrides), tmp_path / "whole")
    for place in range(3):
        results = annotate(compose_config("annotate", *overrides, f"shard={place}/3"), tmp_path / "shards" / str(place))
        assert not [name for name in results if "nDCG" in name]  # measured once they are joined
    joined = join_all(tmp_path)
    assert_same_files(tmp_path / "whole", joined, ["teacher.run", "config.yaml"])
    sent = server.asked.total()
    annotate(resumed(joined, name="annotate"), joined)
    assert server.asked.total() == sent
    assert_same_files(tmp_path / "whole", joined, ["teacher.run", "teacher.parquet", "results.json"])
    one, two = (read_journal(place / "journal.jsonl") for place in (tmp_path / "whole", joined))
    assert one == two and len(one) == 24


def read_journal(path: Path) -> dict[str, str]:
    entries = map(json.loads, path.read_text().splitlines())
    return {entry["key"]: entry["text"] for entry in entries}


def test_a_joined_annotation_by_cross_encoders_scores_nothing_again(collection, model, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PAIRS_AT_ONCE", 20)
    overrides = [f"{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    overrides += [f"run={collection['first_stage']}", "llm@teacher.llm=cross-encoder", f"teacher.llm.model={model}"]
    annotate(compose_config("annotate", *overrides), tmp_path / "whole")
    for place in range(3):
        annotate(compose_config("annotate", *overrides, f"shard={place}/3"), tmp_path / "shards" / str(place))
    joined = join_all(tmp_path)
    monkeypatch.setattr(CrossEncoder, "from_pretrained", None)
    annotate(resumed(joined, name="annotate"), joined)
    assert_same_files(tmp_path / "whole", joined, ["teacher.run", "teacher.parquet", "results.json", "config.yaml"])
    (joined / "teacher.run").write_text((joined / "teacher.run").read_text().replace("q0 Q0 d", "q0 Q0 x", 1))
    with pytest.raises(InputError, match="teacher.run: ranks other passages of query q0 than the first stage has"):
        annotate(resumed(joined, name="annotate"), joined)


def test_shards_of_an_annotation_are_the_jobs_of_a_sweep(collection, tmp_path):
    files = [f"{name}={collection[name]}" for name in ("passages", "queries")] + [f"run={collection['first_stage']}"]
    llm = ["teacher.llm.base_url=http://127.0.0.1:1/v1", "teacher.llm.model=x"]
    sweep = ["shard=0/2,1/2", "dry_run=true", f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra/launcher=processes"]
    done = run("-m", "distill", "annotate", "-m", *files, *llm, *sweep)
    assert done.returncode == 0, done.stderr
    logs = [(tmp_path / "sweep" / name / "job.log").read_text() for name in "01"]
    assert all("3 queries, " in log for log in logs) and logs[0] != logs[1]


def test_of_two_answers_to_a_request_the_joined_journal_has_the_one_that_was_paid_for(tmp_path):
    entry = {"text": "[1]", "tokens_in": 3, "tokens_out": 1, "seconds": 0.5, "score": None}
    shared, other = entry | {"is_shared": True}, entry | {"text": "[2]"}
    for name, entries in {"0": {"a": shared, "b": entry}, "1": {"a": entry, "b": other, "c": shared}}.items():
        (tmp_path / name).write_bytes(b"".join(line_of(key, one) for key, one in entries.items()))
    join_journals([tmp_path / "0", tmp_path / "1"], tmp_path / "joined")
    expected = line_of("b", entry) + line_of("a", entry) + line_of("c", shared)
    assert (tmp_path / "joined").read_bytes() == expected


# What is refused


@pytest.fixture(scope="module")
def config() -> str:
    """The config.yaml of a shard."""
    return saved_text(compose_config("evaluate", "model=x", "shard=0/3"))


@pytest.fixture
def three(config, tmp_path) -> Path:
    """Three shards that look like those of an evaluation."""
    for place in range(3):
        shard = tmp_path / "shards" / str(place)
        shard.mkdir(parents=True)
        (shard / "config.yaml").write_text(config.replace("shard: 0/3", f"shard: {place}/3"))
        (shard / "run.txt").write_text(f"q{place} Q0 d1 1 2.5 model\n")
        (shard / "results.json").write_text("{}\n")
    return tmp_path / "shards"


def no_change(three: Path) -> None:
    (three.parent / "empty").mkdir()
    for place in three.iterdir():
        shutil.move(place, three.parent / "elsewhere" / place.name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_change, "no shard there or below: expected runs with shard=0/4 and the like"),
        (lambda three: shutil.rmtree(three / "1"), "shard 1/3 is missing: run it, or name its directory"),
        (lambda three: shutil.copytree(three / "1", three / "x"), "/x and .*/1 are both shard 1/3: name only one"),
        (
            lambda three: (three / "2" / "results.json").unlink(),
            "/2: shard 2/3 has not finished: run its command again",
        ),
        (
            lambda three: edit(three / "1", "1/3", "1/4"),
            "/1 is shard 1/4, but .*/0 is shard 0/3: name the shards of one",
        ),
        (lambda three: edit(three / "1", "1/3", "7/3"), "config.yaml: shard=7/3 is none: restore it"),
        (
            lambda three: edit(three / "2", "layout: auto", "layout: padded"),
            r"/2 and .*/0 are shards of different runs \(layout: auto -> padded\): name those of one",
        ),
        (
            lambda three: (three / "1" / "run.txt").write_text("q0 Q0 d1 1 2.5 model\n"),
            "/1/run.txt and .*/0/run.txt both rank query q0: the first stage has changed between them",
        ),
        (
            lambda three: (three / "1" / "run.txt").unlink(),
            "/1: lacks run.txt, which other shards have: run this shard",
        ),
    ],
)
def test_shards_that_do_not_make_up_one_run_are_refused_in_one_line(three, damage, message):
    damage(three)
    with pytest.raises(InputError, match=message):
        join_all(three.parent)
    assert not (three.parent / "joined").exists()


def edit(shard: Path, old: str, new: str) -> None:
    text = (shard / "config.yaml").read_text()
    assert old in text
    (shard / "config.yaml").write_text(text.replace(old, new))


def test_shards_are_found_in_their_order_wherever_they_are(three):
    edit(three / "1", "device: auto", "device: cpu")  # which changes no result
    (three / "z").mkdir()
    (three / "z" / "config.yaml").write_text(saved_text(compose_config("train")))  # a run of another kind beside them
    shutil.move(three / "0", three / "x")
    _, found = find_shards([str(three / "1"), str(three)])
    assert [path.name for path in found] == ["x", "1", "2"]
    assert (join_all(three.parent) / "run.txt").read_text().split("\n")[0] == "q0 Q0 d1 1 2.5 model"
    with pytest.raises(InputError, match="joined: already exists: choose another name"):
        join_all(three.parent)


def test_a_report_leaves_shards_out(three, caplog):
    with pytest.raises(InputError, match="has only 3 shards, which are measured once `distill join` has joined them"):
        read_runs([str(three)])
    edit(three / "1", "shard: 1/3", "shard: null")
    with caplog.at_level("INFO"):
        runs, unfinished = read_runs([str(three)])
    assert [run.directory.name for run in runs] == ["1"] and not unfinished
    assert "left out: 2 shards" in caplog.text
