"""The W&B workspace: which panels it has, and how it is refused without a key, a network or wandb-workspaces."""

import json
import subprocess
import sys

import pytest

from distill.errors import InputError
from tests.helpers.commands import run, without_wandb
from tests.helpers.configuration import compose_config


def panels(workspace: dict) -> dict[str, dict]:
    """The panels of a workspace by title or, where they have none, type."""
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    every = [panel for section in sections for panel in section["panels"]]
    return {panel["config"].get("chartTitle", panel["viewType"]): panel["config"] for panel in every}


def dashboards(*overrides, env=None) -> subprocess.CompletedProcess:
    return run("-m", "distill", "dashboards", *overrides, env=env)


def test_the_workspace_has_the_panels_of_an_ablation():
    pytest.importorskip("wandb_workspaces")
    process = dashboards("dry_run=true", "test_metric=test/dl/RR@10", "val_metric=val/RR@10", "group_by=loss.name")
    assert process.returncode == 0, process.stderr
    workspace = json.loads(process.stdout)
    assert (workspace["project"], workspace["displayName"]) == ("distill", "distillation")
    found = panels(workspace)
    curves = {config["metrics"][0]: config for config in found.values() if "xAxisTitle" in config}
    train_metrics = {f"train/{name}" for name in ("loss", "lr", "grad_norm", "tokens_per_second", "mfu")}
    assert set(curves) == {"val/RR@10", *train_metrics}
    assert {config["groupBy"] for config in curves.values()} == {"loss.value.name"}
    for key in ("depth", "num_queries"):
        scatter = found[f"test/dl/RR@10 over data.{key}"]
        assert (scatter["xAxis"], scatter["yAxis"]) == (f"config:data.value.{key}", "summary:test/dl/RR@10")
    columns = [column["accessor"] for column in found["choices against test/dl/RR@10"]["columns"]]
    assert columns == [
        *("config:loss.value.name", "config:data.value.depth", "config:data.value.num_queries", "config:seed.value"),
        "summary:test/dl/RR@10",
    ]
    assert found["test/dl/RR@10 by loss"]["groupBy"] == "loss.value.name" and "Run Comparer" in found
    grouped = panels(json.loads(dashboards("dry_run=true").stdout))
    assert grouped["validation"]["groupBy"] == "group"


def test_without_a_key_the_workspace_is_refused_in_one_line_and_with_exit_status_2(tmp_path):
    pytest.importorskip("wandb_workspaces")
    process = dashboards(env=without_wandb(tmp_path))
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "making the workspace distillation of distill; output: a new workspace on W&B",
        "error: no W&B API key: run `wandb login`, or set dry_run=true to see the workspace as JSON",
    ]


def test_without_a_network_the_workspace_is_refused_with_the_reason(monkeypatch):
    pytest.importorskip("wandb_workspaces")
    from wandb.errors import CommError

    from distill.commands.dashboards import build_workspace, save_workspace

    def fail(*_):
        raise CommError("connection\nrefused")

    monkeypatch.setattr("wandb.login", lambda **_: True)
    monkeypatch.setattr("wandb.Api", fail)
    with pytest.raises(InputError, match=r"W&B refuses the workspace \(connection refused\): check key, network"):
        save_workspace(build_workspace(compose_config("dashboards")))


def test_without_wandb_workspaces_the_remedy_is_named(monkeypatch):
    from distill.commands.dashboards import build_workspace

    for name in ("wandb_workspaces", "wandb_workspaces.reports.v2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="is missing: pip install wandb-workspaces"):
        build_workspace(compose_config("dashboards"))
