"""Each loss against a list worked out by hand, an independent float64 reference, and its properties."""

import math
import weakref

import pytest
import torch

from distill.losses import (
    LOSSES,
    ON_RANKS,
    TERMS,
    adr_mse,
    approx_ndcg,
    bce,
    bradley_terry,
    hinge,
    kl,
    lambda_loss,
    lce,
    listmle,
    listnet,
    make_loss,
    margin_mse,
    mse,
    plistmle,
    ranknet,
    tiles,
)
from distill.losses.terms import count_ranked_pairs, relevance_of

ALL = sorted(LOSSES)
EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64 against float64
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}  # float32 against float64

# Worked by hand: scores 2, 0, 1; ranks 1, 2, 3; the same passages have labels 1, 0, 0 and teacher scores 3, 1, 0
SCORES = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
RANKS = torch.tensor([[1.0, 2.0, 3.0]])
LABELS = torch.tensor([[1.0, 0.0, 0.0]])
TEACHER_SCORES = torch.tensor([[3.0, 1.0, 0.0]])
MASK = torch.ones(1, 3, dtype=torch.bool)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def check(loss: torch.Tensor, value: float) -> None:
    assert loss.item() == pytest.approx(value, rel=1e-12)


def test_ranknet_by_hand():
    # pairs (1, 2), (1, 3), (2, 3) with s_j - s_i = -2, -1, +1: the last pair stands the wrong way round
    terms = [0.12692801104297263, 0.31326168751822286, 1.3132616875182228]
    check(ranknet(SCORES, RANKS, MASK, reduction="sum"), sum(terms))
    check(ranknet(SCORES, RANKS, MASK), sum(terms) / 3)


def test_adr_mse_by_hand():
    # smooth ranks 1 + σ(-2) + σ(-1), 1 + σ(2) + σ(1), 1 + σ(1) + σ(-1) = 1.3881, 2.6119, 2
    first = 0.11920292202211755 + 0.2689414213699951
    terms = [first**2, (1 - first) ** 2 / math.log2(3), 1.0 / 2]
    check(adr_mse(SCORES, RANKS, MASK, reduction="sum"), sum(terms))
    check(adr_mse(SCORES, RANKS, MASK), sum(terms) / 3)
    check(adr_mse(SCORES, RANKS, MASK, discount="none"), (first**2 + (1 - first) ** 2 + 1) / 3)


def test_adr_mse_becomes_exact_ranks_for_large_alpha():
    # exact ranks of the scores are 1, 3, 2
    check(adr_mse(SCORES, RANKS, MASK, alpha=1e4, reduction="sum"), 0 + 1 / math.log2(3) + 1 / 2)


def test_lce_by_hand():
    check(lce(SCORES, LABELS, MASK), math.log(1 + math.exp(-2) + math.exp(-1)))


def test_lce_lets_each_relevant_passage_compete_with_negatives_only():
    labels = torch.tensor([[2.0, 0.0, 1.0]])
    check(lce(SCORES, labels, MASK, reduction="sum"), softplus(-2) + softplus(-1))
    check(lce(SCORES, labels, MASK), (softplus(-2) + softplus(-1)) / 2)


def test_guided_lce_leaves_out_negatives_that_the_teacher_scores_above_the_relevant_passage():
    # scores 2, 0, 1, 3; passages 1 and 4 are relevant; the teacher knows nothing of the last
    scores, mask = torch.tensor([[2.0, 0.0, 1.0, 3.0]], dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool)
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    both = [math.log(1 + math.exp(-2) + math.exp(-1)), math.log(1 + math.exp(-3) + math.exp(-2))]
    for taught, first in {
        (5.0, 1.0, 5.0): both[0],  # as high as the relevant passage is not above it
        (5.0, 6.0, 4.0): softplus(-1),
        (5.0, 4.0, 6.0): softplus(-2),
        (5.0, 6.0, 7.0): 0.0,
        (5.0, math.nan, 7.0): softplus(-2),
        (math.nan, 6.0, 7.0): both[0],
    }.items():
        guide = torch.tensor([[*taught, math.nan]])
        check(lce(scores, labels, mask, "sum", guide), first + both[1])
        check(lce(scores, labels, mask, guide=guide), (first + both[1]) / 2)


