"""Choose between a loss's definition and its fused Triton kernel (`kernels/`)."""

import importlib.util

import torch
from torch import Tensor

from distill.losses.terms import check_shapes

TRITON_INSTALLED = importlib.util.find_spec("triton") is not None  # on Linux, usually installed along with torch
IMPLEMENTATIONS = ("auto", "torch", "triton")


def takes_triton(scores: Tensor, target: Tensor, mask: Tensor, implementation: str) -> bool:
    """Whether to use the kernel: if asked for, or on CUDA with a dtype that it computes in full precision.

    Raises ValueError for shapes that differ and for an unknown implementation.
    """
    check_shapes(scores, target, mask)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r} is unknown: use 'auto', 'torch' or 'triton'")
    fits = scores.is_cuda and scores.dtype != torch.float64 and TRITON_INSTALLED
    return implementation == "triton" or (implementation == "auto" and fits)
