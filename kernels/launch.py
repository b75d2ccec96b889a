"""Code shared by all kernels: checks, launch sizes, loading a list, the total over all programs, the backward product.

Shapes: B lists, K passages per list, N programs that each own some rows of one list's pairs.

The total. Each program writes the loss of its rows and the number of their terms to its own slot, then increments a
counter. The program that increments it last adds up all slots by slot number, in float64, and resets the counters to
zero. The result therefore does not depend on the order in which the programs ran, and needs no separate launch.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

REDUCTIONS = ("mean", "sum")
DEVICES = ("cuda", "cpu")  # the CPU only for Triton's interpreter
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)

# Chosen from the machine code for sm_90 (2026-11-22, Triton 3.9), not yet from timings: with 8 pairs per thread, the
# accumulators of both kernels need at most 94 registers, without spills
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
ROWS = 16
MAX_COLUMNS = 128
SCALE_BLOCK = 1024
TOTAL_BLOCK = 1024
LOG2_E = tl.constexpr(1.4426950408889634)

# Of the operators in torch.ops. Installed, this folder is distill._kernels; a process may load that and a checkout's
OPERATORS = "listwise" if __package__ == "kernels" else "distill_listwise"
operators = getattr(torch.ops, OPERATORS)

_counters: dict[tuple[int | None, int], Tensor] = {}


def check_inputs(scores: Tensor, targets: Tensor, reduction: str, name: str = "ranks") -> None:
    """Raise ValueError, with key, value, rule and remedy, for inputs that the kernels do not support."""
    if scores.dim() != 2 or scores.shape != targets.shape:
        raise ValueError(
            f"scores and {name} must share one shape [B, K], got {list(scores.shape)} and {list(targets.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r} is unknown: use 'mean' or 'sum'")
    if scores.dtype not in PRECISIONS:
        raise ValueError(f"scores are {scores.dtype}, but Triton computes in float32: use the plain PyTorch loss")
    if scores.device != targets.device:
        raise ValueError(f"scores are on {scores.device} and {name} on {targets.device}: move one to the other")


def check_device(scores: Tensor) -> None:
    """Raise ValueError if Triton cannot run; the operators call it, since torch.compile cannot trace the check."""
    if not scores.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(
            f"scores are on {scores.device}, where Triton cannot run: use the plain PyTorch loss, or the interpreter "
            "(set TRITON_INTERPRET=1 in the environment before starting Python)"
        )


def num_columns(num_passages: int) -> int:
    """Return how many passages of a list of K a program compares with its ROWS at a time."""
    return min(max(triton.next_power_of_2(num_passages), 16), MAX_COLUMNS)


def zero_counters(scores: Tensor) -> Tensor:
    """Return three int32 zeros on the device of the scores; a launch increments them and resets them to zero.

    Launches on one stream run one after the other and share their counters, so that no launch is spent on zeroing. A
    compiled or captured graph must own everything it reads, so it gets separate counters.
    """
    if torch.compiler.is_compiling() or not scores.is_cuda or torch.cuda.is_current_stream_capturing():
        return torch.zeros(3, dtype=torch.int32, device=scores.device)
    key = scores.device.index, torch.cuda.current_stream(scores.device).cuda_stream
    if key not in _counters:
        _counters[key] = torch.zeros(3, dtype=torch.int32, device=scores.device)
    return _counters[key]


@triton.jit
def load_places(row, stride, places, num_passages):
    """Load a list's values at some places as float32, with 0 beyond its end."""
    return tl.load(row + places.to(tl.int64) * stride, mask=places < num_passages, other=0.0).to(tl.float32)


@triton.jit
def load_passages(
    score_row,
    target_row,
    score_stride,
    target_stride,
    places,
    num_passages,
    padded_score,
    ZERO_IS_PADDING: tl.constexpr,
):
    """Load a list's targets, NaN for padding, and its scores, `padded_score` for padding, as float32."""
    targets = load_places(target_row, target_stride, places, num_passages)
    if ZERO_IS_PADDING:
        real = targets > 0
    else:
        real = (targets == targets) & (places < num_passages)
    scores = tl.where(real, load_places(score_row, score_stride, places, num_passages), padded_score)
    return tl.where(real, targets, float("nan")), scores