def test_guided_lce_is_a_sum_over_the_negatives_that_are_left():
    scores, targets, mask = make_lists()
    labels, guide = (targets["lce"] > 0).double(), targets["kl"].masked_fill(targets["kl"] > 1, math.nan)
    student = scores.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for s, y, t, real in zip(student, labels, guide, mask, strict=True):
        for i in range(len(s)):
            if y[i] > 0 and real[i]:
                kept = [j for j in range(len(s)) if real[j] and y[j] == 0 and not t[j] > t[i]]
                total = total + torch.log(1 + sum((torch.exp(s[j] - s[i]) for j in kept), torch.zeros(())))
    (expected,) = torch.autograd.grad(total, student)
    loss = lce(student, labels, mask, "sum", guide)
    torch.testing.assert_close(loss, total, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected, **EXACT)
    assert loss < lce(scores, labels, mask, reduction="sum")
    unguided = lce(scores, labels, mask, "sum", torch.full_like(guide, math.nan))
    torch.testing.assert_close(unguided, lce(scores, labels, mask, reduction="sum"), **EXACT)
    large = (scores * 5e3).float().requires_grad_()
    loss = lce(large, labels, mask, "sum", guide)
    expected = lce(large.detach().double(), labels, mask, "sum", guide).float()
    torch.testing.assert_close(loss, expected, **FLOAT32)
    assert torch.autograd.grad(loss, large)[0].isfinite().all()
    gone = lce(student, labels, mask, guide=(labels == 0).double())  # every negative is left out
    assert gone == 0 and (torch.autograd.grad(gone, student)[0] == 0).all()


def test_margin_mse_by_hand():
    # margins of the student 2, 1, -1 against the teacher's 2, 3, 1
    check(margin_mse(SCORES, TEACHER_SCORES, MASK, reduction="sum"), 0 + 4 + 4)
    check(margin_mse(SCORES, TEACHER_SCORES, MASK), 8 / 3)


@pytest.mark.parametrize("guided", [False, True])
def test_smoothed_lce_is_the_smoothed_cross_entropy_of_each_relevant_passage_and_its_negatives(guided):
    torch.manual_seed(0)
    scores = torch.randn(4, 9, dtype=torch.float64).mul(3).requires_grad_()
    labels, mask = (torch.rand(4, 9) < 0.3).double(), torch.rand(4, 9) < 0.8
    labels[2], labels[3] = 0.0, 1.0  # nothing relevant, and nothing to compete with
    guide = torch.randn(4, 9, dtype=torch.float64).masked_fill(torch.rand(4, 9) < 0.2, math.nan) if guided else None
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        for place in (mask[row] & (labels[row] > 0)).nonzero().flatten().tolist():
            negatives = mask[row] & (labels[row] == 0)
            if guide is not None:
                negatives &= ~(guide[row] > guide[row, place])  # NaN is above nothing
            together = torch.cat([scores[row, place : place + 1], scores[row][negatives]])
            target = torch.tensor(0)
            expected = expected + torch.nn.functional.cross_entropy(together, target, label_smoothing=0.2)
    loss = lce(scores, labels, mask, "sum", guide, 0.2)
    torch.testing.assert_close(loss, expected, **EXACT)
    [gradient], [reference] = torch.autograd.grad(loss, scores), torch.autograd.grad(expected, scores)
    torch.testing.assert_close(gradient, reference, **EXACT)
    assert torch.equal(lce(scores, labels, mask, "sum", guide, 0.0), lce(scores, labels, mask, "sum", guide))


