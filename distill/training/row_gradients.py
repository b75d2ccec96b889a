"""Gradients of large embeddings on a CPU, added row by row.

    add_gradients_by_row(model)     # once, before training; the gradients are dense, with the same bits, as before

Each backward pass reads a few thousand tokens, but PyTorch's gradient of an embedding has a row for each token of the
vocabulary: it is filled with zeros, and then added as a whole. That is 47 MB for the 30,522 tokens of a MiniLM and 768
MB for the 250,002 of XLM-RoBERTa-base, for every 2048 tokens that are trained on.
"""

import torch
from torch import Tensor, nn

LARGE = 1_000_000  # numbers in an embedding for which this is worth its work


def add_gradients_by_row(model: nn.Module) -> None:
    """Let backward passes add to the gradients of large embeddings in place, in the rows that were read.

    The sums are those of PyTorch's dense gradients, bit for bit. Compiled code has no sparse gradients: leave it out
    there.
    """
    for embedding in model.modules():
        if isinstance(embedding, nn.Embedding) and embedding.weight.numel() >= LARGE:
            weight = embedding.weight
            if weight.requires_grad and weight.device.type == "cpu":
                embedding.sparse = True
                embedding.register_forward_hook(_sum_each_lookup)
                weight.register_hook(_BeforeAdding(weight))


def _sum_each_lookup(_embedding: nn.Module, _given: tuple, states: Tensor) -> None:
    """Sum the rows of each lookup by itself, as dense gradients do: float32 sums depend on their order."""
    if states.grad_fn is not None:
        states.grad_fn.register_hook(lambda gradients, _: tuple(map(_sum_rows, gradients)))


class _BeforeAdding:
    """Called with the gradient of a whole backward pass before it is added to the weights' own."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the gradient [V, D]; the weights' own is made dense before."""
        if not gradient.is_sparse:  # the weights have another use, such as a language model's output
            return gradient
        if self.weight.grad is None:
            self.weight.grad = torch.zeros_like(self.weight)
        return _sum_rows(gradient)


def _sum_rows(gradient: Tensor) -> Tensor:
    """Return a sparse gradient [V, D] with one entry for each row.

    Its entries are added in their order, as in a dense gradient; `coalesce` has an order of its own.
    """
    if gradient.is_coalesced():
        return gradient
    rows, place = torch.unique(gradient._indices()[0], return_inverse=True)
    sums = gradient._values().new_zeros(len(rows), gradient.shape[1]).index_add_(0, place, gradient._values())
    return torch.sparse_coo_tensor(rows[None], sums, gradient.shape, is_coalesced=True, check_invariants=False)
