"""Measure what every loss takes on the CPU for deep lists: peak memory and time of forward and backward.

    python -m benchmarks.loss_memory                                # 8 lists of 1000 passages, 4 of 4096
    python -m benchmarks.loss_memory --shapes 2x200 --losses ranknet,kl

Each loss runs in a process of its own, twice: as it is, with deep lists in tiles, and with all their pairs at once.

    extra   peak resident memory on top of what the process had after the same loss of a small list
    time    processor time of the fastest of three passes forward and backward
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.losses import WHOLE, make_target
from benchmarks.report import RESULTS, environment, save
from distill.losses import LOSSES, tiles

SHAPES = "8x1000,4x4096"


def measure(loss: str, shape: str, whole: bool) -> dict:
    """Return a loss's extra memory in MiB and its time in seconds, measured in a new process."""
    call = [sys.executable, "-m", "benchmarks.loss_memory", "--child", loss, shape, str(int(whole))]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def child(loss: str, shape: str, whole: bool) -> None:
    """Run one loss and print its row as JSON."""
    num_lists, size = (int(part) for part in shape.split("x"))
    chosen, tiles.MOST_AT_ONCE = tiles.MOST_AT_ONCE, 1  # the first use of tiles imports a part of torch
    _run(loss, 2, 8)
    tiles.MOST_AT_ONCE = WHOLE if whole else chosen
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = min(_run(loss, num_lists, size) for _ in range(3))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"extra_mib": (after - before) / 1024, "seconds": seconds}))


def _run(loss: str, num_lists: int, size: int) -> float:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(num_lists, size, generator=generator).requires_grad_()
    target = make_target(loss, num_lists, size, generator)
    start = time.process_time()
    LOSSES[loss](scores, target, target >= 0).backward()
    return time.process_time() - start


def main() -> None:
    """Measure, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES, help="lists x passages, comma-separated")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for the JSON file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], arguments.child[1], arguments.child[2] == "1")
        return
    result = environment(torch.device("cpu")) | {"rows": []}
    print(f"{result['device']}, {result['date']}, torch {torch.__version__}, commit {result['commit']}")
    print(f"{'loss':14}{'lists x passages':>17}{'extra MiB':>12}{'all at once':>13}{'ms':>9}{'all at once':>13}")
    for loss in arguments.losses.split(","):
        for shape in arguments.shapes.split(","):
            ours, whole = (measure(loss, shape, whole) for whole in (False, True))
            result["rows"].append({"loss": loss, "shape": shape, "tiles": ours, "whole": whole})
            print(
                f"{loss:14}{shape:>17}{ours['extra_mib']:12.0f}{whole['extra_mib']:13.0f}"
                f"{1000 * ours['seconds']:9.0f}{1000 * whole['seconds']:13.0f}"
            )
    print(save("loss-memory", result, arguments.results))


if __name__ == "__main__":
    main()
