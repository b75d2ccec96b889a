"""Muon: steps whose singular values are nearly equal, for the matrices of a backbone's layers.

optimizer = Muon([{"params": matrices}], lr=8e-4, momentum=0.95, weight_decay=0.01)

K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024
(https://kellerjordan.github.io/posts/muon/); the size of a step is that of J. Liu et al., Muon is Scalable for LLM
Training, 2025 (https://arxiv.org/abs/2502.16982). torch.optim.Muon takes the same steps, one matrix after the other and
always in bfloat16, which took 20 times as long as float32 on a CPU without instructions for it.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from distill.device import is_emulated

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x³ and x⁵: they lift small singular values fastest
ITERATIONS = 5
SMALLEST_NORM = 1e-7
AT_ONCE = 2**24  # numbers of matrices of one shape that are multiplied together: bounds the memory of a step


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum and decoupled weight decay; all parameters are matrices.

    The root mean square of a step is about 0.2 times the learning rate, as that of AdamW's steps is.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, weight_decay: float):
        """Take groups of parameters, as other optimisers do; a group may have options of its own."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameters in _of_one_shape(group["params"]):
                updates = orthogonalised(torch.stack([self._update(one, momentum) for one in parameters]))
                size = 0.2 * math.sqrt(max(parameters[0].shape))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - lr * group["weight_decay"])
                    parameter.add_(update, alpha=-lr * size)

    def _update(self, parameter: Tensor, momentum: float) -> Tensor:
        """Return the gradient in Nesterov's form: mixed with the running mean, of which it is a part already."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        mean = state["mean"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def _of_one_shape(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_shape.setdefault(parameter.shape, []).append(parameter)
    for shape, same in by_shape.items():
        number = max(AT_ONCE // shape.numel(), 1)
        yield from (same[first : first + number] for first in range(0, len(same), number))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return UVᵀ of each matrix USVᵀ [N, A, B], roughly: singular values come between 0.7 and 1.2.

    Five Newton-Schulz iterations, in bfloat16 where the device has it.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
    x = x.to(torch.float32 if is_emulated("bfloat16", x.device) else torch.bfloat16)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)
