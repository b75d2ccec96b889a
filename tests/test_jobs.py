"""Output directories: one run each, resumed or refused, never mixed; and what `resume=DIR` reads there."""

import copy
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from distill import jobs
from distill.commands.annotate import annotate
from distill.config.composition import make_directory
from distill.config.overrides import as_override
from distill.config.resuming import changes, command_of, refused
from distill.errors import InputError
from distill.jobs import directory_of_job, open_run, resume_command, state_of
from distill.models.cross_encoder import CrossEncoder
from evaluate import evaluate
from tests.helpers.commands import run, start
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.paths import ROOT
from train import train

MARKS = st.text(alphabet="ab1e5-/.,=:'\"\\ ${}[]()\n\t~+@%é中?", max_size=12)


PARSER = OverridesParser.create()


def snapshot(directory) -> dict:
    """Content of every file but the lock."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "run.lock"}


def started(directory, *overrides, name: str = "train"):
    """Leave what a run leaves that was killed: config.yaml, and something to resume."""
    directory.mkdir(parents=True, exist_ok=True)
    cfg = compose_config(name, *overrides)
    OmegaConf.save(cfg, directory / "config.yaml")
    for path in (directory / "checkpoints" / "last.pt", directory / "metrics.jsonl"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x\n")
    return cfg


def assert_refused(directory, message: str, *overrides) -> None:
    with pytest.raises(InputError, match=message) as caught, open_run(resumed(directory, *overrides), directory):
        pass
    assert "\n" not in str(caught.value)


@settings(max_examples=300)
@given(text=(MARKS | st.text(max_size=20) | st.sampled_from(["null", "true", "1e5", "007"])).filter("???".__ne__))
def test_a_printed_override_is_parsed_to_the_same_text_and_no_interpolation(text):
    [override] = PARSER.parse_overrides([as_override("resume", text)])
    [several] = PARSER.parse_overrides([as_override("runs", [text, "b.run"])])
    assert list(OmegaConf.create({"runs": several.value()}).runs) == [text, "b.run"]
    assert not override.is_sweep_override() and OmegaConf.create({"resume": override.value()}).resume == text


def test_the_command_that_resumes_a_directory_of_any_name_can_be_pasted(tmp_path):
    directory = tmp_path / "lr=1e-3,seed=0 it's ${x}"
    words = subprocess.check_output(
        ["sh", "-c", f"printf '%s\\n' {resume_command(compose_config('train'), directory)}"]
    )
    python, script, override = words.decode().splitlines()
    assert (python, script) == ("python", "train.py")
    assert compose_config("train", override).resume == str(directory)


def test_commands_of_the_same_second_get_directories_of_their_own(tmp_path):
    made = [make_directory(tmp_path / "runs" / "12-00-1") for _ in range(3)]
    assert [path.name for path in made] == ["12-00-1", "12-00-1-2", "12-00-1-3"] and all(map(os.path.isdir, made))


def test_processes_started_at_once_leave_one_directory_each_and_printing_leaves_none(collection, tmp_path):
    files = [f"task.run={collection['first_stage']}", f"task.qrels={collection['qrels']}", "model=null", "task=files"]
    place = f"{tmp_path}/runs/same"
    command = ["evaluate.py", *files, f"hydra.run.dir=${{output_dir:null,{place}}}"]
    runs = [start(*command, f"task.depth={depth}") for depth in (2, 3, 4)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    directories = sorted((tmp_path / "runs").iterdir())
    assert [path.name for path in directories] == ["same", "same-2", "same-3"]
    assert sorted(OmegaConf.load(path / "config.yaml").task.depth for path in directories) == [2, 3, 4]
    for path in directories:
        depth = OmegaConf.load(path / "config.yaml").task.depth
        assert len((path / "run.txt").read_text().splitlines()) == 6 * depth
    run(*command, "--cfg", "all", "--resolve", check=True)
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_a_used_directory_is_refused_and_left_as_it_is(file_overrides, collection, tmp_path):
    directory = tmp_path / "run"
    overrides = [*file_overrides, "train.max_steps=2"]
    train(compose_config("train", *overrides), directory)
    before = snapshot(directory)
    many = ["seed=1", "train.batch_size=3", "optimizer.eps=1e-3", "optimizer.weight_decay=0.5", "model.dropout=0.5"]
    many += ["train.validate_every=1", "model.query_length=4"]
    for changed, message in (
        ([], "holds the finished training of this configuration: use another directory, or measure it again with"),
        (["seed=1"], r"belongs to another configuration \(seed: 0 -> 1\): use another directory"),
        (many, "; and 2 more"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            train(compose_config("train", *overrides, *changed), directory)
        assert "\n" not in str(caught.value) and str(caught.value).count("->") <= 5
    files = [f"task.{name}={collection[name]}" for name in ("qrels", "passages", "queries")]
    files += ["task=files", f"task.run={collection['first_stage']}"]
    with pytest.raises(InputError, match="holds an output of train, not of evaluate: use another"):
        evaluate(compose_config("evaluate", *files), directory)
    names = ("passages", "queries")
    files = [f"run={collection['first_stage']}", *(f"{name}={collection[name]}" for name in names)]
    with pytest.raises(InputError, match="holds an output of train, not of annotate: use another"):
        annotate(compose_config("annotate", *files, "teacher.llm.model=x"), directory)
    (directory / "config.yaml").rename(tmp_path / "away.yaml")
    with pytest.raises(InputError, match="holds files of a run, but no config.yaml: move them away"):
        train(compose_config("train", *overrides), directory)
    (tmp_path / "away.yaml").rename(directory / "config.yaml")
    assert snapshot(directory) == before


def test_a_stopped_run_of_the_same_configuration_is_resumed_without_being_asked(tmp_path, caplog):
    directory = tmp_path / "run"
    started(directory, "seed=3")
    cfg = compose_config("train", "seed=3", "train.device=cpu", "logger=wandb", "logger.mode=offline")
    with caplog.at_level("INFO"), open_run(cfg, directory):
        assert cfg.resume == str(directory)
    assert "resuming the stopped training of this configuration" in caplog.text
    (directory / "checkpoints" / "last.pt").unlink()  # killed before its first checkpoint: it starts anew
    cfg = compose_config("train", "seed=3")
    with open_run(cfg, directory):
        assert cfg.resume is None
    with pytest.raises(InputError, match="another configuration"):
        state_of(compose_config("train", "seed=4"), directory)


def test_a_directory_is_held_while_its_run_lives_and_free_when_it_is_killed(tmp_path):
    directory = tmp_path / "run"
    started(directory)
    code = (
        "import sys, time, multiprocessing; from pathlib import Path; from distill.storage.locking import locked\n"
        "with locked(Path(sys.argv[1]), ''):\n"
        "    multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(directory / "run.lock")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    before = snapshot(directory)
    assert_refused(directory, rf"process {process.pid} on .* still works there: wait for it, or use another directory")
    assert snapshot(directory) == before
    process.kill()
    process.wait()  # the process that it has forked still lives
    with open_run(resumed(directory), directory):
        assert_refused(directory, "still works there")
    with open_run(resumed(directory), directory):
        pass
    os.killpg(process.pid, 9)


def test_of_many_resumes_at_once_one_has_the_directory_and_the_others_change_nothing(tmp_path):
    directory, tried = tmp_path / "run", threading.Barrier(6, timeout=60)
    started(directory)
    cfg, before, outcomes = resumed(directory), snapshot(directory), []

    def resume(cfg):
        tried.wait()
        try:
            with open_run(cfg, directory):
                outcomes.append("held")
                tried.wait()  # until the others have been refused
        except InputError as error:
            outcomes.append(str(error))
            tried.wait()

    threads = [threading.Thread(target=resume, args=(copy.deepcopy(cfg),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6 and outcomes.count("held") == 1
    assert all("still works there: wait for it" in one for one in outcomes if one != "held")
    after = snapshot(directory)
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} <= {directory / "config.yaml"}  # written anew


def test_resume_alone_takes_the_configuration_from_the_directory(file_overrides, tmp_path):
    directory = tmp_path / "lr=1e-3,seed=0"
    overrides = [*file_overrides, "loss=adrmse", "loss.alpha=2", "seed=3", "data.depth=5"]
    cfg = started(directory, *overrides)
    for repeated in ([], overrides, ["seed=3"], ["loss=adrmse"]):
        found = resumed(directory, *repeated)
        assert changes(cfg, found) == {} and found.resume == str(directory), repeated
        assert (found.loss.alpha, found.seed, found.data.depth, found.optimizer.lr) == (2.0, 3, 5, 1e-3)
    assert OmegaConf.get_type(found.train).__name__ == "Train" and OmegaConf.is_struct(found)
    with open_run(found, directory):
        assert OmegaConf.load(directory / "config.yaml").resume is None


def test_what_may_differ_is_taken_and_all_else_is_refused_with_its_line(file_overrides, tmp_path, caplog, backbone):
    directory = tmp_path / "run"
    started(directory, *file_overrides, "seed=3", "loss=lce")
    (tmp_path / "moved").symlink_to(backbone)
    (tmp_path / "P.tsv").write_text("")
    allowed = {
        "train.device": "cpu", "train.num_workers": 1, "train.max_tokens": 50, "train.log_every": 3,
        "train.save_every": 7, "train.compile": "'false'", "data.passages": str(tmp_path / "P.tsv"),
        "validation.run": "x.run", "backbone.name": str(tmp_path / "moved"), "train.max_steps": 12,
    }  # fmt: skip
    found = resumed(directory, *(f"{key}={value}" for key, value in allowed.items()))
    with caplog.at_level("INFO"), open_run(found, directory):
        pass
    assert "resumed with another backbone.name: " in caplog.text
    saved = OmegaConf.load(directory / "config.yaml")
    assert {key: OmegaConf.select(saved, key) for key in allowed} == allowed | {"train.compile": "false"}
    assert saved.seed == 3
    for override, message in (
        ("seed=0", r"\(seed: 3 -> 0\)"),  # the default, but named
        (
            "loss=ranknet",
            r"\(loss.guided: False -> None; loss.implementation: None -> auto; loss.label_smoothing: 0.0 -> None; "
            r"loss.name: lce -> ranknet; loss.target: label -> rank\)",
        ),
        ("loss=bce", r"\(loss.guided: False -> None; loss.name: lce -> bce\)"),
        ("train.max_steps=11", r"\(train.max_steps: 12 -> 11\)"),
        ("train.max_steps=null", r"\(train.max_steps: 12 -> None\)"),
        ("backbone.name=org/name", r"\(backbone.name: .* -> org/name\)"),
        ("train.precision=bfloat16", r"\(train.precision: auto -> bfloat16\)"),
    ):
        assert_refused(directory, f"differs from that of the stopped training {message}: leave that out", override)
    assert OmegaConf.load(directory / "config.yaml") == saved


def test_another_option_of_a_group_is_taken_whole_also_if_it_is_the_default(tmp_path):
    started(tmp_path, "logger=wandb", "logger.mode=offline", "logger.project=p")
    assert resumed(tmp_path, "logger=wandb").logger.project == "p"
    logger = resumed(tmp_path, "logger=none").logger
    assert (logger.name, logger.mode, logger.project) == ("none", "disabled", None)


def test_steps_that_only_a_variable_has_may_be_given_anew():
    command = command_of(compose_config("train"))
    given = {"train.max_steps": ("${oc.env:STEPS}", 80)}
    assert refused(given, command, resumed=True) == {} and refused(given, command, resumed=False) == given
    assert refused({"train.max_steps": (80, "${oc.env:STEPS}")}, command, resumed=True)


def test_only_a_run_that_is_named_may_have_other_files_or_more_steps(file_overrides):
    old = compose_config("train", *file_overrides)
    new = compose_config("train", *file_overrides, "data.passages=x.tsv", "train.max_steps=9", "train.max_tokens=5")
    assert refused(changes(old, new), command_of(old), resumed=True) == {}
    assert set(refused(changes(old, new), command_of(old), resumed=False)) == {"data.passages", "train.max_steps"}


def test_the_tasks_of_a_suite_are_kept_and_a_moved_file_of_one_can_be_named(collection, tmp_path):
    overrides = ["task=files", "task.name=pair", f"task.qrels={collection['qrels']}", "+task.tasks.a.run=A.run",
                 "+task.tasks.b.run=B.run"]  # fmt: skip
    cfg = started(tmp_path / "run", *overrides, name="evaluate")
    assert changes(cfg, resumed(tmp_path / "run", name="evaluate")) == {}
    found = resumed(tmp_path / "run", "+task.tasks.b.run=C.run", name="evaluate")
    assert found.task.tasks == {"a": {"run": "A.run"}, "b": {"run": "C.run"}}
    assert changes(cfg, found) == {"task.tasks.b.run": ("B.run", "C.run")}
    without = compose_config("evaluate", *overrides[:-1])
    assert refused(changes(cfg, without), command_of(cfg), resumed=True) == {"task.tasks.b.run": ("B.run", None)}


def test_keys_of_earlier_versions_have_their_new_names_and_new_keys_their_defaults(tmp_path):
    directory = tmp_path / "run"
    started(directory, "optimizer.warmup=7")
    path = directory / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["optimizer"]["warmup_steps"] = int(saved["optimizer"].pop("warmup"))
    del saved["licence"], saved["model"]["dropout"], saved["model"]["layout"]
    path.write_text(yaml.safe_dump(saved))
    found = resumed(directory)
    assert (found.optimizer.warmup, found.model.dropout, found.model.layout) == (7, None, "auto")
    assert changes(OmegaConf.load(path), found) == {}
    path.write_text(path.read_text() + "surprise: 1\n")
    with pytest.raises(InputError, match="Key 'surprise' not in 'TrainConfig': see `--cfg job`"):
        resumed(directory)
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match="config.yaml:2: is not YAML"):
        resumed(directory)


@pytest.mark.parametrize(("suite", "run"), [(False, "bm25"), (True, "bm25"), (False, "A.run")])
def test_a_first_stage_made_before_bm25_had_keys_is_made_the_same_way(tmp_path, suite, run):
    overrides = ["task=files", f"+task.tasks.a.run={run}" if suite else f"task.run={run}"]
    cfg = started(tmp_path, *overrides, name="evaluate")
    path = tmp_path / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    del saved["task"]["bm25"]
    path.write_text(yaml.safe_dump(saved))
    found = resumed(tmp_path, name="evaluate")
    earlier = {"k1": 0.9, "b": 0.4, "stemmer": "none", "stop_words": "bm25s"}
    assert found.task.bm25 == (earlier if run == "bm25" else cfg.task.bm25)
    assert changes(OmegaConf.load(path), found) == {}
    differences = {"task.bm25.stemmer": ("none", "porter"), "task.bm25.stop_words": ("bm25s", "lucene")}
    assert changes(OmegaConf.load(path), cfg) == (differences if run == "bm25" else {})


@pytest.mark.parametrize(("old", "new"), [("adr_mse", "adrmse"), ("margin_mse", "marginmse")])
def test_a_loss_named_as_in_earlier_versions_is_resumed(tmp_path, old, new):
    cfg = started(tmp_path, f"loss={new}", "train.max_steps=12")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace(f"name: {new}", f"name: {old}"))
    assert OmegaConf.load(tmp_path / "config.yaml").loss.name == old
    assert state_of(cfg, tmp_path) == "stopped"
    found = resumed(tmp_path)
    assert found.loss == cfg.loss and changes(cfg, found) == {}
    assert resumed(tmp_path, f"loss={new}").loss == cfg.loss
    assert_refused(tmp_path, f"loss.name: {old.replace('_', '')} -> ranknet", "loss=ranknet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train", "no checkpoints/last.pt there: give the output directory of a training"),
        ("evaluate", "no config.yaml there: give the output directory of an evaluation"),
        ("annotate", "no config.yaml there: give the output directory of an annotation"),
        ("judge", "no config.yaml there: give the output directory of a judgment"),
        ("generate", "no config.yaml there: give the output directory of a generation"),
    ],
)
def test_a_directory_without_a_run_cannot_be_resumed(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        resumed(tmp_path, name=name)
    started(tmp_path, name="evaluate" if name == "train" else "train")
    with pytest.raises(InputError, match=f"holds an output of .*, not of {name}:"):
        resumed(tmp_path, name=name)


def test_a_run_of_more_steps_goes_on_from_its_end_and_says_what_the_schedule_does(file_overrides, tmp_path, caplog):
    directory = tmp_path / "run"
    overrides = [*file_overrides, "optimizer.schedule=linear", "optimizer.warmup=2"]
    first = train(compose_config("train", *overrides), directory)
    before = (directory / "results.json").read_bytes()
    with caplog.at_level("INFO"):
        results = train(resumed(directory, "train.max_steps=10"), directory)
    # (10 - 6) / (10 - 2) of 1e-3
    line = "the linear schedule now ends at step 10, not 6: the learning rate at step 6 is 0.0005 instead of 0"
    assert line in caplog.messages and "resumed with another train.max_steps: 6 -> 10" in caplog.messages
    assert (first["train/steps"], results["train/steps"]) == (6, 10)
    assert (directory / "results-steps-6.json").read_bytes() == before
    assert state_of(compose_config("train", *overrides, "train.max_steps=10"), directory) == "finished"


def test_a_resumed_run_that_is_refused_leaves_its_directory_as_it_was(file_overrides, collection, tmp_path):
    directory = tmp_path / "run"
    train(compose_config("train", *file_overrides), directory)
    before = snapshot(directory)
    bad = tmp_path / "bad.run"
    bad.write_text("q0 Q0 d1 1\n")
    with pytest.raises(InputError, match="bad.run:1: 4 columns instead of six"):
        train(resumed(directory, "train.max_steps=10", f"teacher.path={bad}"), directory)
    assert snapshot(directory) == before
    bad.write_text("".join(collection["teacher"].read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(
        InputError, match=r"\[2, 20\] lists and passages to train on, but \[6, 60\] before: give the files"
    ):
        train(resumed(directory, "train.max_steps=10", f"teacher.path={bad}"), directory)
    assert snapshot(directory) == before
    last = directory / "checkpoints" / "last.pt"
    for content in (b"", last.read_bytes()[:5000], b"text"):
        last.write_bytes(content)
        with pytest.raises(InputError, match=r"last.pt: is damaged .*: the last good one is previous.pt, of step 4"):
            train(resumed(directory, "train.max_steps=10"), directory)


def test_an_evaluation_is_resumed_with_the_run_that_it_re_ranked(collection, backbone, tmp_path):
    model, directory = tmp_path / "model", tmp_path / "out"
    CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).save_pretrained(model)
    passages = collection["passages"].read_text().splitlines()
    collection["passages"].write_text(
        "\n".join(line if n % 3 else line.split("\t")[0] + "\t" for n, line in enumerate(passages))
    )
    sources = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    overrides = [f"model={model}", "task=files", *sources, f"task.run={collection['first_stage']}"]
    results = evaluate(compose_config("evaluate", *overrides), directory)
    assert evaluate(resumed(directory, name="evaluate"), directory) == results  # without empty passages, as before
    other = tmp_path / "other.qrels"
    other.write_text("q0 0 d1 1\n")
    found = evaluate(resumed(directory, f"task.qrels={other}", name="evaluate"), directory)
    rows = (directory / "per_query.csv").read_text().splitlines()[1:]
    assert rows == [f"q0,{found['test/files/nDCG@10']}"]
    lines = collection["first_stage"].read_text().splitlines(keepends=True)
    (tmp_path / "other.run").write_text("".join(lines[3:]))
    with pytest.raises(InputError, match="run.txt: re-ranks other passages of query q0 than task.run has"):
        evaluate(resumed(directory, f"task.run={tmp_path / 'other.run'}", name="evaluate"), directory)


def test_a_job_in_a_directory_of_several_levels_stays_in_its_sweeps_group(tmp_path):
    job = tmp_path / "losses" / "loss=lce" / "seed=0"
    job.mkdir(parents=True)
    (tmp_path / "losses" / "multirun.yaml").touch()
    assert compose_config("train", "logger=wandb", as_override("resume", job)).logger.group == "losses"


def test_a_job_that_starts_elsewhere_works_where_its_sweep_was_started(tmp_path, monkeypatch):
    home, cluster = tmp_path / "home", tmp_path / "cluster"
    home.mkdir()
    for sweep_dir, place in {"sweep": "home/sweep", "../sweep": "sweep", f"{tmp_path}/other": "other"}.items():
        made = cluster / "there" / sweep_dir / "3"
        made.mkdir(parents=True)
        monkeypatch.chdir(cluster / "there")
        sweep, runtime = OmegaConf.create({"dir": sweep_dir, "subdir": "3"}), OmegaConf.create({"cwd": str(home)})
        monkeypatch.setattr(jobs.HydraConfig, "get", lambda: OmegaConf.create({"sweep": sweep, "runtime": runtime}))  # noqa: B023
        monkeypatch.setattr(jobs, "run_directory", lambda: made.resolve())  # noqa: B023
        assert directory_of_job() == tmp_path / place / "3" and Path.cwd() == home
        assert made.exists() == sweep_dir.startswith("/")
        assert directory_of_job() == made.resolve()  # nothing to do
    monkeypatch.chdir(cluster)
    home.rmdir()
    with pytest.raises(InputError, match="home: no such directory on .*: start the sweep in a file system that all"):
        directory_of_job()
