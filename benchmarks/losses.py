"""Measure forward and backward of the losses over pairs: time, memory, launches, and distance from the hardware limit.

    python -m benchmarks.losses                            # on a GPU if there is one; needs only torch and triton
    python -m benchmarks.losses --device cpu --shapes 32x100,64x1000 --losses lambda --skip compile

Ours is compared with the plain definition, which holds all pairs, eager and compiled by torch.compile, and with
lightning-ir and sentence-transformers if they are installed and have the loss. On CUDA, ours is the fused kernel; on
the CPU, it is the definition as training uses it, with deep lists in tiles, and is marked as such.

    wall      time of forward and backward as a training loop calls them, host included
    gpu       the same replayed from a CUDA graph: the time if the host is fast enough ("-": cannot be captured)
    extra     peak memory allocated on top of what was allocated before
    launches  kernels and memory operations sent to the GPU

The limit is the larger of two times. (1) Memory: scores and targets are read once, the gradient is written in the
forward pass and read and written in the backward pass, at the bandwidth of a copy measured in the same run. (2) Special
functions, at 16 per cycle and multiprocessor at the highest clock, for each unordered pair: an exponential, a
reciprocal and a logarithm (RankNet, LambdaLoss), an exponential and a reciprocal more (Bradley-Terry), or an
exponential and a reciprocal in each of two passes (ADR-MSE, ApproxNDCG).
"""

import argparse
import gc
import inspect
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.report import RESULTS, environment, save
from distill.losses import LOSSES, ON_RANKS, tiles

SHAPES = "32x10,32x50,32x100,64x256,64x1000,16x4096"
SPECIAL_PER_PAIR = {
    "ranknet": 3,
    "adrmse": 4,
    "marginmse": 0,
    "hinge": 0,
    "bradleyterry": 5,
    "lambda": 3,
    "approxndcg": 4,
}
WHOLE = 2**62  # pairs: no batch has more, so that none is summed in tiles
LIGHTNING_IR = {"ranknet": "RankNet", "adrmse": "ApproxRankMSE", "approxndcg": "ApproxNDCG"}
SENTENCE_TRANSFORMERS = {"ranknet": "RankNetLoss", "adrmse": "ADRMSELoss", "lambda": "LambdaLoss"}
SPECIAL_PER_CYCLE = 16  # of one multiprocessor, compute capability 7.5 to 10.0
BYTES_PER_PASSAGE = 20  # float32: scores and targets in, gradient out; gradient in and out
ROUNDS = 15
MIN_ROUNDS = 5
MIN_SECONDS = 0.01  # per contender and round: short calls are repeated
MAX_SECONDS = 60.0  # for all rounds of one shape: long calls get fewer rounds


@dataclass
class Contender:
    """One implementation of one loss on one input: a closure for forward and backward."""

    name: str
    step: Callable[[], None]


def make_target(loss: str, num_lists: int, num_passages: int, generator: torch.Generator) -> Tensor:
    """Return ranks, or numbers that grow with relevance: all different, and below 4, so that 2^4 bounds the gains."""
    order = torch.stack([torch.randperm(num_passages, generator=generator) for _ in range(num_lists)])
    return order + 1.0 if loss in ON_RANKS else order * (4.0 / num_passages)


