"""Run all stress scripts in turn: `python -m tests.stress every=1 parts=32`; see tests/stress/__init__.py."""

import sys

from tests.stress import flip, full, kill
from tests.stress.commands import main

if __name__ == "__main__":
    sys.exit(main(kill.disturb, full.disturb, flip.disturb))