def test_smoothed_lce_and_bce_by_hand():
    mean = (2 + 0 + 1) / 3
    check(lce(SCORES, LABELS, MASK, label_smoothing=0.1), math.log(1 + math.exp(-2) + math.exp(-1)) + 0.1 * (2 - mean))
    terms = softplus(2) - 0.95 * 2 + softplus(0) - 0.05 * 0 + softplus(1) - 0.05 * 1
    check(bce(SCORES, LABELS, MASK, label_smoothing=0.1), terms / 3)
    padded = torch.tensor([[2.0, 0.0, 1.0, math.nan]], dtype=torch.float64), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    for loss in (lce, bce):
        whole = loss(*padded, torch.tensor([[True] * 3 + [False]]), label_smoothing=0.1)
        check(whole, loss(SCORES, LABELS, MASK, label_smoothing=0.1).item())


def test_bce_by_hand():
    check(bce(SCORES, LABELS, MASK), (softplus(-2) + softplus(0) + softplus(1)) / 3)


def test_hinge_by_hand():
    # pairs (1, 2) with margin 2 and (1, 3) with margin 1: no violation at m = 1; at m = 1.5 the second by 0.5
    check(hinge(SCORES, LABELS, MASK), 0.0)
    check(hinge(SCORES, LABELS, MASK, margin=1.5), 0.25)


def entropy(*numbers: float) -> float:
    return -sum(p * math.log(p) for p in softmax(*numbers))


def softmax(*numbers: float) -> list[float]:
    total = sum(math.exp(number) for number in numbers)
    return [math.exp(number) / total for number in numbers]


def test_mse_by_hand():
    check(mse(SCORES, TEACHER_SCORES, MASK, reduction="sum"), 1 + 1 + 1)
    # teacher scores 3, 1, 0: mean 4/3, variance 14/9
    z = [(t - 4 / 3) / math.sqrt(14 / 9) for t in (3, 1, 0)]
    check(
        mse(SCORES, TEACHER_SCORES, MASK, normalise="z-score"),
        sum((s - t) ** 2 for s, t in zip((2, 0, 1), z, strict=True)) / 3,
    )
    tied = torch.full((1, 3), 7.0)
    check(mse(SCORES, tied, MASK, normalise="z-score"), 5 / 3)
    for value in (0.95, 0.1):  # the mean of these is not their value, in float32
        equal = torch.full((1, 8), value)
        loss = mse(torch.zeros(1, 8), equal, torch.ones(1, 8, dtype=torch.bool), normalise="z-score")
        assert loss.item() == 0.0
    nothing = torch.zeros(2, 0)
    assert mse(nothing, nothing, nothing.bool(), normalise="z-score").item() == 0.0


def test_kl_and_listnet_by_hand():
    taught, learned = softmax(3, 1, 0), softmax(2, 0, 1)
    cross = -sum(p * math.log(q) for p, q in zip(taught, learned, strict=True))
    check(listnet(SCORES, TEACHER_SCORES, MASK), cross)
    check(kl(SCORES, TEACHER_SCORES, MASK), cross - entropy(3, 1, 0))
    taught, learned = softmax(1.5, 0.5, 0), softmax(1, 0, 0.5)
    divergence = sum(p * math.log(p / q) for p, q in zip(taught, learned, strict=True))
    check(kl(SCORES, TEACHER_SCORES, MASK, temperature=2.0), 4 * divergence)
    check(kl(TEACHER_SCORES.double(), TEACHER_SCORES, MASK), 0)


def test_kl_at_temperature_1_has_the_gradient_of_listnet():
    scores, targets, mask = make_lists()
    gradients = []
    for loss in (kl, listnet):
        student = scores.clone().requires_grad_()
        loss(student, targets["kl"], mask).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
@pytest.mark.parametrize("loss", [LOSSES[name] for name in ALL], ids=ALL)
def test_targets_may_be_whole_numbers(loss, dtype):
    whole = torch.arange(SCORES.numel(), dtype=dtype).view_as(SCORES)
    torch.testing.assert_close(loss(SCORES, whole, MASK), loss(SCORES, whole.to(SCORES.dtype), MASK))


def test_listmle_by_hand():
    # relevance 3, 1, 0 (any numbers of that order): the first against all, the second against the third
    terms = [math.log(1 + math.exp(-2) + math.exp(-1)), softplus(1)]
    check(listmle(SCORES, TEACHER_SCORES, MASK), sum(terms))
    # weights 2^2 - 1, 2^1 - 1, 0 over their sum
    check(plistmle(SCORES, TEACHER_SCORES, MASK), (3 * terms[0] + terms[1]) / 4)
    # labels 1, 1, 0: the tied passages share rank 1.5, and compete with the third only
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    check(listmle(SCORES, labels, MASK), softplus(-1) + softplus(1))
    check(plistmle(SCORES, labels, MASK), (softplus(-1) + softplus(1)) / 2)


def test_listmle_of_labels_is_lce():
    scores, targets, mask = make_lists()
    binary = (targets["lce"] > 0).double()
    torch.testing.assert_close(
        listmle(scores, binary, mask, reduction="sum"), lce(scores, binary, mask, reduction="sum"), **EXACT
    )


def test_lambda_loss_by_hand():
    # labels 2, 0, 1 of scores 2, 0, 1: gains 3, 0, 1 over the best DCG 3 + 1 / log2(3); places 1, 3, 2
    labels, best = torch.tensor([[2.0, 0.0, 1.0]]), 3 + 1 / math.log2(3)
    d1, d2, d3 = 1.0, 1 / math.log2(3), 0.5  # 1 / D
    pairs = {  # (i, j): softplus(s_j - s_i), gain, lambdarank, ndcg-loss2
        "1, 2": (softplus(-2), 3 / best, d1 - d3, d2 - d3),
        "1, 3": (softplus(-1), 2 / best, d1 - d2, d1 - d2),
        "3, 2": (softplus(-1), 1 / best, d2 - d3, d1 - d2),
    }
    for weighting, (rho, delta) in {"lambdarank": (1, 0), "ndcg-loss2": (0, 1), "ndcg-loss2++": (1, 10)}.items():
        terms = [punished * gain * (rho * swap + delta * gap) for punished, gain, swap, gap in pairs.values()]
        check(lambda_loss(SCORES, labels, MASK, weighting), sum(terms) / 3)
    # in the top 1 is only the first passage, and the best DCG@1 is 3
    terms = [punished * gain * best / 3 * swap for punished, gain, swap, _ in [pairs["1, 2"], pairs["1, 3"]]]
    check(lambda_loss(SCORES, labels, MASK, "lambdarank", cutoff=1), sum(terms) / 3)
    # linear gains 2, 0, 1 over 2 + 1 / log2(3)
    linear = [(softplus(-2), 2, d1 - d3), (softplus(-1), 1, d1 - d2), (softplus(-1), 1, d2 - d3)]
    expected = sum(punished * gain * swap for punished, gain, swap in linear) / (2 + d2) / 3
    check(lambda_loss(SCORES, labels, MASK, "lambdarank", gain="linear"), expected)


def test_approx_ndcg_by_hand():
    # smooth ranks 1 + σ(-2) + σ(-1), 1 + σ(2) + σ(1), 2; labels 2, 0, 1 as above
    labels, best = torch.tensor([[2.0, 0.0, 1.0]]), 3 + 1 / math.log2(3)
    smooth = [1 + sigmoid(-2) + sigmoid(-1), 1 + sigmoid(2) + sigmoid(1), 2.0]
    dcg = 3 / math.log2(1 + smooth[0]) + 1 / math.log2(1 + smooth[2])
    check(approx_ndcg(SCORES, labels, MASK), 1 - dcg / best)
    check(approx_ndcg(SCORES, labels, MASK, alpha=1e4), 0)


@pytest.mark.parametrize("loss", [lambda_loss, approx_ndcg])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gains_of_large_grades_are_finite(loss, dtype):
    # 2^200 is no float32; beside it, 2^140 is as little as 2 is beside 2^60
    scores, mask = torch.tensor([[0.0, 1.0, 2.0]], dtype=dtype), torch.ones(1, 3, dtype=torch.bool)
    large = loss(scores, torch.tensor([[200, 140, 0]]), mask)
    assert large.item() == pytest.approx(loss(scores, torch.tensor([[60, 1, 0]]), mask).item(), rel=1e-6)


