"""Train one student in three libraries on the same lists, and compare effectiveness, minutes and peak memory.

    python -m venv LIR && LIR/bin/pip install "lightning-ir==0.0.6" "transformers<5" "torch==2.13.0"
    python -m benchmarks.peers lce --encoder DIR --passages P.tsv --queries Q.tsv --run FIRST.run --qrels QRELS \
        --test-queries TEST.tsv --test-run TEST.run --test-qrels TEST_QRELS --output peers-lce.json \
        --lightning-ir LIR/bin/python
    python -m benchmarks.peers ranknet --teacher TEACHER.run --depth 10 ...

The comparison on googleq: the first 3 layers of all-MiniLM-L6-v2, 10,000 pairs, 400 test questions, three seeds. Allow
an hour for each seed on two cores that do nothing else. DATA has the texts, RUNS the runs with 50 passages a query:

    python -m benchmarks.peers lce --encoder all-MiniLM-L6-v2 --num-layers 3 --passages DATA/passages.tsv \
        --queries DATA/queries.train.tsv --run RUNS/train.run --qrels DATA/qrels.train.txt --negatives 3 \
        --test-queries DATA/queries.test400.tsv --test-run RUNS/test.run --test-qrels DATA/qrels.test.txt \
        --passage-length 128 --batch-size 32 --steps 79 --lr 1e-4 --warmup 8 --seeds 0,1,2 --threads 2 \
        --lightning-ir LIR/bin/python --output benchmarks/results/peers-googleq-lce.json
    python -m benchmarks.peers ranknet --encoder all-MiniLM-L6-v2 --num-layers 3 --passages DATA/passages.tsv \
        --queries DATA/queries.train.tsv --teacher RUNS/teacher.run --run RUNS/train.run --depth 10 \
        --test-queries DATA/queries.test400.tsv --test-run RUNS/test.run --test-qrels DATA/qrels.test.txt \
        --passage-length 128 --batch-size 8 --steps 125 --lr 1e-4 --warmup 12 --seeds 0,1,2 --threads 2 \
        --lightning-ir LIR/bin/python --output benchmarks/results/peers-googleq-ranknet.json

All begin with one saved student, linear layer included, and take the same lists (benchmarks/peer_lists.py), learning
rates of each step, AdamW, weight decay and clipping. Ours runs as `python train.py`, sentence-transformers with
CrossEncoderTrainer, lightning-ir with Lightning's Trainer (benchmarks/peer_workers.py), each in a separate process,
otherwise with its defaults. What differs: the draws of dropout; attention dropout, which our packed layout lacks
(contender `ours-padded` has it); and lightning-ir, which decodes its tokens and tokenises them again. Each library
re-ranks the test lists itself, and ours also re-ranks with the model of sentence-transformers. `seconds` is the time of
the training loop; `process_seconds`, `cpu_seconds` and `peak_bytes` are of the whole process, in which train.py also
measures agreement on up to 50 training lists. Finished rows in the output are kept, so a stopped call can be repeated.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.peer_lists import FOR_LIGHTNING_IR, REFUSED, prepare, read_test, test_overrides, training_overrides
from benchmarks.peer_table import describe, format_table, summarise
from benchmarks.report import ROOT, environment
from benchmarks.workers import environment_of
from distill.config.overrides import as_override
from distill.errors import InputError, exit_on_bad_input
from distill.evaluation.measures import measure
from distill.models.saved import SETTINGS_FILE
from distill.sources.runs import read_run
from distill.storage.writing import write_whole

OURS = {"ours": "auto", "ours-padded": "padded"}  # contender -> model.layout
CONTENDERS = ("ours", "sentence-transformers", "lightning-ir")
SAME = ("loss", "batch_size", "lr", "head_lr", "weight_decay", "max_grad_norm", "precision", "device")  # for all
ADDED = {"pooling": "cls", "head_lr": None}  # settings that earlier outputs lack, with what they had
NOT_SETTINGS = ("seeds", "contenders", "output", "work", "lightning_ir")  # may differ from call to call


class Failed(RuntimeError):
    """A contender's process ended with an error."""


