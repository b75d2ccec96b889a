"""Where a page comes from: when it was written, by which commit, and by which commands its runs were started.

describe_page(["runs=outputs/multirun/DATE/TIME"])       # {"Written": …, "Commit": …, "Command": …}
read_commands(runs)                                      # ["python train.py -m loss=ranknet,adrmse seed=0,1"]
"""

import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import datetime

from distill.config.composition import ROOT
from distill.config.saved import read_data
from distill.errors import InputError
from distill.report.runs import RunRecord
from distill.secrets import redacted
from distill.storage.small_files import read_small

SWEEP_FILE = "multirun.yaml"  # what Hydra writes into the directory of a sweep
MAX_CARD = 2**18  # bytes
MAX_LEVELS = 4  # from a job's directory up to its sweep's


def describe_page(arguments: Sequence[str], name: str = "report") -> dict[str, str]:
    """Return the date, the commit if the code is a checkout, and the command that writes the page."""
    command = redacted(shlex.join(["python", "-m", "distill", name, *arguments]))
    about = {"Written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"), "Commit": _commit()}
    return {name: text for name, text in about.items() if text} | {"Command": command}


def _commit() -> str:
    """The commit of this checkout; empty where the code was installed, or git is missing."""
    if not (ROOT / ".git").exists():  # another repository may surround an installed package
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().replace("-dirty", ", with local changes")


def read_commands(runs: Sequence[RunRecord]) -> list[str]:
    """Return the commands that started the runs, as far as their directories tell: a sweep's is one."""
    commands = (_sweep_command(run) or _card_command(run) for run in runs)
    return list(dict.fromkeys(redacted(command) for command in commands if command))


def _sweep_command(run: RunRecord) -> str:
    for place in list(run.directory.absolute().parents)[:MAX_LEVELS]:
        if (place / SWEEP_FILE).is_file():
            try:
                hydra = read_data(place / SWEEP_FILE)["hydra"]
                script, overrides = hydra["job"]["name"], hydra["overrides"]
                own = [override for override in overrides["hydra"] if not override.startswith("hydra.mode=")]
                return shlex.join(["python", f"{script}.py", "-m", *overrides["task"], *own])
            except (InputError, KeyError, TypeError, AttributeError):  # damaged, or of another version
                return ""
    return ""


def _card_command(run: RunRecord) -> str:
    """The command in the model's card, in a block below "Train it again"."""
    try:
        card = read_small(run.directory / "model" / "README.md", MAX_CARD)
    except InputError:  # the page can do without
        return ""
    section = f"\n{card}".partition("\n## Train it again\n")[2].partition("\n## ")[0]
    block = re.match(r"\s*(`{3,})\w*\n(.*?)^\1$", section, re.M | re.S)
    return block[2].strip() if block else ""
