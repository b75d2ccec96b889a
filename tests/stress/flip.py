"""Flip one bit in each part of each file that a command reads, and compare with what it does with the whole file.

python -m tests.stress.flip files=last.pt,model parts=32
"""

import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.stress.commands import Command, Counts, clear, contents, difference, ended, last_line, main, make_commands


@dataclass
class Target:
    """Files of a prepared directory, and the command that reads them."""

    pattern: str  # below the prepared directory
    prepare: Callable[[Path], None]
    command: Command


def disturb(options: dict[str, str], place: Path, counts: Counts) -> None:
    """Do it, with all files below `place`."""
    targets = make_targets(place)
    for name in options.get("files", ",".join(targets)).split(","):
        flip(name, targets[name], place, counts, int(options.get("parts", 32)))


def make_targets(place: Path) -> dict[str, Target]:
    """Return what is damaged, by name."""
    disturbed = place / "disturbed"
    commands = make_commands(place / "inputs", disturbed)
    train, evaluate, annotate = (commands[name] for name in ("train", "evaluate", "annotate"))
    resumed = Command("train", [f"resume={disturbed}/out", "train.max_steps=6"])
    own_model = Command("evaluate", [*evaluate.overrides, f"model={disturbed}/model"])
    report = Command("report", [f"runs={disturbed}/run", f"output={disturbed}/out"])

    def stopped(at: Path) -> None:
        Command("train", [*train.overrides, "train.max_steps=4"]).run(at)

    def model(at: Path) -> None:
        shutil.copytree(place / "inputs" / "trained" / "model", at / "model")

    def run(at: Path) -> None:
        shutil.copytree(place / "inputs" / "trained", at / "run")

    def answers(at: Path) -> None:
        annotate.run(at)
        for path in (at / "out").iterdir():
            if path.name not in ("journal.jsonl", "config.yaml"):
                path.unlink()

    def cached(command: Command) -> Callable[[Path], None]:
        def prepare(at: Path) -> None:
            command.run(at)
            shutil.rmtree(at / "out")

        return prepare

    return {
        "last.pt": Target("out/checkpoints/last.pt", stopped, resumed),
        "best.pt": Target("out/checkpoints/best.pt", stopped, resumed),
        "weights": Target("model/**/*.safetensors", model, own_model),
        "model": Target("model/**/*[!s]", model, own_model),  # all files but weights
        "journal": Target("out/journal.jsonl", answers, annotate),
        "index": Target("cache/bm25/*/*", cached(commands["retrieve"]), commands["retrieve"]),
        "caches": Target("cache/*/*/*", cached(commands["large"]), commands["large"]),
        "run": Target("run/*.*", run, report),
    }


def flip(name: str, target: Target, place: Path, counts: Counts, parts: int) -> None:
    """Flip a bit in each of so many parts of each file, one at a time."""
    disturbed, whole, draw = place / "disturbed", place / "whole", random.Random(0)
    clear(disturbed)
    target.prepare(disturbed)
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(disturbed, whole)
    done = target.command.run(disturbed)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = contents(disturbed / "out")
    for path in sorted(path for path in whole.glob(target.pattern) if path.is_file() and path.stat().st_size):
        content = path.read_bytes()
        positions = sorted({len(content) * part // parts for part in range(parts)} | {len(content) - 1})
        for position in positions:
            clear(disturbed)
            shutil.copytree(whole, disturbed, dirs_exist_ok=True)
            damaged = bytearray(content)
            damaged[position] ^= 1 << draw.randrange(8)
            copy = disturbed / path.relative_to(whole)
            copy.write_bytes(damaged)
            after = target.command.run(disturbed)
            outcome, detail = ended(after), f"{path.relative_to(whole)} byte {position}: {last_line(after)}"
            if outcome == "done":
                differs = difference(contents(disturbed / "out"), expected)
                outcome, detail = ("other", f"{detail}: {differs}") if differs else ("identical", detail)
            counts.add(f"flip {name} {path.name}", outcome, detail)


if __name__ == "__main__":
    sys.exit(main(disturb))