def main() -> None:
    """Do the rows that are missing, write them as they come, and print the table."""
    arguments = parse()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    with exit_on_bad_input(sweep=False):
        compare_libraries(arguments)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", default="0", help="as in 0,1,2")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="ours-padded is another")
    parser.add_argument("--lightning-ir", help="Python interpreter that has lightning-ir", default=sys.executable)
    arguments = with_paths(parser.parse_args(), parser)
    arguments.contenders = arguments.contenders.split(",")
    for name in arguments.contenders:
        if name not in (*OURS, *CONTENDERS):
            parser.error(f"--contenders: {name} is unknown: use {', '.join(dict.fromkeys([*OURS, *CONTENDERS]))}")
    return arguments


def parser_of(doc: str) -> argparse.ArgumentParser:
    """Return a parser of what is trained and measured, in all libraries alike."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("loss", choices=["lce", "ranknet"])
    parser.add_argument("--encoder", required=True, help="directory, packaged model or Hub id")
    parser.add_argument("--num-layers", type=int, help="keep the first ones only")
    parser.add_argument("--passages", required=True, help="TSV")
    parser.add_argument("--queries", required=True, help="TSV, for training")
    parser.add_argument("--run", help="first stage of the training queries; for ranknet, cuts at --depth by its ranks")
    parser.add_argument("--qrels", help="for lce")
    parser.add_argument("--teacher", help="run, for ranknet")
    parser.add_argument("--negatives", type=int, default=3, help="per list, for lce")
    parser.add_argument("--depth", type=int, default=10, help="passages per list, for ranknet")
    parser.add_argument("--test-queries", required=True, help="TSV")
    parser.add_argument("--test-run", required=True)
    parser.add_argument("--test-qrels", required=True)
    parser.add_argument("--test-depth", type=int, default=50)
    parser.add_argument("--measures", default="nDCG@10,RR@10")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32, help="lists per step")
    parser.add_argument("--lr", type=float, default=1e-4, help="peak learning rate")
    parser.add_argument("--head-lr", type=float, help="peak learning rate of the linear layer; left out: --lr")
    parser.add_argument("--warmup", type=float, default=0.1, help="as optimizer.warmup")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--query-length", type=int, default=32, help="tokens")
    parser.add_argument("--passage-length", type=int, default=128, help="tokens")
    parser.add_argument("--dropout", type=float, help="of the encoder; left out: its own")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pooling", choices=["cls", "mean"], default="cls", help="of the student")
    parser.add_argument("--work", type=Path, help="lists, models and runs; left out: outputs/ and the output's name")
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    return parser


def with_paths(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Check that the loss has its files, and make paths absolute."""
    for needed in ("run", "qrels") if arguments.loss == "lce" else ("teacher",):
        if getattr(arguments, needed) is None:
            parser.error(f"{arguments.loss} needs --{needed}")
    for name in ("encoder", "passages", "queries", "run", "qrels", "teacher", "test_queries", "test_run", "test_qrels"):
        path = getattr(arguments, name)
        if path is not None and os.path.exists(path):  # the libraries run in the repository
            setattr(arguments, name, str(Path(path).resolve()))
    arguments.work = (arguments.work or Path("outputs") / arguments.output.stem).resolve()
    return arguments


