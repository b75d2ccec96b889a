"""Gradients of a micro-batch of lists, in memory that depends on the token budget alone.

    loss_function = partial(ranknet, reduction="sum")
    loss = backward(model, lists, loss_function, num_terms, max_tokens=16384)

A loss needs all scores of a list at once, but the encoder does not. Where the lists exceed the budget they go through
the encoder twice, a chunk at a time: first for the scores alone; the loss gives ∂L/∂s; then once more, each chunk with
its slice of that gradient. The random state is replayed, so dropout agrees, and the gradients are those of one pass
(Gao et al., 2021, https://arxiv.org/abs/2101.06983, did so for contrastive learning). It costs one more forward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from distill.data.batch import Batch
from distill.models.cross_encoder import CrossEncoder


def backward(
    model: CrossEncoder,
    lists: Batch,
    loss_function: Callable[[Tensor, Tensor, Tensor], Tensor],
    num_terms: Tensor | int,
    max_tokens: int,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Add the gradients of `loss_function(scores, target, mask) / num_terms` to the model's; return that, detached.

    num_terms: of the whole step, so that the update does not depend on how it is cut into micro-batches.
    """
    device = model.device

    def score(chunk) -> Tensor:
        # A context of its own for each pass: autocast keeps the cast weights, with the graph they were cast in
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            return model(chunk)

    chunks = [chunk.to(device) for chunk in model.chunks(lists, max_tokens)]
    one_pass = len(chunks) == 1 or len(lists.tokens) <= max_tokens
    random_states, parts = [], []
    for chunk in chunks:
        if not one_pass:
            random_states.append(_random_state(device))
        # With a graph even where it is thrown away: compiled code without one would draw other random numbers
        parts.append(score(chunk) if one_pass else score(chunk).detach().requires_grad_())
    loss = loss_function(model.arrange(lists, chunks, parts), lists.target, lists.mask) / num_terms
    loss.backward()
    if not one_pass:
        for chunk, state, part in zip(chunks, random_states, parts, strict=True):
            _set_random_state(device, state)
            score(chunk).backward(part.grad)
    return loss.detach()


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
