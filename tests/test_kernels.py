"""The Triton kernels against the float64 definition: on a GPU where there is one, else in Triton's interpreter."""

import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import losses
from kernels import launch, pairs
from kernels.adr_mse import adr_mse
from kernels.approx_ndcg import approx_ndcg
from kernels.bradley_terry import bradley_terry
from kernels.lambda_loss import WEIGHTINGS, lambda_loss, log1p_to_one
from kernels.ranknet import ranknet
from tests.helpers.kernel_checks import GRADIENT, KERNELS, LOSS, NAMES, by_name, check, make_lists, run, target_of
from tests.helpers.paths import ROOT

# What the interpreter says in NumPy's words and the kernels rely on: exp2 overflows to inf, inf - inf is NaN
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEPTHS = [1, 2, 7, 50, 100, 128, 129, 1000]  # below, at and above one tile of columns, and several
ON_A_SHARED_SKELETON = {"hinge", "bradleyterry", "lambda", "approxndcg"}  # that of RankNet, or of ADR-MSE


def is_needed(name: str, dtype: torch.dtype, depth: int) -> bool:
    """Whether the slow interpreter shows something new.

    A dtype is that of what is loaded and stored, tile by tile: no third of 8 tiles. What tiles and dtypes do is up to
    the skeleton that losses share.
    """
    if name in ON_A_SHARED_SKELETON:
        return depth in ((1, 2, 129) if dtype == torch.float32 else (50,) if dtype == torch.bfloat16 else ())
    return depth <= 129 or dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "dtype", "depth"),
    [
        pytest.param(name, dtype, depth, id=f"{depth}-{str(dtype).removeprefix('torch.')}-{name}")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for depth in DEPTHS
        for name in NAMES
        if torch.cuda.is_available() or is_needed(name, dtype, depth)
    ],
)
def test_agrees_with_the_definition(name, dtype, depth, device):
    scores, ranks = make_lists(4 if depth <= 129 else 1, depth, dtype=dtype)
    check(name, scores, ranks, device)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_agrees_for_deep_lists(name, device):
    check(name, *make_lists(1, 4096), device)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [10.0, 1e4])
def test_agrees_for_a_sum_of_wide_and_huge_scores(name, scale, device):
    scores, ranks = make_lists(4, 40, scale=scale)
    loss, gradient = check(name, scores, ranks, device, reduction="sum")
    assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("discount", ["log2", "none"])
@pytest.mark.parametrize("alpha", [0.1, 2.0, 50.0])
def test_adr_mse_agrees_for_every_steepness_and_discount(alpha, discount, device):
    check("adrmse", *make_lists(3, 33), device, alpha=alpha, discount=discount)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("cutoff", [None, 5])
def test_lambda_loss_agrees_for_every_weighting_and_cutoff(weighting, cutoff, device):
    scores, ranks = make_lists(3, 33)
    scores[0, 10:20] = scores[0, 10]  # equal scores take places in the order of the list
    check("lambda", scores, ranks, device, weighting=weighting, cutoff=cutoff, gain="linear", mu=3.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("approxndcg", {"alpha": 50.0, "gain": "linear"}),
        ("bradleyterry", {"temperature": 0.1}),
        ("hinge", {"margin": 3.0}),
    ],
)
def test_agrees_for_other_options(name, options, device):
    check(name, *make_lists(3, 33), device, **options)


