"""The README: short, its links lead somewhere, its rooms are those of the code, its figure is what its script draws."""

import ast
import re
import subprocess
import sys

import pytest

from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = [path.parent for path in sorted((ROOT / "distill").glob("*/__init__.py"))]


def test_it_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_its_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert links and not missing, missing


def test_its_rooms_are_those_of_the_code():
    table = README.split("<!-- rooms -->\n")[1].split("\n\n")[0].splitlines()[2:]
    said = {room: rule for room, rule in re.findall(r"^\| `(\w+)/` \| (.*) \|$", "\n".join(table), re.MULTILINE)}
    rules = {room.name: ast.get_docstring(ast.parse((room / "__init__.py").read_text())) for room in ROOMS}
    assert said == {name: rule.split("\n\n")[0].replace("\n", " ") for name, rule in rules.items()}
    assert len(said) == len(table)


def test_its_choices_are_options():
    table = README.split("| group | options |\n")[1].split("\n\n")[0]
    for group, options in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE):
        names = [name for name in re.findall(r"`([\w-]+)`", options) if "=" not in name]
        assert names and all((ROOT / "conf" / group / f"{name}.yaml").is_file() for name in names), group
        if group in ("loss", "data", "logger"):  # short enough to be complete
            assert sorted(names) == sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")), group


def test_its_experiments_compose():
    experiments = re.findall(r"python train\.py .*experiment=(\S+)", README)
    assert len(experiments) >= 4
    for name in experiments:
        compose_config("train", f"experiment={name.rstrip('`')}")


def test_its_figure_is_what_the_script_draws(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "figures" / "pipeline.py", tmp_path], check=True)
    for name in ("pipeline-light.svg", "pipeline-dark.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / "figures" / name).read_text()
