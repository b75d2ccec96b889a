"""The weights of a model in a checkpoint: all of them, or those that are trained if the rest is frozen.

    content |= checkpoint_weights(model)
    restore_weights(model, content, path)

Of frozen weights, a checkpoint holds one checksum: a run that is resumed reads them from the backbone again.
"""

from pathlib import Path
from typing import Any

import torch

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.freezing import frozen_checksum, frozen_names
from distill.models.lora import merged


def checkpoint_weights(model: CrossEncoder) -> dict[str, Any]:
    """Return the part of a checkpoint that holds the weights."""
    weights = model.state_dict()
    if not model.is_partly_frozen:
        return {"model": weights}
    frozen = set(frozen_names(model))
    kept = {name: tensor for name, tensor in weights.items() if name not in frozen}
    return {"model": kept, "frozen": frozen_checksum(model)}


def restore_weights(model: CrossEncoder, content: dict[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint; raises InputError if the frozen weights are not those of the run."""
    if "frozen" not in content:
        model.load_state_dict(content["model"])
        return
    if not model.is_partly_frozen or content["frozen"] != frozen_checksum(model):
        raise InputError(
            f"{path}: the frozen weights of this run's backbone differ from those that it was started with: give the "
            "same backbone, as in backbone.name=DIR"
        )
    names = model.load_state_dict(content["model"], strict=False)
    assert set(names.missing_keys) == set(frozen_names(model)) and not names.unexpected_keys


def merged_weights(model: CrossEncoder) -> dict[str, torch.Tensor]:
    """Return the weights that a saved model has: with adapters merged, and the names that these layers had before."""
    with merged(model.backbone):
        return model.state_dict()
