"""Write a loss of your own: one function of scores, target and mask.

Run: python -m examples.custom_loss

Prints the loss of three orders of one list, best to worst, and the gradient of the last:

    the teacher's order: 0.41
    first two swapped: 1.41
    reversed: 2.41
    gradient: -0.91 0.24 0.67
"""

import torch
from torch import Tensor


def top_one(scores: Tensor, ranks: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy with the teacher's best passage. scores, ranks, mask: [B, K]; rank 1 is best, 0 is padding."""
    scores = scores.float().masked_fill(~mask, float("-inf"))
    losses = -torch.log_softmax(scores, dim=1)[(ranks == 1) & mask]  # [B]
    return losses.sum() if reduction == "sum" else losses.mean()


ranks, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
for name, values in {"the teacher's order": (4, 3, 2), "first two swapped": (3, 4, 2), "reversed": (2, 3, 4)}.items():
    scores = torch.tensor([values], dtype=torch.float32, requires_grad=True)
    loss = top_one(scores, ranks, mask)
    print(f"{name}: {loss.item():.2f}")
loss.backward()
print("gradient:", *(f"{value:.2f}" for value in scores.grad[0].tolist()))
