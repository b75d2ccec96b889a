"""What README.md and docs/ say is true: links, paths, commands, rooms, diffs and error messages."""

import ast
import functools
import gzip
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distill.config.overrides import quoted
from tests.helpers.backbones import make_backbone
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PATH = re.compile(
    r"(?<![\w/.])(?:distill|conf|kernels|tests|benchmarks|hydra_plugins|sample|docs|examples|recipes)/[\w./*{},-]*"
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*")  # as in loss=LOSS
GROUPS = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} | {"task@validation", "llm@teacher.llm"}
EXTENDING = ROOT / "docs" / "extending.md"
INSTALLED = ("distill/_data", "distill/_kernels")  # in the wheel only
COMMANDS = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))


def by_page(find):
    """One test for each (page, thing) that a function finds on a page."""
    return [pytest.param(page, thing, id=f"{page.stem}-{thing}"[:100]) for page in PAGES for thing in find(page)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


# Links and paths


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return sorted({link for link in found if not re.match(r"\w+:", link)})


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "link"), by_page(links))
def test_every_relative_link_leads_somewhere(page, link):
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def paths(page: Path) -> list[str]:
    text = FENCE.sub(lambda match: "" if match[1] == "diff" else match[0], page.read_text(encoding="utf-8"))
    found = {path.rstrip(".,-") for path in PATH.findall(text)}
    found = {path for path in found if not re.search(r"(^|/)([A-Z]+|mine)([./-]|$)|[{}]", path)}
    return sorted(path for path in found if not path.startswith(INSTALLED))


@pytest.mark.parametrize(("page", "path"), by_page(paths))
def test_every_path_exists(page, path):
    assert list(ROOT.glob(path.rstrip("/")))


# Commands


def commands(page: Path) -> list[str]:
    """The commands of the fenced blocks and of the inline code, one line each."""
    blocks = [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind in ("", "bash", "sh")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose(page))]
    parts = (part.strip() for line in lines for part in line.split(" && "))
    return sorted({" ".join(part.split()) for part in parts if re.match(r"(\S*python|torchrun|distill) ", part)})


def parse(command: str) -> tuple[str | None, list[str], bool]:
    """The configuration that a command composes (None for other commands), its overrides, whether it is a sweep."""
    words = shlex.split(command, comments=True)
    match = re.search(r"(?:\b(train|evaluate)\.py|-m distill (\w+)|^distill (\w+))", " ".join(words))
    name = next((group for group in match.groups() if group), None) if match else None
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    return name, overrides, words.count("-m") > ("distill" in words)


def composable(override: str, sweep: bool) -> str | None:
    """The override as one run takes it: of a sweep's values the first; None for a placeholder such as loss=LOSS."""
    key, _, value = override.partition("=")
    if key in GROUPS | {"seed"} and PLACEHOLDER.fullmatch(value.rpartition("/")[2]):
        return None
    if sweep and value[:1] not in ("[", "{", "'", '"'):
        value = value.split(",")[0]
    return f"{key}={value}"


def text_of(module: str) -> str:
    """The source of a benchmark."""
    return (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "command"), by_page(commands))
def test_every_command_composes(page, command):
    name, overrides, sweep = parse(command)
    if name is None:  # pytest, pip, a benchmark
        module = re.search(r"-m (benchmarks\.\w+)", command)
        if module:
            text = text_of(module[1])
            if "parser_of" in text:  # it shares the options of another benchmark
                text += "".join(map(text_of, re.findall(r"from (benchmarks\.\w+) import", text)))
            assert all(f'"{option}"' in text for option in re.findall(r"--[\w-]+", command))
        return
    if "--config-dir" in command:  # of the reader's own files
        return
    assert name in COMMANDS
    kept = [composable(override, sweep) for override in overrides if not override.startswith("hydra")]
    if page == EXTENDING:  # without the options that its diffs add: test_the_diffs_of_extending_apply_and_run
        kept = [one for one in kept if one and one.partition("=")[0] not in GROUPS and not one.startswith("loss.")]
    compose_config(name, *(quoted(one) for one in kept if one))


@pytest.fixture(scope="module")
def known_keys() -> set[str]:
    """Every key of every configuration, with its groups and each option of these."""
    options = [
        f"{path.parent.name}={path.stem}"
        for path in (ROOT / "conf").glob("*/*.yaml")
        if path.parent.name in ("loss", "task", "logger")
    ]
    composed = [compose_config(name) for name in COMMANDS] + [compose_config("train", option) for option in options]
    return GROUPS | {key for cfg in composed for key in keys_of(cfg)}


def keys_of(node, prefix: str = "") -> set[str]:
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        return {prefix}
    below = {key for name, part in plain.items() for key in keys_of(part, f"{prefix}.{name}".strip("."))}
    return below | ({prefix} if prefix else set())


def assignments(page: Path) -> list[tuple[str, str]]:
    """Each `key=value` of the inline code, with the code that it is in; not the arguments of functions."""
    found = []
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        if "(" in code or "==" in code or re.match(r"(\S*python|torchrun|distill) ", code):
            continue
        keys = [word.strip("'\"").partition("=")[0] for word in code.split() if "=" in word]
        found += [(code, key) for key in keys if re.fullmatch(r"(?!hydra)[a-z][\w./@]*", key) and "TASK" not in key]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_in_inline_code_exists(page, known_keys):
    last = {key.rpartition(".")[2] for key in known_keys}  # as in "`revision=` of the backbone"
    shown = {"report": ("stages", "stage1.loss"), "extending": ("loss.margin",)}.get(page.stem, ())
    unknown = [
        code for code, key in assignments(page) if key not in known_keys and key not in last and key not in shown
    ]
    assert not unknown


