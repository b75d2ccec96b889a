"""The versions that were tested: every requirement has one, the README installs them, and they can be renewed."""

import ast
import importlib.metadata
import re
import runpy
import sys

from tests.helpers.paths import ROOT

NEWEST = runpy.run_path(str(ROOT / ".ci" / "newest"))
PINNED = NEWEST["read_constraints"]((ROOT / "constraints.txt").read_text())


def requirements() -> list[str]:
    lines = [line for path in ROOT.glob("requirements*.txt") for line in path.read_text().splitlines()]
    return [re.match(r"[\w-]+", line)[0] for line in lines if not line.startswith(("#", "-"))]


def test_every_requirement_has_one_exact_version():
    needed = {NEWEST["normal"](name) for name in requirements()} - {"triton"}  # torch fixes it
    assert len(needed) > 30 and needed <= PINNED.keys()
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in PINNED.values())  # public, as in no 2.13.0+cpu
    assert "torch==2.13.0" in (ROOT / "requirements.txt").read_text() and PINNED["torch"] == "2.13.0"


def test_every_library_that_the_package_imports_is_a_requirement():
    files = [path for folder in ("distill", "hydra_plugins", "kernels") for path in (ROOT / folder).rglob("*.py")]
    imported = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.partition(".")[0])
    ours = {"distill", "hydra_plugins", "kernels", "train", "evaluate"}
    providers = importlib.metadata.packages_distributions()
    providers |= {"pyterrier": ["python-terrier"], "pandas": ["python-terrier"]}  # the latter comes with it
    needed = {providers[name][0] for name in imported - sys.stdlib_module_names - ours}
    assert {NEWEST["normal"](name) for name in needed} <= {NEWEST["normal"](name) for name in requirements()}


def test_both_commands_of_the_readme_install_the_tested_versions():
    commands = re.findall(r"^<!-- (?:main|test) command -->\n```\n(.*)\n```$", (ROOT / "README.md").read_text(), re.M)
    assert [re.findall(r"-r (\S+) -c (\S+) &&", command) for command in commands] == [
        [("requirements.txt", "constraints.txt")],
        [("requirements-dev.txt", "constraints.txt")],
    ]


def test_the_newest_versions_are_compared_by_name_and_leave_out_what_torch_decides():
    names = [("Torch", "2.15.0+cpu"), ("triton", "4.0"), ("nvidia-cublas", "14"), ("ir_measures", "0.5"), ("new", "1")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in names]}
    newest = NEWEST["choose_versions"](report)
    assert newest == {"ir-measures": "0.5", "new": "1", "torch": "2.15.0"}
    pinned = NEWEST["read_constraints"]("# tested\nir_measures==0.4.3\ngone==2\ntorch==2.15.0  # the same\n")
    assert NEWEST["format_changes"](pinned, newest).splitlines() == [
        "package      pinned  newest",
        "gone         2       -",
        "ir-measures  0.4.3   0.5",
        "new          -       1",
    ]
    assert NEWEST["format_changes"](newest, newest) == "constraints.txt has the newest versions of all 3 packages"
