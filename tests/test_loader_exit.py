"""Processes that prepare batches end with the process that trains, whatever still refers to them."""

import subprocess
import sys

from tests.helpers.paths import ROOT

LEFT_OPEN = """
import sys
from distill.data.loader import prepare


class Numbers:
    def __getitem__(self, step):
        return step


if __name__ == "__main__":
    batches = prepare(Numbers(), 0, 100, num_workers=2)
    assert next(batches) == 0
    sys.modules["kept"] = batches       # as a cycle of references would: it is still there at exit
    print("done", [worker.pid for worker in batches._workers])
"""


def test_processes_that_are_left_open_do_not_keep_the_trainer_from_ending():
    ended = subprocess.run([sys.executable, "-c", LEFT_OPEN], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert ended.returncode == 0 and ended.stdout.startswith("done"), ended.stderr
