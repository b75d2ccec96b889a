"""Measure how every command grows: time and peak memory at three sizes, a factor of three apart, and the exponents.

    python -m benchmarks.growth                             # all cases
    python -m benchmarks.growth retrieve/passages report/runs --scale 3

A case is a command and what there is more and more of: passages, queries, depth, list lines, runs of a report, journal
lines. Each size runs in a process of its own, on generated texts, without caches. Seconds are of the processor, so that
other work on the machine does not lengthen them. What the command takes at a hundredth of the smallest size, its start,
is subtracted from them and from the memory before the exponent is fitted: 1 is linear growth. Memory need not grow at
all where a command reads its input once.
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks.annotate import endpoint
from benchmarks.data import generated
from benchmarks.generate import passages, qrels_lines, queries, run_lines
from benchmarks.processes import measure
from benchmarks.report import RESULTS, ROOT, environment, save
from benchmarks.workers import check_known

FACTOR = 3  # between sizes
START = 100  # the start is measured at the smallest size divided by this
NOISE = 0.2  # seconds, or as a share of the start's memory: what grows by less is not fitted
UNMEASURED = ["task.run=null", "validation.run=null", "train.patience=null", "model.passage_length=93"]
POOL = 20_000  # passages that the lists of most cases draw from


class Files:
    """The generated files of one size, in one directory."""

    def __init__(self, directory: Path, model: Path):
        """Write to the directory; model is a trained one."""
        self.directory, self.model = directory, model

    def _file(self, name: str, lines: Iterable[str]) -> Path:
        return generated(self.directory / name, lines)

    def passages(self, number: int = POOL) -> str:
        """Return the option for so many passages."""
        return f"passages={self._file(f'passages-{number}.tsv', passages(number))}"

    def queries(self, number: int) -> str:
        """Return the option for so many queries."""
        return f"queries={self._file(f'queries-{number}.tsv', queries(number))}"

    def run(self, number: int, depth: int = 100, seed: int = 0, pool: int = POOL) -> Path:
        """Return a run of so many queries."""
        return self._file(f"run-{number}-{depth}-{seed}.run", run_lines(number, depth, pool, seed))

    def qrels(self, number: int, depth: int = 100, pool: int = POOL) -> str:
        """Return the option for the judgments of so many queries."""
        return f"qrels={self._file(f'qrels-{number}-{depth}.txt', qrels_lines(number, pool, depth))}"

    def task(self, number: int, depth: int = 100, texts: bool = True) -> list[str]:
        """Return the options of a task of so many queries."""
        options = [f"run={self.run(number, depth)}", self.qrels(number, depth)]
        options += [self.passages(), self.queries(number)] if texts else []
        return ["task=files", "task.depth=null", *(f"task.{option}" for option in options)]

    def lists(self, number: int, depth: int = 100) -> list[str]:
        """Return the options of training lists."""
        data = [f"data.{option}" for option in (self.passages(), self.queries(number))]
        teacher = ["teacher=run", f"teacher.path={self.run(number, depth)}", "data.depth=null"]
        return ["data=files", *data, *teacher, *UNMEASURED]

    def runs(self, number: int) -> str:
        """Return the option for so many finished runs, with 100 queries each."""
        place = self.directory / f"runs-{number}"
        for seed in range(number):
            if not (place / str(seed)).is_dir():
                shutil.copytree(self.model.parent, place / str(seed), ignore=shutil.ignore_patterns("model", "check*"))
                config = place / str(seed) / "config.yaml"
                config.write_text(config.read_text().replace("seed: 0", f"seed: {seed}"))
        return f"runs={place}"

    def journal(self, number: int) -> str:
        """Return the option for a journal of so many answers."""
        answer = {
            "prompt_tokens": 1200,
            "completion_tokens": 80,
            "text": " > ".join(f"[{n}]" for n in range(20, 0, -1)),
        }
        lines = (
            json.dumps({"key": f"{n:064x}", "model": "judge", "prompt": "p", **answer}) + "\n" for n in range(number)
        )
        return f"journal={self._file(f'journal-{number}.jsonl', lines)}"


Command = list[str]
MAIN = ["-m", "distill"]
CASES: dict[str, tuple[int, Callable[[Files, int, str], Command]]] = {  # name -> smallest size, command
    "cut/passages": (10_000, lambda files, n, out: [*MAIN, "cut", files.passages(n), f"output={out}/cut.jsonl"]),
    "retrieve/passages": (
        20_000,
        lambda files, n, out: [*MAIN, "retrieve", files.passages(n), files.queries(10), f"output={out}/new.run"],
    ),
    "retrieve/queries": (
        1_000,
        lambda files, n, out: [*MAIN, "retrieve", files.passages(), files.queries(n), f"output={out}/new.run"],
    ),
    "fuse/queries": (
        1_000,
        lambda files, n, out: [*MAIN, "fuse", f"runs=[{files.run(n)},{files.run(n, seed=1)}]", f"output={out}/new.run"],
    ),
    "annotate/queries": (
        100,
        lambda files, n, out: [
            *(*MAIN, "annotate", files.passages(), files.queries(n), f"run={files.run(n)}", f"hydra.run.dir={out}"),
            *("teacher.llm.model=judge", "teacher.llm.base_url=URL", f"journal={out}/shared.jsonl"),
        ],
    ),
    "journals/answers": (20_000, lambda files, n, out: [*MAIN, "journals", files.journal(n)]),
    "train/lists": (
        1_000,
        lambda files, n, out: [
            "train.py",
            *files.lists(n),
            "train.max_steps=1",
            "train.max_epochs=null",
            f"hydra.run.dir={out}",
        ],
    ),
    "train/depth": (
        50,
        lambda files, n, out: [
            *(
                "train.py",
                *files.lists(40, n),
                "train.max_steps=20",
                "train.max_epochs=null",
                "train.batch_size=2",
                f"hydra.run.dir={out}",
            ),
        ],
    ),
    "evaluate/run": (
        1_000,
        lambda files, n, out: ["evaluate.py", "model=null", *files.task(n, texts=False), f"hydra.run.dir={out}"],
    ),
    "evaluate/pairs": (
        50,
        lambda files, n, out: ["evaluate.py", f"model={files.model}", *files.task(n), f"hydra.run.dir={out}"],
    ),
    "report/runs": (10, lambda files, n, out: [*MAIN, "report", files.runs(n), f"output={out}"]),
    "inspect/queries": (
        1_000,
        lambda files, n, out: [
            *(*MAIN, "inspect", f"run={files.run(n, seed=1)}", f"baseline={files.run(n)}", files.passages()),
            *(files.queries(n), files.qrels(n), f"output={out}"),
        ],
    ),
}


def measured(arguments: Command, directory: Path) -> tuple[float, float]:
    """Run a command without a cache or an earlier output; return its CPU seconds and its peak memory in MB."""
    shutil.rmtree(directory / "out", ignore_errors=True)
    used = measure([sys.executable, *arguments], cwd=ROOT, cache=directory / "cache")
    return used.cpu_seconds, used.peak_bytes / 2**20


def exponent(sizes: list[int], values: list[float], start: float, noise: float) -> float | None:
    """Return the slope of log(value - start) over log(size), by least squares; None if the values hardly grow."""
    grown = [value - start for value in values]
    if grown[-1] < noise or min(grown) <= 0:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in grown]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def grow(name: str, directory: Path, model: Path, url: str, scale: float) -> dict:
    """Measure a case at its start and at three sizes."""
    smallest, command = CASES[name]
    smallest = max(round(smallest * scale), 3)
    sizes = [smallest * FACTOR**power for power in range(3)]
    files, found = Files(directory, model), []
    for size in [max(smallest // START, 2), *sizes]:
        arguments = [part.replace("URL", url) for part in command(files, size, str(directory / "out"))]
        found.append(measured(arguments, directory))
    (start_seconds, start_mb), grown = found[0], found[1:]
    seconds, mb = zip(*grown, strict=True)
    return {
        "case": name, "sizes": sizes, "start": {"cpu_s": start_seconds, "peak_mb": start_mb},
        "cpu_s": list(seconds), "peak_mb": list(mb),
        "time_exponent": exponent(sizes, list(seconds), start_seconds, NOISE),
        "memory_exponent": exponent(sizes, list(mb), start_mb, NOISE * start_mb),
    }  # fmt: skip


def line(row: dict) -> str:
    """Return a row of the table in Markdown."""
    shown = {
        key: " · ".join(f"{value:.{digits}f}" for value in row[key]) for key, digits in (("cpu_s", 1), ("peak_mb", 0))
    }
    sizes = " · ".join(f"{size:,}".replace(",", " ") for size in row["sizes"])
    exponents = [
        "–" if row[f"{what}_exponent"] is None else f"{row[f'{what}_exponent']:.2f}" for what in ("time", "memory")
    ]
    return f"| {row['case']} | {sizes} | {shown['cpu_s']} | {exponents[0]} | {shown['peak_mb']} | {exponents[1]} |"


def main() -> None:
    """Measure the cases, print a table, and write all to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all sizes")
    parser.add_argument("--directory", type=Path, default=Path("outputs/benchmark-growth"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    check_known(parser, "case", arguments.cases, CASES)
    directory = arguments.directory.absolute()
    os.chdir(ROOT)
    model = directory / "trained" / "model"
    if not model.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        measured(["train.py", "train.max_steps=1", f"hydra.run.dir={model.parent}"], directory)
    print("| command / of what | sizes | CPU seconds | exponent | peak MB | exponent |", "| --- " * 6 + "|", sep="\n")
    rows = []
    with endpoint(0.0) as url:
        for name in arguments.cases or CASES:
            rows.append(grow(name, directory, model, url, arguments.scale))
            print(line(rows[-1]), flush=True)
    print(save("growth", environment(torch.device("cpu")) | {"rows": rows}, arguments.results))


if __name__ == "__main__":
    main()
