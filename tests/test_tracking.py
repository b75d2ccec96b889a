"""Weights & Biases: what an offline run leaves in its `.wandb` file, read back record by record."""

import csv
import json
import os
import re
import signal
import struct
import time

import pytest
from omegaconf import OmegaConf

from distill.errors import InputError
from distill.training.tracking import ARTIFACT_FILE, ID_FILE
from tests.helpers.commands import run, start
from tests.helpers.configuration import compose_config
from tests.helpers.training import run_train
from train import train

OFFLINE = ["logger=wandb", "logger.mode=offline"]


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    """Neither the environment nor the home directory of who runs the tests has a say."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def read_finished(directory) -> list:
    """Read the records of a run that has ended; W&B's own process may still be writing them."""
    while not exit_codes_of(records := read_records(directory)):
        time.sleep(0.05)  # W&B's process ends with the record: pytest's own time-out guards against none
    return records


def read_records(directory) -> list:
    """Read the protobuf records of a run's only `.wandb` file, which is a LevelDB log behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    log, block, header = path.read_bytes(), 32768, 7
    records, parts, place = [], b"", header
    while place + header <= len(log):
        if block - place % block < header:  # a header is never cut: the block ends with zeros
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", log, place)
        if place + header + length > len(log):
            break  # half written
        parts += log[place + header : place + header + length]
        place += header + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


def records_of(records: list, kind: str) -> list:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def values_of(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def config_of(records: list) -> dict:
    (run,) = records_of(records, "run")
    return values_of(run.config.update)


def models_of(records: list) -> list:
    return [artifact for artifact in records_of(records, "artifact") if artifact.type == "model"]


def exit_codes_of(records: list) -> list[int]:
    return [record.exit_code for record in records_of(records, "exit")]


def test_an_offline_run_holds_configuration_metrics_summary_tables_and_exit_code(file_overrides, tmp_path):
    directory = tmp_path / "run"
    options = ["logger.tags=[a,b]", "logger.group=g", "backbone.lr=0.1", "model.dropout=0.0"]
    results = run_train(directory, *file_overrides, *OFFLINE, *options)
    records = read_finished(directory)
    (run,) = records_of(records, "run")
    assert (run.run_group, run.job_type, list(run.tags), run.project) == ("g", "train", ["a", "b"], "distill")
    assert config_of(records)["data"]["queries"].endswith("queries.tsv") and config_of(records)["seed"] == 0

    history = [values_of(record.item) for record in records_of(records, "history")]
    logged = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        logged.setdefault(metrics.pop("step"), {}).update(metrics)
    assert {row["_step"]: {key: row[key] for key in logged[row["_step"]]} for row in history} == logged
    summary = {}
    for record in records_of(records, "summary"):
        summary |= values_of(record.update)
    losses = [metrics["train/loss"] for metrics in logged.values()]
    assert summary["train/loss"] == {"min": min(losses), "last": losses[-1]}
    assert summary["val/nDCG@10"] == {"max": results["val/nDCG@10"]}
    assert results["val/nDCG@10"] > history[-1]["val/nDCG@10"]  # the best, which here is not the last
    assert {name: summary[name] for name in results if not name.startswith("val/")} == {
        name: value for name, value in results.items() if not name.startswith("val/")
    }
    defined = {(record.name or record.glob_name): record for record in records_of(records, "metric")}
    assert set(defined) == {"train/*", "train/loss", "val/*"} and defined["val/*"].summary.max

    (files,) = directory.glob("wandb/offline-run-*/files")
    table = json.loads((files / history[-1]["per_query/files/path"]).read_text())
    with open(directory / "per_query.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert table["columns"] == header == ["query_id", "nDCG@10"] and len(rows) == 6
    assert [[query_id, str(value)] for query_id, value in table["data"]] == rows
    values = [value for _, value in table["data"]]
    assert sum(values) / 6 == pytest.approx(results["test/files/nDCG@10"])
    assert exit_codes_of(records) == [0]
    (sent,) = directory.glob("wandb/offline-run-*/*.wandb")
    for path in (sent, *files.rglob("*")):  # what `wandb sync` reads; debug.log stays here
        found = path.read_bytes() if path.is_file() else b""
        assert str(tmp_path).encode() not in re.sub(rb"[^ ]{0,200}/artifacts/staging/", b"", found), path  # W&B's own


def test_a_logged_model_names_its_results_and_is_the_next_runs_origin(file_overrides, tmp_path, caplog):
    results = run_train(tmp_path / "one", *file_overrides, *OFFLINE, "logger.log_model=true")
    name = (tmp_path / "one" / ARTIFACT_FILE).read_text().strip()
    run_id = (tmp_path / "one" / ID_FILE).read_text()
    assert name == f"distill/model-{run_id}:latest"
    (model,) = models_of(read_finished(tmp_path / "one"))
    metadata = json.loads(model.metadata)
    assert model.name == f"model-{run_id}" and metadata["results"] == results
    assert str(tmp_path) not in model.metadata and metadata["backbone"] == "bert0"
    assert (metadata["loss"], metadata["seed"], metadata["trained_from"]) == ("ranknet", 0, None)
    assert {"model.safetensors", "config.json"} <= {entry.path for entry in model.manifest.contents}

    overrides = [*file_overrides, *OFFLINE, "logger.log_model=true", f"backbone.name={tmp_path / 'one' / 'model'}"]
    with caplog.at_level("INFO"):
        run_train(tmp_path / "two", *overrides)
    records = read_finished(tmp_path / "two")
    assert config_of(records)["trained_from"] == name
    assert len([line for line in caplog.messages if f"offline, so the lineage from {name}" in line]) == 1
    assert [json.loads(model.metadata)["trained_from"] for model in models_of(records)] == [name]


class OnlineRun:
    """Stands in for a W&B run with a network."""

    offline = False

    def __init__(self, error: Exception | None = None):
        self.used, self.error = [], error

    def use_artifact(self, name: str, type: str) -> None:
        if self.error:
            raise self.error
        self.used.append((name, type))


def test_online_the_origin_is_declared_and_a_missing_one_stops_nothing(caplog):
    from wandb.errors import CommError

    from distill.training.tracking import _declare_source

    run = OnlineRun()
    _declare_source(run, "me/distill/model-a:latest")
    assert run.used == [("me/distill/model-a:latest", "model")] and not caplog.messages
    _declare_source(OnlineRun(CommError("not found")), "me/distill/model-a:latest")
    assert caplog.messages == [
        "wandb: me/distill/model-a:latest is not available (not found), so the lineage is only recorded in the "
        "configuration"
    ]


@pytest.mark.parametrize("error", [InputError, RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failing_run_has_exit_code_1(file_overrides, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error("no")

    monkeypatch.setattr("distill.evaluation.rerank.TaskReranker.rerank", fail)  # at the first validation
    with pytest.raises(error):
        run_train(tmp_path / "run", *file_overrides, *OFFLINE)
    records = read_finished(tmp_path / "run")
    assert exit_codes_of(records) == [1] and records_of(records, "history")


def test_refused_input_leaves_no_wandb_run(file_overrides, tmp_path):
    with pytest.raises(InputError):
        run_train(tmp_path / "run", *file_overrides, *OFFLINE, "data.depth=50")
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.parametrize(
    ("launcher", "status"), [pytest.param("sequential", 1, marks=pytest.mark.long), ("basic", 2)]
)  # a process a job; one for all
def test_every_job_of_a_sweep_is_a_run_of_its_own_in_the_sweeps_group(file_overrides, tmp_path, launcher, status):
    sweep = tmp_path / "learning-rates"
    overrides = [*file_overrides, *OFFLINE, "backbone.lr=1e38,1e-3", "optimizer.max_grad_norm=null"]
    overrides += [f"hydra/launcher={launcher}"]
    overrides += ["experiment=here", f"hydra.searchpath=[file://{tmp_path}]", f"hydra.sweep.dir={sweep}"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "here.yaml").write_text("# @package _global_\nseed: 3\n")
    process = run("train.py", "-m", *overrides)
    assert process.returncode == status, process.stderr  # the first job's; the second ran all the same
    assert "not finite" in process.stderr + process.stdout
    jobs = [read_finished(sweep / job) for job in "01"]
    assert [exit_codes_of(records) for records in jobs] == [[1], [0]]
    assert [config_of(records)["backbone"]["lr"] for records in jobs] == [1e38, 1e-3]
    runs = [records_of(records, "run")[0] for records in jobs]
    assert [(run.run_group, list(run.tags)) for run in runs] == [("learning-rates", ["here"])] * 2
    assert runs[0].run_id != runs[1].run_id and (sweep / "1" / "results.json").is_file()
    # A job that is resumed, by itself, stays in the group; a run that was no job has none
    assert compose_config("train", "logger=wandb", f"resume={sweep / '1'}").logger.group == "learning-rates"
    assert compose_config("train", "logger=wandb").logger.group is None


def test_a_resumed_run_is_the_same_wandb_run_and_a_refused_one_leaves_it_alone(file_overrides, tmp_path):
    directory = tmp_path / "run"
    run_train(directory, *file_overrides, *OFFLINE, "logger.log_model=true")
    names = [(directory / name).read_text() for name in (ID_FILE, ARTIFACT_FILE)]
    with pytest.raises(InputError, match="holds the finished training"):
        train(compose_config("train", *file_overrides, *OFFLINE), directory)
    train(compose_config("train", *file_overrides, *OFFLINE, f"resume={directory}"), directory)
    assert [(directory / name).read_text() for name in (ID_FILE, ARTIFACT_FILE)] == names


def test_the_configuration_outlives_a_job_that_is_killed_early(file_overrides, tmp_path):
    directory = tmp_path / "run"
    overrides = [*file_overrides, *OFFLINE, "train.max_steps=100000", "train.validate_every=100000"]
    process = start("train.py", *overrides, f"hydra.run.dir={directory}")
    while not (directory / "metrics.jsonl").is_file():  # it is made right before W&B is started
        assert process.poll() is None
        time.sleep(0.005)
    assert OmegaConf.load(directory / "config.yaml").train.max_steps == 100000
    while not (directory / ID_FILE).is_file():  # W&B has been started
        assert process.poll() is None
        time.sleep(0.005)
    while not records_of(read_records(directory), "history"):  # what W&B writes in its first second, see below
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    records = read_records(directory)
    assert config_of(records)["train"]["max_steps"] == 100000 and config_of(records)["logger"]["name"] == "wandb"
    assert records_of(records, "history") and not exit_codes_of(records)


def test_wandb_is_told_to_write_its_file_twice_a_second(file_overrides, tmp_path, monkeypatch):
    import wandb

    given = []
    start = wandb.init
    monkeypatch.setattr("wandb.init", lambda **options: given.append(options["settings"]) or start(**options))
    run_train(tmp_path / "run", *file_overrides, *OFFLINE)
    assert [settings.x_transaction_log_flush_interval for settings in given] == [0.5]  # W&B's own: 15
