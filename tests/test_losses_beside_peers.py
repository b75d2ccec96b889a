"""Our losses beside those of sentence-transformers and lightning-ir, on the same scores; differences are named."""

import math

import pytest
import torch

from distill.losses import (
    adr_mse,
    approx_ndcg,
    bce,
    kl,
    lambda_loss,
    listmle,
    listnet,
    margin_mse,
    mse,
    plistmle,
    ranknet,
)

SIZES = (5, 3, 4)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("sentence_transformers", minversion="6.2", reason="needs sentence-transformers 6.2")
    from sentence_transformers.cross_encoder import losses

    return losses


class Scorer(torch.nn.Module):
    """Stands for a CrossEncoder of one label: gives the scores that it holds, in order."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, scores: torch.Tensor):
        super().__init__()
        self.scores, self.given = scores, 0

    def preprocess(self, pairs, **_options):
        return {"pairs": torch.arange(self.given, self.given + len(pairs))}

    def forward(self, tokens):
        self.given += len(tokens["pairs"])
        return {"scores": self.scores[tokens["pairs"]][:, None]}


def lists(*, tied: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ragged scores, labels and mask [3, 5]; tied: labels 0 to 2, else all of a list differ."""
    generator = torch.Generator().manual_seed(7)
    mask = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
    scores = 2 * torch.randn(mask.shape, generator=generator)
    if tied:
        labels = torch.randint(0, 3, mask.shape, generator=generator).float()
        labels[:, 0], labels[:, 1] = 2, 0
    else:
        labels = torch.stack([torch.randperm(max(SIZES), generator=generator) for _ in SIZES]).float()
    return scores, labels * mask, mask


def value_of(loss, scores, labels, mask) -> torch.Tensor:
    """The value of a listwise class of sentence-transformers."""
    queries, documents = ["q"] * len(SIZES), [["d"] * size for size in SIZES]
    ragged = [row[kept] for row, kept in zip(labels, mask, strict=True)]
    return loss([queries, documents], ragged)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("weighting", "scheme"),
    [("ndcg-loss2++", "NDCGLoss2PPScheme"), ("ndcg-loss2", "NDCGLoss2Scheme"), ("lambdarank", "LambdaRankScheme")],
)
def test_lambda_loss(theirs, tied, weighting, scheme):
    scores, labels, mask = lists(tied=tied)
    scheme = getattr(theirs, scheme)()
    # Their default is log2: our value over log(2)
    for log, factor in (("natural", 1.0), ("binary", 1 / math.log(2))):
        loss = theirs.LambdaLoss(Scorer(scores[mask]), weighting_scheme=scheme, reduction_log=log, mini_batch_size=-1)
        ours = lambda_loss(scores, labels, mask, weighting) * factor
        torch.testing.assert_close(value_of(loss, scores, labels, mask), ours, **CLOSE)


def test_lambda_loss_with_a_cutoff_sums_the_same_pairs(theirs):
    # Their mean is over the pairs within the cutoff, ours over all of different labels: the sums agree
    scores, labels, mask = lists()
    loss = theirs.LambdaLoss(Scorer(scores[mask]), k=2, reduction_log="natural", mini_batch_size=-1)
    places = scores.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
    within = (places < 2) & mask
    counted = (labels[:, :, None] > labels[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    counted &= within[:, :, None] | within[:, None, :]
    ours = lambda_loss(scores, labels, mask, cutoff=2, reduction="sum")
    torch.testing.assert_close(value_of(loss, scores, labels, mask) * counted.sum(), ours, **CLOSE)


def test_listnet(theirs):
    scores, labels, mask = lists(tied=True)
    loss = theirs.ListNetLoss(Scorer(scores[mask]), mini_batch_size=-1)
    torch.testing.assert_close(value_of(loss, scores, labels, mask), listnet(scores, labels, mask), **CLOSE)


@pytest.mark.parametrize(("name", "ours"), [("ListMLELoss", listmle), ("PListMLELoss", plistmle)])
def test_listmle_without_ties(theirs, name, ours):
    # With ties they rank equal labels in the order given, and we let them not compete
    scores, labels, mask = lists()
    order = labels.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True)
    scores, labels = scores.gather(1, order), labels.gather(1, order)
    loss = getattr(theirs, name)(Scorer(scores[mask]), mini_batch_size=-1)
    torch.testing.assert_close(value_of(loss, scores, labels, mask), ours(scores, labels, mask), **CLOSE)


def test_ranknet_and_adr_mse(theirs):
    scores, labels, mask = lists()
    ranks = (labels[:, None, :].masked_fill(~mask[:, None, :], -1) > labels[:, :, None]).sum(dim=2) + 1.0
    ranks = ranks * mask
    loss = theirs.RankNetLoss(Scorer(scores[mask]), reduction_log="natural", mini_batch_size=-1)
    torch.testing.assert_close(value_of(loss, scores, labels, mask), ranknet(scores, ranks, mask), **CLOSE)
    loss = theirs.ADRMSELoss(Scorer(scores[mask]), mini_batch_size=-1)
    torch.testing.assert_close(value_of(loss, scores, labels, mask), adr_mse(scores, ranks, mask), **CLOSE)


def test_pointwise_losses_and_margins(theirs, monkeypatch):
    for module in ("mse", "binary_cross_entropy", "margin_mse"):  # they check the model's class
        monkeypatch.setattr(f"sentence_transformers.cross_encoder.losses.{module}.CrossEncoder", Scorer)
    scores, labels, mask = lists(tied=True)
    binary = (labels > 0).float()
    flat, pairs = Scorer(scores[mask]), [["q"] * sum(SIZES), ["d"] * sum(SIZES)]
    torch.testing.assert_close(theirs.MSELoss(flat)(pairs, labels[mask]), mse(scores, labels, mask), **CLOSE)
    flat.given = 0
    loss = theirs.BinaryCrossEntropyLoss(flat)
    torch.testing.assert_close(loss(pairs, binary[mask]), bce(scores, binary, mask), **CLOSE)
    two = torch.ones(3, 2, dtype=torch.bool)
    first_two = scores[:, :2]
    loss = theirs.MarginMSELoss(Scorer(first_two.T.flatten()))
    margins = labels[:, 0] - labels[:, 1]
    value = loss([["q"] * 3, ["d"] * 3, ["e"] * 3], margins)
    torch.testing.assert_close(value, margin_mse(first_two, labels[:, :2], two), **CLOSE)


def test_kl_and_approx_ndcg_as_lightning_ir_defines_them():
    # Written out, as lightning-ir needs an interpreter with older libraries: whole lists, no padding
    scores, labels, _ = lists(tied=True)
    mask = torch.ones_like(scores, dtype=torch.bool)
    expected = torch.nn.functional.kl_div(
        scores.log_softmax(dim=-1), labels.log_softmax(dim=-1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(kl(scores, labels, mask), expected, **CLOSE)
    ranks = (torch.sigmoid(scores[:, None] - scores[..., None]) * (1 - torch.eye(5))).sum(-1) + 1
    gains, places = 2**labels - 1, torch.arange(1, 6)
    best = (gains.sort(descending=True).values / torch.log2(1 + places)).sum(-1)
    expected = (1 - (gains / torch.log2(1 + ranks)).sum(-1) / best).mean()
    torch.testing.assert_close(approx_ndcg(scores, labels, mask), expected, **CLOSE)
