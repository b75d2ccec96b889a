"""What an entry point loads: nothing that takes seconds before its first line, and no torch where it needs none."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from distill.__main__ import COMMANDS
from tests.helpers.chat_server import Server
from tests.helpers.loaded import END, FIRST_LINE, SECOND_LINE, packages_of
from tests.helpers.once import once
from tests.helpers.paths import ROOT
from tests.helpers.reports import DL19, make_run

# Packages of third parties
FOR_OPTIONS = {"antlr4", "cython_runtime", "hydra", "hydra_plugins", "omegaconf", "packaging", "tqdm", "yaml"}
FOR_RULES = FOR_OPTIONS | {"ir_measures", "Stemmer"}  # names of measures and languages are checked beforehand
IMPORTS = {  # what each may load
    "import distill": ("import distill", set()),
    "python -m distill": ("command()", set()),
    "python -m distill --version": ("command('--version')", set()),
    # Besides the packages of torch and pandas, which differ between machines
    "from distill import CrossEncoder; import distill.pyterrier": (
        "import pandas, sys, torch, types; forget(); from distill import CrossEncoder;"
        "sys.modules['pyterrier'] = types.SimpleNamespace(Transformer=object); import distill.pyterrier",
        {"pyterrier", "safetensors", "tqdm"},
    ),
}
# What a machine with a GPU may lack, and what has to be imported there without them
LACKED = ("hydra", "omegaconf", "ir_measures", "wandb")
THERE = ("kernels/**/*.py", "benchmarks/**/*.py", "tests/gpu/**/*.py", "tests/conftest.py", "tests/test_kernels.py")
SLOW = {"torch", "transformers", "wandb", "ir_datasets", "pyarrow", "pandas", "matplotlib", "sklearn", "statsmodels"}
ENDS = {  # commands without a model, from their start to their end, and what they need of these
    **{
        name: set() for name in ("cut", "split", "retrieve", "fuse", "join", "judge", "generate", "journals", "inspect")
    },
    "annotate": {"pyarrow", "pandas"},  # to write teacher.parquet
    "report": {"matplotlib"},
}


def arguments_of(place, url: str) -> dict[str, list[str]]:
    """Return the options of every command on two queries of the sample; their outputs are in the place."""
    sample = ROOT / "sample"
    with gzip.open(sample / "test" / "first_stage.run.gz", "rt") as run:
        lines = run.read().splitlines()
    chosen = sorted({line.split()[0] for line in lines})[:2]
    (place / "first.run").write_text("\n".join(line for line in lines if line.split()[0] in chosen) + "\n")
    queries = (sample / "test" / "queries.tsv").read_text().splitlines()
    (place / "queries.tsv").write_text("\n".join(line for line in queries if line.split("\t")[0] in chosen) + "\n")
    (place / "passages.tsv").write_text("\n".join((sample / "passages.tsv").read_text().splitlines()[:50]) + "\n")
    (place / "journal.jsonl").write_text("")
    make_run(place / "runs" / "a", {"loss.name": "ranknet", "seed": 0}, {DL19: 0.5}, [0.4, 0.6])
    make_run(place / "runs" / "b", {"loss.name": "lce", "seed": 0}, {DL19: 0.4}, [0.5, 0.3])
    (place / "shard").mkdir()
    shard = {"config.yaml": "model: x\nshard: 0/1\nmax_tokens: 16384\n", "run.txt": "q1 Q0 d1 1 0.5 x\n"}
    for name, text in {**shard, "results.json": "{}\n"}.items():
        (place / "shard" / name).write_text(text)
    passages, queries = f"passages={place}/passages.tsv", f"queries={place}/queries.tsv"
    whole = f"passages={sample}/passages.tsv"
    run, qrels = f"{place}/first.run", f"qrels={sample}/test/qrels.txt.gz"
    llm = ["teacher.llm.model=judge", f"teacher.llm.base_url={url}", f"journal={place}/answers.jsonl"]
    here = {name: f"hydra.run.dir={place}/{name}" for name in COMMANDS}
    return {
        "train": [here["train"]],
        "evaluate": ["model=null", here["evaluate"]],
        "cut": [passages, f"output={place}/cut.jsonl"],
        "generate": [passages, "num_queries=3", "max_unusable=1", here["generate"], *llm],
        "split": [queries, f"output={place}/split"],
        "retrieve": [passages, queries, f"output={place}/new.run"],
        "fuse": [f"runs=[{run},{run}]", f"output={place}/fused.run"],
        "join": [f"shards=[{place}/shard]", f"output={place}/joined"],
        "annotate": [whole, queries, f"run={run}", here["annotate"], *llm],
        "judge": [whole, queries, f"runs=[{run}]", here["judge"], *llm],
        "journals": [f"journal={place}/journal.jsonl"],
        "export": ["model=googleq-minilm-3", "format=transformers", f"output={place}/export"],
        "serve": ["model=googleq-minilm-3"],
        "report": [f"runs={place}/runs", f"output={place}/report"],
        "inspect": [f"run={run}", f"baseline={run}", whole, queries, qrels, f"output={place}/inspect"],
        "verdict": [f"runs={place}/runs"],
        "dashboards": ["project=p"],
    }


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, dict[str, set]]:
    """The packages that each entry point loads: for --help, until its first line, and until its end."""

    def make(place: Path) -> dict:
        server = Server()
        arguments = arguments_of(place, server.url)
        assert arguments.keys() == COMMANDS.keys()
        steps = {"--help": "; ".join(f"command({name!r}, '--help')" for name in COMMANDS)}
        steps |= {name: f"command({name!r}, *{options})" for name, options in arguments.items()}
        stops = {name: FIRST_LINE for name in COMMANDS.keys() - ENDS.keys()} | {"train": SECOND_LINE}
        found = packages_of({name: code for name, (code, _) in IMPORTS.items()}, steps, stops)
        return {name: {when: sorted(packages) for when, packages in of.items()} for name, of in found.items()}

    found = once(tmp_path_factory, "loaded", make)
    return {name: {when: set(packages) for when, packages in of.items()} for name, of in found.items()}


@pytest.mark.parametrize("name", IMPORTS)
def test_an_import_loads_only_what_it_needs(loaded, name):
    assert loaded[name][END] <= IMPORTS[name][1]


def test_help_loads_only_what_reads_options(loaded):
    assert loaded["--help"][END] <= FOR_OPTIONS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_line_waits_for_nothing_slow(loaded, name):
    assert loaded[name].get(FIRST_LINE, loaded[name][END]) <= FOR_RULES  # journals logs no line


def test_the_second_line_of_a_training_waits_for_torch_but_not_for_transformers(loaded):
    assert "torch" in loaded["train"][SECOND_LINE] and "transformers" not in loaded["train"][SECOND_LINE]


@pytest.mark.parametrize("name", ENDS)
def test_a_command_without_a_model_loads_no_torch(loaded, name):
    assert loaded[name][END] & SLOW <= ENDS[name]


def test_kernels_benchmarks_and_gpu_tests_are_imported_without_hydra_wandb_and_ir_measures():
    files = [path for pattern in THERE for path in ROOT.glob(pattern)]
    modules = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    program = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({LACKED}))
for name in {[name.removesuffix(".__init__") for name in modules]}:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{{name}}: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr
