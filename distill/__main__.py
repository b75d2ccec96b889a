"""Run a command of the project.

python -m distill                       the commands, a line each
python -m distill annotate ...          one of distill/commands/
python -m distill train ...             train.py or evaluate.py, as `python train.py ...` does in a checkout

Once installed, `distill` is the same: distill train ...
"""

import sys

from distill import __version__
from distill.interrupt import answer_stops

COMMANDS = {
    "train": "train a cross-encoder on a teacher's rankings",
    "evaluate": "re-rank runs with a model and measure them, or measure runs as they are",
    "cut": "cut long articles into overlapping passages",
    "generate": "let an LLM write queries for passages, and keep those that find theirs again",
    "split": "hold queries out of training, apart from those that it sees",
    "retrieve": "write a first-stage run: the best passages of a collection for each query",
    "fuse": "make one run of several: by reciprocal ranks, mean ranks or z-scores",
    "annotate": "let a teacher rank the passages of a first-stage run",
    "join": "make one run of the shards of an evaluation or annotation",
    "judge": "let an LLM grade what rankings have at their top: qrels, where people have given none",
    "journals": "show what the journals of LLMs' answers hold, and what they cost",
    "export": "write a trained model in another library's format, and upload it",
    "serve": "answer re-ranking requests over HTTP, as four servers and services do",
    "report": "gather runs into tables, tests, figures and one page",
    "inspect": "show side by side what a ranking has moved, and what it ranks wrongly",
    "verdict": "say whether a student is better than its first stage, and if not, why",
    "dashboards": "make a Weights & Biases workspace for an ablation",
}
SCRIPTS = ("train", "evaluate")


def main() -> None:
    """Run the command that the first argument names; without one, list them."""
    answer_stops()  # before the slow imports
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(overview())
        return
    if name == "--version":
        print(f"distill {__version__}")
        return
    if name not in COMMANDS:
        from distill.config.nearest import nearest

        near = nearest(name, COMMANDS)
        remedy = f"did you mean {near}?" if near else f"no such command: choose one of {', '.join(COMMANDS)}"
        print(f"error: {name}: {remedy}", file=sys.stderr)
        sys.exit(2)
    arguments = sys.argv[2:]
    if name in SCRIPTS:
        import runpy

        from distill.config.composition import ROOT

        script = str(ROOT / f"{name}.py")
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        return
    import importlib

    from distill.config.command import start

    sys.argv = [f"distill {name}", *arguments]
    start(importlib.import_module(f"distill.commands.{name}").run, name)


def overview() -> str:
    """Return the commands with what each does."""
    lines = [f"  {name:11} {what}" for name, what in COMMANDS.items()]
    return "\n".join(["Commands (add --help for the keys of one):", *lines])


if __name__ == "__main__":
    main()
