"""Kill a command before each of its file-system events, run it again, and compare with a run that was not killed.

python -m tests.stress.kill commands=train,annotate every=1
"""

import sys
from pathlib import Path

from tests.stress.commands import (
    DONE,
    Command,
    Counts,
    Sweep,
    clear,
    contents,
    difference,
    ended,
    last_line,
    main,
    make_commands,
)

COMMANDS = ("train", "evaluate", "annotate", "generate", "retrieve", "large", "export", "sweep")
FINISHED = "measure it again with resume="
FEWER = 10  # events that a run may lack: lines that come together are written together
SWEEP_EVENTS = 60  # of the sweep itself, which has fewer, and of each of its jobs


def disturb(options: dict[str, str], place: Path, counts: Counts) -> None:
    """Do it, with all files below `place`."""
    commands = make_commands(place / "inputs", place / "disturbed")
    for name in options.get("commands", ",".join(COMMANDS)).split(","):
        kill(name, commands[name], place / "disturbed", counts, int(options.get("every", 1)))


def kill(name: str, command: Command, place: Path, counts: Counts, every: int = 1, first: int = 1) -> None:
    """Kill a command at each `every`th event."""
    clear(place)
    counted = place.parent / "count"
    whole = command.run(place, count_to=str(counted))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    is_sweep = isinstance(command, Sweep)
    expected, num_events = contents(place / "out"), SWEEP_EVENTS if is_sweep else int(counted.read_text())
    for at in range(first, num_events + 1, every):
        clear(place)
        killed = command.run(place, kill_at=at)
        if killed.returncode == 0 and not is_sweep:
            if at > num_events - FEWER:
                break
            counts.add(f"kill {name}", "not killed", f"event {at} of {num_events}")
            continue
        again = command.run(place)
        detail = f"event {at} of {num_events}: {last_line(again)}"
        outcome = ended(again)
        if outcome == "done" or any(text in again.stderr for text in DONE):
            differs = difference(contents(place / "out"), expected)
            if differs and FINISHED in again.stderr:  # between results.json and the card: the line says how to go on
                command.resumed(place).run(place)
                differs = difference(contents(place / "out"), expected)
            outcome, detail = ("other", f"{detail}: {differs}") if differs else ("identical", detail)
        elif outcome == "refused":
            outcome = "refused for good"
        counts.add(f"kill {name}", outcome, detail)


if __name__ == "__main__":
    sys.exit(main(disturb))
