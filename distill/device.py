"""The device, the precision and the kernels that a run can have on this machine."""

import importlib.util

import torch

from distill.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the named device; "auto" is CUDA where there is one, else the CPU.

    Raises InputError for a device that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not usable here ({str(error).splitlines()[0]}): try device=cpu") from None


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward pass; "auto" is bfloat16 on CUDA, where it is always faster, else float32."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, name)


def check_implementation(name: str, device: torch.device) -> None:
    """Raise InputError for a loss implementation that cannot run on the device: before the data are read."""
    if name != "triton":
        return
    if importlib.util.find_spec("triton") is None:
        raise InputError("loss.implementation=triton: triton is not installed: pip install triton, or use auto")
    import triton  # here: half a second, for those alone who ask for it

    if device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise InputError(
            f"loss.implementation=triton: Triton does not run on device={device}: use auto, or its slow interpreter "
            "with TRITON_INTERPRET=1 in the environment"
        )
