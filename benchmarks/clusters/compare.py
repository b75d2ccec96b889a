"""Whether two trainings took the same steps: the loss of each, bit for bit, and the weights of their models.

    python -m benchmarks.clusters.compare UNBROKEN RESUMED

Prints one line; exit status 1 where they differ.
"""

import hashlib
import json
import sys
from pathlib import Path


def losses(directory: Path) -> dict[int, float]:
    """Return the loss of each logged step."""
    rows = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def digest(directory: Path) -> str:
    """Return a hash of the model's weights."""
    return hashlib.sha256((directory / "model" / "model.safetensors").read_bytes()).hexdigest()


def main(unbroken: Path, resumed: Path) -> bool:
    """Print how the two compare; return whether they are equal."""
    expected, found = losses(unbroken), losses(resumed)
    same = sum(found.get(step) == loss for step, loss in expected.items())
    largest = max((abs(found.get(step, float("inf")) - loss) for step, loss in expected.items()), default=0.0)
    weights = digest(unbroken) == digest(resumed)
    print(
        f"{same} of {len(expected)} losses are equal bit for bit (largest difference {largest:.1e}), "
        f"weights {'equal' if weights else 'differ'}"
    )
    return weights and same == len(expected) == len(found)


if __name__ == "__main__":
    sys.exit(not main(*map(Path, sys.argv[1:3])))