# Python


def snippets(page: Path) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python"]


@pytest.mark.parametrize(("page", "snippet"), by_page(snippets))
def test_every_snippet_parses_and_imports_what_there_is(page, snippet):
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("distill", "kernels"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


# Rooms


def test_architecture_repeats_the_docstrings_of_the_rooms():
    rooms = {
        path.parent.name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
        for path in (ROOT / "distill").glob("*/__init__.py")
    }
    table = dict(
        re.findall(r"^\| `(\w+)/` \| ([^|]+?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    )
    assert {name: table.get(name) for name in rooms} == rooms


# Extending


DIFFS = [text for kind, text in FENCE.findall(EXTENDING.read_text(encoding="utf-8")) if kind == "diff"]
RUNS = [
    text.replace("\\\n", " ").splitlines()
    for kind, text in FENCE.findall(EXTENDING.read_text(encoding="utf-8"))
    if kind == ""
]
# What the test adds to the documented commands: small, fast, and without a network
MODEL = "outputs/DATE/TIME"  # trained by the first diff's command, evaluated by the last one's
FEW = [
    "train.max_steps=2",
    "train.max_epochs=null",
    "train.validate_every=2",
    "train.batch_size=4",
    "optimizer.warmup=0",
]
TOP = ["task.depth=5", "validation.depth=5", "model.passage_length=24"]
ADDED = [
    [*FEW, *TOP, f"hydra.run.dir={MODEL}"],
    [*FEW, *TOP, "backbone.name=encoder"],
    [*FEW, *TOP, "backbone=tiny"],
    [*FEW, *TOP, "backbone=tiny"],
    ["task.depth=5"],
]


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the checkout with every diff of extending.md applied, and the files that its commands name."""
    copy = tmp_path_factory.mktemp("extended") / "checkout"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".*", "outputs", "docs", "benchmarks", "__pycache__", "*.egg-info")
    )
    for diff in DIFFS:
        applied = subprocess.run(["git", "apply", "-"], cwd=copy, input=diff, text=True, capture_output=True)
        assert not applied.returncode, f"{applied.stderr}\n{diff}"
    make_backbone(copy / "encoder", "xlm-roberta")
    sample = copy / "sample"
    for source, target in {
        "passages.tsv": ["P.tsv", "data/articles.tsv"],
        "train/queries.tsv": ["Q.tsv"],
        "train/teacher.run.gz": ["rankings/my-llm.run"],
        "train/first_stage.run.gz": ["rankings/bm25.run"],
        "test/queries.tsv": ["data/tickets.tsv", "data/searches.tsv"],
        "test/qrels.txt.gz": ["data/tickets.qrels", "data/searches.qrels"],
        "test/first_stage.run.gz": ["data/searches.run"],
    }.items():
        for name in target:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            data = (sample / source).read_bytes()
            (copy / name).write_bytes(gzip.decompress(data) if source.endswith(".gz") else data)
    write_beir(sample, copy / "data" / "nfcorpus")
    return copy


def write_beir(sample: Path, directory: Path) -> None:
    """Write the sample as BEIR lays a data set out."""
    (directory / "qrels").mkdir(parents=True)
    texts = {"corpus": [sample / "passages.tsv"], "queries": [sample / part / "queries.tsv" for part in PARTS]}
    for name, files in texts.items():
        rows = [line.split("\t", 1) for file in files for line in file.read_text().splitlines()]
        lines = [json.dumps({"_id": text_id, "text": text}) for text_id, text in rows]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for part, split in PARTS.items():
        text = gzip.decompress((sample / part / "qrels.txt.gz").read_bytes()).decode()
        rows = [line.split() for line in text.splitlines()]
        lines = [
            "query-id\tcorpus-id\tscore",
            *(f"{query_id}\t{doc_id}\t{grade}" for query_id, _, doc_id, grade in rows),
        ]
        (directory / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")


PARTS = {"train": "train", "val": "dev", "test": "test"}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(DIFFS)))
def test_the_diffs_of_extending_apply_and_run(number, extended):
    if number == len(DIFFS) - 1 and not (extended / MODEL / "model").is_dir():
        pytest.skip("needs the model that the first diff's command trains")
    for command in RUNS[number]:
        words = shlex.split(command, comments=True)[1:]
        words += ADDED[number] if words[0] in ("train.py", "evaluate.py") else []
        done = run(*words, env=os.environ | {"PYTHONPATH": str(extended)}, cwd=extended, root=extended)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_every_diff_of_extending_has_its_commands():
    assert len(DIFFS) == len(RUNS) == len(ADDED)


# Messages


@functools.cache
def templates() -> list[str]:
    """Every string of the code, with a NUL in place of what is filled in."""
    files = [
        *(ROOT / "distill").rglob("*.py"),
        *(ROOT / "kernels").glob("*.py"),
        *(ROOT / "hydra_plugins").glob("*.py"),
    ]
    found = []
    for file in [*files, ROOT / "train.py", ROOT / "evaluate.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[-+.\d]*[sdgfr]", "\0", node.value))
    return found


def messages() -> list[str]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    blocks = [block for kind, block in FENCE.findall(text) if kind == "text"]
    return [line.removeprefix("error: ").strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("message", messages())
def test_every_message_of_troubleshooting_is_one_of_the_code(message):
    pieces = [piece.strip() for piece in message.split("…") if piece.strip()]
    pattern = re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)
    assert sum(map(len, pieces)) >= 15, "too little to recognise the message by"
    assert any(pattern.search(one) for one in templates())
