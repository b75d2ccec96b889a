"""The commands that are disturbed: their inputs, how each is started, and what of their output must stay the same."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import scipy.stats  # noqa: F401 - imported before the forks
import torch

from distill.commands.annotate import annotate
from distill.commands.generate import generate
from distill.commands.report import report
from distill.commands.retrieve import retrieve
from distill.config.checks import check_evaluate, check_train, check_values
from distill.errors import exit_on_bad_input
from distill.export.formats import export
from distill.models.cross_encoder import CrossEncoder
from evaluate import evaluate
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.chat_server import Server
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.paths import ROOT
from tests.stress.entry import install
from train import train

ENTRY = ROOT / "tests" / "stress" / "entry.py"
TIMED = ("seconds", "per_second", "memory", "latency", "mfu", "tokens_", "padding", "efficiency")
NOT_COMPARED = ("run.lock", "sweep.lock", "job.log", "journal.jsonl", "card.md", "multirun.yaml", "latency.json")
DONE = ("holds the finished", "already exists")  # the command had ended when it was killed


@dataclass
class Command:
    """A command of the project, as `python -m distill NAME OVERRIDES` runs it, in a fork of this process.

    The fork has all imports done and is not started by Hydra, which takes longer than the rest. out: its output
    directory, for commands that have one. options: those of tests/stress/entry.py.
    """

    name: str
    overrides: list[str]
    out: str | None = "out"
    options: dict = field(default_factory=dict)

    def run(self, place: Path, **options) -> subprocess.CompletedProcess:
        """Run it with everything that it writes below `place`; options: those of tests/stress/entry.py."""
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            pid = os.fork()
            if not pid:
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                os.environ["DISTILL_CACHE"] = str(place / "cache")
                os._exit(self._in_fork(place, {"below": str(place)} | self.options | options))
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = [file.seek(0) or file.read() for file in (output, errors)]
        return subprocess.CompletedProcess(self.overrides, status, *texts)

    def resumed(self, place: Path) -> "Command":
        """Return the command that resumes its output directory."""
        return Command(self.name, [f"resume={place / (self.out or '')}"], self.out, self.options)

    def _in_fork(self, place: Path, options: dict) -> int:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
        events, status = install(options), 0
        try:
            with exit_on_bad_input(sweep=False):
                self._call(place)
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
        if "count_to" in options:
            Path(options["count_to"]).write_text(str(events.count))
        sys.stdout.flush()
        sys.stderr.flush()
        return status

    def _call(self, place: Path) -> None:
        given = [override for override in self.overrides if override.startswith("resume=")]
        others = [override for override in self.overrides if override not in given]
        if given:
            cfg = resumed(given[0].removeprefix("resume="), *others, name=self.name)
        else:
            cfg = compose_config(self.name, *others)
        check, call = CALLS[self.name]
        check(cfg)
        call(*([cfg] if self.out is None else [cfg, Path(cfg.get("resume") or place / self.out)]))


def export_model(cfg) -> None:
    export(CrossEncoder.from_pretrained(cfg.model), Path(cfg.output), cfg.format)


CALLS = {
    "train": (check_train, train),
    "evaluate": (check_evaluate, evaluate),
    "annotate": (check_values, annotate),
    "generate": (check_values, generate),
    "retrieve": (check_values, retrieve),
    "export": (check_values, export_model),
    "report": (check_values, report),
}


@dataclass
class Sweep(Command):
    """A sweep, as users start it: its jobs run in other processes."""

    def run(self, place: Path, **options) -> subprocess.CompletedProcess:
        """Run it; it and each of its jobs count their events."""
        environment = os.environ | {
            "DISTILL_CACHE": str(place / "cache"),
            "PYTHONPATH": f"{ENTRY.parent / 'site'}:{ROOT}",
            "STRESS": json.dumps({"below": str(place)} | options),
        }
        arguments = [sys.executable, str(ROOT / "train.py"), "-m", *self.overrides, f"hydra.sweep.dir={place}/out"]
        return subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True, text=True)


def make_commands(inputs: Path, place: Path) -> dict[str, Command]:
    """Write the inputs of all commands into one directory, and return the commands, which write below another."""
    files = write_inputs(inputs)
    backbone = inputs / "backbone"
    training = training_overrides(files, backbone if backbone.exists() else make_backbone(backbone))
    if not (inputs / "trained" / "results.json").exists():
        trained = Command("train", training, out="trained").run(inputs)
        assert trained.returncode == 0, trained.stdout + trained.stderr
    model = f"model={inputs}/trained/model"
    task = [f"task.{name}={files[name]}" for name in ("passages", "queries", "qrels")]
    evaluated = [model, "task=files", f"task.run={files['first_stage']}", *task, "device=cpu"]
    texts = [f"{name}={files[name]}" for name in ("passages", "queries")]
    llm = {"base_url": Server().url, "model": "judge", "concurrency": 1}
    endpoint = [f"teacher.llm.{key}={value}" for key, value in llm.items()]
    asked = [*texts, *endpoint, "window=4", "stride=2"]
    asked += [f"run={files['first_stage']}", f"qrels={files['qrels']}"]
    return {
        "train": Command("train", training),
        "evaluate": Command("evaluate", evaluated),
        "annotate": Command("annotate", asked),
        "generate": Command("generate", [texts[0], *endpoint, "num_queries=6", "min_words=3", "max_copied=20"]),
        "retrieve": Command("retrieve", [*texts, f"output={place}/out/first.run"], out=None),
        "large": Command("evaluate", evaluated, options={"large": 0}),
        "export": Command("export", [model, "format=lightning-ir", f"output={place}/out"], out=None),
        "report": Command("report", [f"runs={inputs}/trained", f"output={place}/out"]),
        "sweep": Sweep("train", [*training, "train.max_steps=2", "seed=0,1"]),
    }


def write_inputs(directory: Path) -> dict[str, Path]:
    """Write six queries with lists of ten."""
    generator = torch.Generator().manual_seed(0)

    def text(length: int) -> str:
        return " ".join(WORDS[index] for index in torch.randint(len(WORDS), (length,), generator=generator).tolist())

    directory.mkdir(parents=True, exist_ok=True)
    files = {name: directory / f"{name}.txt" for name in ("first_stage", "teacher", "qrels")}
    files |= {name: directory / f"{name}.tsv" for name in ("passages", "queries")}
    files["passages"].write_text("".join(f"d{i}\t{text(3 + i % 9)}\n" for i in range(30)))
    files["queries"].write_text("".join(f"q{i}\t{text(2 + i % 3)}\n" for i in range(6)))
    lines: dict[str, list[str]] = {name: [] for name in ("first_stage", "teacher", "qrels")}
    for query in range(6):
        doc_ids = torch.randperm(30, generator=generator)[:10].tolist()
        for name in ("first_stage", "teacher"):
            lines[name] += [f"q{query} Q0 d{one} {rank} {20 - rank} {name}" for rank, one in enumerate(doc_ids, 1)]
            doc_ids = sorted(doc_ids, key=lambda doc_id: (doc_id * 7) % 30)
        lines["qrels"] += [f"q{query} 0 d{one} {2 - place}" for place, one in enumerate(doc_ids[:3])]
    for name, rows in lines.items():
        files[name].write_text("\n".join(rows) + "\n")
    return files


def training_overrides(files: dict[str, Path], backbone: Path) -> list[str]:
    """Return the overrides of a training of six steps that validates after each second one."""
    tasks = [
        f"{key}.{name}={files[name]}" for key in ("validation", "task") for name in ("passages", "queries", "qrels")
    ]
    tasks += [f"{key}.run={files['first_stage']}" for key in ("validation", "task")]
    return [
        *("backbone=hf", f"backbone.name={backbone}", "backbone.lr=1e-2", "data=files", "teacher=run"),
        *(f"data.passages={files['passages']}", f"data.queries={files['queries']}", f"teacher.path={files['teacher']}"),
        *(f"teacher.first_stage={files['first_stage']}", "model.passage_length=16", "model.query_length=8"),
        *("train.batch_size=2", "train.max_epochs=null", "train.max_steps=6", "train.validate_every=2"),
        *("train.save_every=1", "train.log_every=1", "train.device=cpu", "optimizer.warmup=2", *tasks),
    ]


def contents(directory: Path) -> dict[str, object]:
    """Return what must be the same in every file below a directory; times and messages are left out."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_dir() or hidden or path.name in NOT_COMPARED or path.suffix in (".new", ".png", ".svg", ".html"):
            continue
        if path.suffix == ".pt":
            found[name] = _plain(torch.load(path, weights_only=True))
        elif path.name == "results.json":
            found[name] = _plain(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            found[name] = [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name == "README.md":
            found[name] = path.read_text().count("\n")
        else:
            found[name] = path.read_bytes()
    return found


def _plain(value):
    """Return a checkpoint's or JSON file's content without times, with tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if not any(word in str(key) for word in TIMED)}
        return {key: _plain(one) for key, one in kept.items() if key != "overrides"}
    return [*map(_plain, value)] if isinstance(value, list | tuple) else value


def difference(found: dict, expected: dict) -> str | None:
    """Return the name of the first file that differs, None if there is none."""
    names = sorted(found.keys() | expected.keys())
    return next((name for name in names if found.get(name) != expected.get(name)), None)


def ended(process: subprocess.CompletedProcess) -> str:
    """Return how a command ended: "done", "refused" by one line, "traceback" or "failed"."""
    if process.returncode == 0:
        return "done"
    if "Traceback" in process.stderr + process.stdout:
        return "traceback"
    errors = [line for line in process.stderr.splitlines() if "error: " in line or "failed: " in line]
    return "refused" if process.returncode in (1, 2) and errors else "failed"


def last_line(process: subprocess.CompletedProcess) -> str:
    """Return the last line that a command has printed."""
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def clear(place: Path) -> None:
    """Remove everything below a directory, but not the directory, where a disk may be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class Counts:
    """How many tries of each command ended in which way; prints those that should not have."""

    def __init__(self):
        """Start with none."""
        self.of: dict[str, Counter] = {}

    def add(self, name: str, outcome: str, detail: str) -> None:
        """Count a try."""
        self.of.setdefault(name, Counter())[outcome] += 1
        print(f"\r{name}: {self.of[name].total()}", end="", file=sys.stderr)
        if outcome not in ("identical", "refused"):
            print(f"{name}: {outcome}: {detail}", flush=True)

    def show(self) -> int:
        """Print a table; return the exit status."""
        for name, counts in self.of.items():
            outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
            print(f"{name:24} {counts.total():4} tried: {outcomes}", flush=True)
        return int(any(counts.keys() - {"identical", "refused"} for counts in self.of.values()))


def main(*scripts: Callable[[dict[str, str], Path, Counts], None]) -> int:
    """Run scripts with the options of the command line, print the counts, and return the exit status."""
    options, counts = dict(argument.split("=") for argument in sys.argv[1:]), Counts()
    with tempfile.TemporaryDirectory(prefix="stress") as place:
        for script in scripts:
            print(script.__module__, flush=True)
            script(options, Path(place), counts)
    return counts.show()
