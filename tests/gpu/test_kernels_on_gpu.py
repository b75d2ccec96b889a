"""The kernels on a GPU: what only a GPU can show. tests/test_kernels.py runs there as well, compiled.

python -m pytest tests/gpu tests/test_kernels.py
compute-sanitizer --tool memcheck python -m pytest tests/gpu tests/test_kernels.py -k "agrees and not 1000"
compute-sanitizer --tool racecheck python -m pytest tests/gpu tests/test_kernels.py -k "agrees and not 1000"
"""

import pytest
import torch

from benchmarks.losses import count_launches
from tests.helpers.kernel_checks import KERNELS, LOSS, NAMES, check, make_lists, plain, run

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [4096, 10_000])
def test_agrees_for_deep_lists(name, depth, device):
    check(name, *make_lists(2, depth), device)


@pytest.mark.parametrize("name", NAMES)
def test_agrees_for_many_lists(name, device):
    scores, ranks = make_lists(5000, 12)
    check(name, scores, ranks, device)


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_runs_give_the_same_bits(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(64, 300))
    loss, gradient = run(KERNELS[name], scores, ranks)
    for _ in range(100):
        again = run(KERNELS[name], scores, ranks)
        assert torch.equal(again[0], loss) and torch.equal(again[1], gradient)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward_never_wait_for_the_gpu(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(8, 100))
    run(KERNELS[name], scores, ranks)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(KERNELS[name], scores, ranks)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["adrmse", "ranknet"])  # others prepare gains, LambdaLoss sorts
def test_forward_and_backward_are_two_launches(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(32, 100))
    scores.requires_grad_()
    upstream = torch.ones((), device=device)

    def step() -> None:
        scores.grad = None
        KERNELS[name](scores, ranks).backward(upstream)

    step()
    assert count_launches(step) == 2


@pytest.mark.parametrize("name", NAMES)
def test_memory_grows_with_the_passages_alone(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(16, 4096))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(KERNELS[name], scores, ranks)
    most = 8 if name in ("adrmse", "ranknet") else 24  # targets and gains; LambdaLoss also sorts
    assert torch.cuda.max_memory_allocated() - before <= most * scores.nbytes


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_graph_replays_on_new_scores(name, device):
    scores, ranks = (tensor.to(device) for tensor in make_lists(8, 60))
    static = scores.clone().requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            torch.autograd.grad(KERNELS[name](static, ranks), static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = KERNELS[name](static, ranks)
        (gradient,) = torch.autograd.grad(loss, static)
    for seed in (1, 2):
        new = make_lists(8, 60, seed=seed)[0].to(device)
        with torch.no_grad():
            static.copy_(new)
        graph.replay()
        expected = run(KERNELS[name], new, ranks, upstream=1.0)
        assert torch.equal(loss, expected[0]) and torch.equal(gradient, expected[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_steps_give_the_same_again_and_again(name, mode, device):
    features, ranks = torch.randn(8, 60, 16, device=device), make_lists(8, 60)[1].to(device)
    weight = torch.randn(16, device=device, requires_grad=True)

    @torch.compile(fullgraph=True, mode=mode)
    def step(weight):
        return KERNELS[name](features @ weight, ranks)

    expected = plain(name)(features @ weight, ranks)
    (expected_gradient,) = torch.autograd.grad(expected, weight)
    for _ in range(5):
        loss = step(weight)
        (gradient,) = torch.autograd.grad(loss, weight)
        torch.testing.assert_close(loss, expected, **LOSS)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_two_streams_do_not_disturb_each_other(name, device):
    inputs = [tuple(tensor.to(device) for tensor in make_lists(16, 500, seed=seed)) for seed in range(2)]
    expected = [run(KERNELS[name], *pair) for pair in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    results = [[], []]
    for _ in range(20):
        for stream, pair, found in zip(streams, inputs, results, strict=True):
            with torch.cuda.stream(stream):
                found.append(run(KERNELS[name], *pair))
    torch.cuda.synchronize()
    for found, (loss, gradient) in zip(results, expected, strict=True):
        assert all(torch.equal(a, loss) and torch.equal(b, gradient) for a, b in found)
