"""The wheel: what it holds, what it requires, and that it works outside the checkout, beside another `kernels`."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import distill
from distill import CrossEncoder
from distill.export.formats import export
from tests.helpers.models import make_model
from tests.helpers.paths import ROOT

LAUNCHER = "hydra_plugins/process_launcher.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """What an installation leaves in site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(wheel) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"distill-{distill.__version__}.dist-info/METADATA"))


def run_installed(installed: Path, directory: Path, *arguments: str, path: tuple[Path, ...] = ()) -> str:
    """Run Python elsewhere, where only what is installed can be found."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, installed])), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=directory, capture_output=True, text=True, check=True
    ).stdout


def files_of(folder: str, target: str) -> set[str]:
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {target + str(path.relative_to(ROOT / folder)) for path in found}


def test_the_wheel_has_the_package_its_data_and_no_other_top_level_module(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sample = {name for name in files_of("sample", "distill/_data/sample/") if not name.endswith(".py")}
    scripts = {"distill/_data/train.py", "distill/_data/evaluate.py"}
    package = files_of("distill", "distill/") | files_of("kernels", "distill/_kernels/")
    assert names == package | files_of("conf", "distill/_data/conf/") | sample | scripts | {LAUNCHER}
    assert len(sample) > 15 and "distill/py.typed" in names
    model = "distill/models/packaged/googleq-minilm-3"
    assert {f"{model}/{file}" for file in ("model.safetensors", "tokenizer.json", "README.md", "LICENSE")} <= names
    assert all((ROOT / name.removeprefix("distill/_data/")).is_file() for name in sample | scripts)


def test_the_metadata_has_the_ranges_of_the_requirements_and_pins_nothing(metadata):
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    always = {needs.name.lower(): needs for needs in needed if "extra" not in str(needs.marker)}
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    ranges = {needs.name.replace("_", "-").lower(): needs for needs in map(Requirement, lines)}
    assert always.keys() == ranges.keys()
    for name in ranges.keys() - {"torch"}:
        assert (always[name].specifier, always[name].marker) == (ranges[name].specifier, ranges[name].marker)
    assert str(always["torch"].specifier) == ">=2.11"  # requirements.txt pins the build for the CPU
    assert not any(one.operator == "==" for needs in needed for one in needs.specifier)
    extras = {needs.name: str(needs) for needs in needed if needs.name not in always}
    assert extras["matplotlib"] == 'matplotlib>=3.9; extra == "report"' and "onnxruntime" in extras


def test_the_version_is_written_once(metadata, installed, tmp_path):
    assert metadata["Version"] == distill.__version__
    assert run_installed(installed, tmp_path, "-m", "distill", "--version") == f"distill {distill.__version__}\n"
    points = (installed / f"distill-{distill.__version__}.dist-info" / "entry_points.txt").read_text()
    assert "distill = distill.__main__:main" in points


@pytest.mark.parametrize("command", ["train", "annotate"])
def test_scripts_and_commands_have_their_help_outside_a_checkout(command, installed, tmp_path):
    assert "Keys (key=default):" in run_installed(installed, tmp_path, "-m", "distill", command, "--help")


def test_the_sample_and_the_prompts_are_found_outside_a_checkout(installed, tmp_path):
    printed = run_installed(installed, tmp_path, "-m", "distill", "train", "--cfg", "job", "--resolve")
    paths = set(re.findall(rf"{re.escape(str(installed))}\S+", printed))
    assert len(paths) > 5 and all(Path(path).exists() for path in paths)
    prompt = run_installed(
        installed, tmp_path, "-m", "distill", "annotate", "--cfg", "job", "-p", "prompt", "--resolve"
    )
    assert Path(prompt.strip()).is_file() and Path(prompt.strip()).is_relative_to(installed)


def test_a_packaged_model_opens_by_its_name_outside_a_checkout(installed, tmp_path):
    place = installed / "distill" / "models" / "packaged" / "tiny-2"
    export(make_model(tmp_path / "backbone", "bert"), place, "sentence-transformers", dtype="float16")
    program = (
        "from distill import CrossEncoder; print(CrossEncoder.from_pretrained('tiny-2').rank('a bee', ['rain'])[1])"
    )
    expected = CrossEncoder.from_pretrained(str(place)).rank("a bee", ["rain"])[1]
    assert float(run_installed(installed, tmp_path, "-c", program).strip("[]\n")) == pytest.approx(
        expected[0], abs=1e-5
    )
    shutil.rmtree(place)


def test_what_to_type_next_begins_with_distill_once_installed(installed, tmp_path):
    program = (
        "from pathlib import Path; from distill.config.composition import ROOT\n"
        "from distill.jobs import command_line; from hydra_plugins.process_launcher import _program\n"
        "print(command_line('train', 'seed=1'), '|', command_line('report'), '|', *_program(ROOT / 'train.py'))"
    )
    said = run_installed(installed, tmp_path, "-c", program)
    assert said == "distill train seed=1 | distill report | -m distill train\n"


def test_our_kernels_and_another_package_kernels_are_both_found(installed, tmp_path):
    other = tmp_path / "other" / "kernels"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("__version__ = '9'\n")
    program = (
        "import kernels; from distill.losses.fused import ranknet\n"
        "print(kernels.__version__, hasattr(kernels, 'ranknet'), ranknet.__name__, ranknet.operators.__name__)"
    )
    said = run_installed(installed, tmp_path, "-c", program, path=(other.parent,))
    assert said == "9 False distill._kernels.ranknet torch.ops.distill_listwise\n"
    # In a checkout that comes later on the path than the other package
    said = run_installed(ROOT, tmp_path, "-c", program, path=(other.parent,))
    assert said == "9 True kernels.ranknet torch.ops.listwise\n"