@triton.jit
def logarithms(values, results, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    tl.store(results + places, log1p_to_one(tl.load(values + places)))


def test_the_polynomial_in_place_of_a_logarithm(device):
    values = torch.linspace(0, 1, 4096, device=device)
    results = torch.empty_like(values)
    logarithms[(1,)](values, results, SIZE=4096)
    torch.testing.assert_close(results.double(), values.double().log1p(), rtol=4e-7, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reads_any_strides_and_dtype_of_ranks(name, device):
    scores, ranks = make_lists(3, 20, seed=1)
    ranks[0] = torch.arange(20) + 1.0  # whole numbers, without ties
    ranks = ranks.floor()
    expected = run(KERNELS[name], scores.to(device), ranks.to(device))
    wide = torch.full((20, 6), torch.nan, device=device)
    wide[:, ::2] = scores.t().to(device)
    strided = wide[:, ::2].t()
    assert strided.stride() == (2, 6)
    actual = KERNELS[name](strided.requires_grad_(), ranks.long().t().contiguous().t().to(device))
    torch.testing.assert_close(actual, expected[0], rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(3.0 * actual, strided)
    torch.testing.assert_close(gradient, expected[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_the_tiling(name, device, monkeypatch):
    scores, ranks = make_lists(2, 60)
    loss, gradient = check(name, scores, ranks, device)
    monkeypatch.setattr(launch, "MAX_COLUMNS", 16)  # four tiles a list
    monkeypatch.setattr(pairs, "MAX_FACTORS", 2)  # a logarithm after every second of them
    tiled_loss, tiled_gradient = check(name, scores, ranks, device)
    torch.testing.assert_close(tiled_loss, loss, **LOSS)
    torch.testing.assert_close(tiled_gradient, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_input_gives_the_same_bits(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(4, 50))
    first, second = run(KERNELS[name], scores, ranks), run(KERNELS[name], scores, ranks)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("name", NAMES)
def test_whatever_stands_in_a_padded_slot_stays_out(name, device):
    scores, ranks = make_lists(4, 20)
    expected = check(name, scores, ranks, device)
    for garbage in (torch.nan, torch.inf, -1e30):
        actual = run(KERNELS[name], scores.masked_fill(ranks == 0, garbage).to(device), ranks.to(device))
        assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_score_that_is_no_number_shows_in_the_loss(name, device):
    scores, ranks = make_lists(2, 20)
    scores[0, 3] = torch.nan
    assert KERNELS[name](scores.to(device), ranks.to(device)).isnan()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_no_lists_and_no_passages_give_zero(name, shape, device):
    loss, gradient = run(KERNELS[name], torch.zeros(shape, device=device), torch.zeros(shape, device=device))
    assert loss.item() == 0 and gradient.shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_works_without_gradients_under_autocast_and_accumulating(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(4, 20))
    loss, gradient = run(KERNELS[name], scores, ranks, upstream=1.0)
    with torch.no_grad():
        assert torch.equal(KERNELS[name](scores, ranks), loss)
    scores.requires_grad_()
    for _ in range(2):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            same = KERNELS[name](scores, ranks)
        assert torch.equal(same, loss)
        same.backward()
    torch.testing.assert_close(scores.grad, 2 * gradient, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_training_step_goes_through_without_a_break(name, device):
    features, weight = torch.randn(4, 20, 8, device=device), torch.randn(8, device=device)
    ranks = make_lists(4, 20)[1].to(device)

    def step(weight):
        scores = torch.tanh(features @ weight)
        return by_name(name, scores, ranks, implementation="triton")  # as a training step calls it

    # on the CPU without a C++ compiler: what is traced is the same
    compiled = torch.compile(step, fullgraph=True, backend="inductor" if device.type == "cuda" else "aot_eager")
    results = []
    for function in (step, compiled):
        parameter = weight.clone().requires_grad_()
        loss = function(parameter)
        loss.backward()
        results.append((loss.detach(), parameter.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-7)


OPERATORS = {
    "ranknet": (torch.ops.listwise.ranknet, (True,)),
    "adrmse": (torch.ops.listwise.adr_mse, (1.0, True, True)),
    "hinge": (torch.ops.listwise.hinge, (1.0, True)),
    "bradleyterry": (torch.ops.listwise.bradley_terry, (1.0, True)),
    "lambda": (torch.ops.listwise.lambda_loss, (1.0, 10.0, 3, True)),
    "approxndcg": (torch.ops.listwise.approx_ndcg, (1.0, True)),
}


@pytest.mark.parametrize("name", NAMES)
def test_operators_keep_the_rules_of_torch_library(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(2, 5))
    operator, arguments = OPERATORS[name]
    counters = launch.zero_counters(scores)
    targets = target_of(name, ranks).masked_fill(ranks == 0, 0 if name in losses.ON_RANKS else torch.nan)
    torch.library.opcheck(operator, (scores.requires_grad_(), targets, counters, *arguments))
    assert (counters == 0).all()  # as the next launch expects them


def test_wrong_inputs_are_refused():
    scores, ranks = make_lists(2, 5)
    with pytest.raises(ValueError, match=r"share one shape \[B, K\], got \[2, 5\] and \[2, 4\]"):
        ranknet(scores, ranks[:, :4])
    with pytest.raises(ValueError, match="reduction='median' is unknown"):
        ranknet(scores, ranks, reduction="median")
    with pytest.raises(ValueError, match="discount='dcg' is unknown"):
        adr_mse(scores, ranks, discount="dcg")
    with pytest.raises(ValueError, match="alpha=0.0: must be above 0"):
        adr_mse(scores, ranks, alpha=0.0)
    with pytest.raises(ValueError, match="scores are torch.float64"):
        ranknet(scores.double(), ranks)
    with pytest.raises(ValueError, match="ranks on meta"):
        ranknet(scores, ranks.to("meta"))
    with pytest.raises(ValueError, match="scores and gains must share one shape"):
        lambda_loss(scores, ranks[:, :4])
    with pytest.raises(ValueError, match="weighting='ndcg' is unknown"):
        lambda_loss(scores, ranks, weighting="ndcg")
    with pytest.raises(ValueError, match="alpha=-1: must be above 0"):
        approx_ndcg(scores, ranks, alpha=-1)
    with pytest.raises(ValueError, match="temperature=0: must be above 0"):
        bradley_terry(scores, ranks, temperature=0)


@pytest.mark.parametrize("name", NAMES)
def test_both_implementations_refuse_alike(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(2, 5))
    options = [{"reduction": "median"}]
    options += {
        "adrmse": [{"alpha": 0.0}, {"alpha": float("nan")}, {"discount": "dcg"}],
        "approxndcg": [{"alpha": 0.0}, {"gain": "log"}],
        "bradleyterry": [{"temperature": 0.0}],
        "lambda": [{"weighting": "ndcg"}, {"gain": "log"}],
    }.get(name, [])
    for wrong in options:
        messages = set()
        for implementation in ("torch", "triton"):
            with pytest.raises(ValueError) as error:
                by_name(name, scores, ranks, implementation=implementation, **wrong)
            messages.add(str(error.value))
        assert len(messages) == 1, messages
    with pytest.raises(ValueError, match="implementation='cuda' is unknown"):
        by_name(name, scores, ranks, implementation="cuda")


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_decides_for_both_implementations(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(2, 8))
    mask = ranks > 0
    mask[0, 5:] = False  # though their ranks are not 0
    target = target_of(name, ranks)
    loss = losses.LOSSES[name](scores, target, mask, implementation="triton")
    expected = losses.LOSSES[name](scores, target, mask, implementation="torch")
    torch.testing.assert_close(loss, expected, **LOSS)


lists = st.lists(st.tuples(st.integers(-64, 64), st.integers(1, 5)), min_size=2, max_size=20)
few = settings(max_examples=8, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tensors(passages):
    """Scores in quarters, which float32 holds exactly, and average ranks of a few levels, so that many tie."""
    levels = torch.tensor([level for _, level in passages])
    below = (levels[None, :] < levels[:, None]).sum(dim=1)
    ranks = below + ((levels[None, :] == levels[:, None]).sum(dim=1) + 1) / 2
    return torch.tensor([[score / 4 for score, _ in passages]]), ranks[None]


@pytest.mark.parametrize("name", NAMES)
@few
@given(passages=lists, seed=st.integers(0, 100))
def test_permuting_passages_permutes_gradients(name, passages, seed, device):
    scores, ranks = (tensor.to(device) for tensor in tensors(passages))
    order = torch.randperm(len(passages), generator=torch.Generator().manual_seed(seed)).to(device)
    loss, gradient = run(KERNELS[name], scores, ranks)
    permuted_loss, permuted_gradient = run(KERNELS[name], scores[:, order], ranks[:, order])
    torch.testing.assert_close(permuted_loss, loss, **LOSS)
    torch.testing.assert_close(permuted_gradient, gradient[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@few
@given(passages=lists, shift=st.integers(-1024, 1024))
def test_shifting_scores_changes_nothing(name, passages, shift, device):
    scores, ranks = (tensor.to(device) for tensor in tensors(passages))
    loss, gradient = run(KERNELS[name], scores, ranks)
    shifted_loss, shifted_gradient = run(KERNELS[name], scores + shift, ranks)
    assert torch.equal(shifted_loss, loss) and torch.equal(shifted_gradient, gradient)


@pytest.mark.parametrize("name", NAMES)
@few
@given(passages=lists)
def test_gradients_of_a_list_sum_to_zero(name, passages, device):
    scores, ranks = (tensor.to(device) for tensor in tensors(passages))
    _, gradient = run(KERNELS[name], scores, ranks, upstream=1.0, reduction="sum")
    assert gradient.sum().abs() <= GRADIENT[torch.float32] * (1 + gradient.abs().sum())


def test_the_package_of_the_same_name_stays_importable(tmp_path):
    package = tmp_path / "kernels"
    (package / "layer").mkdir(parents=True)
    (package / "__init__.py").write_text("from kernels.layer.mode import Mode\n__version__ = '9'\n")
    (package / "layer" / "__init__.py").write_text("")
    (package / "layer" / "mode.py").write_text("class Mode: pass\n")
    program = (
        "from kernels import Mode, __version__; from kernels.layer.mode import Mode as Same; import kernels.ranknet\n"
        "assert Mode is Same and __version__ == '9' and kernels.ranknet.ranknet"
    )
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, cwd=ROOT, check=True)
    program = (
        "import kernels\ntry: kernels.Mode\nexcept AttributeError as error: assert 'Mode' in str(error)\nelse: 1/0"
    )
    subprocess.run([sys.executable, "-c", program], env={}, cwd=ROOT, check=True)