def test_bradley_terry_by_hand():
    # differences of the student 2, 1, -1, of the teacher 2, 3, 1
    terms = [sigmoid(t) * softplus(-s) + (1 - sigmoid(t)) * softplus(s) for s, t in ((2, 2), (1, 3), (-1, 1))]
    check(bradley_terry(SCORES, TEACHER_SCORES, MASK), sum(terms) / 3)
    check(bradley_terry(SCORES, TEACHER_SCORES, MASK, temperature=1e-4), ranknet(SCORES, RANKS, MASK).item())


@pytest.mark.parametrize("name", ["lambda", "approxndcg", "listmle", "plistmle"])
def test_where_only_ranks_exist_relevance_is_n_minus_rank(name):
    scores, targets, mask = make_lists()
    ranks = targets["ranknet"]
    sizes = mask.sum(dim=1, keepdim=True)
    relevance = relevance_of(ranks, mask)
    torch.testing.assert_close(relevance, (sizes - ranks) * mask)
    options = {"gain": "linear"} if name in ("lambda", "approxndcg") else {}
    loss, count = make_loss(name, "rank", "mean", **options)
    expected = LOSSES[name](scores, relevance, mask, reduction="sum", **options)
    torch.testing.assert_close(loss(scores, ranks, mask), expected, **EXACT)
    assert count(ranks, mask) == TERMS[name](relevance, mask)


