"""Renew the output of the first command that the README shows, or check that it is still what the command prints.

python docs/figures/first_run.py            runs `python train.py` and puts what it prints into the README
python docs/figures/first_run.py LOG        takes a file with its output instead
python docs/figures/first_run.py --check    compares, numbers and directories apart; status 1 where they differ
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(?<=^<!-- first run -->\n```\n)(?:.*?\n)??(?=```$)", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Renew or check the README."""
    argument = sys.argv[1] if len(sys.argv) > 1 else None
    if argument in (None, "--check"):
        command = [sys.executable, "train.py"]
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        output = run.stdout
    else:
        output = Path(argument).read_text(encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    if argument == "--check":
        unknown = lines_unlike(BLOCK.search(text)[0], output)
        if unknown:
            sys.exit("\n".join(["README.md: the first command does not print:", *unknown]))
        return
    README.write_text(BLOCK.sub(lambda _: as_shown(output), text, count=1), encoding="utf-8")


def as_shown(output: str) -> str:
    """Return the output as a terminal shows it: without the progress lines of a log, and with short paths.

    What comes between device and first validation is left out.
    """
    lines = [line for line in output.splitlines() if not re.match(r"[\w-]+: (\w+ )?[\d,]+ of [\d,]+ (\w+ )?\(", line)]
    first = next(place for place, line in enumerate(lines) if line.startswith("step "))
    lines[2:first] = ["..."]
    return "".join(re.sub(r"/\S*?/(?=(sample|outputs)/)", "", line) + "\n" for line in lines)


def lines_unlike(shown: str, output: str) -> list[str]:
    """Return the lines that the README shows and the output does not have, whatever their numbers."""
    printed = {masked(line) for line in output.splitlines()}
    return [line for line in shown.splitlines() if line != "..." and masked(line) not in printed]


def masked(line: str) -> str:
    """Return a line without what differs from run to run: numbers, times, directories, the machine."""
    line = re.sub(r"\S*/\S*", "PATH", line.replace(" (best so far)", ""))
    line = re.sub(r"finished in .*|torch \S+|threads?", lambda found: found[0].split()[0].rstrip("s"), line)
    return " ".join(re.sub(r"-?\d+(\.\d+)?", "#", line).split())


if __name__ == "__main__":
    main()
