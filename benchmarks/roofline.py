"""Measure which share of the matrix products' own rate training and scoring reach, beside sentence-transformers.

    OMP_NUM_THREADS=1 python -m benchmarks.roofline --model MINILM_L6_DIR
    python -m benchmarks.roofline --model MINILM_L6_DIR --lengths 100 --rounds 5 --contenders packed
    python -m benchmarks.roofline --model MINILM_L6_DIR --passages 128 --lists 16 --max-tokens 2048

The limit is the float32 rate of the products of one pass, in their own shapes, one after the other: those of the
layers' matrices and of attention, and in training those of their gradients. What comes between them (normalisation,
softmax, GELU, tokenising, the loss, the optimiser) is what keeps a step below it. All take turns in one process. With
one thread, seconds are CPU seconds. Pairs have exactly the given number of tokens. Products and scoring have as many as
fill a chunk. A training step has --passages in --lists: the optimiser's share falls with the passages. Ours takes the
lists in chunks of --max-tokens, as train.max_tokens does; left out, all at once.
Shapes: T tokens, S pairs, l tokens of each, D hidden size, F of the feed-forward network, H heads.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import rerank, train
from benchmarks.models import training_model
from benchmarks.report import RESULTS, environment, save
from distill.models.cross_encoder import MAX_CPU_TOKENS, CrossEncoder

QUERY_TOKENS = 8
CPU = torch.device("cpu")
Shape = tuple[int, int, int, int]  # how many, rows, inner size, columns


def shapes(config, num_pairs: int, length: int) -> Iterator[tuple[Shape, bool]]:
    """Yield the products of a forward pass of a BERT with num_pairs of a length, and whether one is with a weight.

    In its last layer, only keys and values are computed for all tokens.
    """
    size, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        asking = 1 if layer == config.num_hidden_layers - 1 else length  # tokens of a pair whose states are computed
        rows, tokens = num_pairs * asking, num_pairs * length
        yield from [((1, rows, size, size), True)] * 2 + [((1, tokens, size, size), True)] * 2  # q, output; k, v
        yield from [((1, rows, size, inner), True), ((1, rows, inner, size), True)]
        each, number = size // heads, num_pairs * heads
        yield from [((number, asking, each, length), False), ((number, asking, length, each), False)]


def operations(config, num_pairs: int, length: int) -> int:
    """Return the operations of a forward pass."""
    return sum(
        2 * many * rows * inner * columns for (many, rows, inner, columns), _ in shapes(config, num_pairs, length)
    )


def products(config, num_pairs: int, length: int, *, backward: bool) -> Callable[[], None]:
    """Return a function that computes the products of a pass, with those of the gradients if backward."""
    made: dict[tuple[int, ...], torch.Tensor] = {}

    def activations(*shape: int) -> torch.Tensor:  # those of one shape may be in the cache, as they are in a step
        return made.setdefault(shape, torch.randn(shape if shape[0] > 1 else shape[1:]))

    calls = []
    for (many, rows, inner, columns), is_weight in shapes(config, num_pairs, length):
        right = torch.randn(columns, inner) if is_weight else activations(many, columns, inner)
        calls.append((activations(many, rows, inner), right, activations(many, rows, columns)))

    def run() -> None:
        for left, right, gradient in calls:
            left @ right.mT
            if backward:
                gradient @ right
                gradient.mT @ left

    return run


def texts(tokenizer, num_pairs: int, length: int) -> list[tuple[str, list[str]]]:
    """Return a list of pairs with exactly so many tokens each, special tokens included."""
    words = [word for word, _ in sorted(tokenizer.get_vocab().items()) if word.isascii() and word.isalpha()]
    words = [word for word in words if len(word) > 3 and word.islower()]
    chosen = torch.randint(len(words), (num_pairs + 1, length), generator=torch.Generator().manual_seed(0)).tolist()
    query, *passages = (" ".join(words[number] for number in row) for row in chosen)
    query = " ".join(query.split()[:QUERY_TOKENS])
    special = len(tokenizer(query, passages[0])["input_ids"]) - QUERY_TOKENS - length
    kept = length - QUERY_TOKENS - special
    return [(query, [" ".join(passage.split()[:kept]) for passage in passages])]


def clock() -> float:
    """Return seconds: of the CPU with one thread, whose time other work on the machine does not lengthen."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds_of(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Do each piece of work in turn, after a warm-up; return the medians."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            start = clock()
            run()
            if turn:
                taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def in_lists(query: str, passages: list[str], number: int) -> list[tuple[str, list[str]]]:
    """Deal the passages out to so many lists of equal size."""
    return [(query, passages[first::number]) for first in range(number)]


def measure(model: str, length: int, arguments, contenders: list[str]) -> list[dict]:
    """Return a row for each contender, scoring and training, with its share of the products' rate."""
    opened = CrossEncoder.from_pretrained(model)
    of_chunk, config, rows = MAX_CPU_TOKENS // length, opened.backbone.config, []
    for task, times, num_pairs in (("scoring", 1, of_chunk), ("training", 3, arguments.passages)):
        lists = texts(opened.tokenizer, num_pairs, length)
        max_tokens = arguments.max_tokens or num_pairs * length
        flops = times * operations(config, num_pairs, length)
        work: dict[str, Callable[[], object]] = {}
        work["products"] = products(config, of_chunk, length, backward=task == "training")
        for name in contenders:
            if task == "training":
                dealt = in_lists(*lists[0], arguments.lists)
                work[name] = train.stepper(name, model, dealt, CPU, max_tokens)[0]
            else:
                work[name] = rerank.scorer(name, model, lists, CPU)
        seconds = seconds_of(work, arguments.rounds)
        limit = times * operations(config, of_chunk, length) / seconds["products"]
        for name in contenders:
            rate = flops / seconds[name]
            row = {"task": task, "tokens": length, "pairs": num_pairs, "name": name, "seconds": seconds[name]}
            rows.append(row | {"flops_per_second": rate, "products_per_second": limit, "share": rate / limit})
            print(f"{task:9} {length:4} tokens  {name:24} {rate / 1e9:6.1f} of {limit / 1e9:6.1f} GFLOP/s", end="  ")
            print(f"{rate / limit:6.1%}", flush=True)
    return rows


def main() -> None:
    """Measure each length, print a line for each contender, and write all to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory, packaged model or Hub id of a BERT")
    parser.add_argument("--lengths", default="100,240", help="tokens of a pair")
    parser.add_argument("--passages", type=int, default=50, help="of a training step")
    parser.add_argument("--lists", type=int, default=1, help="that these passages are in; it divides them")
    parser.add_argument("--max-tokens", type=int, help="of a pass in ours; left out: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", default="packed,sentence-transformers")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.lists < 1 or arguments.passages % arguments.lists:
        parser.error(f"--lists {arguments.lists}: must divide --passages, {arguments.passages}")
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        model = training_model(arguments.model, Path(directory))
        for length in map(int, arguments.lengths.split(",")):
            rows += measure(model, length, arguments, arguments.contenders.split(","))
    settings = {name: getattr(arguments, name) for name in ("passages", "lists", "max_tokens", "rounds")}
    print(save("roofline", environment(CPU) | settings | {"rows": rows}, arguments.results))


if __name__ == "__main__":
    main()
