"""The short form of the stress scripts: a few kills, full disks and flipped bits."""

from tests.helpers.commands import run
from tests.helpers.paths import ROOT


def test_a_few_kills_full_disks_and_flipped_bits_end_identical_or_refused():
    commands = ("commands=train,annotate", "every=30", "files=last.pt,weights,journal", "parts=3")
    done = run("-m", "tests.stress", *commands, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.split() for line in done.stdout.splitlines() if " tried: " in line]
    assert {row[0] for row in table} == {"train", "annotate", "last.pt", "weights", "journal"}
    assert "identical" in done.stdout and "refused" in done.stdout
