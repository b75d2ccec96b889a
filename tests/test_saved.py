"""Saved configurations: plain data, without secrets; damaged and hostile ones are refused in one line."""

import json
import time

import pytest
import yaml
from omegaconf import OmegaConf

from distill.config.composition import ROOT, flatten
from distill.config.local_files import with_local_files
from distill.config.resumable import read_saved
from distill.config.resuming import changes
from distill.config.saved import MAX_BYTES, as_plain, read_plain, saved_text
from distill.config.schema import TrainConfig
from distill.config.suites import split_suite
from distill.config.types import fault_of
from distill.errors import InputError
from distill.evaluation.results import write_per_query
from distill.evaluation.significance import read_per_query
from distill.export.model_card import exported_card, make_card, write_card
from distill.jobs import open_run, read_results, state_of
from distill.report.runs import read_config, read_runs
from distill.secrets import for_others
from distill.sources.literals import escaped
from distill.storage.quoting import from_cell, to_cell, to_markdown
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.reports import make_run, report_on
from tests.stress.fuzz_runs import HOSTILE

SECRET = "swordfish-of-the-environment"


@pytest.fixture
def variable(monkeypatch):
    monkeypatch.setenv("SOME_VALUE", SECRET)


def saved(cfg, directory):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(saved_text(cfg))
    return directory / "config.yaml"


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("train", []), ("train", ["task=trec-dl", "logger=wandb"]), ("evaluate", ["model=x"]), ("annotate", ["run=x"])],
)
def test_what_is_written_is_resolved_and_read_back_as_it_was(tmp_path, name, overrides):
    cfg = compose_config(name, *overrides)
    path = saved(cfg, tmp_path)
    # the values, as OmegaConf has them; files of the project are named without the place where it is installed
    assert flatten(read_plain(path)) == flatten(as_plain(cfg)) == flatten(OmegaConf.to_container(cfg, resolve=True))
    assert flatten(OmegaConf.load(path)) == flatten(cfg)
    assert str(ROOT) not in path.read_text() and ("${sample:" in path.read_text() or name == "annotate")
    assert "${data." not in path.read_text() and "${backbone" not in path.read_text()
    older = tmp_path / "older.yaml"
    OmegaConf.save(cfg, older)  # unresolved, as in earlier versions
    assert flatten(read_plain(older)) == flatten(as_plain(cfg))


def test_text_that_looks_like_an_interpolation_stays_text(tmp_path):
    cfg = compose_config("train", r"licence='a\${b} \\\\\${c'")
    assert cfg.licence.startswith("a${b}")
    assert read_plain(saved(cfg, tmp_path))["licence"] == cfg.licence


@pytest.mark.usefixtures("variable")
def test_a_value_of_the_environment_is_written_as_its_variable(tmp_path, monkeypatch):
    cfg = compose_config(
        "train", "teacher.citation='see ${oc.env:SOME_VALUE}'", "licence=${teacher.citation}",
        "data.depth=${oc.env:SOME_DEPTH}",
    )  # fmt: skip
    monkeypatch.setenv("SOME_DEPTH", "7")
    assert cfg.data.depth == 7 and SECRET in cfg.licence
    path = saved(cfg, tmp_path)
    plain = read_plain(path)
    assert SECRET not in path.read_text() and "see ${oc.env:SOME_VALUE}" in path.read_text()
    assert plain["teacher"]["citation"] == plain["licence"] == "see ${oc.env:SOME_VALUE}"
    assert changes(plain, cfg) == {}


def test_pasted_secrets_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "abcdefgh-1")
    cfg = compose_config("annotate", "teacher.llm.base_url=http://me:hunter2@host/v1", "teacher.llm.model=abcdefgh-1")
    text = saved(cfg, tmp_path).read_text()
    assert "hunter2" not in text and "http://***@host/v1" in text and "model: ${oc.env:MY_API_KEY}" in text
    secret = OmegaConf.create({"window": 1, "llm": {"api_key": "short", "password": None, "tokens": 5}})
    assert yaml.safe_load(saved_text(secret)) == {"window": 1, "llm": {"api_key": "***", "password": None, "tokens": 5}}


