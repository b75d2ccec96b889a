"""A kernel against the definition in float64, and the tolerances.

The kernels of all losses are called alike, with scores and ranks [B, K]: `target_of` makes of the ranks what a loss
learns from.
"""

import torch

from distill import losses
from distill.losses.ndcg import _shares
from distill.losses.terms import without_padding
from kernels.adr_mse import adr_mse
from kernels.approx_ndcg import approx_ndcg
from kernels.bradley_terry import bradley_terry
from kernels.hinge import hinge
from kernels.lambda_loss import lambda_loss
from kernels.ranknet import ranknet


def target_of(name: str, ranks: torch.Tensor) -> torch.Tensor:
    """Ranks; teacher scores that fall with them; or labels 3, 2, 1, 0, 3, ... by rank, so that many tie."""
    if name in losses.ON_RANKS:
        return ranks
    return (-0.3 * ranks if name == "bradleyterry" else 3 - ranks.floor() % 4) * (ranks > 0)


def _on_target(name: str, kernel):
    return lambda scores, ranks, **options: kernel(
        scores, without_padding(target_of(name, ranks), ranks > 0), **options
    )


def _on_gains(name: str, kernel):
    def loss(scores, ranks, gain="exponential", **options):
        shares = _shares(target_of(name, ranks).float(), ranks > 0, gain, options.get("cutoff"))
        return kernel(scores, without_padding(shares, ranks > 0), **options)

    return loss


KERNELS = {
    "ranknet": ranknet,
    "adrmse": adr_mse,
    "hinge": _on_target("hinge", hinge),
    "bradleyterry": _on_target("bradleyterry", bradley_terry),
    "lambda": _on_gains("lambda", lambda_loss),
    "approxndcg": _on_gains("approxndcg", approx_ndcg),
}
NAMES = sorted(KERNELS)
# Against float64: the loss to `LOSS`, each gradient to a share of the largest of the batch. Scores in half precision
# are exact in float64, so that only the gradient's last rounding, to the scores' own dtype, is coarser (and Triton's
# interpreter cuts bfloat16 off where a GPU rounds).
LOSS = {"rtol": 1e-6, "atol": 1e-6}
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-11 + 1e-5}
GRADIENT_FLOOR = 1e-6  # of a sum's gradient where all pairs are saturated and nothing but rounding is left


def make_lists(num_lists: int, depth: int, scale: float = 2.0, dtype=torch.float32, seed: int = 0):
    """Scores and ranks [B, K] with ties; from the second list on ragged: K - 2 passages, one, none, and again."""
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(num_lists, depth, generator=generator)
    scores = ((scores * 1024).round() / 1024).to(dtype)  # float32 holds their differences, and so the kink of hinge
    ranks = torch.stack([torch.randperm(depth, generator=generator) for _ in range(num_lists)]) + 1.0
    first, last = (ranks == 1).nonzero(as_tuple=True), (ranks == 2).nonzero(as_tuple=True)
    ranks[first], ranks[last] = (1.5, 1.5) if depth > 1 else (1.0, 1.0)
    for row in range(1, num_lists):
        size = [depth, max(depth - 2, 0), min(depth, 1), 0][row % 4]
        ranks[row] *= ranks[row] <= size
    return scores, ranks


def run(loss_function, scores, ranks, upstream: float = 3.0, **options):
    scores = scores.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = loss_function(scores, ranks, **options)
    (upstream * loss).backward()
    return loss.detach(), scores.grad


def by_name(name: str, scores, ranks, **options):
    return losses.LOSSES[name](scores, target_of(name, ranks), ranks > 0, **options)


def plain(name: str):
    def definition(scores, ranks, **options):
        return by_name(name, scores, ranks, implementation="torch", **options)

    return definition


def check(name: str, scores, ranks, device, **options):
    """Compare loss and gradient with the definition in float64; return what the kernel gave."""
    loss, gradient = run(KERNELS[name], scores.to(device), ranks.to(device), **options)
    expected, expected_gradient = run(plain(name), scores.double(), ranks, **options)
    assert loss.dtype == torch.float32 and gradient.dtype == scores.dtype and gradient.shape == scores.shape
    torch.testing.assert_close(loss.cpu().double(), expected, **LOSS)
    # the mean's gradient is the sum's, divided
    floor = GRADIENT_FLOOR if options.get("reduction") == "sum" else GRADIENT_FLOOR / max(int((ranks > 0).sum()), 1)
    bound = GRADIENT[scores.dtype] * expected_gradient.abs().max() + floor
    error = (gradient.cpu().double() - expected_gradient).abs().max() if gradient.numel() else torch.tensor(0.0)
    assert error <= bound, f"gradient off by {error:.2e}, allowed {bound:.2e}"
    assert (gradient[(ranks == 0).to(device)] == 0).all()
    return loss, gradient
