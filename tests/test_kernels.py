"""The Triton kernels against the float64 definition: on a GPU where there is one, else in Triton's interpreter."""

import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import losses
from kernels import launch
from kernels import ranknet as ranknet_module
from kernels.adr_mse import adr_mse
from kernels.ranknet import ranknet
from tests.helpers.kernel_checks import GRADIENT, KERNELS, LOSS, NAMES, check, make_lists, run
from tests.helpers.paths import ROOT

# What the interpreter says in NumPy's words and the kernels rely on: exp2 overflows to inf, inf - inf is NaN
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEPTHS = [1, 2, 7, 50, 100, 128, 129, 1000]  # below, at and above one tile of columns, and several


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "depth"),
    [
        pytest.param(dtype, depth, id=f"{depth}-{str(dtype).removeprefix('torch.')}")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for depth in DEPTHS
        # A dtype is that of what is loaded and stored, tile by tile: the interpreter needs no third of 8 tiles
        if depth <= 129 or dtype == torch.float32 or torch.cuda.is_available()
    ],
)
def test_agrees_with_the_definition(name, dtype, depth, device):
    scores, ranks = make_lists(4 if depth <= 129 else 2, depth, dtype=dtype)
    check(name, scores, ranks, device)


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
    scores, ranks = make_lists(4, 100)
    loss, gradient = check(name, scores, ranks, device)
    monkeypatch.setattr(launch, "MAX_COLUMNS", 16)  # seven tiles a list
    monkeypatch.setattr(ranknet_module, "MAX_FACTORS", 2)  # a logarithm after every second of them
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
        return losses.LOSSES[name](scores, ranks, ranks > 0, implementation="triton")  # as a training step calls it

    # on the CPU without a C++ compiler: what is traced is the same
    compiled = torch.compile(step, fullgraph=True, backend="inductor" if device.type == "cuda" else "aot_eager")
    results = []
    for function in (step, compiled):
        parameter = weight.clone().requires_grad_()
        loss = function(parameter)
        loss.backward()
        results.append((loss.detach(), parameter.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_operators_keep_the_rules_of_torch_library(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(2, 5))
    arguments = (1.0, True, True) if name == "adrmse" else (True,)
    operator = getattr(torch.ops.listwise, {"adrmse": "adr_mse"}.get(name, name))
    counters = launch.zero_counters(scores)
    torch.library.opcheck(operator, (scores.requires_grad_(), ranks, counters, *arguments))
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


@pytest.mark.parametrize("name", NAMES)
def test_both_implementations_refuse_alike(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(2, 5))
    options = [{"reduction": "median"}]
    if name == "adrmse":
        options += [{"alpha": 0.0}, {"alpha": float("nan")}, {"discount": "dcg"}]
    for wrong in options:
        messages = set()
        for implementation in ("torch", "triton"):
            with pytest.raises(ValueError) as error:
                losses.LOSSES[name](scores, ranks, ranks > 0, implementation=implementation, **wrong)
            messages.add(str(error.value))
        assert len(messages) == 1, messages
    with pytest.raises(ValueError, match="implementation='cuda' is unknown"):
        losses.LOSSES[name](scores, ranks, ranks > 0, implementation="cuda")


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_decides_for_both_implementations(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(2, 8))
    mask = ranks > 0
    mask[0, 5:] = False  # though their ranks are not 0
    loss = losses.LOSSES[name](scores, ranks, mask, implementation="triton")
    expected = losses.LOSSES[name](scores, ranks, mask, implementation="torch")
    torch.testing.assert_close(loss, expected, **LOSS)


lists = st.lists(st.tuples(st.integers(-64, 64), st.integers(1, 5)), min_size=2, max_size=20)
few = settings(max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
