"""Run each command on disks that are too small, then again with room, and compare with an undisturbed run.

python -m tests.stress.full commands=train every=1

As root, each disk is a tmpfs of 8 kB to 5 MB. Otherwise no file may grow beyond the size (`ulimit -f`): the same
errors, but none for the names of files and directories.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.stress.commands import Command, Counts, clear, contents, difference, ended, last_line, main, make_commands

COMMANDS = ("train", "evaluate", "annotate", "generate", "retrieve", "large", "export", "report", "sweep")
SIZES = sorted({int(8192 * 5_000_000 ** (step / 40) / 8192 ** (step / 40)) for step in range(41)})
ROOM = 2**28


def disturb(options: dict[str, str], place: Path, counts: Counts) -> None:
    """Do it, with all files below `place`."""
    sizes, disk = SIZES[:: int(options.get("every", 1))], place / "disturbed"
    commands = make_commands(place / "inputs", disk)
    mounted = _mount(disk, ROOM)
    print("disks: " + ("tmpfs" if mounted else "a limit on the size of files"))
    try:
        for name in options.get("commands", ",".join(COMMANDS)).split(","):
            fill(name, commands[name], disk, counts, sizes, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", disk], check=True)


def fill(name: str, command: Command, place: Path, counts: Counts, sizes: list[int], mounted: bool) -> None:
    """Run a command on a disk of each size, then with room."""
    clear(place)
    whole = command.run(place)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    expected = contents(place / "out")
    for size in sizes:
        clear(place)
        if mounted:
            _mount(place, size)
        full = command.run(place, **({} if mounted else {"largest": size}))
        outcome, detail = ended(full), f"{size} bytes: {last_line(full)}"
        if mounted:
            _mount(place, ROOM)
        if outcome == "refused":
            again = command.run(place)
            outcome, detail = ended(again), f"{detail}; then with room: {last_line(again)}"
            outcome = "refused for good" if outcome == "refused" else "refused" if outcome == "done" else outcome
        if outcome in ("done", "refused"):
            differs = difference(contents(place / "out"), expected)
            outcome = "identical" if outcome == "done" else outcome
            outcome, detail = ("other", f"{detail}: {differs}") if differs else (outcome, detail)
        counts.add(f"full {name}", outcome, detail)


def _mount(place: Path, size: int) -> bool:
    """Mount a tmpfs of a size, or resize the one that is mounted there; return whether that is possible."""
    place.mkdir(exist_ok=True)
    options = f"size={size}" + (",remount" if os.path.ismount(place) else "")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(disturb))