def compare_libraries(arguments) -> None:
    """Run what is missing; raises InputError for bad input and an output of other settings."""
    device = torch.device(arguments.device)
    settings = {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}
    check_same(arguments.work / "settings.json", settings)
    found = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    if found and ADDED | found["settings"] != as_named(settings):
        raise InputError(f"{arguments.output}: its rows have other settings: choose another --output")
    rows = [row for row in found.get("rows", []) if "left_out" not in row]
    done = {(row["name"], row["seed"]) for row in rows}
    task = read_test(arguments, texts=False)
    result = environment(device) | {"settings": as_named(settings)}
    result["command"] = shlex.join(["python", "-m", "benchmarks.peers", *as_named_words(sys.argv[1:])])
    result["first_stage"], _ = measure(task.run, task.qrels, task.measures)
    for seed in map(int, arguments.seeds.split(",")):
        start = time.perf_counter()
        prepared = arguments.work / f"seed-{seed}"
        facts = prepare(arguments, seed, prepared)
        print(f"seed {seed}: {facts}, {time.perf_counter() - start:.0f} s", file=sys.stderr)
        for name in arguments.contenders:
            if (name, seed) in done:
                continue
            row = {"name": name, "seed": seed, "date": datetime.now(UTC).strftime("%Y-%m-%d")} | facts
            row |= {key: result[key] for key in ("device", "commit")}  # another call may add rows elsewhere
            try:
                rows.append(row | run_contender(arguments, name, seed, prepared, task))
            except Failed as error:
                if name in OURS:
                    raise SystemExit(f"{name}: {error}") from error
                rows.append(row | {"left_out": str(error)})
            print(describe(rows[-1]), file=sys.stderr)
            write_result(arguments.output, result | summarise(rows) | {"rows": rows})
    write_result(arguments.output, result | summarise(rows) | {"rows": rows})
    print(format_table(result["first_stage"], rows))


def check_same(path: Path, settings: dict) -> None:
    """Keep the settings beside the lists; raises InputError if these were made with others."""
    if path.is_file() and ADDED | json.loads(path.read_text()) != settings:
        raise InputError(f"{path}: the lists there have other settings: choose another --work")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))


def as_named(settings: dict) -> dict:
    """Return the settings with files by name: a result says what was used, not where it was."""
    return {name: as_named_words([value])[0] if isinstance(value, str) else value for name, value in settings.items()}


def as_named_words(words: list[str]) -> list[str]:
    """Return words with absolute paths cut to their last part, or two if that names no file."""
    return [str(Path(*Path(word).parts[-2:])) if word.startswith("/") else word for word in words]


def run_contender(arguments, name: str, seed: int, prepared: Path, task) -> dict:
    """Train, re-rank and measure; raises Failed where a process ends with an error."""
    directory = arguments.work / f"{name}-{seed}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if name in OURS:
        answer = train_ours(arguments, seed, prepared, directory, OURS[name])
        run = rerank_ours(arguments, directory / "train" / "model", directory / "rerank")
    else:
        answer = part(arguments, "train", name, seed, prepared, directory)
        run = part(arguments, "rerank", name, seed, prepared, directory)
    for of_steps in ("seconds_of_steps", "snapshots"):  # for benchmarks/time_to_quality.py
        answer.pop(of_steps, None)
    ranked = read_run(str(run.pop("run")))
    means, per_query = measure(ranked, task.qrels, task.measures)
    answer |= {"rerank": run, "measures": means}
    if name == "sentence-transformers":
        write_lengths(prepared, directory / "model")
        again = rerank_ours(arguments, directory / "model", directory / "rerank-ours")
        answer["reranked_by_ours"] = difference(ranked, read_run(str(again["run"])))
    query_ids = sorted(per_query)
    answer["per_query"] = {
        measured: [round(per_query[query_id][measured], 5) for query_id in query_ids] for measured in means
    }
    return answer


def write_lengths(prepared: Path, model: Path) -> None:
    """Write how many tokens of a query and of a passage we read; without it, we would cut a pair as one text."""
    settings = json.loads((prepared / "student" / SETTINGS_FILE).read_text())
    (model / SETTINGS_FILE).write_text(json.dumps({key: settings[key] for key in ("query_length", "passage_length")}))


def train_ours(arguments, seed: int, prepared: Path, directory: Path, layout: str, more: Sequence[str] = ()) -> dict:
    """Train with train.py, with more overrides if any, and read its losses and the seconds of its steps."""
    output = directory / "train"
    overrides = [*training_overrides(arguments, prepared / "student", seed, layout), *more]
    command = [sys.executable, "train.py", *overrides, as_override("hydra.run.dir", output)]
    answer = watch(command, directory / "train.log", arguments.threads)
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [step for step in steps if "train/loss" in step]
    with open(prepared / "lists.jsonl", encoding="utf-8") as file:
        sizes = [len(json.loads(line)["doc_ids"]) for line in file]
    pairs = [sum(sizes[first : first + arguments.batch_size]) for first in range(0, len(sizes), arguments.batch_size)]
    seconds = [count / step["train/pairs_per_second"] for count, step in zip(pairs[: len(steps)], steps, strict=True)]
    losses = [step["train/loss"] for step in steps]
    return {"seconds": sum(seconds), "losses": losses, "seconds_of_steps": seconds} | answer


