"""Measure what a user waits for: first lines, imports, an opened model, short runs and sweeps, each with peak memory.

    python -m benchmarks.waits                                      # this checkout
    python -m benchmarks.waits --before OTHER_CHECKOUT --rounds 3   # both in turn, with the same packages
    python -m benchmarks.waits first-line help --rounds 9

Each wait is a process of its own, and CUDA is hidden. Each checkout opens a model that it has trained for a step, and
trains on its own sample. A sweep is 3 of its jobs, of equal steps, unless its name says `-whole`. CPU seconds are not
lengthened by other work on the machine: on a free core they are about the wall time, where nothing waits for a server.
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

from benchmarks.growth import Files
from benchmarks.processes import Used, measure
from benchmarks.report import RESULTS, ROOT, environment, save
from benchmarks.workers import check_known
from distill.models.locate import locate_model

PACKAGED = "googleq-minilm-3"
OPEN = f"from distill import CrossEncoder; CrossEncoder.from_pretrained({locate_model(PACKAGED)!r})"
LIBRARIES = "import torch; from transformers import BertModel, PreTrainedTokenizerFast"
FIGURE1, GRID = "experiment=figure1-mini", "experiment=comparison/grid-mini"
EQUAL = ["train.max_epochs=null", "train.max_steps=60", "train.batch_size=8", "train.validate_every=60", "seed=0,1,2"]
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
            *("train.py", "-m", FIGURE1, *EQUAL, "data.depth=5", "data.num_queries=25", f"hydra.sweep.dir={out}"),
        ],
    ),
    "grid-mini": (
        "3 jobs of grid-mini",
        0,
        lambda files, out, url: ["train.py", "-m", GRID, *EQUAL, "backbone=tiny", "loss=lce", f"hydra.sweep.dir={out}"],
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


def trained(directory: Path, checkout: str, root: Path) -> Path:
    """Return a model that a checkout has trained for a step."""
    model = directory / f"trained-{checkout}" / "model"
    if not model.is_dir():
        command = [sys.executable, "train.py", "train.max_steps=1", f"hydra.run.dir={model.parent}"]
        measure(command, cwd=root, cache=directory / "cache", env={"PYTHONPATH": str(root)})
    return model


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


def middle(used: list[Used]) -> dict[str, float] | None:
    """Return the medians of several rounds, None if there is none."""
    numbers = [one.numbers() for one in used]
    return {key: statistics.median(one[key] for one in numbers) for key in numbers[0]} if numbers else None


def line(name: str, found: dict[str, dict | None]) -> str:
    """Return a row of the table in Markdown."""
    cells = []
    for of_checkout in found.values():
        if of_checkout is None:
            cells += ["–"] * 3
            continue
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
    check_known(parser, "wait", arguments.waits, WAITS)
    directory = arguments.directory.absolute()
    checkouts = {"before": arguments.before.absolute()} if arguments.before else {}
    checkouts["after"] = ROOT
    files = {name: Files(directory, trained(directory, name, root)) for name, root in checkouts.items()}
    rows = []
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
                    given = [sys.executable, *command(files[checkout], str(out), url)]
                    env = {"PYTHONPATH": str(root)}
                    try:
                        one = measure(given, cwd=root, cache=directory / "cache", lines=lines, env=env)
                    except SystemExit as error:  # an older checkout may lack a command
                        print(f"{checkout}, {name}: {str(error).splitlines()[-1]}", file=sys.stderr)
                        continue
                    used[checkout].append(one)
            found = {checkout: middle(rounds) for checkout, rounds in used.items()}
            rows.append({"wait": name, "what": WAITS[name][0], "rounds": arguments.rounds} | found)
            print(line(name, found), flush=True)
    print(save("waits", environment(torch.device("cpu")) | {"rows": rows}, arguments.results))


if __name__ == "__main__":
    main()
