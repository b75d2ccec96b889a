"""Several processes, "ranks", that do every training step together; `torchrun` starts them.

    ranks = start_ranks(device)                # a single process unless torchrun has started more
    ranks.sum_gradients(model)                 # after each rank's backward pass over its share of the lists

The gradients equal those of a single process: every rank divides its losses by the number of terms in the whole step,
and the ranks' gradients are summed once per step, in large pieces. (PyTorch's DistributedDataParallel takes means and
expects one backward pass per step from every rank, so it fits neither uneven shares nor the two passes of
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

from distill.cores import rank_variable
from distill.errors import InputError

PIECE = 2**25  # numbers sent at once
TIMEOUT = timedelta(minutes=30)  # how long ranks wait for another: the first may be tokenising a collection


@dataclass
class Ranks:
    """The processes of a run, as one of them sees them. With a single process, nothing is sent."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and logs to the user."""
        return self.rank == 0

    def sum(self, *values: Tensor | float) -> list[float]:
        """Return the sum of each value over all ranks."""
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        self._explained(lambda: dist.all_reduce(tensor))
        return tensor.tolist()

    def sum_on_device(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, without waiting for the device."""
        if self.size > 1:
            tensor = tensor.clone()
            self._explained(lambda: dist.all_reduce(tensor))
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over all ranks; a rank without lists adds nothing."""
        if self.size == 1:
            return
        piece, length = [], 0
        for parameter in [parameter for parameter in model.parameters() if parameter.requires_grad]:
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
        totals = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [total.view_as(grad) for total, grad in zip(totals, gradients, strict=True)])

    def copy_from_first(self, model: nn.Module) -> None:
        """Copy the first rank's weights to all ranks."""
        if self.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                self._explained(lambda tensor=tensor: dist.broadcast(tensor.data, src=0))

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._explained(lambda: dist.all_gather_object(values, value))
        return values

    def finish(self) -> None:
        """Leave the process group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _explained(self, collective) -> None:
        try:
            collective()
        except RuntimeError as error:  # raised by both gloo and NCCL
            reason = " ".join(str(error).split())[:150]
            raise InputError(
                f"rank {self.rank} of {self.size}: lost another rank ({reason}): see that rank's message; resume from "
                "the last checkpoint with resume=DIRECTORY, on any number of ranks"
            ) from None


def start_ranks(device: torch.device) -> Ranks:
    """Join the other processes that torchrun has started; without torchrun, return a single rank.

    On CUDA each process uses the GPU of its local rank. Raises InputError for an environment that lacks what torchrun
    sets, for more local ranks than GPUs, and where the ranks cannot meet.
    """
    size = rank_variable("WORLD_SIZE", 1)
    if size <= 1:
        return Ranks(0, 1, device)
    rank, port, host = rank_variable("RANK"), rank_variable("MASTER_PORT"), os.environ.get("MASTER_ADDR")
    if rank >= size or not host:
        what = f"RANK={rank} is not below WORLD_SIZE={size}" if host else "MASTER_ADDR is not set, though WORLD_SIZE is"
        raise InputError(f"{what}: start several processes with torchrun, or unset WORLD_SIZE")
    if device.type == "cuda":
        local_rank, num_gpus = rank_variable("LOCAL_RANK"), torch.cuda.device_count()
        if local_rank >= num_gpus:
            raise InputError(
                f"LOCAL_RANK={local_rank}, but this machine has {num_gpus} GPUs: start one process for each"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    try:  # CPU tensors use gloo even with GPUs: small sums on the host must not wait for a GPU
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(
            f"rank {rank} of {size}: cannot meet the others at {host}:{port} ({reason}): see that MASTER_ADDR is the "
            "first rank's machine, and MASTER_PORT free there"
        ) from None
    if dist.get_rank() > 0:
        logging.getLogger().setLevel(logging.ERROR)  # only the first rank logs
    return Ranks(dist.get_rank(), size, device)
