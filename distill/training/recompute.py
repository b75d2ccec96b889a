"""Gradient checkpointing: a layer's activations are not kept for the backward pass, but computed again.

recompute_activations(model.backbone)

Only the input of each layer is kept. The random state is replayed, so dropout drops the same activations in both passes
and gradients do not change. This costs one more forward pass through the layers. Chen et al., 2016
(https://arxiv.org/abs/1604.06174).
"""

from typing import TYPE_CHECKING

from distill.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def recompute_activations(backbone: "PreTrainedModel") -> None:
    """Make a backbone compute its activations again in the backward pass; it changes only the training mode.

    Raises InputError for an architecture that cannot.
    """
    if not backbone.supports_gradient_checkpointing:
        raise InputError(
            f"train.checkpointing=true: transformers cannot checkpoint a {backbone.config.model_type} backbone: set it "
            "to false, and lower train.max_tokens instead"
        )
    enable = getattr(backbone, "activation_checkpointing_enable", None)  # transformers before 5.20 has the other name
    (enable or backbone.gradient_checkpointing_enable)({"use_reentrant": False})
    backbone.disable_input_require_grads()  # only reentrant checkpoints need it; frozen layers would get a graph
