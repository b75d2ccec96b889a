"""Choose the device, the precision and the loss implementation that a run can use on this machine."""

import functools
import importlib.util
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from distill.cores import fit_threads
from distill.errors import InputError

log = logging.getLogger(__name__)

CPU_INFO = Path("/proc/cpuinfo")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # of forward passes
FLAGS = {  # of CPUs with instructions for it: of x86 and, the last one, of ARM
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
FASTER = 1.3  # bfloat16 must be so many times as fast as float32: scores are coarser in it
FEW_WEIGHTS = 2_000_000  # of a model whose passes are too short to measure
WORK = 2_700_000_000  # weights times tokens of a measured pass: 50 ms of one core of an AMD EPYC (2026)
ROUNDS, ENOUGH = 3, 0.4  # passes in each precision, and seconds after which no other round begins


@dataclass(frozen=True)
class ScoringPrecision:
    """A precision of scoring, and the tokens per second in float32 and bfloat16, 0 if it needed no measurement."""

    dtype: torch.dtype
    float32: float = 0.0
    bfloat16: float = 0.0

    @property
    def is_measured(self) -> bool:
        """Whether it was chosen by its speed."""
        return self.float32 > 0

    def results(self) -> dict[str, float]:
        """Return bits and speeds, under their names in results.json."""
        names = ("bits", "float32_tokens_per_second", "bfloat16_tokens_per_second")
        values = (float(torch.finfo(self.dtype).bits), self.float32, self.bfloat16)
        return {f"precision/{name}": value for name, value in zip(names, values, strict=True)}

    def describe(self) -> str:
        """Return the choice, and why."""
        speeds = f" (tokens/s: float32 {self.float32:,.0f}, bfloat16 {self.bfloat16:,.0f})" if self.is_measured else ""
        return f"precision: {_name(self.dtype)}{speeds}"


def choose_device(name: str) -> torch.device:
    """Return the named device; "auto" is CUDA if available, else the CPU, with as many threads as cores.

    Raises InputError for a device that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
        torch.autocast(device.type)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not usable here ({str(error).splitlines()[0]}): try device=cpu") from None
    if device.type == "cpu":
        fit_threads()
    elif device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # or random states and memory would be those of the first GPU
    return device


@functools.cache  # packed chunks ask for each of them
def is_ampere(device: torch.device) -> bool:
    """Whether a GPU is of the Ampere generation or newer, which have bfloat16 and FlashAttention."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device)[0] >= 8


def must_compile(choice: str, device: torch.device) -> bool:
    """Return whether to compile, where "auto" is on CUDA only; raises InputError if a compiler for it is missing."""
    if not {"true": True, "false": False, "auto": device.type == "cuda"}[choice.lower()]:
        return False
    if device.type == "cuda":
        missing = "" if os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") else "gcc"
    else:
        from torch._inductor.cpp_builder import get_cpp_compiler  # imported here: it takes seconds
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            missing = "" if get_cpp_compiler() else "g++"
        except InvalidCxxCompiler:
            missing = "g++"
    if missing:
        raise InputError(
            f"train.compile={choice.lower()}: no compiler was found: install {missing}, or set train.compile=false"
        )
    return True


def dtype_of(precision: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the dtype of a forward pass that is given as one, or by its name; None is "auto", without a measurement.

    Raises InputError for any other.
    """
    if precision is None or precision == "auto":
        return choose_precision("auto", device)
    for name, dtype in DTYPES.items():
        if precision in (name, dtype):
            return dtype
    raise InputError(f"precision={str(precision).removeprefix('torch.')}: must be one of auto, {', '.join(DTYPES)}")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward pass; "auto" is bfloat16 on GPUs that have it, where it is faster, else float32.

    `scoring_precision` also measures whether bfloat16 is faster on a CPU.
    Warns about half precision on a CPU that lacks instructions for it; raises InputError where there is no float16.
    """
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and is_ampere(device) else "float32"
    if name == "float16":
        _check_float16(device)
    if name in FLAGS and is_emulated(name, device):
        _warn_of_slow_half(name)
    return getattr(torch, name)


def must_measure(name: str, device: torch.device) -> bool:
    """Whether bfloat16 may be faster for scoring: precision=auto on a CPU that has instructions for it."""
    return name == "auto" and device.type == "cpu" and bool(cpu_flags(CPU_INFO) & FLAGS["bfloat16"])


def scoring_precision(
    name: str, device: torch.device, num_weights: int, make_pass: Callable[[int], tuple[Callable[[], object], int]]
) -> ScoringPrecision:
    """Return the precision of scoring; "auto" is bfloat16 on CUDA, and on a CPU where a measurement shows it faster.

    num_weights: without embeddings. make_pass: takes how many tokens a forward pass should have, and returns the pass
    and how many it has. Measuring takes under half a second with up to 10 million weights. Warns and raises like
    `choose_precision`.
    """
    if not must_measure(name, device) or num_weights < FEW_WEIGHTS:
        return ScoringPrecision(choose_precision(name, device))
    run, num_tokens = make_pass(min(max(WORK // num_weights, 64), 512))
    float32, bfloat16 = (num_tokens / seconds for seconds in time_precisions(run, device))
    return ScoringPrecision(torch.bfloat16 if bfloat16 >= FASTER * float32 else torch.float32, float32, bfloat16)


def time_precisions(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds of a forward pass in float32 and in bfloat16, the shortest of a few in turn."""
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    started = time.perf_counter()
    with torch.inference_mode(), half_precision(device, torch.bfloat16):  # around all: it keeps its copy of the weights
        for number in range(1 + ROUNDS):  # the first ones allocate memory, and are not counted
            for precision, measured in seconds.items():
                start = time.perf_counter()
                with half_precision(device, precision):
                    run()
                if number:
                    measured.append(time.perf_counter() - start)
            if number and time.perf_counter() - started > ENOUGH:
                break
    return min(seconds[torch.float32]), min(seconds[torch.bfloat16])


def num_weights(model: torch.nn.Module) -> int:
    """Return how many weights a model has in its layers, without embeddings."""
    tables = {module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    return sum(weight.numel() for weight in model.parameters() if weight not in tables)


def half_precision(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the context of a forward pass in a precision; with float32, no other context around it applies."""
    is_half = precision != torch.float32
    return torch.autocast(device.type, dtype=precision if is_half else torch.bfloat16, enabled=is_half)


def _check_float16(device: torch.device) -> None:
    try:
        one = torch.ones(1, 1, dtype=torch.float16, device=device)
        torch.nn.functional.linear(one, one)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"precision=float16: not usable on device={device} ({reason}): use float32 or auto") from None


def describe_device(device: torch.device, precision: torch.dtype | None, num_ranks: int = 1) -> str:
    """Return a description of what a command runs on: device, precision, and threads or GPU.

    precision: None: it is still to be measured.
    """
    num_threads = torch.get_num_threads()
    threads = f"{num_threads} thread{'s' if num_threads > 1 else ''}"
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    ranks = f", {num_ranks} ranks" if num_ranks > 1 else ""
    return f"device: {device} ({kind}), {_name(precision)}, torch {torch.__version__}{ranks}"


def _name(precision: torch.dtype | None) -> str:
    return "precision=auto" if precision is None else str(precision).removeprefix("torch.")


def peak_memory(device: torch.device) -> int:
    """Return the most memory used so far, in bytes: of the GPU, or of this process where it runs on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@functools.cache  # an optimiser asks in every step
def cpu_flags(cpu_info: Path) -> frozenset[str]:
    """Return the names of the CPU's features, none if the system has no such file."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    listed = [line.partition(":")[2] for line in lines if line.partition(":")[0].strip() in ("flags", "Features")]
    return frozenset(listed[0].split()) if listed else frozenset()


def is_emulated(name: str, device: torch.device) -> bool:
    """Whether a half precision is computed without instructions for it: on a CPU whose features say so."""
    flags = cpu_flags(CPU_INFO) if device.type == "cpu" else frozenset()
    return bool(flags) and not flags & FLAGS[name]


@functools.cache  # a suite asks for every task
def _warn_of_slow_half(name: str) -> None:
    slower = "with only AVX2 it took eight times as long as" if name == "bfloat16" else "it is slower than"
    log.warning(
        "precision=%s: this CPU has no instructions for it (none of %s): %s float32: use float32 or auto",
        *(name, ", ".join(sorted(FLAGS[name])), slower),
    )


def check_implementation(name: str | None, device: torch.device) -> None:
    """Raise InputError for a loss implementation that cannot run on the device; name is None if there is only one."""
    if name != "triton":
        return
    if importlib.util.find_spec("triton") is None:
        raise InputError("loss.implementation=triton: triton is not installed: pip install triton, or use auto")
    import triton  # imported here because it takes half a second

    if device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise InputError(
            f"loss.implementation=triton: Triton does not run on device={device}: use auto, or its slow interpreter "
            "by setting TRITON_INTERPRET=1 in the environment"
        )
