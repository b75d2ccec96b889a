"""The whole way of recipes/own-corpus.sh for a help desk in three languages, killed at each stage and resumed.

    python -m benchmarks.own_corpus [--languages english german chinese] [--out outputs/help-desk] [--never-killed]

For each language, 300 articles with several fields become a CSV file, and examples/llm_server.py stands in for the LLM.
The recipe is started again and again; whenever it has started a stage that was not killed before, its processes are
killed (SIGKILL) in the middle of it. Prints a table with the numbers of each stage and the verdict, and checks that
resuming has asked the LLM little more often than there are answers in the journals.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

from benchmarks.help_desk import CODES, articles
from examples.llm_server import Handler

ROOT = Path(__file__).resolve().parent.parent
STAGE = re.compile(r"^== (?!.*: skipped$)(?!.*dry_run=true).*?(?:-m distill (\S+)|(train|evaluate)\.py)(.*)$")
TRAIN = "train.precision=bfloat16 model.passage_length=64 data.list_size=8"
LATEST = 6.0  # seconds after a stage's start at which it is killed; the earliest is half a second


class Counting(Handler):
    """The stand-in for an LLM, which counts its requests."""

    asked = 0

    def do_POST(self):
        Counting.asked += 1
        super().do_POST()


def main() -> None:
    """Run the recipe in each language, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", nargs="+", choices=[*CODES], default=[*CODES])
    parser.add_argument("--out", type=Path, default=Path("outputs/help-desk"))
    parser.add_argument("--num-queries", type=int, default=150)
    parser.add_argument("--backbone", default="googleq-minilm-3")
    parser.add_argument("--train", default=TRAIN, help="overrides of train.py")
    parser.add_argument("--never-killed", action="store_true")
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    for language in options.languages:
        out = (options.out / language).absolute()
        asked, started = Counting.asked, time.perf_counter()
        killed = run_language(language, out, url, options)
        show(language, out, killed, Counting.asked - asked, time.perf_counter() - started)


def run_language(language: str, out: Path, url: str, options: argparse.Namespace) -> list[str]:
    """Run the recipe until it ends by itself, and return the stages in which it was killed."""
    out.mkdir(parents=True, exist_ok=True)
    corpus = out / "articles.csv"
    with open(corpus, "w", encoding="utf-8", newline="") as file:
        rows = articles(language)
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    environment = os.environ | {
        **{"PYTHON": sys.executable, "OUT": str(out), "DISTILL_CACHE": str(out / "cache"), "PYTHONUNBUFFERED": "1"},
        **{"LLM_URL": url, "LLM": "stand-in", "NUM_QUERIES": str(options.num_queries), "DEPTH": "20"},
        **{"FIELDS": "id_field=sku text_fields=[title,body]", "BACKBONE": options.backbone, "TRAIN": options.train},
    }
    killed: dict[str, None] = {}
    while (stage := run_until_killed(corpus, environment, {} if options.never_killed else killed, options)) is not None:
        killed[stage] = None
    return [*killed]


def run_until_killed(corpus: Path, environment: dict, killed: dict, options: argparse.Namespace) -> str | None:
    """Run the recipe, kill it in the first stage that was not killed before, and return that; None: it has ended."""
    with subprocess.Popen(
        ["bash", str(ROOT / "recipes" / "own-corpus.sh"), str(corpus)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=ROOT,
    ) as process:  # fmt: skip
        log = []
        for line in process.stdout:
            log.append(line)
            match = STAGE.match(line)
            stage = match and name_of(match)
            if stage and stage not in killed and not options.never_killed:
                time.sleep(random.Random(stage).uniform(0.5, LATEST))
                os.killpg(process.pid, signal.SIGKILL)
                return stage
    if process.returncode:
        sys.exit(f"{corpus}: exit status {process.returncode}:\n{''.join(log[-30:])}")
    return None


def name_of(match: re.Match) -> str:
    """Return the name of a stage: its command, and the directory or file that it writes."""
    written = re.search(r" (?:hydra\.run\.dir|output)=(\S+)", match[3])
    return f"{match[1] or match[2]} {Path(written[1]).name if written else ''}".strip()


def show(language: str, out: Path, killed: list[str], asked: int, seconds: float) -> None:
    """Print the numbers of each stage, and the verdict."""
    numbers = {name: read(out / name / "results.json") for name in ("queries", "split", "noise", "student", "heldout")}
    queries, split = numbers["queries"], numbers["split"]
    counts = [count_lines(out / name) for name in ("articles.csv", "passages.jsonl")]
    answers = sum(map(count_lines, out.glob("cache/journals/**/*.jsonl")))
    print(f"\n== {language}: {seconds:.0f} s, killed in {len(killed)} stages: {', '.join(killed) or 'none'}")
    print(f"articles {counts[0] - 1}, passages {counts[1]}, queries kept {queries.get('generated', 0):.0f}")
    print(f"trained on {split['train']:.0f}, held out {split['heldout']:.0f}; tau between shuffles "
          f"{numbers['noise']['tau/shuffles']:.2f}; {numbers['student']['train/steps']:.0f} steps")  # fmt: skip
    for name, value in numbers["heldout"].items():
        if name.startswith("agreement/"):
            print(f"{name} {value:.4f}")
    print(f"requests {asked}, answers in the journals {answers}")
    print((out / "verdict.md").read_text(encoding="utf-8"), flush=True)


def count_lines(path: Path) -> int:
    """Return how many lines a file has."""
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def read(path: Path) -> dict[str, float]:
    """Return what a results.json holds."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
