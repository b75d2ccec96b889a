"""A training in the test's own process."""

from pathlib import Path

from tests.helpers.configuration import compose_config


def run_train(directory: Path, *overrides: str) -> dict[str, float]:
    """Train as `python train.py OVERRIDES` does, and return the results."""
    from train import train

    directory.mkdir(parents=True, exist_ok=True)
    return train(compose_config("train", *overrides), directory)