@pytest.mark.usefixtures("variable")
def test_a_received_configuration_reads_nothing_of_the_environment(tmp_path):
    directory = tmp_path / "runs" / "a"
    make_run(directory, {"loss.name": "lce", "licence": "${oc.env:SOME_VALUE}", "seed": 0}, {"test/a/nDCG@10": 0.5})
    make_run(tmp_path / "runs" / "b", {"loss.name": "lce", "licence": "x", "seed": 0}, {"test/a/nDCG@10": 0.4})
    assert read_config(directory)["licence"] == "${oc.env:SOME_VALUE}"
    out = report_on(tmp_path / "runs")
    for path in out.rglob("*.*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert "${oc.env:SOME_VALUE}" in (out / "results.csv").read_text()


@pytest.mark.usefixtures("variable")
def test_text_of_a_received_run_is_not_looked_up_where_tasks_and_files_are_taken_apart(tmp_path):
    text = "${oc.env:SOME_VALUE}"
    plain = as_plain(compose_config("evaluate", "model=null", "task=files", "task.run=x", "task.qrels=x"))
    plain["task"] |= {"passages": text, "tasks": {"a": {"queries": text, "run": "x"}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    received = OmegaConf.create(escaped(read_saved(tmp_path)))
    [part] = split_suite(received.task)
    assert (part.passages, part.queries) == (text, text)
    assert with_local_files(part).passages == with_local_files(received.task).passages == text


@pytest.mark.usefixtures("variable")
def test_a_resumed_run_has_a_variable_from_the_command_line_and_never_from_its_directory(tmp_path):
    directory = tmp_path / "run"
    given = "licence=${oc.env:SOME_VALUE}"
    saved(compose_config("train", given, "seed=3"), directory)
    (directory / "checkpoints").mkdir()
    (directory / "checkpoints" / "last.pt").write_text("x")
    with pytest.raises(InputError, match=r"licence was \$\{oc.env:SOME_VALUE\}, which is not kept .*: give it again"):
        resumed(directory)
    found = resumed(directory, given)
    assert (found.licence, found.seed) == (SECRET, 3)
    with open_run(found, directory):  # it is the same configuration
        assert SECRET not in (directory / "config.yaml").read_text()
    assert state_of(compose_config("train", given, "seed=3"), directory) == "stopped"


def test_a_file_that_moved_is_named_once_when_a_run_is_resumed(tmp_path):
    directory = tmp_path / "run"
    overrides = [
        "data=files",
        "teacher=run",
        "teacher.path=t.run",
        "data.queries=q.tsv",
        "task=files",
        "task.run=x.run",
    ]
    saved(compose_config("train", *overrides, "data.passages=old.tsv"), directory)
    (directory / "checkpoints").mkdir()
    (directory / "checkpoints" / "last.pt").write_text("x")
    found = resumed(directory, "data=files", "task=files", "data.passages=new.tsv")
    assert (found.data.passages, found.task.passages, found.data.queries) == ("new.tsv", "new.tsv", "q.tsv")


@pytest.mark.parametrize(
    "content", [*HOSTILE, b"", b"5\n", b"- a\n", b"x" * (MAX_BYTES + 1)], ids=range(len(HOSTILE) + 4)
)
def test_a_hostile_configuration_is_refused_in_one_line_and_at_once(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    (tmp_path / "results.json").write_text("{}")
    began = time.process_time()
    for read in (read_saved, lambda path: read_runs([str(path)]), lambda path: resumed(path, name="evaluate")):
        try:
            read(tmp_path)
        except InputError as error:
            assert "config.yaml" in str(error) and "\n" not in str(error)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("train", 5, "train is 5: expected keys"),
        ("seed", "x", "seed is 'x': expected a whole number"),
        ("seed", True, "seed is True: expected a whole number"),
        ("optimizer.betas", [0.9, "x"], "optimizer.betas is 'x': expected a number"),
        ("loss", [], r"loss is \[\]: expected keys"),
        ("task.tasks", {"a": 1}, "task.tasks.a is 1: expected keys"),
        ("task.measures", "nDCG", "task.measures is 'nDCG': expected a list"),
        ("backbone.name", {}, "backbone.name is {}: expected text"),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path, key, value, fault):
    plain = as_plain(compose_config("train"))
    assert fault_of(plain, TrainConfig) is None
    group, _, name = f".{key}".rpartition(".")
    node = plain
    for part in group.strip(".").split(".") if group.strip(".") else ():
        node = node[part]
    node[name] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError, match=f"config.yaml: {fault}: restore it"):
        read_saved(tmp_path)


def test_an_empty_configuration_is_no_obstacle(tmp_path):
    (tmp_path / "config.yaml").touch()
    cfg = compose_config("annotate", "run=x", "passages=x", "queries=x", "teacher.llm.model=x")
    assert state_of(cfg, tmp_path) == "new"
    with open_run(cfg, tmp_path):  # nothing else is in there: it is made anew
        assert read_saved(tmp_path)["window"] == cfg.window
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "journal.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"config.yaml: is empty: write it anew .*, or remove .* and start again"):
        state_of(cfg, tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": "x"}', '{"a": NaN}', "[" * 100_000, "9" * 5000, '{"a": true}']
)
def test_damaged_results_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match="results.json:1: ") as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_query_ids_that_a_spreadsheet_would_compute_are_quoted_and_read_back(tmp_path):
    ids = ["=1+1", "+a", "-5", "-x", "@x", "'=1", "'q", "q1", "a,b", '"', "''=x", "=cmd|' /C calc'!A0"]
    write_per_query(tmp_path, {query_id: {"nDCG@10": 0.5} for query_id in ids})
    cells = [line.partition(",")[0] for line in (tmp_path / "per_query.csv").read_text().splitlines()[1:]]
    assert cells[:6] == ["'=1+1", "'+a", "-5", "'-x", "'@x", "''=1"] and cells[6:8] == ["'q", "q1"]
    assert list(read_per_query(tmp_path / "per_query.csv")["nDCG@10"]) == ids
    assert [from_cell(to_cell(one)) for one in ids] == ids


def test_names_are_quoted_in_every_table(tmp_path):
    for name in ("=1+1", "<script>alert(1)</script>", "a\n| b `c` $d_", "[x](javascript:y)"):
        config = {"loss.name": "lce", "teacher.name": name, "seed": 0}
        make_run(tmp_path / "runs" / str(abs(hash(name))), config, {"test/a/nDCG@10": 0.5})
    out = report_on(tmp_path / "runs", "title='<b>R</b>'")
    html, markdown, latex = ((out / name).read_text() for name in ("index.html", "results.md", "results.tex"))
    assert "<script>alert" not in html + markdown and "<b>R" not in html + markdown and "&lt;script&gt;" in html
    assert "](javascript" not in markdown and r"a\n\| b \`c\` $d_" in markdown
    assert r"a\textbackslash{}n\textbar{} b `c` \$d\_" in latex
    assert to_markdown("loss=ranknet, data.depth=50") == "loss=ranknet, data.depth=50"


CARDS = [
    "---\ntags: 5\n---\n",
    "---\nbase_model: '<b>'\n---\n",
    "---\na: " + "[" * 3000,
    "---\nbase_model: [a]\n---\n",
    "\xff",
]


@pytest.mark.parametrize("text", CARDS, ids=range(len(CARDS)))
def test_the_card_of_an_earlier_stage_can_do_no_harm(tmp_path, text):
    (tmp_path / "README.md").write_text(text, encoding="latin-1")
    cfg = compose_config("train", "backbone=hf", f"backbone.name={tmp_path}")
    assert f"# {tmp_path.name} taught by" in make_card(cfg, {"train/steps": 1}, None)
    exported_card(tmp_path, "onnx")


def test_what_others_wrote_is_escaped_in_a_card_and_a_card_that_fails_costs_a_warning(tmp_path, caplog, monkeypatch):
    cfg = compose_config(
        "train", "teacher.name='<script>x`'", r"teacher.citation='a | b](c) https://x.org'", "licence='x: [\n'"
    )  # fmt: skip
    command = "python train.py licence='```' teacher.path=/home/me/secret/t.run backbone.name=" + str(tmp_path / "m")
    card = make_card(cfg, {"train/steps": 1}, command)
    assert (
        "<script>" not in card.partition("\n# ")[2]
        and r"&lt;script>x\`" in card
        and r"a \| b]\(c) https://x.org" in card
    )
    assert "````\npython train.py" in card and "teacher.path=t.run" in card and str(tmp_path) not in card
    write_card(tmp_path, cfg, {}, None)  # without steps
    assert "no model card (KeyError: 'train/steps')" in caplog.text and not (tmp_path / "README.md").exists()


def test_paths_of_this_machine_are_left_out_for_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, shown in {
        f"a={tmp_path}/out/t.run": "a=out/t.run",
        "a='/home/me/x.tsv'": "a='x.tsv'",
        "[/a/b.tsv,~/c.tsv]": "[b.tsv,c.tsv]",
        "https://host/a/b c/d 1/2 and/or": "https://host/a/b c/d 1/2 and/or",
        "- first stage: /data/bm25.run, its top 100": "- first stage: bm25.run, its top 100",
    }.items():
        assert for_others(text) == shown


def test_the_data_card_has_names_only():
    from collections import Counter

    from distill.teachers.data_card import data_card

    names = ("passages", "queries", "run")
    cfg = compose_config("annotate", *(f"{name}=/home/me/{name}.tsv" for name in names), "teacher.llm.model=/home/me/m")
    card = data_card(cfg, {}, {}, None, Counter(), [])
    assert "/home" not in card and "- first stage: run.tsv, its top 100" in card and "- teacher: m (http)" in card


def test_aliases_are_read_as_what_they_stand_for(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &a [1e-3, x]\nb: {c: *a, d: *a}\ndate: 2020-01-01\n")
    plain = {"a": [0.001, "x"], "b": {"c": [0.001, "x"], "d": [0.001, "x"]}, "date": "2020-01-01"}
    assert read_plain(tmp_path / "config.yaml") == plain


def test_runs_that_name_each_other_as_the_stage_before_end(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        config = {"loss": {"name": "lce"}, "backbone": {"name": str(tmp_path / other / "model")}, "stages": "x"}
        (tmp_path / one).mkdir()
        (tmp_path / one / "config.yaml").write_text(json.dumps(config))
    assert read_config(tmp_path / "a")["stages"] == 2


def test_a_fuzz_of_saved_runs_finds_nothing():
    from tests.stress.fuzz_runs import main

    counts = main(num_cases=6, seed=3, children=False)
    assert counts.total() == 6 and not [outcome for outcome in counts if "FAILED" in outcome]
