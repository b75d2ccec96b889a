"""Run all stress scripts in turn: `python -m tests.stress every=1 parts=32`; see tests/stress/__init__.py."""

import sys

from tests.stress import flip, full, kill

if __name__ == "__main__":
    sys.exit(max([kill.main(sys.argv[1:]), full.main(sys.argv[1:]), flip.main(sys.argv[1:])]))
