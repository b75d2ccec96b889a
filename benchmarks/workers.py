"""Run each contender in a separate process, with its own environment, and let all do their rounds in turn.

    race = run_race({"ours": [sys.executable, "-m", "benchmarks.rerank", ...], "theirs": [...]}, rounds=5)
    race.answers["ours"]            # one for each round
    race.left_out["theirs"]         # why, in one line
    race.end()                      # with status 1 where ours is left out

A worker prints a line of JSON when it is ready. Then it does one round for each line that it reads, and answers with a
line of JSON; anything else it prints goes to standard error. Only one worker runs at a time.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from benchmarks.models import is_ours

ROOT = Path(__file__).resolve().parent.parent
ERROR = "error"  # the key of an answer that tells why there is none


@dataclass
class Race:
    """The answers of the contenders, and why others are left out."""

    answers: dict[str, list[dict]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, reason: str) -> None:
        """Leave a contender out, and say why."""
        self.answers.pop(name, None)
        self.left_out[name] = reason
        print(f"{name}: left out: {reason}", file=sys.stderr)

    def end(self) -> None:
        """Raise SystemExit where a contender of this project is left out, or all are."""
        missing = [name for name in self.left_out if is_ours(name)]
        if missing or not self.answers:
            raise SystemExit(f"no figures of {', '.join(missing or self.left_out)}: the reason is above")


def run_race(commands: dict[str, list[str]], rounds: int, race: Race | None = None) -> Race:
    """Run all workers for `rounds` rounds in turn, after a warm-up round; one that fails is left out."""
    race = race or Race()
    workers = {name: Worker(command) for name, command in commands.items()}
    try:
        for turn in range(-1, rounds + 1):  # they get ready, warm up, and then it counts
            for name, worker in list(workers.items()):
                answer = worker.answer() if turn < 0 else worker.do_round()
                if ERROR in answer:
                    race.leave_out(name, answer[ERROR])
                    workers.pop(name).end()
                elif turn > 0:
                    race.answers.setdefault(name, []).append(answer)
    finally:
        for worker in workers.values():
            worker.end()
    return race


class Worker:
    """A contender's process."""

    def __init__(self, command: list[str]):
        """Start it."""
        self.errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        variables = os.environ | environment_of(command[0])
        self.process: subprocess.Popen | None = None
        try:
            self.process = subprocess.Popen(command, cwd=ROOT, env=variables, **pipes)  # type: ignore[call-overload]
        except OSError as error:
            self.errors.write(f"{command[0]}: {error.strerror}")

    def do_round(self) -> dict:
        """Let it do a round."""
        assert self.process is not None and self.process.stdin is not None
        try:
            print("go", file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return {ERROR: self._last_words()}
        return self.answer()

    def answer(self) -> dict:
        """Return what it answers, or why it does not."""
        if self.process is None:
            return {ERROR: self._last_words()}
        lines: Iterator[str] = iter(self.process.stdout.readline, "")  # type: ignore[union-attr]
        line = next(lines, None)
        return json.loads(line) if line is not None else {ERROR: self._last_words()}

    def _last_words(self) -> str:
        """Return the last line that a process which has ended has written to standard error."""
        status = self.process.wait() if self.process else None
        return last_line(self.errors) or f"its process ended with status {status}"

    def end(self) -> None:
        """Let it end."""
        if self.process and self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait()
        self.errors.close()


def last_line(errors: IO[str]) -> str:
    """Return the last line that a process has written to a file, empty if there is none."""
    errors.seek(0)
    return ([""] + [line.strip() for line in errors if line.strip()])[-1]


def serve(make: Callable[[], Callable[[], dict]]) -> None:
    """Serve as a worker: `make` prepares the work and returns the function that does one round."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    try:
        work = make()
        print(json.dumps({"ready": True}), file=out, flush=True)
        for _ in sys.stdin:
            print(json.dumps(work()), file=out, flush=True)
    except Exception as error:  # whatever another library raises: the others still run
        print(json.dumps({ERROR: one_line(error)}), file=out, flush=True)
        sys.exit(1)


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def spread(values: list[float]) -> dict[str, float | list[float]]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {"median": median, "quartiles": [low, high]}


def check_known(parser: argparse.ArgumentParser, kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """End with the parser's message if names were given that are not known."""
    unknown = sorted(set(given).difference(known))
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such {kind}: choose from {', '.join(known)}")


def environment_of(python: str) -> dict[str, str]:
    """Return the environment variables with which another environment's interpreter finds these benchmarks."""
    return {"PYTHONPATH": str(ROOT)} if python != sys.executable else {}
