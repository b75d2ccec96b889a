"""Triton kernels of the losses over pairs, one module a loss: `kernels.ranknet.ranknet`, `kernels.adr_mse.adr_mse`, ….

Hugging Face has an optional package of the same name, which `transformers` imports if it is installed. From the
repository root, this package comes first on the path, so it forwards every other name to the installed package.
"""

import importlib.util
import pkgutil
import sys
from types import ModuleType
from typing import Any

LOSSES = ("ranknet", "bradley_terry", "hinge", "lambda_loss", "adr_mse", "approx_ndcg")
SHARED = ("launch", "pairs", "smooth_ranks")

__path__ = pkgutil.extend_path(__path__, __name__)  # submodules of every installed package `kernels`


def __getattr__(name: str) -> Any:
    """Return a name of the installed package `kernels`; raises AttributeError if there is none."""
    if name in (*LOSSES, *SHARED) or len(__path__) == 1:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_installed_package(), name)


def _installed_package() -> ModuleType:
    """Run the installed package's __init__.py under a separate name; its submodules keep the name `kernels.…`."""
    name = f"{__name__}._installed"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, f"{__path__[1]}/__init__.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
