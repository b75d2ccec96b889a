"""Seconds of training until a value on development queries is reached, beside sentence-transformers.

    python -m benchmarks.time_to_quality lce --encoder DIR --num-layers 3 --pooling mean --passages P.tsv \
        --queries Q.tsv --run FIRST.run --qrels QRELS --test-queries DEV.tsv --test-run DEV.run \
        --test-qrels DEV_QRELS --test-depth 30 --measures RR@10 --steps 79 --every 10 --lrs 2e-4:5e-3,4e-4:5e-3 \
        --ours "optimizer.lr=4e-4 optimizer.head_lr=5e-3" --output time.json

Both sides have the same student, lists, batches, warm-up and steps, and the options are those of benchmarks/peers.py.
Its test lists are the development lists here. After every --every steps, our code re-ranks them, and the first of
--measures is taken. Validating, and saving their models, does not count as training; saving our checkpoint after a
better validation does. The value to reach is the best that sentence-transformers has at any of these steps, with any of
--lrs; 4e-4:5e-3 among them has another learning rate for the linear layer, and 4e-4/60 is a training of 60 steps, at
whose end the learning rate is 0. --ours: overrides of train.py for our side only, as in "optimizer.lr=8e-4
train.max_steps=40"; without a learning rate among them, ours has --lr. A row that is already in the output is not run
again: call it once more with other --lrs or --ours to add some.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import torch

from benchmarks.peer_lists import prepare, read_test, test_overrides
from benchmarks.peers import (
    Failed,
    as_named,
    as_named_words,
    check_same,
    parser_of,
    part,
    rerank_ours,
    train_ours,
    with_paths,
    write_lengths,
    write_result,
)
from benchmarks.report import environment
from distill.errors import InputError, exit_on_bad_input
from distill.evaluation.measures import measure
from distill.sources.runs import read_run

THEIRS = "sentence-transformers"
NOT_SETTINGS = ("output", "work", "lrs", "ours")  # may differ from call to call

Curve = list[tuple[int, float, float]]  # step, seconds of training until then, value


def main() -> None:
    """Train what is missing, write each row as it comes, and print who reached the value when."""
    parser = parser_of(__doc__)
    parser.add_argument("--every", type=int, default=10, help="steps between values")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lrs", default="2e-4,4e-4,8e-4", help="what they try: LR[:HEAD_LR][/STEPS]")
    parser.add_argument("--ours", default="", help="overrides of train.py that only ours has")
    arguments = with_paths(parser.parse_args(), parser)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    with exit_on_bad_input(sweep=False):
        try:
            compare_times(arguments)
        except Failed as error:
            raise SystemExit(str(error)) from error


def compare_times(arguments) -> None:
    """Run what is missing; raises InputError for an output of other settings."""
    settings = {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}
    check_same(arguments.work / "settings.json", settings)
    found = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    if found and found["settings"] != as_named(settings):
        raise InputError(f"{arguments.output}: its rows have other settings: choose another --output")
    rows = found.get("rows", [])
    result = environment(torch.device(arguments.device)) | {"settings": as_named(settings)}
    result["command"] = shlex.join(["python", "-m", "benchmarks.time_to_quality", *as_named_words(sys.argv[1:])])
    task = read_test(arguments, texts=False)
    result["first_stage"], _ = measure(task.run, task.qrels, task.measures)
    prepared = arguments.work / f"seed-{arguments.seed}"
    facts = prepare(arguments, arguments.seed, prepared)
    contenders = [(THEIRS, f"lr={lr}") for lr in arguments.lrs.split(",")] + [("ours", arguments.ours)]
    for name, options in contenders:
        if any((row["name"], row["options"]) == (name, options) for row in rows):
            continue
        directory = arguments.work / f"{name}-{re.sub('[/: ]', ',', options)}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        row = {"name": name, "options": options, "date": datetime.now(UTC).strftime("%Y-%m-%d")} | facts
        if name == THEIRS:
            row |= train_theirs(with_rate(arguments, options.removeprefix("lr=")), prepared, directory, task)
        else:
            row |= train_with_curve(arguments, prepared, directory, options.split(), task)
        rows.append(row)
        write_result(arguments.output, result | time_to_reach(rows) | {"rows": rows})
        print(describe(row), file=sys.stderr)
    write_result(arguments.output, result | time_to_reach(rows) | {"rows": rows})
    print(*map(describe, rows), json.dumps(time_to_reach(rows)), sep="\n")


def with_rate(arguments, tried: str) -> argparse.Namespace:
    """Return the arguments with the rates of `LR[:HEAD_LR][/STEPS]`, and with these steps if there are fewer."""
    rates, _, steps = tried.partition("/")
    lr, _, head_lr = rates.partition(":")
    steps = min(int(steps or arguments.steps), arguments.steps)  # no more lists have been prepared
    found = {"lr": float(lr), "head_lr": float(head_lr) if head_lr else arguments.head_lr, "steps": steps}
    return argparse.Namespace(**vars(arguments) | found)


def train_theirs(arguments, prepared: Path, directory: Path, task) -> dict:
    """Train with sentence-transformers, and re-rank with each model that it kept on the way."""
    answer = part(arguments, "train", THEIRS, arguments.seed, prepared, directory, arguments.every)
    moments = answer.pop("snapshots")
    if not moments or moments[-1][0] < arguments.steps:
        moments.append((arguments.steps, answer["seconds"]))
        (directory / "model").rename(directory / f"model-{arguments.steps}")
    curve: Curve = []
    for step, seconds in moments:
        model = directory / f"model-{step}"
        write_lengths(prepared, model)
        run = rerank_ours(arguments, model, directory / f"rerank-{step}")["run"]
        means, _ = measure(read_run(str(run)), task.qrels, task.measures[:1])
        curve.append((step, seconds, *means.values()))
    return answer | {"curve": curve}


def train_with_curve(arguments, prepared: Path, directory: Path, options: Sequence[str], task) -> dict:
    """Train with train.py, whose validations are the curve."""
    lists = [f"validation.{each.removeprefix('task.')}" for each in test_overrides(arguments) if each != "task=files"]
    more = [*lists, f"train.validate_every={arguments.every}", *options]
    answer = train_ours(arguments, arguments.seed, prepared, directory, "auto", more)
    seconds = [0.0, *accumulate(answer.pop("seconds_of_steps"))]
    lines = map(json.loads, (directory / "train" / "metrics.jsonl").read_text().splitlines())
    value = f"val/{task.measures[0]}"
    return answer | {"curve": [(line["step"], seconds[line["step"]], line[value]) for line in lines if value in line]}


def time_to_reach(rows: list[dict]) -> dict:
    """Return the best value of sentence-transformers, and each side's seconds to reach it; None if it did not."""
    curves: dict[str, list[Curve]] = {}
    for row in rows:
        curves.setdefault(row["name"], []).append(row["curve"])
    if THEIRS not in curves:
        return {}
    target = max(value for curve in curves[THEIRS] for _, _, value in curve)
    reached = {}
    for name, of_name in curves.items():
        times = [seconds for curve in of_name for _, seconds, value in curve if value >= target - 1e-9]  # rounding
        reached[name] = min(times, default=None)
    return {"value": target, "seconds_to_value": reached}


def describe(row: dict) -> str:
    """Return a line about a row: the values on the way, and the time of training."""
    curve = "  ".join(f"{step}: {value:.3f}" for step, _, value in row["curve"])
    return f"{row['name']} {row['options']}: {row['seconds'] / 60:.1f} min  {curve}"


if __name__ == "__main__":
    main()