@triton.jit
def write_total(partials, num_parts, loss, num_terms, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """Add up the losses and numbers of terms in `partials` [2, N]; write the loss and the divisor of its sum."""
    losses = tl.zeros((BLOCK,), dtype=tl.float64)
    counts = tl.zeros((BLOCK,), dtype=tl.float64)
    for start in range(0, num_parts, BLOCK):
        parts = start + tl.arange(0, BLOCK)
        # .cg reads the cache shared by all programs: the nearer one may lack what another program wrote
        losses += tl.load(partials + parts, mask=parts < num_parts, other=0.0, cache_modifier=".cg")
        if MEAN:
            counts += tl.load(partials + num_parts + parts, mask=parts < num_parts, other=0.0, cache_modifier=".cg")
    divisor = tl.maximum(tl.sum(counts, axis=0), 1.0)  # 1 for reduction "sum", and if there are no terms
    tl.store(loss, tl.sum(losses, axis=0) / divisor)
    tl.store(num_terms, divisor)


@triton.jit
def scale_kernel(gradient, grad_output, num_terms, scaled, num_values, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    factor = tl.load(grad_output) / tl.load(num_terms)
    values = tl.load(gradient + places, mask=places < num_values, other=0.0)
    tl.store(scaled + places, values * factor, mask=places < num_values)


def scale(gradient: Tensor, grad_output: Tensor, num_terms: Tensor, dtype: torch.dtype) -> Tensor:
    """Return gradient · grad_output / num_terms, [B, K] in the given dtype; both numbers stay on the device."""
    scaled = torch.empty_like(gradient, dtype=dtype)
    if scaled.numel():
        grid = (triton.cdiv(scaled.numel(), SCALE_BLOCK),)
        scale_kernel[grid](gradient, grad_output, num_terms, scaled, scaled.numel(), BLOCK=SCALE_BLOCK, **OPTIONS)
    return scaled


def empty_outputs(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty tensors for the loss, the gradient of its sum [B, K], and the divisor of the sum, all float32."""
    scalar = scores.new_empty((), dtype=torch.float32)
    return scalar, scores.new_empty(scores.shape, dtype=torch.float32), torch.empty_like(scalar)


def begin(scores: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Check the device; return the outputs, still empty, and the number of programs N: if it is 0, they are final."""
    check_device(scores)
    loss, gradient, num_terms = empty_outputs(scores)
    num_parts = scores.shape[0] * triton.cdiv(scores.shape[1], ROWS)
    if num_parts == 0:
        loss.zero_()
        num_terms.fill_(1)
    return (loss, gradient, num_terms), num_parts


def keep_gradient(ctx, inputs, output) -> None:
    """Save for the backward pass: the gradient [B, K] in float32, its divisor, and the dtype of the scores."""
    _, gradient, num_terms = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(gradient, num_terms)
    ctx.dtype, ctx.num_inputs = inputs[0].dtype, len(inputs)


def scaled_gradient(ctx, grad_loss, *_):
    """Run the backward pass of any loss, one multiplication; only the scores have a gradient."""
    others = (None,) * (ctx.num_inputs - 1)
    if grad_loss is None:
        return None, *others
    gradient, num_terms = ctx.saved_tensors
    return operators.scale(gradient, grad_loss, num_terms, ctx.dtype), *others


def _on_its_device(launch: Callable) -> Callable:
    """Launch on the first tensor's GPU: Triton takes the current one, and its stream."""

    def launched(tensor: Tensor, *others):
        with torch.cuda.device_of(tensor):
            return launch(tensor, *others)

    return launched


def register_loss(name: str, options: str, launch: Callable) -> None:
    """Register operators.NAME(scores, targets, counters, options) for eager, compiled and differentiated use.

    It is registered by schema, since an operator made by `torch.library.custom_op` takes 70 µs more per call (one core,
    torch 2.13, 2026-11-23).
    """
    arguments = f"Tensor scores, Tensor targets, Tensor counters, {options}"
    torch.library.define(f"{OPERATORS}::{name}", f"({arguments}) -> (Tensor, Tensor, Tensor)")
    torch.library.impl(f"{OPERATORS}::{name}", DEVICES, _on_its_device(launch))
    torch.library.register_fake(f"{OPERATORS}::{name}", lambda scores, *_: empty_outputs(scores))
    torch.library.register_autograd(f"{OPERATORS}::{name}", scaled_gradient, setup_context=keep_gradient)


torch.library.define(
    f"{OPERATORS}::scale", "(Tensor gradient, Tensor grad_output, Tensor num_terms, ScalarType dtype) -> Tensor"
)
torch.library.impl(f"{OPERATORS}::scale", DEVICES, _on_its_device(scale))
torch.library.register_fake(
    f"{OPERATORS}::scale", lambda gradient, grad_output, num_terms, dtype: torch.empty_like(gradient, dtype=dtype)
)
