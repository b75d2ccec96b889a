"""Whether a fused Triton kernel (`kernels/`) takes the place of a loss's definition."""

import importlib.util

import torch
from torch import Tensor

from distill.losses.terms import check_shapes

TRITON_INSTALLED = importlib.util.find_spec("triton") is not None  # on Linux, it comes with torch or beside it
IMPLEMENTATIONS = ("auto", "torch", "triton")


def takes_triton(scores: Tensor, ranks: Tensor, mask: Tensor, implementation: str) -> bool:
    """Whether the kernel is to be used: asked for, or on CUDA with a dtype that it computes in full precision."""
    check_shapes(scores, ranks, mask)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r} is unknown: use 'auto', 'torch' or 'triton'")
    fits = scores.is_cuda and scores.dtype != torch.float64 and TRITON_INSTALLED
    return implementation == "triton" or (implementation == "auto" and fits)