def rerank_ours(arguments, model: Path, output: Path) -> dict:
    """Re-rank with evaluate.py."""
    command = [sys.executable, "evaluate.py", as_override("model", model), *test_overrides(arguments)]
    command += [f"precision={arguments.precision}", f"device={arguments.device}", as_override("hydra.run.dir", output)]
    answer = watch(command, output.with_suffix(".log"), arguments.threads)
    return answer | {"run": output / "run.txt"}


def part(arguments, which: str, name: str, seed: int, prepared: Path, directory: Path, save_every: int = 0) -> dict:
    """Let another library train or re-rank; save_every: steps between models that it keeps on the way, 0 for none."""
    from distill.training.optim import lr_factor, warmup_steps

    student = prepared / (FOR_LIGHTNING_IR if name == "lightning-ir" else "student")
    if not student.is_dir():
        raise Failed((prepared / REFUSED).read_text())
    num_warmup = warmup_steps(arguments.warmup, arguments.steps)
    factors = [lr_factor("linear", step, num_warmup, arguments.steps) for step in range(arguments.steps)]
    setup = {key: getattr(arguments, key) for key in SAME} | {"seed": seed, "save_every": save_every}
    setup |= {"shares": factors}  # of the peak learning rates, of each step
    paths = {"student": student, "directory": directory / "files", "model": directory / "model"}
    paths |= {"lists": prepared / ("lists.jsonl" if which == "train" else "test.jsonl"), "run": directory / "run.txt"}
    paths |= {"answer": directory / f"{which}-answer.json"}
    file = directory / f"{which}.json"
    file.write_text(json.dumps(setup | {key: str(path) for key, path in paths.items()}))
    python = arguments.lightning_ir if name == "lightning-ir" else sys.executable
    command = [python, "-m", "benchmarks.peer_workers", which, name, str(file)]
    watched = watch(command, directory / f"{which}.log", arguments.threads)
    answer = json.loads(paths["answer"].read_text()) | watched
    return answer | ({"run": paths["run"]} if which == "rerank" else {})


def watch(command: list[str], log: Path, threads: int) -> dict:
    """Run a process to its end; return its seconds and peak memory, or raise Failed with its last line."""
    variables = os.environ | environment_of(command[0]) | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with open(log, "w") as file:
        try:
            process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT)
        except OSError as error:
            raise Failed(f"{Path(command[0]).name}: {error.strerror}") from error
        _, status, usage = os.wait4(process.pid, 0)  # its own peak, where getrusage has that of all children
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (log.read_text().strip().splitlines() or ["no output"])[-1]
        raise Failed(f"status {process.returncode}: {last}")
    seconds, cpu_seconds = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    return {"process_seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": usage.ru_maxrss * 1024}


def difference(run, other) -> dict:
    """Return how many lists two runs order alike, and the largest difference of two scores."""
    alike, largest = 0, 0.0
    for query_id, ranked in run.items():
        alike += ranked.doc_ids == other[query_id].doc_ids
        scores = dict(zip(other[query_id].doc_ids, other[query_id].scores.tolist(), strict=True))
        pairs = zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)
        largest = max([largest, *(abs(score - scores[doc_id]) for doc_id, score in pairs)])
    return {"lists": len(run), "alike": alike, "largest_score_difference": largest}


def write_result(path: Path, result: dict) -> None:
    """Write the result whole, with one row a line."""
    head = json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1)[:-2]
    rows = ",\n  ".join(json.dumps(row) for row in result["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda aside: aside.write_text(f'{head},\n "rows": [\n  {rows}\n ]\n}}\n', encoding="utf-8"))


if __name__ == "__main__":
    main()
