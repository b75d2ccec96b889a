"""Checkpoints that are whole or absent, and the random state that makes a resumed run exact.

save_checkpoint(directory / "last.pt", state)
state = load_checkpoint(directory / "last.pt")
"""

import os
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint aside, flush it to disk, then rename it: killed halfway, it leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    with open(aside, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def link_checkpoint(path: Path, link: Path) -> None:
    """Give a checkpoint a second name, which keeps it when the first is written anew; costs no space."""
    aside = link.with_suffix(".new")
    aside.unlink(missing_ok=True)
    os.link(path, aside)
    os.replace(aside, link)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; only tensors and plain values are unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)


def random_state() -> dict[str, torch.Tensor]:
    """Return the state of PyTorch's random generators, which dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def seed_of_rank(seed: int, rank: int) -> int:
    """Return a seed of its own for each rank's dropout; the first keeps the run's."""
    return seed + 1_000_003 * rank


def restore_random_state(states: list[dict[str, torch.Tensor]], rank: int, size: int, seed: int) -> None:
    """Set the random generators to the state that this rank has saved.

    states: of all ranks that there were. On another number of ranks, each starts its generators anew from the seed.
    """
    if len(states) != size:
        torch.manual_seed(seed_of_rank(seed, rank))
        return
    state = states[rank]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
