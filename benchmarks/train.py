"""Measure RankNet training steps on lists of passages: pairs per second and peak memory, against two other libraries.

    python -m benchmarks.train --model DIR                                   # generated texts, MS MARCO's lengths
    python -m benchmarks.train --model DIR --docs docs.tsv --queries queries.tsv --run bm25.run --passages 50
    python -m benchmarks.train --model DIR --lightning-ir PYTHON             # the interpreter that has it
    python -m benchmarks.train --model DIR --contenders packed --depths 10,50,100,1000 --max-tokens 8192

DIR is what train.py starts with: a directory, a packaged model's name or a Hub id. A contender that fails is left out,
with the reason in one line; the exit status is 1 if it is one of ours.

All contenders do the same step in alternating rounds: `--lists` lists of `--passages` passages, forward, RankNet,
backward, AdamW. As in normal use, the other two libraries tokenise texts in the step, while ours tokenises beforehand.
"-all" (packed-all) makes the last layer compute the states of all tokens. sentence-transformers runs with its default
mini_batch_size and, as "-batched", with all pairs at once. Peak memory is the process's (on CUDA, the allocator's). MFU
is computed by distill/training/flops.py, on real tokens.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

CONTENDERS = (
    "packed",
    "packed-bf16",
    "padded",
    "sentence-transformers",
    "sentence-transformers-batched",
    "lightning-ir",
)


def stepper(name: str, model: str, lists, device: torch.device, max_tokens: int) -> tuple[Callable[[], None], dict]:
    """Return a contender's function for one step, and the step's tokens and operations if known."""
    ranks = [torch.arange(1.0, len(passages) + 1) for _, passages in lists]
    if name.startswith("sentence-transformers"):
        from sentence_transformers import CrossEncoder
        from sentence_transformers.cross_encoder.losses import RankNetLoss

        theirs = CrossEncoder(model, device=str(device), trust_remote_code=False)
        loss = RankNetLoss(theirs, mini_batch_size=-1 if name.endswith("batched") else None)
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-5)
        inputs = [[query for query, _ in lists], [passages for _, passages in lists]]
        theirs.train()

        def step() -> None:
            loss(inputs, [-of_list.to(device) for of_list in ranks]).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step, {}
    if name == "lightning-ir":
        from lightning_ir import CrossEncoderModule, RankNet, TrainBatch

        module = CrossEncoderModule(model_name_or_path=model, loss_functions=[RankNet()])
        module = module.train().to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
        ids = [str(number) for number in range(len(lists))]

        def step() -> None:
            targets = -torch.stack(ranks).to(device)
            queries, docs = [query for query, _ in lists], [passages for _, passages in lists]
            batch = TrainBatch(queries=queries, docs=docs, query_ids=ids, targets=targets)
            sum(module._compute_losses(batch, module.forward(batch))).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step, {}
    return _ours(name, model, lists, ranks, device, max_tokens)


def _ours(name: str, model: str, lists, ranks, device: torch.device, max_tokens: int):
    from distill.data.batch import make_batch, split_lists
    from distill.losses.objective import Objective
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.pair_reading import read_texts
    from distill.training.backward import backward
    from distill.training.flops import FlopCounter
    from distill.training.row_gradients import add_gradients_by_row

    layout, *options = name.split("-")
    ours = CrossEncoder.from_backbone(model, layout=layout).train().to(device)
    if "all" in options:  # compute the states of all tokens in the last layer too
        for layer in ours.backbone.encoder.layer:
            vars(layer).pop("forward", None)
        ours.first_only = False
    if "compiled" in options:
        ours.backbone.compile(dynamic=True)
    else:
        add_gradients_by_row(ours)
    precision = torch.bfloat16 if "bf16" in options else torch.float32
    optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-5, fused=True)  # as train.py does
    pairs = []
    for query, passages in lists:
        (tokens,) = read_texts(ours.tokenizer, [query], 32)
        pairs.append([ours.template.join(tokens, passage) for passage in read_texts(ours.tokenizer, passages, 256)])
    batch = make_batch([query for query, _ in lists], pairs, {"rank": ranks}).to(device)
    objective = Objective({"name": "ranknet", "target": "rank", "reduction": "mean"})

    def step() -> None:
        num_terms = objective.count_terms(batch.targets, batch.mask)
        for micro_batch in split_lists(batch, max_tokens):
            backward(ours, micro_batch, objective, num_terms, [1.0], max_tokens, precision)
        optimizer.step()
        optimizer.zero_grad()

    return step, {"tokens": len(batch.tokens), "flops": FlopCounter(ours)(batch.lengths)}


def worker(arguments, device: torch.device) -> None:
    """Do steps on the texts of a file, once for each line read."""
    from benchmarks.workers import serve

    def make() -> Callable[[], dict]:
        lists = json.loads(arguments.texts.read_text())
        step, known = stepper(arguments.worker, arguments.model, lists, device, arguments.max_tokens)

        def work() -> dict:
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / arguments.steps
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if device.type == "cuda":
                peak = torch.cuda.max_memory_allocated()
            pairs = sum(len(passages) for _, passages in lists)
            return {"seconds": seconds, "peak_bytes": peak, "pairs": pairs} | known

        return work

    serve(make)


def main() -> None:
    """Time the contenders in turn, print a table and write a JSON file."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="directory, packaged model or Hub id of what train.py starts with"
    )
    parser.add_argument("--docs", type=Path, help="TSV; without it, texts are generated")
    parser.add_argument("--queries", type=Path, help="TSV")
    parser.add_argument("--run", type=Path, help="TREC run")
    parser.add_argument("--lists", type=int, default=1, help="per step")
    parser.add_argument("--passages", type=int, default=50, help="per list")
    parser.add_argument("--depths", help="several numbers of passages, in place of --passages")
    parser.add_argument("--steps", type=int, default=1, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=16384, help="train.max_tokens of ours")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--lightning-ir", help="Python interpreter that has lightning-ir", default=sys.executable)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--worker", help="a contender; -bf16, -compiled and -all may follow packed and padded")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.worker:
        worker(arguments, device)
        return

    from benchmarks.models import training_model
    from benchmarks.report import RESULTS, environment, save
    from benchmarks.workers import Race
    from distill.errors import exit_on_bad_input

    rows, left_out = [], {}
    with tempfile.TemporaryDirectory() as place, exit_on_bad_input(sweep=False):
        directory = Path(place)
        model = training_model(arguments.model, directory)
        for depth in map(int, (arguments.depths or str(arguments.passages)).split(",")):
            race = race_at(arguments, depth, model, directory)
            rows += describe(arguments, depth, race, device)
            left_out |= race.left_out
    result = environment(device) | {"rounds": arguments.rounds, "max_tokens": arguments.max_tokens, "rows": rows}
    print(save("train", result | {"left_out": left_out}, arguments.results or RESULTS))
    Race(race.answers, left_out).end()