def contenders(loss: str, num_lists: int, num_passages: int, device: torch.device) -> list[Contender]:
    """Return all implementations that are installed, on the same scores and targets."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(num_lists, num_passages, generator=generator).to(device).requires_grad_()
    target = make_target(loss, num_lists, num_passages, generator).to(device)
    mask = torch.ones_like(target, dtype=torch.bool)
    definition = LOSSES[loss]
    compiled = torch.compile(definition, fullgraph=True, dynamic=False)
    plain = {"implementation": "torch"} if "implementation" in inspect.signature(definition).parameters else {}

    def differentiate(function: Callable[[], Tensor], most_at_once: int = tiles.MOST_AT_ONCE) -> Callable[[], None]:
        def step() -> None:
            tiles.MOST_AT_ONCE = most_at_once
            scores.grad = None
            function().backward()

        return step

    installed = [
        Contender("eager", differentiate(lambda: definition(scores, target, mask, **plain), WHOLE)),
        Contender("compile", differentiate(lambda: compiled(scores, target, mask, **plain), WHOLE)),
        Contender(
            "ours" if device.type == "cuda" else "ours (plain, in tiles)",
            differentiate(lambda: definition(scores, target, mask)),
        ),
    ]
    for name, make in (("lightning-ir", _lightning_ir), ("sentence-transformers", _sentence_transformers)):
        try:
            function = make(loss, scores, target)
        except (ImportError, KeyError):  # not installed, or without this loss
            continue
        installed.append(Contender(name, differentiate(function)))
    return installed


def _relevance(loss: str, target: Tensor) -> Tensor:
    return target.max() + 1 - target if loss in ON_RANKS else target


def _lightning_ir(loss: str, scores: Tensor, target: Tensor) -> Callable[[], Tensor]:
    name = LIGHTNING_IR[loss]
    import lightning_ir

    function = getattr(lightning_ir, name)()
    output, batch = SimpleNamespace(scores=scores), SimpleNamespace(targets=_relevance(loss, target))
    return lambda: function.compute_loss(output, batch)


def _sentence_transformers(loss: str, scores: Tensor, target: Tensor) -> Callable[[], Tensor]:
    name = SENTENCE_TRANSFORMERS[loss]
    from sentence_transformers.cross_encoder import losses

    class Model(torch.nn.Module):
        """Takes the place of the encoder: returns the scores of all pairs at once."""

        num_labels = 1
        device = scores.device

        def preprocess(self, *_, **__) -> dict:
            return {}

        def forward(self, _) -> dict:
            return {"scores": scores.view(-1, 1)}

    function = getattr(losses, name)(Model(), mini_batch_size=-1)
    queries, passages = [""] * len(scores), [[""] * scores.shape[1]] * len(scores)
    labels = list(_relevance(loss, target))
    return lambda: function((queries, passages), labels)


def measure(
    installed: list[Contender], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> list[dict]:
    """Return a row per contender, timed in turn so that a busy machine slows all of them equally."""
    rows = []
    for contender in installed:
        row = {"implementation": contender.name, "error": None}
        try:
            for _ in range(3):
                contender.step()  # compiles the loss, and fills the allocator's cache
            row["extra_bytes"] = extra_memory(contender.step, device)
            row["launches"] = count_launches(contender.step) if device.type == "cuda" else None
            row["gpu_ms"] = graph_times(contender.step) if device.type == "cuda" else None
        except (torch.OutOfMemoryError, MemoryError):
            row["error"] = "out of memory"
        rows.append(row)
    running = [(contender, row) for contender, row in zip(installed, rows, strict=True) if not row["error"]]
    times = {contender.name: [] for contender, _ in running}
    once = {contender.name: _time(contender.step, 1, device, clock) for contender, _ in running}
    repeats = {name: max(1, round(MIN_SECONDS / seconds)) for name, seconds in once.items()}
    for _ in range(max(MIN_ROUNDS, min(ROUNDS, int(MAX_SECONDS / sum(once.values()))))):
        for contender, _ in running:
            times[contender.name].append(_time(contender.step, repeats[contender.name], device, clock))
    for contender, row in running:
        row["wall_ms"] = spread_ms(times[contender.name])
    return rows


def spread_ms(times: list[float]) -> dict[str, float | list[float]]:
    """Return median and quartiles of times in seconds, in milliseconds."""
    low, median, high = (1e3 * value for value in statistics.quantiles(times, n=4))
    return {"median": median, "quartiles": [low, high]}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _time(
    step: Callable[[], None], repeats: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    _synchronize(device)
    start = clock()
    for _ in range(repeats):
        step()
    _synchronize(device)
    return (clock() - start) / repeats


def graph_times(step: Callable[[], None]) -> dict[str, float] | None:
    """Time replays of a CUDA graph of the step; None for a step that synchronises and cannot be captured."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e4)
    return spread_ms(times)


