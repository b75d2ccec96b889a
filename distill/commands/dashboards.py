"""Make a Weights & Biases workspace with the panels that an ablation needs.

    python -m distill dashboards project=distill test_metric=test/trec-dl-2019/nDCG@10
    python -m distill dashboards group_by=loss.name             curves averaged over the runs of each loss
    python -m distill dashboards dry_run=true                   print it as JSON, without a key or network

Needs `pip install wandb-workspaces`. The runs come from `python train.py logger=wandb ...`.
"""

import json
import sys

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import ROOT
from distill.errors import InputError
from distill.jobs import run_command

CHOICES = ("loss.name", "data.depth", "data.num_queries", "seed")  # what an ablation varies


def build_workspace(cfg: DictConfig):
    """Return the workspace; raises InputError if wandb-workspaces is not installed."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: pip install wandb-workspaces") from None

    test = wr.SummaryMetric(cfg.test_metric)
    group = wr.Metric("Group") if cfg.group_by == "group" else wr.Config(cfg.group_by)

    def curve(metric: str, title: str, **options):
        grouped = {"groupby": group, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
        return wr.LinePlot(title=title, x="Step", y=[metric], title_x="step", **grouped, **options)

    def against(key: str):
        return wr.ScatterPlot(title=f"{cfg.test_metric} over {key}", x=wr.Config(key), y=test, log_x=True)

    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in CHOICES]
    columns.append(wr.ParallelCoordinatesPlotColumn(test, display_name=cfg.test_metric))
    results = [
        against("data.depth"),
        against("data.num_queries"),
        wr.BarPlot(title=f"{cfg.test_metric} by loss", metrics=[test], groupby=wr.Config("loss.name"),
                   groupby_aggfunc="mean", groupby_rangefunc="stddev"),
        wr.ParallelCoordinatesPlot(title=f"choices against {cfg.test_metric}", columns=columns),
    ]  # fmt: skip
    training = [
        curve(cfg.val_metric, "validation"),
        curve("train/loss", "training loss"),
        curve("train/lr", "learning rate"),
        curve("train/grad_norm", "gradient norm", log_y=True),
    ]
    speed = [
        curve("train/tokens_per_second", "tokens a second"),
        curve("train/mfu", "model FLOPs utilisation", range_y=(0, 1)),
    ]
    sections = {"Results": results, "Training": training, "Speed": speed, "Runs": [wr.RunComparer(diff_only="split")]}
    return ws.Workspace(
        entity=cfg.entity or "",
        project=cfg.project,
        name=cfg.title,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
    )


def save_workspace(workspace) -> str:
    """Save the workspace as a new one in W&B and return its address; raises InputError without a key or network."""
    import wandb

    wandb.setup(wandb.Settings(silent=True))  # the address is printed here, once
    try:
        if not wandb.login(prompt=False, verify=False):
            raise InputError("no W&B API key: run `wandb login`, or set dry_run=true to see the workspace as JSON")
        workspace.entity = workspace.entity or wandb.Api().default_entity
        return workspace.save().url
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())
        raise InputError(f"W&B refuses the workspace ({reason}): check key, network and project") from None


def make_workspace(cfg: DictConfig) -> None:
    """Save the workspace as configured and print its address, or print it; raises InputError for bad input."""
    workspace = build_workspace(cfg)
    if cfg.dry_run:  # wandb-workspaces has no public function for what `save` sends
        json.dump(workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"), sys.stdout)
        print()
    else:
        print(save_workspace(workspace))


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"making the workspace {cfg.title} of {cfg.project}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="dashboards", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Make one workspace; bad input ends with a one-line message and exit status 2."""
    output = "JSON on standard output" if cfg.dry_run else "a new workspace on W&B"
    run_command(cfg, describe, check_values, make_workspace, output)
