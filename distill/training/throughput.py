"""Measure the speed of training: pairs and tokens per second, and MFU, the share of the device's peak arithmetic.

throughput = Throughput(model, device)
throughput.count(batch, draw)                     # after every step
with throughput.paused(): ...                     # the time of a validation does not count
metrics |= throughput.take(ranks)                 # since the last call
"""

import contextlib
import time
from collections.abc import Iterator

import torch

from distill.cores import CoreWatch
from distill.data.batch import Batch
from distill.distributed import Ranks
from distill.training.draw import PassageDraw
from distill.training.flops import FlopCounter, peak_flops


class Throughput:
    """Counts the pairs, tokens and operations of the steps since the last log line, and measures their time."""

    def __init__(self, model, device: torch.device):
        """Start the clock."""
        self.count_flops, self.peak = FlopCounter(model), peak_flops(device)
        self.cores = CoreWatch(device)
        self._start()

    def _start(self) -> None:
        self.num_pairs, self.num_tokens, self.num_flops, self.clock = 0, 0, 0.0, time.perf_counter()

    def count(self, batch: Batch, draw: PassageDraw) -> None:
        """Add a step's batch, of which a draw may have left out some pairs: they had no backward pass."""
        self.num_pairs += len(batch.lengths)
        self.num_tokens += len(batch.tokens)
        self.num_flops += self.count_flops(batch.lengths) - 2 / 3 * sum(map(self.count_flops, draw.left_out))
        self.cores.look()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the `with` block."""
        paused = time.perf_counter()
        yield
        self.clock += time.perf_counter() - paused
        self.cores.restart()

    def take(self, ranks: Ranks) -> dict[str, float]:
        """Return the metrics of all ranks since the last call, with MFU if the device's peak is known, and restart."""
        seconds = time.perf_counter() - self.clock
        num_pairs, num_tokens, num_flops = ranks.sum(self.num_pairs, self.num_tokens, self.num_flops)
        metrics = {"train/pairs_per_second": num_pairs / seconds, "train/tokens_per_second": num_tokens / seconds}
        if self.peak:
            metrics["train/mfu"] = num_flops / seconds / (self.peak * ranks.size)
        self._start()
        return metrics
