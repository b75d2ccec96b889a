"""Measure what two training steps take on the CPU with LoRA, frozen weights and gradient checkpointing.

    python -m benchmarks.train_memory
    python -m benchmarks.train_memory --kinds decoder --options whole,lora-checkpointing

Each is measured in a process of its own, on one list of 8 pairs of 256 tokens, in float32: peak resident memory, about
450 MB of which are the libraries, and CPU seconds of both steps. Weights are random; the sizes are those of MiniLM-L12,
and of a small Qwen3.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoConfig

from benchmarks.report import RESULTS, ROOT, environment, save
from benchmarks.workers import check_known
from distill.data.batch import make_batch
from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.models.freezing import freeze
from distill.models.lora import add_adapters
from distill.models.parts import load_tokenizer
from distill.training.backward import backward
from distill.training.recompute import recompute_activations

OPTIONS = ("whole", "checkpointing", "lora", "lora-checkpointing", "freeze")
SIZES = {
    "encoder": ("bert", {"vocab_size": 30522, "hidden_size": 384, "num_attention_heads": 12}),
    "decoder": ("qwen3", {"vocab_size": 30_000, "hidden_size": 512, "num_attention_heads": 8, "head_dim": 64}
                | {"num_key_value_heads": 4}),
}  # fmt: skip
ALL = {"num_hidden_layers": 12, "intermediate_size": 1536, "max_position_embeddings": 512}
NUM_PAIRS, NUM_STEPS, RANK = 8, 2, 16


def make_model(kind: str) -> CrossEncoder:
    """Return a model with random weights that reads pairs of 256 tokens."""
    family, sizes = SIZES[kind]
    with tempfile.TemporaryDirectory() as directory:
        AutoConfig.for_model(family, **ALL, **sizes).save_pretrained(directory)
        load_tokenizer(ROOT / "sample" / "backbone").save_pretrained(directory)
        return CrossEncoder.from_backbone(directory, weights="random", query_length=32, passage_length=221)


def measure(kind: str, option: str) -> dict:
    """Return trained weights in millions, peak memory in MB, and CPU seconds of this process's two steps."""
    torch.manual_seed(0)
    model = make_model(kind)
    if option.startswith("lora"):
        add_adapters(model, rank=RANK, alpha=32.0, dropout=0.0)
    if option == "freeze":
        freeze(model, embeddings=True, layers=6)
    if option.endswith("checkpointing"):
        recompute_activations(model.backbone)
    text = (ROOT / "sample" / "passages.tsv").read_text()[:4000]
    batch = make_batch(["q"], [model.encode([text] * NUM_PAIRS, [text] * NUM_PAIRS)])
    batch.targets = {"rank": torch.arange(1.0, NUM_PAIRS + 1)[None]}
    objective = Objective({"name": "ranknet", "target": "rank", "reduction": "sum"})
    num_terms = objective.count_terms(batch.targets, batch.mask)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, start = torch.optim.AdamW(trained, lr=1e-5), time.process_time()
    for _ in range(NUM_STEPS):
        backward(model.train(), batch, objective, num_terms, [1.0], 16384)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "trained_millions": sum(parameter.numel() for parameter in trained) / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    """Measure each option in a new process, print a line for each, and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(SIZES))
    parser.add_argument("--options", default=",".join(OPTIONS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child)))
        return
    check_known(parser, "kind", arguments.kinds.split(","), SIZES)
    check_known(parser, "option", arguments.options.split(","), OPTIONS)
    rows = []
    for kind in arguments.kinds.split(","):
        for option in arguments.options.split(","):
            call = [sys.executable, "-m", "benchmarks.train_memory", "--child", kind, option]
            done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
            rows.append({"kind": kind, "option": option} | json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(save("train-memory", environment(torch.device("cpu")) | {"rows": rows}, arguments.results))


if __name__ == "__main__":
    main()
