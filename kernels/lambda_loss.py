"""LambdaLoss in one Triton launch over the pairs, which computes the loss and its gradient.

    loss = lambda_loss(scores, gains)            # scalar float32; loss.backward() is one multiplication

    L = Σ_{(i,j): G_i > G_j} w_ij softplus(s_j − s_i)
    w_ij = (G_i − G_j) (|1 / D(p_i) − 1 / D(p_j)| + mu · (1 / D(|p_i − p_j|) − 1 / D(|p_i − p_j| + 1)))

D(p) = log2(1 + p), and p are the passages' places by the student's own scores. No gradient passes through the weights.
With t_ij = sign(G_i − G_j) and d_ij = t_ij (s_j − s_i), a pair adds w softplus(d), and −t w σ(d) to ∂L/∂s_i.

The pairs are those of the list in the order of its scores, so that a passage's place is its number. Whatever depends on
places is read from two tables, by place and by distance, made once in float64: beside RankNet's work, a pair takes one
logarithm and one load, and no division. kernels/pairs.py adds the pairs up without storing one.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import LOG2_E, check_inputs, operators, register_loss, zero_counters
from .pairs import sum_pairs

WEIGHTINGS = ("ndcg-loss2++", "ndcg-loss2", "lambdarank")
SLACK = tl.constexpr(128)  # the last tile reaches up to 127 places beyond the list


@triton.jit
def log1p_to_one(u):
    """Return log(1 + u) for u from 0 to 1, 4e-7 off at most: a minimax polynomial, where a logarithm takes 20 steps."""
    p = -0.008539208211 * u + 0.04408963397
    p = p * u - 0.107681714
    p = p * u + 0.1774524152
    p = p * u - 0.2449546307
    p = p * u + 0.3327547908
    p = p * u - 0.4999740422
    p = p * u + 0.9999998212
    return p * u


@triton.jit
def lambda_pairs(s_i, s_j, g_i, g_j, rows, columns, num_passages, table, cutoff):
    x = g_i - g_j
    counted = tl.where(tl.abs(x) > 0.0, 1.0, 0.0)  # NaN, padding, is not above 0
    x = tl.where((x == x) & ((rows < cutoff) | (columns < cutoff)), x, 0.0)
    by_distance = table + (2 * (num_passages + SLACK) - 1)  # on both sides, for distances of either sign
    places = tl.abs(tl.load(table + rows) - tl.load(table + columns)) + tl.load(by_distance + (columns - rows))
    w = x * places  # of the sign of G_i - G_j
    y = s_j - s_i
    d = tl.where(x > 0.0, y, -y)
    u = tl.exp2(tl.abs(d) * -LOG2_E)
    root = tl.rsqrt(1.0 + u)  # as in `sigmoid`
    above = root * root  # σ(|d|)
    punished = tl.maximum(d, 0.0) + log1p_to_one(u)  # softplus(d)
    return tl.abs(w) * punished, 1.0, -w * tl.where(d > 0.0, above, 1.0 - above), counted


def launch(
    scores: Tensor, gains: Tensor, counters: Tensor, rho: float, mu: float, cutoff: int, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the gradient of its sum [B, K] in float32, and the divisor of the sum.

    rho and mu: the factors of the parts of the weight by place and by distance; cutoff: 0 for none.
    """
    num_passages = scores.shape[1]
    in_order, order = scores.masked_fill(gains.isnan(), -torch.inf).sort(dim=1, descending=True, stable=True)
    length = num_passages + SLACK.value
    discounts = 1 / torch.log2(torch.arange(2, length + 2, dtype=torch.float64, device=scores.device))  # by place
    by_distance = torch.nn.functional.pad(discounts[:-1] - discounts[1:], (1, 0))
    table = torch.cat([rho * discounts, mu * by_distance.flip(0), mu * by_distance[1:]]).float()
    option = float(cutoff or num_passages)
    outputs = sum_pairs(lambda_pairs, in_order, gains.gather(1, order), counters, mean, option=option, table=table)
    loss, gradient, num_terms = outputs
    return loss, torch.empty_like(gradient).scatter_(1, order, gradient), num_terms


register_loss("lambda_loss", "float rho, float mu, int cutoff, bool mean", launch)


def lambda_loss(
    scores: Tensor,
    gains: Tensor,
    weighting: str = "ndcg-loss2++",
    mu: float = 10.0,
    cutoff: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """LambdaLoss: Σ_{(i,j): G_i > G_j} w_ij softplus(s_j − s_i), with w_ij as at the top of this file.

    Args:
        scores: [B, K] student scores in float32, bfloat16 or float16, any strides; computed in float32.
        gains: [B, K] gains of the passages, usually as shares of the best DCG; any floating dtype, NaN = padding.
        weighting: "ndcg-loss2++" as in the formula, "lambdarank" without its second part, "ndcg-loss2" without its
            first, and mu = 1.
        mu: weight of the second part in "ndcg-loss2++", at least 0.
        cutoff: k of nDCG@k: pairs count of which one passage is in the student's top k; None: all pairs.
        reduction: "mean" over all pairs of different gains of the batch, with a cutoff too, or "sum".

    Equal scores keep the order of the list. Pairs with a padded slot contribute nothing. The same input gives the same
    bits.
    Errors: ValueError for shapes that differ, for an unknown option, for float64 scores, and for a device on which
    Triton does not run.
    Source: Wang et al. 2018, "The LambdaLoss framework for ranking metric optimization", with natural logarithms.
    """
    check_inputs(scores, gains, reduction, "gains")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r} is unknown: use one of {', '.join(map(repr, WEIGHTINGS))}")
    rho, mu = {"ndcg-loss2++": (1.0, mu), "ndcg-loss2": (0.0, 1.0), "lambdarank": (1.0, 0.0)}[weighting]
    counters = zero_counters(scores)
    return operators.lambda_loss(scores, gains, counters, rho, mu, cutoff or 0, mean=reduction == "mean")[0]
