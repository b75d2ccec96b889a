"""Fuzzing of saved runs: damaged and hostile files, read by report, inspect, resume and evaluate, in a limited child.

    python -m tests.stress.fuzz_runs minutes=10 seed=0

A training, an evaluation and an annotation are made once. Of each case, one to three files are changed: a value of
another type or size, a key removed, interpolations, aliases and tags, a file cut, emptied, overwritten, missing, a
directory, a bit flipped. A child then reads the directory, with 1 GB more memory than it started with and 10 seconds of
a core. It may refuse in one line or finish; anything else (a traceback, a signal, no end, no memory) is printed with
what was changed, and so is a value of the environment in anything that was written.
"""

import collections
import contextlib
import copy
import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from distill.commands.inspect import check_inspect, inspect
from distill.commands.report import report
from distill.config.saved import saved_text
from distill.errors import DISK
from distill.jobs import open_run, read_results, state_of
from evaluate import evaluate
from tests.helpers.configuration import compose_config, resumed
from tests.stress.limited import fault, in_child
from train import train

SECRET = "swordfish-of-the-environment"
NUMBERS = [0, 1, -1, 2, 10**6, 10**12, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")]
TEXTS = [
    "",
    "x",
    "../../x",
    "/etc/passwd",
    "é\n",
    "x" * 5000,
    "${oc.env:STRESS_VALUE}",
    "${a.b}",
    "${",
    "\\${x}",
    "???",
]
TEXTS += [
    "${model}",
    "${seed}",
    "${task.name}${task.name}",
    "${hydra:runtime.cwd}",
    "${oc.create:[1]}",
    "<script>",
    "=1+1",
]
TEXTS += ["http://127.0.0.1:9/x", "a|b`c`", "$x$", "\\frac{", "q\0", "auto", "train", "nDCG@10", "${divide:${seed},0}"]
VALUES = [None, True, False, [], {}, [1], ["x"], [[]], {"x": 1}, {"x": {"y": 1}}, [None] * 3, *NUMBERS, *TEXTS]
HOSTILE = [
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b, *b]\n",
    b"k0: &k0 [x, x]\n" + b"".join(b"k%d: &k%d [*k%d, *k%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    b"k0: &k0 [x]\n" + b"".join(b"k%d: &k%d [*k%d]\n" % (n, n, n - 1) for n in range(1, 4000)),
    b"train: &a {b: *a}\n",
    b"train: !!python/object/apply:os.system ['true']\n",
    b"window: " + b"[" * 5000,
    b"train: " + b"{a: " * 3000 + b"1" + b"}" * 3000,
    b"".join(b"k%d: ${k%d}${k%d}\n" % (number, number + 1, number + 1) for number in range(40)) + b"max_tokens: 1\n",
    b"train: {train: ${train}}\n",
    b"seed: " + b"9" * 5000 + b"\n",
    b"\xff\xfe\x00",
    b"\x00" * 100,
    b"? {a: 1}\n: 2\n",
    b"<<: 5\ntrain: 1\n",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"step\n",
    b'{"step": 1, "train/loss": "x"}\n{"step": 1e999}\n',
    b"---\ntags: 5\nbase_model: [x]\n---\n## Train it again\n```\n",
]


def main(minutes: float = 1e9, num_cases: float = 1e9, seed: int = 0, *, children: bool = True) -> collections.Counter:
    """Fuzz for so many minutes or cases; return how often each outcome was met, by the kind of run and its reader."""
    rng, counts = random.Random(seed), collections.Counter()
    end = time.monotonic() + minutes * 60
    os.environ["STRESS_VALUE"] = SECRET
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_runs(Path(folder))
        while time.monotonic() < end and counts.total() < num_cases:
            kind = rng.choice(list(kinds))
            case = Path(folder) / "case"
            shutil.rmtree(case, ignore_errors=True)
            shutil.copytree(Path(folder) / kind, case)
            changes = [change(case, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
            name = rng.choice(list(kinds[kind]))
            read = partial(in_this_process, partial(kinds[kind][name], case))
            outcome = in_child(read) if children else read()
            if outcome not in ("finished", "refused"):
                print(f"{kind}, {name}: {'; '.join(changes)}\n{outcome}\n", flush=True)
                outcome = f"FAILED {outcome.strip().splitlines()[-1][:60]}"
            counts[f"{kind}, {name}: {outcome}"] += 1
    return counts


def make_runs(folder: Path) -> dict[str, dict[str, Callable[[Path], object]]]:
    """Make a good run of each kind; return, by its name, what reads it."""
    steps = ["train.max_steps=2", "train.max_epochs=null", "train.validate_every=2", "data.depth=4", "task.depth=4"]
    steps += ["model.passage_length=16", "data.num_queries=8", "validation.depth=4", "train.batch_size=4"]
    train(compose_config("train", *steps), folder / "train")
    evaluation = ["task=sample", "task.depth=4", "latency_queries=1", f"model={folder / 'train' / 'model'}"]
    evaluate(compose_config("evaluate", *evaluation), folder / "evaluate")
    task = compose_config("evaluate").task
    files = [f"{key}={task[key]}" for key in ("passages", "queries", "run", "qrels")]
    annotated = compose_config("annotate", *files, "teacher.llm.model=x", "depth=4")
    (folder / "annotate").mkdir()
    (folder / "annotate" / "config.yaml").write_text(saved_text(annotated))
    shutil.copy(folder / "evaluate" / "run.txt", folder / "annotate" / "teacher.run")
    (folder / "annotate" / "results.json").write_text('{"tau": 0.5}\n')
    shared = {"report": report_on, "inspect": inspected}
    more = "train.max_steps=3"
    return {
        "train": {
            **shared,
            "resume": lambda case: train(resumed(case, more), case),
            "again": lambda case: taken_up(compose_config("train", *steps), case),
        },
        "evaluate": {
            **shared,
            "resume": lambda case: evaluate(resumed(case, name="evaluate"), case),
            "again": lambda case: taken_up(compose_config("evaluate", *evaluation), case),
            "model": lambda case: evaluate(compose_config("evaluate", *evaluation), case / "new"),
        },
        "annotate": {
            **shared,
            "resume": lambda case: opened(resumed(case, name="annotate"), case),
            "again": lambda case: taken_up(annotated, case),
        },
    }


def report_on(case: Path) -> None:
    """Make a report of a run, beside which nothing else is."""
    out = case.with_name("report")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    report(compose_config("report", f"runs={case}", f"output={out}", "published=false"), out)
    for path in out.rglob("*.*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), f"the environment is in {path.name}"


def inspected(case: Path) -> None:
    """Make the page of a run against its first stage."""
    out = case.with_name("page")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    cfg = compose_config("inspect", f"run={case}", f"output={out}")
    check_inspect(cfg)
    inspect(cfg, out)
    assert SECRET not in (out / "index.html").read_text(), "the environment is in index.html"


def opened(cfg, case: Path) -> None:
    """Take a run's directory, as its command does first."""
    with open_run(cfg, case):
        assert SECRET not in (case / "config.yaml").read_text(), "the environment is in config.yaml"


def taken_up(cfg, case: Path) -> None:
    """Look at a run as a sweep does."""
    cfg = copy.deepcopy(cfg)
    if state_of(cfg, case) == "finished":
        read_results(case)


def change(case: Path, rng: random.Random) -> str:
    """Damage one file of a run; return what was done."""
    files = sorted(path for path in case.rglob("*") if path.is_file() and path.name != "run.lock")
    small = [path for path in files if path.suffix in (".yaml", ".json", ".jsonl", ".csv", ".md", ".txt", ".run")]
    outer = [path for path in small if path.parent == case]
    path = rng.choice([*(rng.choice(group) for group in (files, small, outer, outer) if group)] or [case / "x"])
    name, data = path.relative_to(case), path.read_bytes() if path.is_file() else b""
    how = rng.choice(
        ["value", "value", "value", "key", "cut", "empty", "hostile", "missing", "directory", "bit", "line"]
    )
    if how in ("value", "key") and path.suffix in (".yaml", ".json"):
        return f"{name}: {_edit(path, data, how, rng)}"
    if how == "line" and data:
        lines = data.splitlines(keepends=True)
        lines.insert(rng.randrange(len(lines) + 1), str(rng.choice(VALUES)).encode() + b"\n")
        path.write_bytes(b"".join(lines))
    elif how == "hostile":
        path.write_bytes(rng.choice(HOSTILE))
        return f"{name}: {path.read_bytes()[:40]!r}"
    elif how in ("missing", "directory"):
        path.unlink(missing_ok=True)
        if how == "directory":
            path.mkdir()
    elif how == "bit" and data:
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        return f"{name}: bit of byte {place}"
    else:
        path.write_bytes(b"" if how == "empty" else data[: rng.randrange(len(data) + 1)])
    return f"{name}: {how}"


def _edit(path: Path, data: bytes, how: str, rng: random.Random) -> str:
    """Change or remove one value of a YAML or JSON file."""
    value = rng.choice(VALUES)
    try:
        content = yaml.safe_load(data) if path.suffix == ".yaml" else json.loads(data)
        node = rng.choice([part for part in _parts(content) if part])
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if how == "key":
            del node[key]
        else:
            node[key] = value
        text = yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content)
    except (ValueError, IndexError, yaml.YAMLError, RecursionError):
        return "left, since it is damaged already"
    path.write_text(text)
    return f"{key} removed" if how == "key" else f"{key} = {value!r:.60}"


def _parts(content: object) -> list[dict | list]:
    """Return the objects and lists of a file, each once: aliases may name one many times, or within itself."""
    found: dict[int, dict | list] = {}
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list) and id(part) not in found:
            found[id(part)] = part
            waiting += part.values() if isinstance(part, dict) else part
    return list(found.values())


def in_this_process(read: Callable[[], object]) -> str:
    """Return what reading leads to: "finished", "refused", or a traceback."""
    logging.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read()
    except BaseException as error:
        is_one_line = isinstance(error, OSError) and error.errno in DISK  # where commands end: a directory for a file
        return "refused" if is_one_line else fault(error) or "refused"
    finally:
        logging.disable(logging.NOTSET)
    return "finished"


if __name__ == "__main__":
    started = time.monotonic()
    outcomes = main(**{key: float(value) for key, value in (one.split("=") for one in sys.argv[1:])})
    for outcome, number in sorted(outcomes.items()):
        print(f"{number:6} {outcome}")
    failed = sum(number for outcome, number in outcomes.items() if "FAILED" in outcome)
    print(f"{outcomes.total()} cases in {time.monotonic() - started:.0f} seconds, {failed} failed")
    sys.exit(failed > 0)
