"""The optimiser and its schedule.

optimizer = make_optimizer(model, cfg.optimizer)
set_lr(optimizer, cfg.optimizer, step, num_steps)
"""

import math

import torch
from omegaconf import DictConfig
from torch import nn


def make_optimizer(model: nn.Module, cfg: DictConfig) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices and embeddings only, none on biases and norms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": cfg.weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=tuple(cfg.betas), eps=cfg.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, cfg: DictConfig, step: int, num_steps: int) -> float:
    """Set and return the learning rate of a step, counted from 0: linear warm-up, then the schedule down to 0.

    A function of the step alone, so that a resumed run needs no state of it.
    """
    lr = cfg.lr * lr_factor(cfg.schedule, step, cfg.warmup_steps, num_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def lr_factor(schedule: str, step: int, warmup_steps: int, num_steps: int) -> float:
    """Return the share of the peak learning rate at a step, counted from 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
