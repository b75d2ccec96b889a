"""Every script of examples/ runs and prints what its docstring says; so do the README's first command and snippet."""

import ast
import json
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers.configuration import compose_config
from tests.helpers.once import once
from tests.helpers.paths import ROOT
from train import train

SCRIPTS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
RUN = [name for name in SCRIPTS if name != "llm_server"]  # which serves until it is stopped: tests/test_recipes.py
EXACT = (
    *("annotate_lists", "bm25_first_stage", "fuse_runs", "listwise_prompt", "measure_run", "pointwise_teacher"),
    *("token_store",),
)
NEEDS = {
    "export_onnx": ("onnx", "onnxscript", "onnxruntime"),
    "pyterrier_pipeline": ("pyterrier",),
    "sentence_transformers_model": ("sentence_transformers",),
}
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of the README's first run, and all that it printed."""

    def make(place: Path) -> list[str]:
        command = [sys.executable, "train.py", f"hydra.run.dir={place / 'sample'}"]
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert run.returncode == 0, run.stdout
        return [str(place / "sample"), run.stdout]

    directory, output = once(tmp_path_factory, "trained", make)
    return Path(directory), output


def printed(name: str) -> str:
    """What an example's docstring says that it prints."""
    docstring = ast.get_docstring(ast.parse(SCRIPTS[name].read_text(encoding="utf-8")))
    _, after = re.split(r"^Prints.*:$", docstring, flags=re.MULTILINE)
    return textwrap.dedent(after).strip("\n")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ranknet", pytest.param("adrmse", marks=pytest.mark.long)])
def test_the_default_training_comes_nearer_to_the_teacher_and_stays_below_it(loss, trained, tmp_path):
    if loss == "ranknet":  # the default
        results = json.loads((trained[0] / "results.json").read_text())
    else:
        results = train(compose_config("train", f"loss={loss}"), tmp_path)
    first_stage, teacher, perfect, student = (
        results[f"{row}/sample/nDCG@10"] for row in ("first_stage", "teacher", "ideal", "test")
    )
    assert first_stage + 0.15 <= student <= teacher - 0.15
    assert teacher < perfect


@pytest.mark.slow  # so that the model is trained early
@pytest.mark.parametrize("name", RUN)
def test_an_example_prints_what_it_says(name, trained, tmp_path, monkeypatch, capsys):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    model = str(trained[0] / "model")
    arguments = {"rerank_run": [model, f"{tmp_path}/reranked.run"], "sweep_table": [str(trained[0].parent)]}
    arguments |= {"training_loop": ["30", f"{tmp_path}/loop/model"]}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [name, *arguments.get(name, [])])
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    runpy.run_module(f"examples.{name}", run_name="__main__")
    found, expected = capsys.readouterr().out.replace(str(tmp_path), "outputs").strip("\n"), printed(name)
    if name == "sweep_table":  # the only run here is the model's
        expected = expected.splitlines()[-1]
    if name not in EXACT:
        found, expected = (NUMBER.sub("#", text) for text in (found, expected))
    assert found == expected


def test_examples_are_short_and_listed():
    index = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) >= 12
    for name, path in SCRIPTS.items():
        source = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source))
        code = source.split('"""', 2)[2].strip().splitlines()
        assert 5 <= len(code) <= (90 if name == "llm_server" else 42), name  # a tool, with more to answer than to show
        assert f"python -m examples.{name}" in docstring
        first = re.match(r".*?(?=[.:]\s)", docstring)[0]
        assert f"| [`{name}.py`]({name}.py) | {first} |" in index, name


def test_the_readmes_first_run_is_what_the_command_prints(trained):
    script = runpy.run_path(str(ROOT / "docs" / "figures" / "first_run.py"))
    shown = script["BLOCK"].search(readme())[0]
    assert "student" in shown and not script["lines_unlike"](shown, trained[1])


def test_the_readmes_python_snippet_runs():
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", readme(), re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(snippet, names)
    assert names["order"] == [1, 0] and names["scores"] == sorted(names["scores"], reverse=True)


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")
