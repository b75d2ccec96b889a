"""Imports between rooms: the contracts of pyproject.toml are kept, and each one notices what it forbids."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"  # the command lint-imports
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
ROOMS, LAUNCHER, KERNELS, CIRCLES, ENTRY_POINTS = (contract["name"] for contract in SETTINGS["contracts"])
PLANTED = {  # file, import added to it: the contracts that it breaks
    ("distill/sources/fields.py", "from distill.sources.inline import inline_shape"): {CIRCLES},
    ("distill/losses/terms.py", "from distill.config.rules import choice"): {ROOMS},
    ("distill/storage/files.py", "from distill.sources.runs import read_run"): {ROOMS, CIRCLES},
    ("kernels/launch.py", "from distill.losses.terms import prepare"): {KERNELS},
    ("distill/models/padded.py", "import hydra_plugins.process_launcher"): {LAUNCHER, ROOMS},
    ("distill/jobs.py", "from train import train"): {ENTRY_POINTS},
    ("distill/report/rows.py", "def late():\n    import evaluate"): {ENTRY_POINTS},
}


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of all that imports."""
    for folder in ("distill", "kernels", "hydra_plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "train.py", "evaluate.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def broken(checkout: Path) -> set[str]:
    """The names of the contracts that lint-imports calls broken there."""
    done = subprocess.run([sys.executable, "-c", LINT, "--no-cache"], cwd=checkout, capture_output=True, text=True)
    names = {line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")}
    assert f"{len(names)} broken." in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (not names)
    return names


def test_every_contract_is_kept(copy):
    assert broken(copy) == set()


@pytest.mark.parametrize(("name", "line"), PLANTED)
def test_an_import_that_is_not_allowed_breaks_its_contract(name, line, copy):
    with (copy / name).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{line}\n")
    assert broken(copy) == PLANTED[name, line]


def test_a_file_without_a_layer_is_refused(copy):
    (copy / "distill" / "somewhere.py").write_text('"""A file that no layer names."""\n')
    assert broken(copy) == {ROOMS}