def extra_memory(step: Callable[[], None], device: torch.device) -> int:
    """Return the peak bytes that one step allocates on top of what was allocated before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    waiting, changes = list(profile.profiler.kineto_results.experimental_event_tree()), []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    total = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        total += size
        peak = max(peak, total)
    return peak


def count_launches(step: Callable[[], None]) -> int:
    """Return how many kernels, copies and fills one step sends to the GPU."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def limits(device: torch.device) -> dict[str, float] | None:
    """Return the GPU's special functions and bytes per second, the latter measured with a copy; None for a CPU."""
    if device.type != "cuda":
        return None
    # Triton's driver knows the highest clock, which not every PyTorch reports; CPU machines may lack Triton
    import triton

    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    cycles = (
        properties["multiprocessor_count"] * properties["sm_clock_rate"] * 1e3
    )  # of all, per second; the rate is in kHz
    source = torch.empty(2**28, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    seconds = min(_time(lambda: target.copy_(source), 10, device) for _ in range(5))
    return {
        "special_per_second": SPECIAL_PER_CYCLE * cycles,
        "bytes_per_second": 2 * source.nbytes / seconds,
    }


def limit_ms(loss: str, num_lists: int, num_passages: int, rates: dict[str, float]) -> float:
    """Return the lower limit on the time of forward and backward, as defined at the top of this file."""
    pairs = num_lists * num_passages * (num_passages - 1) / 2
    special = SPECIAL_PER_PAIR[loss] * pairs / rates["special_per_second"]
    return 1e3 * max(special, BYTES_PER_PASSAGE * num_lists * num_passages / rates["bytes_per_second"])


def print_rows(rows: list[dict]) -> None:
    """Print the rows of one loss and shape."""
    eager = rows[0]
    for row in rows:
        head = f"{row['loss']:13}{row['lists']:>5} x {row['passages']:<6}{row['implementation']:22}"
        if row["error"]:
            print(f"{head}{row['error']}")
            continue
        wall = row["wall_ms"]
        low, high = wall["quartiles"]
        ratio = f"{eager['wall_ms']['median'] / wall['median']:.1f}x" if not eager["error"] else "-"
        gpu = f"{row['gpu_ms']['median']:.4f}" if row["gpu_ms"] else "-"
        limit = f"{row['limit_ms']:.4f}" if row["limit_ms"] else "-"
        launches = "-" if row["launches"] is None else row["launches"]
        print(
            f"{head}{wall['median']:10.3f} ({low:.3f}-{high:.3f})".ljust(72)
            + f"{ratio:>7}{gpu:>10}{limit:>10}{row['extra_bytes'] / 2**20:11.2f}{launches:>10}",
            flush=True,
        )


def main() -> None:
    """Measure, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", default=SHAPES, help="lists x passages, comma-separated")
    parser.add_argument("--processor-time", action="store_true", help="not wall time: for a CPU that others use, too")
    parser.add_argument("--losses", default=",".join(SPECIAL_PER_PAIR))
    parser.add_argument("--skip", default="", help="contenders that are not measured, comma-separated, as in compile")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for the JSON file")
    parser.add_argument("--name", default="losses", help="prefix of the JSON file's name")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rates = limits(device)
    result = environment(device) | {"limits": rates, "rows": []}
    print(f"{result['device']}, {result['date']}, torch {torch.__version__}, commit {result['commit']}")
    print(
        f"{'loss':13}{'lists x passages':>14} {'':21}{'wall ms (quartiles)':>22}{'eager/x':>9}{'gpu ms':>10}"
        f"{'limit ms':>10}{'extra MiB':>11}{'launches':>10}"
    )
    for loss in arguments.losses.split(","):
        for shape in arguments.shapes.split(","):
            num_lists, num_passages = (int(size) for size in shape.split("x"))
            torch.compiler.reset()
            all_of_them = contenders(loss, num_lists, num_passages, device)
            kept = [one for one in all_of_them if one.name not in arguments.skip.split(",")]
            rows = measure(kept, device, time.process_time if arguments.processor_time else time.perf_counter)
            limit = limit_ms(loss, num_lists, num_passages, rates) if rates else None
            sizes = {"loss": loss, "lists": num_lists, "passages": num_passages}
            rows = [{**sizes, **row, "limit_ms": limit} for row in rows]
            result["rows"] += rows
            print_rows(rows)
            path = save(arguments.name, result, arguments.results)  # each time, so that a stopped run keeps its rows
    print(path)


if __name__ == "__main__":
    main()
