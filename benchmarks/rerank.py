"""Measure re-ranking, from texts to ranking, in pairs per second, against lightning-ir and sentence-transformers.

    python -m benchmarks.rerank --model DIR                                      # generated texts, MS MARCO's lengths
    python -m benchmarks.rerank --model DIR --docs docs.tsv --queries queries.tsv --run bm25.run
    python -m benchmarks.rerank --model DIR --lightning-ir PYTHON                # the interpreter that has it

    python -m benchmarks.rerank --model DIR --contenders packed,packed-bf16,onnx=DIR2,int8=DIR3

DIR is a cross-encoder that evaluate.py opens or an encoder that train.py starts with: a directory, a packaged model's
name or a Hub id. All contenders score the same queries x passages with the same weights, in alternating rounds, each
with its best documented settings: sentence-transformers' `predict` sorts by length (batches of 32), lightning-ir scores
one query at a time, 100 passages per batch. A contender that fails is left out, with the reason in one line; the exit
status is 1 if it is one of ours. `--passages 100 --queries-number 1` measures latency; with it, on CUDA,
`--contenders packed-bf16,packed-bf16-graphs` shows the effect of CUDA graphs. NAME=DIR is a contender with another
model: packed or padded if NAME starts with either word, else as the model allows.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

CONTENDERS = ("packed", "padded", "packed-bf16", "sentence-transformers", "lightning-ir")


def scorer(name: str, model: str, lists, device: torch.device) -> Callable[[], list[list[float]]]:
    """Return a contender's function that scores all lists once."""
    if name == "sentence-transformers":
        from sentence_transformers import CrossEncoder as TheirCrossEncoder

        theirs = TheirCrossEncoder(model, device=str(device), trust_remote_code=False)
        pairs = [(query, passage) for query, passages in lists for passage in passages]
        bounds = [len(passages) for _, passages in lists]

        def predict() -> list[list[float]]:
            scores = torch.as_tensor(theirs.predict(pairs, show_progress_bar=False))
            return [of_query.tolist() for of_query in scores.split(bounds)]

        return predict
    if name == "lightning-ir":
        from lightning_ir import CrossEncoderModule

        module = CrossEncoderModule(model_name_or_path=model).eval().to(device)

        def score() -> list[list[float]]:
            with torch.inference_mode():
                return [module.score([query], [passages]).scores.flatten().tolist() for query, passages in lists]

        return score
    from distill.models.cross_encoder import CrossEncoder

    layout, *options = name.split("-")
    ours = CrossEncoder.from_pretrained(model, layout if layout in ("packed", "padded") else "auto").to(device)
    if "graphs" in options:
        ours.backbone.compile(mode="reduce-overhead", dynamic=False)
    elif device.type == "cuda":
        ours.backbone.compile(dynamic=True)
    precision = torch.bfloat16 if "bf16" in options else torch.float32

    def rank() -> list[list[float]]:
        all_scores = []
        for query, passages in lists:
            order, scores = ours.rank(query, passages, precision=precision)
            placed = [0.0] * len(passages)
            for place, value in zip(order, scores, strict=True):
                placed[place] = value
            all_scores.append(placed)
        return all_scores

    return rank


def worker(name: str, model: str, texts: Path, device: torch.device) -> None:
    """Score the texts of a file, once for each line read."""
    from benchmarks.workers import serve

    def make() -> Callable[[], dict]:
        lists = json.loads(texts.read_text())
        run = scorer(name, model, lists, device)

        def work() -> dict:
            start, used = time.perf_counter(), time.process_time()
            scores = run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}
            return seconds | {"scores": scores}

        return work

    serve(make)


def main() -> None:
    """Time the contenders in turn, print a table and write a JSON file."""
    import sys
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="directory, packaged model or Hub id of a cross-encoder or encoder"
    )
    parser.add_argument("--docs", type=Path, help="TSV; without it, texts are generated")
    parser.add_argument("--queries", type=Path, help="TSV")
    parser.add_argument("--run", type=Path, help="TREC run")
    parser.add_argument("--queries-number", type=int, default=10)
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--lightning-ir", help="Python interpreter that has lightning-ir", default=sys.executable)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--worker")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.worker:
        worker(arguments.worker, arguments.model, arguments.texts, device)
        return

    from benchmarks.models import forms, ranking_model
    from benchmarks.report import RESULTS, environment, save
    from benchmarks.texts import file_lists, generated_lists
    from benchmarks.workers import Race, run_race, spread
    from distill.errors import exit_on_bad_input
    from distill.models.locate import locate_model

    size = arguments.queries_number, arguments.passages
    lists = generated_lists(*size)
    if arguments.docs:
        lists = file_lists(arguments.docs, arguments.queries, arguments.run, *size)
    num_pairs = sum(len(passages) for _, passages in lists)
    with tempfile.TemporaryDirectory() as place, exit_on_bad_input(sweep=False):
        directory, commands, race = Path(place), {}, Race()
        texts = directory / "texts.json"
        texts.write_text(json.dumps(lists))
        model = ranking_model(arguments.model, directory)
        given = dict(contender.partition("=")[::2] for contender in arguments.contenders.split(","))
        paths = forms({name: locate_model(own) if own else model for name, own in given.items()}, directory, race)
        for name, path in paths.items():
            python = arguments.lightning_ir if name == "lightning-ir" else sys.executable
            options = ["--worker", name, "--model", path, "--texts", str(texts), "--device", str(device)]
            commands[name] = [python, "-m", "benchmarks.rerank", *options]
        run_race(commands, arguments.rounds, race)
    rows, reference = [], next(iter(race.answers.values()), [{}])[0].get("scores")
    for name, rounds in race.answers.items():
        rate = spread([num_pairs / answer["seconds"] for answer in rounds])
        flat = [
            torch.tensor([value for query in scores for value in query]) for scores in (rounds[0]["scores"], reference)
        ]
        row = {"name": name, "pairs_per_second": rate}
        row |= {key: spread([answer[key] for answer in rounds]) for key in ("seconds", "cpu_seconds")}
        rows.append(row | {"largest_difference": (flat[0] - flat[1]).abs().max().item()})
        low, high = rate["quartiles"]
        print(f"{name:24} {rate['median']:9.1f} pairs/s  ({low:.1f} to {high:.1f})")
    sizes = {"queries": len(lists), "pairs": num_pairs, "rounds": arguments.rounds}
    found = environment(device) | sizes | {"rows": rows, "left_out": race.left_out}
    print(save("rerank", found, arguments.results or RESULTS))
    race.end()


if __name__ == "__main__":
    main()
