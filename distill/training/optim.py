"""The optimiser and its schedule.

optimizer = make_optimizer(model, cfg.optimizer)
num_warmup = warmup_steps(cfg.optimizer.warmup, num_steps)
set_lr(optimizer, cfg.optimizer, step, num_steps)
"""

import itertools
import logging
import math
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from distill.errors import InputError
from distill.models.freezing import layers_of
from distill.training.muon import Muon

log = logging.getLogger(__name__)

SMALLEST_SCALE = 2**-10  # of float16's loss: it starts at 2**16, and is halved where gradients are not finite


def make_optimizer(model: nn.Module, cfg: DictConfig) -> torch.optim.Optimizer:
    """Return the optimiser that cfg.name asks for: AdamW, or Muon for the layers' matrices and AdamW for the rest.

    Weight matrices and embeddings decay, biases and norms do not. With cfg.head_lr, the parameters of all of the head's
    layers form further groups with that peak learning rate. With cfg.layer_decay, so do those of each layer of the
    backbone. Raises InputError for a backbone without layers.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = [getattr(model, name, None) for name in ("head", "projection", "exit")] if cfg.head_lr is not None else []
    head = {parameter for layer in layers if layer is not None for parameter in layer.parameters()}
    depths, num_layers = ({}, 0) if cfg.layer_decay is None else layer_depths(model.get_submodule("backbone"))
    parts = [([parameter for parameter in trained if parameter not in head and parameter not in depths], 1.0)]
    if head:
        parts.append(([parameter for parameter in trained if parameter in head], cfg.head_lr / cfg.lr))
    for depth in sorted(set(depths.values())):
        layer = [parameter for parameter in trained if depths.get(parameter) == depth]
        parts.append((layer, cfg.layer_decay ** (num_layers + 1 - depth)))
    of_muon = layer_matrices(model.get_submodule("backbone")) if cfg.name == "muon" else set()
    matrix_scale = (cfg.matrix_lr or 2 * cfg.lr) / cfg.lr
    groups, muon_groups = [], []
    for parameters, lr_scale in parts:
        matrices = [parameter for parameter in parameters if parameter.dim() >= 2 and parameter not in of_muon]
        others = [parameter for parameter in parameters if parameter.dim() < 2]
        groups.append({"params": matrices, "weight_decay": cfg.weight_decay, "lr_scale": lr_scale})
        groups.append({"params": others, "weight_decay": 0.0, "lr_scale": lr_scale})
        matrices = [parameter for parameter in parameters if parameter in of_muon]
        muon_groups.append({"params": matrices, "lr_scale": lr_scale * matrix_scale})
    adamw = torch.optim.AdamW(groups, lr=cfg.lr, betas=tuple(cfg.betas), eps=cfg.eps, fused=True)
    if not of_muon:
        if cfg.name == "muon":
            log.warning("optimizer=muon: none of the layers' matrices is trained: everything is trained with AdamW")
        return adamw
    muon = Muon(muon_groups, lr=cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay)
    return Together([adamw, muon])


class Together(torch.optim.Optimizer):
    """Optimisers that step as one, each with parameters of its own."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        """Take over the groups of the optimisers: a learning rate that is set here is theirs."""
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Let every optimiser take a step."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each optimiser."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the optimisers then have new groups."""
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def layer_matrices(backbone: nn.Module) -> set[nn.Parameter]:
    """Return the matrices of a backbone's layers that are trained: all but those of its embeddings.

    Muon is made for these (https://kellerjordan.github.io/posts/muon/): each turns states into states.
    """
    tables = (module.parameters() for module in backbone.modules() if isinstance(module, nn.Embedding))
    others = {*_of_embeddings(backbone), *itertools.chain(*tables)}
    trained = {parameter for parameter in backbone.parameters() if parameter.dim() == 2 and parameter.requires_grad}
    return trained - others


def _of_embeddings(backbone: nn.Module) -> set[nn.Parameter]:
    """Return the parameters of a backbone's embeddings, their norms and projections among them, by its names."""
    parts = (part for name, part in backbone.named_modules() if "embed" in name.rpartition(".")[2])
    return {parameter for part in parts for parameter in part.parameters()}


def layer_depths(backbone: Any) -> tuple[dict[nn.Parameter, int], int]:
    """Return the depth of every parameter of a backbone, and its number of layers.

    The embeddings have depth 0, the layers 1 and up, and what else there is, such as a last norm, that of the last one.
    Raises InputError for a backbone that has not one list of layers, as those that share one layer do not.
    """
    layers = layers_of(backbone)
    if layers is None:
        kind = backbone.config.model_type
        raise InputError(
            f"optimizer.layer_decay: the layers of the {kind} backbone share their weights: set it to null"
        )
    depths = dict.fromkeys(backbone.parameters(), len(layers))
    depths |= dict.fromkeys(_of_embeddings(backbone), 0)
    for depth, layer in enumerate(layers, start=1):
        depths |= dict.fromkeys(layer.parameters(), depth)
    return depths, len(layers)


def warmup_steps(warmup: float, num_steps: int) -> int:
    """Return the number of warm-up steps; warmup below 1 is a share of all steps, otherwise it is their number."""
    return round(warmup * num_steps) if warmup < 1 else int(warmup)


def warn_of_warmup(cfg: DictConfig, num_steps: int) -> None:
    """Warn if the warm-up takes up the whole run: with such low learning rates the model may learn nothing."""
    num_warmup = warmup_steps(cfg.warmup, num_steps)
    if num_warmup and num_warmup >= num_steps:
        reached = cfg.lr * lr_factor(cfg.schedule, num_steps - 1, num_warmup, num_steps)
        log.warning(
            "optimizer.warmup=%g covers all of this run's %d steps: the learning rate only rises, to %.3g of %.3g: "
            "lower it, as in optimizer.warmup=0.1, or train for more steps",
            *(cfg.warmup, num_steps, reached, cfg.lr),
        )


def set_lr(optimizer: torch.optim.Optimizer, cfg: DictConfig, step: int, num_steps: int) -> float:
    """Set and return the learning rate of a step, counted from 0: linear warm-up, then the schedule down to 0.

    The groups of the head and of the layers follow the same schedule, up to their own peak.

    It depends only on the step, so that a checkpoint need not store it.
    """
    lr = cfg.lr * lr_factor(cfg.schedule, step, warmup_steps(cfg.warmup, num_steps), num_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)  # checkpoints from before head_lr lack the key
    return lr


def gradient_metrics(grad_norm: torch.Tensor, scaler: torch.amp.GradScaler) -> dict[str, float]:
    """Return the gradient's norm, unless the step was skipped, and the scale of the loss, if it has one.

    Raises InputError if the scale has fallen so low that float16 cannot hold the gradients at all.
    """
    metrics = {"train/grad_norm": grad_norm.item()}
    if scaler.is_enabled():
        metrics["train/loss_scale"] = scaler.get_scale()
        if not math.isfinite(metrics["train/grad_norm"]):
            del metrics["train/grad_norm"]
        if metrics["train/loss_scale"] < SMALLEST_SCALE:
            raise InputError(
                f"train.precision=float16: even at a loss scale of {metrics['train/loss_scale']:.3g} the gradients are "
                "not finite, and every step is skipped: use bfloat16 or float32, or a lower optimizer.lr"
            )
    return metrics


def lr_factor(schedule: str, step: int, num_warmup: int, num_steps: int) -> float:
    """Return the learning rate at a step, counted from 0, as a share of the peak."""
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = (step - num_warmup) / max(num_steps - num_warmup, 1)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
