"""Measure what a user waits for: first lines, imports, an opened model, short runs and sweeps, each with peak memory.

    python -m benchmarks.waits                                      # this checkout
    python -m benchmarks.waits --before OTHER_CHECKOUT --rounds 3   # both in turn, with the same packages
    python -m benchmarks.waits first-line help --rounds 9

Each wait is a process of its own, and CUDA is hidden. Files and the model are made by this checkout, for both. A sweep
is 3 of its jobs unless its name says `-whole`. CPU seconds are not lengthened by other work on the machine: on a free
core they are about the wall time, where nothing waits for a server.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.growth import Files, measured
from benchmarks.processes import Used, measure
from benchmarks.report import RESULTS, ROOT, environment, save
from distill.models.locate import locate_model

PACKAGED = "googleq-minilm-3"
OPEN = f"from distill import CrossEncoder; CrossEncoder.from_pretrained({locate_model(PACKAGED)!r})"
LIBRARIES = "import torch; from transformers import BertModel, PreTrainedTokenizerFast"
FIGURE1, GRID = "experiment=figure1-mini", "experiment=comparison/grid-mini"
MAIN = ["-m", "distill"]
Command = Callable[[Files, str, str], list[str]]  # of files, output directory and a server's address
WAITS: dict[
    str, tuple[str, int, Command]
] = {  # name -> what it is, lines after which it is stopped, arguments of Python
    "first-line": ("first line of train.py", 1, lambda files, out, url: ["train.py", f"hydra.run.dir={out}"]),
    "second-line": ("second line, the device", 2, lambda files, out, url: ["train.py", f"hydra.run.dir={out}"]),
    "help": ("`train.py --help`", 0, lambda files, out, url: ["train.py", "--help"]),
    "import": ("`import distill`", 0, lambda files, out, url: ["-c", "import distill"]),
    "import-model": (
        "`from distill import CrossEncoder`",
        0,
        lambda files, out, url: ["-c", "from distill import CrossEncoder"],
    ),
    "libraries": (f"`{LIBRARIES}`", 0, lambda files, out, url: ["-c", LIBRARIES]),
    "open": (f"open `{PACKAGED}`", 0, lambda files, out, url: ["-c", OPEN]),
    "report": (
        "report of 200 runs",
        0,
        lambda files, out, url: [*MAIN, "report", files.runs(200), f"output={out}/report"],
    ),
    "annotate": (
        "annotation of 500 queries × 100, local server",
        0,
        lambda files, out, url: [
            *(*MAIN, "annotate", files.passages(), files.queries(500), f"run={files.run(500)}", f"hydra.run.dir={out}"),
            *("teacher.llm.model=judge", f"teacher.llm.base_url={url}", f"journal={out}/answers.jsonl"),
        ],
    ),
    "evaluate": (
        "evaluation of 75 × 100, tiny model",
        0,
        lambda files, out, url: ["evaluate.py", f"model={files.model}", *files.task(75), f"hydra.run.dir={out}"],
    ),
    "sample": ("sample run", 0, lambda files, out, url: ["train.py", f"hydra.run.dir={out}"]),
    "figure1-mini": (
        "3 jobs of figure1-mini",
        0,
        lambda files, out, url: [
            *("train.py", "-m", FIGURE1, "data.depth=5", "data.num_queries=25", f"hydra.sweep.dir={out}"),
        ],
    ),
    "grid-mini": (
        "3 jobs of grid-mini",
        0,
        lambda files, out, url: ["train.py", "-m", GRID, "backbone=tiny", "loss=lce", f"hydra.sweep.dir={out}"],
    ),
    "figure1-mini-whole": (
        "figure1-mini, 27 jobs",
        0,
        lambda files, out, url: ["train.py", "-m", FIGURE1, f"hydra.sweep.dir={out}"],
    ),
    "grid-mini-whole": (
        "grid-mini, 36 jobs",
        0,
        lambda files, out, url: ["train.py", "-m", GRID, f"hydra.sweep.dir={out}"],
    ),
}


@contextmanager
def stand_in() -> Iterator[str]:
    """Run the stand-in for an LLM of examples/; yield its address."""
    command = [sys.executable, "-m", "examples.llm_server", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def middle(used: list[Used]) -> dict[str, float]:
    """Return the medians of several rounds."""
    numbers = [one.numbers() for one in used]
    return {key: statistics.median(one[key] for one in numbers) for key in numbers[0]}


def line(name: str, found: dict[str, dict]) -> str:
    """Return a row of the table in Markdown."""
    cells = []
    for of_checkout in found.values():
        cells += [f"{of_checkout['seconds']:.1f}", f"{of_checkout['cpu_seconds']:.2f}"]
        cells.append(f"{of_checkout['peak_bytes'] / 2**20:.0f}")
    return f"| {WAITS[name][0]} | {' | '.join(cells)} |"


def main() -> None:
    """Measure the waits, print a table, and write all to a JSON file."""
    default = [name for name in WAITS if not name.endswith("-whole")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("waits", nargs="*", metavar="WAIT", help=", ".join(WAITS))
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=Path("outputs/benchmark-waits"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.waits) - set(WAITS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such wait: choose from {', '.join(WAITS)}")
    directory = arguments.directory.absolute()
    checkouts = {"before": arguments.before.absolute()} if arguments.before else {}
    checkouts["after"] = ROOT
    model = directory / "trained" / "model"
    if not model.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        measured(["train.py", "train.max_steps=1", f"hydra.run.dir={model.parent}"], directory)
    files, rows = Files(directory, model), []
    head = [f"{name}: {what}" for name in checkouts for what in ("seconds", "CPU seconds", "peak MB")]
    print(f"| wait | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|", sep="\n")
    with stand_in() as url:
        for name in arguments.waits or default:
            used: dict[str, list[Used]] = {checkout: [] for checkout in checkouts}
            for turn in range(arguments.rounds):
                for checkout, root in checkouts.items():
                    _, lines, command = WAITS[name]
                    out = directory / f"{checkout}-{name}-{turn}"
                    shutil.rmtree(out, ignore_errors=True)
                    given = [sys.executable, *command(files, str(out), url)]
                    env = {"PYTHONPATH": str(root)}
                    used[checkout].append(measure(given, cwd=root, cache=directory / "cache", lines=lines, env=env))
            found = {checkout: middle(rounds) for checkout, rounds in used.items()}
            rows.append({"wait": name, "what": WAITS[name][0], "rounds": arguments.rounds} | found)
            print(line(name, found), flush=True)
    print(save("waits", environment(torch.device("cpu")) | {"rows": rows}, arguments.results))


if __name__ == "__main__":
    main()
