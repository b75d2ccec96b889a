"""The short form of the stress scripts: a few kills, full disks and flipped bits."""

from tests.helpers.commands import run
from tests.helpers.paths import ROOT

FLIPPED = ("flip last.pt", "flip weights", "flip journal")


def test_a_few_kills_full_disks_and_flipped_bits_end_identical_or_refused():
    commands = ("commands=train,annotate", "every=90", "files=last.pt,weights,journal", "parts=2")
    done = run("-m", "tests.stress", *commands, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [" ".join(line.split()[:2]) for line in done.stdout.splitlines() if " tried: " in line]
    assert {*table} == {*(f"{how} {name}" for how in ("kill", "full") for name in ("train", "annotate")), *FLIPPED}
    assert "identical" in done.stdout and "refused" in done.stdout