def make_lists(num_lists: int = 4, depth: int = 6, dtype=torch.float64, seed: int = 0):
    """Ragged lists with ties: scores, {loss: target}, mask."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(num_lists, depth, dtype=torch.float64, generator=generator)
    sizes = torch.tensor([depth, depth - 2, 2, depth - 1])[:num_lists, None]
    mask = torch.arange(depth) < sizes
    ranks = torch.stack([torch.randperm(depth, generator=generator) for _ in range(num_lists)]) + 1.0
    ranks[0, :2] = ranks[0, :2].mean()  # a tie at its average rank
    labels = torch.randint(0, 3, (num_lists, depth), generator=generator).double()
    labels[:, 0], labels[:, 1] = 1, 0
    teacher_scores = torch.randn(num_lists, depth, dtype=torch.float64, generator=generator)
    targets = {"ranknet": ranks, "adrmse": ranks, "marginmse": teacher_scores}
    targets |= dict.fromkeys(("mse", "kl", "listnet", "bradleyterry"), teacher_scores)
    targets |= dict.fromkeys(("lce", "bce", "hinge", "lambda", "approxndcg", "listmle", "plistmle"), labels)
    return scores.to(dtype), {name: target * mask for name, target in targets.items()}, mask


def reference_listnet(items: list) -> tuple[float, int]:
    taught, learned = softmax(*(t for _, t in items)), softmax(*(s for s, _ in items))
    return -sum(p * math.log(q) for p, q in zip(taught, learned, strict=True)), 1


def reference_kl(items: list) -> tuple[float, int]:
    return reference_listnet(items)[0] - entropy(*(t for _, t in items)), 1


def reference_listmle(items: list, weigh=lambda items, y: 1.0) -> tuple[float, int]:
    total = 0.0
    for s, y in items:
        rivals = math.exp(s) + sum(math.exp(s_j) for s_j, y_j in items if y_j < y)
        total += weigh(items, y) * math.log(rivals / math.exp(s))
    return total, 1


def reference_plistmle(items: list) -> tuple[float, int]:
    def position_weight(items: list, y: float) -> float:
        above, tied = sum(y_j > y for _, y_j in items), sum(y_j == y for _, y_j in items)
        return 2 ** (len(items) - (above + (tied + 1) / 2)) - 1

    whole = sum(position_weight(items, y) for _, y in items)
    return reference_listmle(items, lambda items, y: position_weight(items, y) / whole)


def reference_lambda(items: list) -> tuple[float, int]:
    best = sum((2**y - 1) / math.log2(1 + place) for place, y in enumerate(sorted((y for _, y in items))[::-1], 1))
    places = {s: place for place, s in enumerate(sorted((s for s, _ in items), reverse=True), 1)}
    total, count = 0.0, 0
    for s_i, y_i in items:
        for s_j, y_j in items:
            if y_i > y_j:
                first, second = sorted((places[s_i], places[s_j]))
                swap = 1 / math.log2(1 + first) - 1 / math.log2(1 + second)
                gap = 1 / math.log2(1 + second - first) - 1 / math.log2(2 + second - first)
                total += (2**y_i - 2**y_j) / best * (swap + 10 * gap) * softplus(s_j - s_i)
                count += 1
    return total, count


def reference_approx_ndcg(items: list) -> tuple[float, int]:
    best = sum((2**y - 1) / math.log2(1 + place) for place, y in enumerate(sorted((y for _, y in items))[::-1], 1))
    dcg = sum((2**y - 1) / math.log2(1.5 + sum(sigmoid(s_j - s) for s_j, _ in items)) for s, y in items)
    return 1 - dcg / best, 1


REFERENCES_OF_LISTS = {
    "listnet": reference_listnet,
    "kl": reference_kl,
    "listmle": reference_listmle,
    "plistmle": reference_plistmle,
    "lambda": reference_lambda,
    "approxndcg": reference_approx_ndcg,
}


def reference(name: str, scores, target, mask) -> tuple[float, int]:
    """Sum and number of terms in plain Python, one list and one pair after the other."""
    total, count = 0.0, 0
    for s_row, t_row, real in zip(scores.tolist(), target.tolist(), mask.tolist(), strict=True):
        items = [(s, t) for s, t, kept in zip(s_row, t_row, real, strict=True) if kept]
        if name in REFERENCES_OF_LISTS:
            total, count = (
                before + here for before, here in zip((total, count), REFERENCES_OF_LISTS[name](items), strict=True)
            )
            continue
        for i, (s_i, t_i) in enumerate(items):
            others = items[:i] + items[i + 1 :]
            if name == "adrmse":
                smooth = 1 + sum(sigmoid(s_j - s_i) for s_j, _ in others)
                total, count = total + (t_i - smooth) ** 2 / math.log2(t_i + 1), count + 1
            elif name == "mse":
                total, count = total + (s_i - t_i) ** 2, count + 1
            elif name == "bce":
                probability = sigmoid(s_i)
                total, count = total - math.log(probability if t_i > 0 else 1 - probability), count + 1
            elif name == "lce" and t_i > 0:
                partition = math.exp(s_i) + sum(math.exp(s_j) for s_j, t_j in others if t_j <= 0)
                total, count = total - math.log(math.exp(s_i) / partition), count + 1
            for j, (s_j, t_j) in enumerate(items):
                if name == "ranknet" and t_i < t_j:
                    total, count = total + softplus(s_j - s_i), count + 1
                elif name == "hinge" and t_i > t_j:
                    total, count = total + max(0.0, 1 - (s_i - s_j)), count + 1
                elif name == "bradleyterry" and i < j:
                    preferred = sigmoid(t_i - t_j)
                    total -= preferred * math.log(sigmoid(s_i - s_j)) + (1 - preferred) * math.log(sigmoid(s_j - s_i))
                    count += 1
                elif name == "marginmse" and i < j:
                    total, count = total + ((s_i - s_j) - (t_i - t_j)) ** 2, count + 1
    return total, count


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_the_reference(name, seed):
    scores, targets, mask = make_lists(seed=seed)
    total, count = reference(name, scores, targets[name], mask)
    assert TERMS[name](targets[name], mask).item() == count
    assert LOSSES[name](scores, targets[name], mask, reduction="sum").item() == pytest.approx(total, rel=1e-12)
    assert LOSSES[name](scores, targets[name], mask).item() == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize("tile", [1, 30, 100])
@pytest.mark.parametrize("name", ALL)
def test_tiles_change_neither_value_nor_gradient(name, tile, monkeypatch):
    scores, targets, mask = make_lists()
    found = []
    monkeypatch.setattr(tiles, "TILE", tile)  # of 4 x 6 x 6
    for most_at_once in (144, 143):
        monkeypatch.setattr(tiles, "MOST_AT_ONCE", most_at_once)
        student = scores.clone().requires_grad_()
        loss = LOSSES[name](student, targets[name], mask)
        loss.backward()
        found.append((loss, student.grad, TERMS[name](targets[name], mask)))
    torch.testing.assert_close(found[1], found[0], **EXACT)


@pytest.mark.parametrize("name", ALL)
def test_deep_lists_give_what_all_pairs_at_once_give(name, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 400, generator=generator)
    order = torch.stack([torch.randperm(400, generator=generator) for _ in range(2)])
    target = order + 1.0 if name in ON_RANKS else order / 100
    found = []
    for most_at_once in (2**62, 1):
        monkeypatch.setattr(tiles, "MOST_AT_ONCE", most_at_once)
        student = scores.clone().requires_grad_()
        loss = LOSSES[name](student, target, target >= 0)
        loss.backward()
        found.append((loss, student.grad))
    (whole, gradient), (tiled, tiled_gradient) = found
    torch.testing.assert_close(tiled, whole, rtol=1e-6, atol=0)
    assert (tiled_gradient - gradient).abs().max() <= 1e-6 * gradient.abs().max()


def test_more_pairs_than_float32_can_count_are_counted_exactly():
    ranks = torch.arange(1, 6002)[None].float()
    assert count_ranked_pairs(ranks, ranks > 0) == 6001 * 3000
    ranks[0, 1] = 1
    assert count_ranked_pairs(ranks, ranks > 0) == 6001 * 3000 - 1


@pytest.mark.parametrize("name", ALL)
def test_no_loss_keeps_all_pairs_of_deep_lists(name):
    scores = torch.randn(2, 1500, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(1500).flip(0).expand(2, -1) / 300 + 1  # [2, 1500]: relevance, or ranks with gaps
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(weakref.ref(t)) or t, lambda t: t):
        loss = LOSSES[name](scores, target, target > 0)
    kept = [tensor.numel() for tensor in (reference() for reference in saved) if tensor is not None]
    assert loss.requires_grad and max(kept) <= 2 * (1500 + 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradcheck(name, reduction):
    scores, targets, mask = make_lists()
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, targets[name], mask, reduction=reduction), (scores,))


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name):
    scores, targets, mask = make_lists()
    scores.requires_grad_()
    LOSSES[name](scores, targets[name], mask).backward()
    wider = torch.cat([scores.detach(), torch.full((4, 3), torch.nan)], dim=1).requires_grad_()  # garbage stays out
    target, wider_mask = (torch.nn.functional.pad(tensor, (0, 3)) for tensor in (targets[name], mask))
    loss = LOSSES[name](wider, target, wider_mask)
    loss.backward()
    torch.testing.assert_close(loss, LOSSES[name](scores, targets[name], mask), **EXACT)
    torch.testing.assert_close(wider.grad[:, :6], scores.grad, **EXACT)
    assert (wider.grad[~wider_mask] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_order_within_a_list_does_not_matter(name):
    scores, targets, mask = make_lists()
    order = torch.tensor([3, 1, 0, 5, 2, 4])
    expected = LOSSES[name](scores, targets[name], mask)
    torch.testing.assert_close(
        LOSSES[name](scores[:, order], targets[name][:, order], mask[:, order]), expected, **EXACT
    )


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("bce", "mse")])
def test_shifting_all_scores_changes_nothing(name):
    scores, targets, mask = make_lists()
    torch.testing.assert_close(
        LOSSES[name](scores + 3.5, targets[name], mask), LOSSES[name](scores, targets[name], mask), rtol=1e-9, atol=1e-9
    )


def test_bce_depends_on_the_level_of_the_scores():
    scores, targets, mask = make_lists()
    assert bce(scores + 3.5, targets["bce"], mask) != bce(scores, targets["bce"], mask)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    scores, targets, mask = make_lists(dtype=dtype)
    loss = LOSSES[name](scores, targets[name], mask)
    assert loss.dtype == torch.float32
    expected = LOSSES[name](scores.double(), targets[name], mask).float()
    torch.testing.assert_close(loss, expected, **FLOAT32)


@pytest.mark.parametrize("name", ALL)
def test_large_scores_stay_finite(name):
    scores, targets, mask = make_lists(dtype=torch.float32)
    scores = (scores * 5e3).requires_grad_()
    loss = LOSSES[name](scores, targets[name], mask)
    loss.backward()
    assert loss.isfinite() and scores.grad.isfinite().all()
    exact = scores.detach().double().requires_grad_()
    expected = LOSSES[name](exact, targets[name], mask)
    expected.backward()
    torch.testing.assert_close(loss, expected.float(), **FLOAT32)
    torch.testing.assert_close(scores.grad, exact.grad.float(), rtol=1e-3, atol=1e-3)  # float32 holds 1e4 to 1e-3


@pytest.mark.parametrize("name", ALL)
def test_a_list_of_padding_and_a_list_of_one_add_nothing_undefined(name):
    scores, targets, mask = make_lists()
    expected = LOSSES[name](scores, targets[name], mask, reduction="sum")
    scores, target, mask = (torch.cat([tensor, tensor[:2] * 0]) for tensor in (scores, targets[name], mask))
    scores, mask = scores.clone().requires_grad_(), mask.bool()
    loss = LOSSES[name](scores, target, mask, reduction="sum")
    loss.backward()
    torch.testing.assert_close(loss, expected, **EXACT)
    assert scores.grad.isfinite().all()


def test_lce_without_negatives_is_zero_with_zero_gradient():
    scores = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = lce(scores, torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and (scores.grad == 0).all()


def test_ties_of_rank_contribute_nothing_to_ranknet():
    ranks = torch.tensor([[1.5, 1.5, 3.0]])
    check(ranknet(SCORES, ranks, MASK, reduction="sum"), softplus(-1) + softplus(1))


@pytest.mark.parametrize("name", ALL)
def test_a_rank_without_lists_has_no_terms(name):
    assert TERMS[name](torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.bool)) == 0


@pytest.mark.parametrize("name", ALL)
def test_shares_of_a_batch_add_up_to_its_mean(name):
    """As micro-batches of one rank do, and the lists of two ranks."""
    scores, targets, mask = make_lists()
    scores.requires_grad_()
    whole = LOSSES[name](scores, targets[name], mask)
    (gradient,) = torch.autograd.grad(whole, scores)
    shares = slice(0, 1), slice(1, 4)
    terms = sum(TERMS[name](targets[name][share], mask[share]) for share in shares)
    parts = sum(LOSSES[name](scores[share], targets[name][share], mask[share], reduction="sum") for share in shares)
    torch.testing.assert_close(parts / terms, whole, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(parts / terms, scores)[0], gradient, **EXACT)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (mse, {"normalise": "minmax"}, "normalise='minmax' is unknown"),
        (kl, {"temperature": 0}, "temperature=0: must be above 0"),
        (bradley_terry, {"temperature": -1}, "temperature=-1: must be above 0"),
        (lambda_loss, {"weighting": "ndcg"}, "weighting='ndcg' is unknown"),
        (lambda_loss, {"gain": "log"}, "gain='log' is unknown"),
        (approx_ndcg, {"alpha": 0}, "alpha=0: must be above 0"),
    ],
)
def test_unknown_options_are_refused(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(SCORES, TEACHER_SCORES, MASK, **options)


def test_wrong_shapes_and_options_are_refused():
    with pytest.raises(ValueError, match=r"share one shape \[B, K\]"):
        ranknet(SCORES, RANKS[:, :2], MASK)
    with pytest.raises(ValueError, match="reduction='median' is unknown"):
        ranknet(SCORES, RANKS, MASK, reduction="median")
    with pytest.raises(ValueError, match="discount='dcg' is unknown"):
        adr_mse(SCORES, RANKS, MASK, discount="dcg")
