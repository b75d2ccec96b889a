"""Compute the gradients of a micro-batch of lists; the memory needed depends only on max_tokens.

    objective = Objective(cfg.loss)
    num_terms = objective.count_terms(lists.targets, lists.mask).clamp(min=1)
    losses = backward(model, lists, objective, num_terms, weights=[1.0], max_tokens=16384)          # [parts]

A loss needs all scores of a list at once, but the encoder does not. Lists that exceed max_tokens go through the encoder
twice, chunk by chunk. The first pass computes only the scores, from which the loss gives ∂L/∂s. The second pass
backpropagates each chunk's slice of that gradient. The random state is replayed, so dropout is the same in both passes
and the gradients equal those of a single pass. This costs one extra forward pass. Gao et al., 2021
(https://arxiv.org/abs/2101.06983), did the same for contrastive learning. With a draw, the second pass has only the
passages that are drawn (distill/training/draw.py), and draws its own dropout.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data.batch import Batch
from distill.device import half_precision
from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.training.draw import PassageDraw


def backward(
    model: CrossEncoder,
    lists: Batch,
    objective: Objective,
    num_terms: Tensor,
    weights: Sequence[float],
    max_tokens: int,
    precision: torch.dtype = torch.float32,
    scaler: torch.amp.GradScaler | None = None,
    draw: PassageDraw | None = None,
) -> Tensor:
    """Add the gradients of the weighted sum of `objective(scores, ...) / num_terms` to the model's.

    Returns these losses [parts], without their weights. num_terms: [parts] of the whole step, so that the update does
    not depend on how the step is split into micro-batches. scaler: scales the gradients, so that float16 can hold them.
    draw: chooses the passages of longer lists that gradients come from; the losses are those of all.
    """
    device = model.device

    def score(chunk) -> Tensor:
        # A new context for each pass: autocast caches the cast weights along with their graph
        with half_precision(device, precision):
            return model(chunk)

    chunks = [chunk.to(device) for chunk in model.chunks(lists, max_tokens)]
    if draw is not None and not draw.shortens(lists):
        draw = None
    one_pass = draw is None and (len(chunks) == 1 or len(lists.tokens) <= max_tokens)
    random_states, scores = [], []
    for chunk in chunks:
        if draw is not None:
            with torch.no_grad():
                scores.append(score(chunk).requires_grad_())
            continue
        if not one_pass:
            random_states.append(_random_state(device))
        # The graph is built even if it is then discarded: without it, compiled code draws other random numbers
        scores.append(score(chunk) if one_pass else score(chunk).detach().requires_grad_())
    losses = objective(model.arrange(lists, chunks, scores), lists.targets, lists.mask) / num_terms
    loss = objective.weigh(losses, weights)
    scaled = loss if scaler is None else scaler.scale(loss)
    if one_pass:
        scaled.backward()
        return losses.detach()
    gradients = torch.autograd.grad(scaled, scores)  # ∂L/∂s of each chunk
    if draw is not None:
        drawn, of_drawn = draw(lists, model.arrange(lists, chunks, list(gradients)))
        for chunk in model.chunks(drawn, max_tokens):
            score(chunk.to(device)).backward(of_drawn[chunk.pairs.to(device)])
    else:
        for chunk, state, gradient in zip(chunks, random_states, gradients, strict=True):
            _set_random_state(device, state)
            score(chunk).backward(gradient)
    return losses.detach()


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
