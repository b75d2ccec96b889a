"""Measure the loss's share of a training step: its forward and backward compared with an encoder's.

    python -m benchmarks.loss_share                                  # lists of 100 passages of 90 tokens
    python -m benchmarks.loss_share --size base --lists 8 --device cuda

The encoder is a BERT of the given size with random weights, which take the same arithmetic as trained ones. It runs in
bfloat16 autocast on CUDA and in float32 elsewhere, on whole lists without padding, and its weights are not updated.
"""

import argparse
import json

import torch
from transformers import BertConfig, BertModel

from benchmarks.losses import ROUNDS, _time, spread_ms
from benchmarks.report import environment
from distill.losses import LOSSES

SIZES = {  # layers, hidden size, heads, intermediate size
    "minilm-l6": (6, 384, 12, 1536),
    "base": (12, 768, 12, 3072),
}


def main() -> None:
    """Time both parts in turn and print their shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=SIZES, default="minilm-l6")
    parser.add_argument("--lists", type=int, default=1)
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=90, help="of each query-passage pair")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    layers, hidden, heads, intermediate = SIZES[arguments.size]
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    encoder = BertModel(BertConfig(**sizes, intermediate_size=intermediate), add_pooling_layer=False).to(device)
    shape = arguments.lists, arguments.passages
    tokens = torch.randint(1000, 30000, (shape[0] * shape[1], arguments.tokens), device=device)
    scores = torch.randn(shape, device=device, requires_grad=True)
    ranks = torch.stack([torch.randperm(shape[1], device=device) for _ in range(shape[0])]) + 1.0
    mask = ranks > 0

    def encode() -> None:
        encoder.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            state = encoder(tokens).last_hidden_state[:, 0]
        state.float().sum().backward()

    def lose(name: str) -> None:
        scores.grad = None
        LOSSES[name](scores, ranks, mask).backward()

    parts = {"encoder": encode, "ranknet": lambda: lose("ranknet"), "adrmse": lambda: lose("adrmse")}
    times = {name: [] for name in parts}
    for round_number in range(arguments.rounds + 1):
        for name, step in parts.items():
            seconds = _time(step, 1 if name == "encoder" else 10, device)
            if round_number:  # the first warms up
                times[name].append(seconds)
    result = environment(device) | {name: spread_ms(values) for name, values in times.items()}
    encoder_ms = result["encoder"]["median"]
    for name in ("ranknet", "adrmse"):
        result[name]["share"] = result[name]["median"] / (result[name]["median"] + encoder_ms)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
