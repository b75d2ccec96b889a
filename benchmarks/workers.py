"""Run each contender in a separate process, with its own environment, and let all do their rounds in turn.

    answers = race({"ours": [sys.executable, "-m", "benchmarks.rerank", "--worker", "ours"], "theirs": [...]}, rounds=5)

A worker prints a line of JSON when it is ready. Then it does one round for each line that it reads, and answers with a
line of JSON; anything else it prints goes to standard error. Only one worker runs at a time.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def race(commands: dict[str, list[str]], rounds: int) -> dict[str, list[dict]]:
    """Run all workers for `rounds` rounds in turn, after a warm-up round; return each worker's answers.

    A worker that does not start is left out; raises SystemExit if none starts.
    """
    workers = {name: _start(command) for name, command in commands.items()}
    answers: dict[str, list[dict]] = {name: [] for name in workers}
    for name, worker in list(workers.items()):
        if _answer(worker) is None:
            print(f"{name}: does not run here, left out", file=sys.stderr)
            del workers[name], answers[name]
    if not workers:
        raise SystemExit("no contender runs here: see the messages above")
    for turn in range(rounds + 1):
        for name, worker in workers.items():
            print("go", file=worker.stdin, flush=True)
            answer = _answer(worker)
            if answer is None:
                raise SystemExit(f"{name}: its worker ended with status {worker.wait()}")
            if turn:
                answers[name].append(answer)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return answers


def serve(make: Callable[[], Callable[[], dict]]) -> None:
    """Serve as a worker: `make` prepares the work and returns the function that does one round."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    work = make()
    print(json.dumps({"ready": True}), file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps(work()), file=out, flush=True)


def spread(values: list[float]) -> dict[str, float | list[float]]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {"median": median, "quartiles": [low, high]}


def environment_of(python: str) -> dict[str, str]:
    """Return the environment variables with which another environment's interpreter finds these benchmarks."""
    return {"PYTHONPATH": str(ROOT)} if python != sys.executable else {}


def _start(command: list[str]) -> subprocess.Popen:
    variables = os.environ | environment_of(command[0])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=variables, **pipes)


def _answer(worker: subprocess.Popen) -> dict | None:
    lines: Iterator[str] = iter(worker.stdout.readline, "")
    line = next(lines, None)
    return None if line is None else json.loads(line)
