"""The fused Triton kernels, found where they are: `distill._kernels` once installed, `kernels/` in a checkout.

    from distill.losses.fused import adr_mse, ranknet

Import it only where a kernel is used: not every system has Triton. Hugging Face has a package `kernels` too, which may
come first on the path. That one stays as it is and searches our folder as well.
"""

import importlib
import importlib.util
from pathlib import Path

PACKAGE = "distill._kernels" if importlib.util.find_spec("distill._kernels") else "kernels"
FOLDER = str(Path(__file__).parents[2] / "kernels")

if PACKAGE == "kernels":
    import kernels

    if FOLDER not in kernels.__path__:
        kernels.__path__.insert(0, FOLDER)

adr_mse = importlib.import_module(f"{PACKAGE}.adr_mse")
approx_ndcg = importlib.import_module(f"{PACKAGE}.approx_ndcg")
bradley_terry = importlib.import_module(f"{PACKAGE}.bradley_terry")
hinge = importlib.import_module(f"{PACKAGE}.hinge")
lambda_loss = importlib.import_module(f"{PACKAGE}.lambda_loss")
ranknet = importlib.import_module(f"{PACKAGE}.ranknet")
