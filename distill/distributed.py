"""Several processes, "ranks", that take every training step together; `torchrun` starts them.

    ranks = start_ranks(device)                # a single process unless torchrun has started more
    ranks.sum_gradients(model)                 # after each rank's backward pass over its share of the lists

The gradients are those of one process: every rank divides its losses by the terms of the whole step, and the sums of
all ranks' gradients are taken once a step, in large pieces. (PyTorch's DistributedDataParallel takes means, expects one
backward pass a step from every rank, and so fits neither ragged shares nor the two passes of
distill/training/backward.py.)
"""

import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distill.errors import InputError

PIECE = 2**25  # numbers that are sent at once
TIMEOUT = timedelta(minutes=30)  # for a rank that others wait for: the first may be tokenising a collection


@dataclass
class Ranks:
    """The processes of a run, seen from one of them. With one process, nothing is sent."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def sum(self, *values: Tensor | float) -> list[float]:
        """Return the sums of each value over all ranks."""
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        self._explained(lambda: dist.all_reduce(tensor))
        return tensor.tolist()

    def sum_on_device(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, without waiting for it."""
        if self.size > 1:
            tensor = tensor.clone()
            self._explained(lambda: dist.all_reduce(tensor))
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the sum of all ranks'; a rank without lists adds nothing."""
        if self.size == 1:
            return
        piece, length = [], 0
        for parameter in [one for one in model.parameters() if one.requires_grad]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            piece.append(parameter.grad)
            length += parameter.numel()
            if length >= PIECE:
                self._sum_piece(piece)
                piece, length = [], 0
        if piece:
            self._sum_piece(piece)

    def _sum_piece(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._explained(lambda: dist.all_reduce(flat))
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(one) for part, one in zip(parts, gradients, strict=True)])

    def copy_from_first(self, model: nn.Module) -> None:
        """Give all ranks the weights that the first has."""
        if self.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                self._explained(lambda tensor=tensor: dist.broadcast(tensor.data, src=0))

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._explained(lambda: dist.all_gather_object(values, value))
        return values

    def finish(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _explained(self, collective) -> None:
        try:
            collective()
        except RuntimeError as error:  # of gloo and NCCL alike
            reason = " ".join(str(error).split())[:150]
            raise InputError(
                f"rank {self.rank} of {self.size}: lost another rank ({reason}): see that rank's message; the run goes "
                "on from its last checkpoint with resume=DIRECTORY, on any number of ranks"
            ) from None


def start_ranks(device: torch.device) -> Ranks:
    """Join the other processes that torchrun has started; a single process by itself otherwise.

    On CUDA each process takes the GPU of its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # What lies on the CPU goes by gloo also beside GPUs: the host's own small sums must not wait for a GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    if dist.get_rank() > 0:
        logging.getLogger().setLevel(logging.ERROR)  # the first rank speaks for all
    return Ranks(dist.get_rank(), size, device)
