"""Everything here needs a GPU, and none of Hydra, W&B and ir_measures."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture
def device() -> torch.device:
    """The GPU."""
    return torch.device("cuda")