def race_at(arguments, depth: int, model: str, directory: Path):
    """Let the contenders do their steps on lists of so many passages."""
    from benchmarks.models import forms
    from benchmarks.texts import file_lists, generated_lists
    from benchmarks.workers import Race, run_race

    if arguments.docs:
        lists = file_lists(arguments.docs, arguments.queries, arguments.run, arguments.lists, depth)
    else:
        lists = generated_lists(arguments.lists, depth)
    texts, commands, race = directory / "texts.json", {}, Race()
    texts.write_text(json.dumps(lists))
    for name, path in forms(dict.fromkeys(arguments.contenders.split(","), model), directory, race).items():
        python = arguments.lightning_ir if name == "lightning-ir" else sys.executable
        options = ["--model", path, "--texts", str(texts), "--device", arguments.device]
        options += ["--max-tokens", str(arguments.max_tokens), "--steps", str(arguments.steps)]
        commands[name] = [python, "-m", "benchmarks.train", "--worker", name, *options]
    return run_race(commands, arguments.rounds, race)


def describe(arguments, depth: int, race, device: torch.device) -> list[dict]:
    """Return the rows of a race, and print them."""
    from benchmarks.workers import spread
    from distill.training.flops import peak_flops

    rows = []
    for name, rounds in race.answers.items():
        rate = spread([rounds[0]["pairs"] / answer["seconds"] for answer in rounds])
        row = {"name": name, "lists": arguments.lists, "passages": depth, "pairs_per_second": rate}
        row["peak_bytes"] = max(answer["peak_bytes"] for answer in rounds)
        seconds = rounds[0]["pairs"] / rate["median"]
        text = f"{name:30} {depth:5} {rate['median']:9.1f} pairs/s {row['peak_bytes'] / 1e9:7.2f} GB"
        if "flops" in rounds[0]:
            row["tokens_per_second"] = rounds[0]["tokens"] / seconds
            row["flops_per_second"] = rounds[0]["flops"] / seconds
            text += f" {row['tokens_per_second']:10.0f} tokens/s {row['flops_per_second'] / 1e12:8.3f} TFLOP/s"
            if peak_flops(device):
                row["mfu"] = row["flops_per_second"] / peak_flops(device)
                text += f" {row['mfu']:6.1%} MFU"
        rows.append(row)
        print(text)
    return rows


if __name__ == "__main__":
    main()
