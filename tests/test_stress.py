"""The short form of the stress scripts: a few kills, full disks and flipped bits; and what the fuzzers report."""

import os
import random
import resource
import signal
import sys
import time

import pytest

from distill.errors import InputError
from tests.helpers.commands import run
from tests.helpers.paths import ROOT
from tests.stress import fuzz_models, fuzz_runs, limited

FLIPPED = ("flip last.pt", "flip weights", "flip journal")


def test_a_few_kills_full_disks_and_flipped_bits_end_identical_or_refused():
    commands = ("commands=train,annotate", "every=150", "files=last.pt,weights,journal", "parts=2")
    done = run("-m", "tests.stress", *commands, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [" ".join(line.split()[:2]) for line in done.stdout.splitlines() if " tried: " in line]
    assert {*table} == {*(f"{how} {name}" for how in ("kill", "full") for name in ("train", "annotate")), *FLIPPED}
    assert "identical" in done.stdout and "refused" in done.stdout


def refuse(message):
    raise InputError(message)


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        (lambda: [0.5], "[0.5]"),
        (lambda: refuse("a: is bad"), "refused"),
        (lambda: refuse("x" * 5 + " y" * 2000), "many lines: "),
        (lambda: refuse("a: [enforce fail at alloc_cpu.cpp:124]"), "needs more than "),
        (lambda: {}[1], "Traceback "),
        (lambda: sys.exit(3), "Traceback "),
        (lambda: os._exit(3), "ended without a word, status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL"),
        (lambda: bytearray(2 * limited.MAX_MEMORY), "Traceback "),
        (lambda: time.sleep(9), "no end after "),
        (lambda: time.sleep(9) if os.fork() == 0 else [1], "no end after "),  # its child holds on to the pipe
    ],
)
def test_a_fuzzer_sees_how_a_child_ends_and_outlives_it(monkeypatch, call, outcome):
    monkeypatch.setattr(limited, "MAX_WALL", 0.5)
    for module in (fuzz_models, fuzz_runs):
        found = limited.in_child(lambda of=module: of.in_this_process(call))
        finished = "finished" if module is fuzz_runs and outcome == "[0.5]" else outcome
        assert str(found).startswith(finished), found


def test_a_child_has_few_seconds_of_a_core():
    def limits():
        limited._limit()
        return resource.getrlimit(resource.RLIMIT_CPU)

    assert limited.in_child(limits) == [limited.MAX_SECONDS, limited.MAX_SECONDS + 1]


def test_the_fuzz_of_runs_changes_what_is_hostile_already(tmp_path):
    rng = random.Random(0)
    aliases = [content for content in fuzz_runs.HOSTILE if b"&" in content]
    for name, contents in (("x.yaml", aliases), ("x.json", fuzz_runs.HOSTILE[-5:])):
        for content in contents:
            for how in ("value", "key"):
                (tmp_path / name).write_bytes(content)
                assert fuzz_runs._edit(tmp_path / name, content, how, rng)
