"""Checkpoints that are whole or absent, and the random state that makes a resumed run exact.

save_checkpoint(directory / "last.pt", state)
state = load_checkpoint(directory / "last.pt")
"""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder

# What damaged bytes make torch.load raise
DAMAGE = (OSError, EOFError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError)


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
    """Read a checkpoint to the CPU; only tensors and plain values are unpickled.

    Raises InputError for a file that is cut or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        other = path.with_name("best.pt" if path.name == "last.pt" else "last.pt")
        raise InputError(
            f"{path}: is damaged ({reason}): put a copy there, such as {other.name}, or train anew"
        ) from None


def mend_best(state: dict[str, Any], last: Path, best: Path, model: CrossEncoder, directory: Path) -> None:
    """Make best.pt and the saved model those of the best step, where a run was killed between their renames.

    state: what last.pt holds. model: of its architecture; its weights are overwritten. Remains are removed.
    """
    if not state["best_step"]:
        return  # nothing was validated, or killed before: both are written at the end, or by the next improvement
    if state["best_step"] == state["step"] and not (best.is_file() and best.samefile(last)):
        link_checkpoint(last, best)
    new, old = (directory.with_name(f".{directory.name}.{part}") for part in ("new", "old"))
    best_state = load_checkpoint(best) if best.is_file() else {"step": None}
    if best_state["step"] == state["best_step"]:
        if not _holds(directory, best_state["model"]):
            model.load_state_dict(best_state["model"])
            model.save_pretrained(directory)
    elif not directory.exists():
        found = next((path for path in (new, old) if _holds(path)), None)
        if found is None:
            raise InputError(f"{directory}: is missing, and {best} is not of step {state['best_step']}: train anew")
        os.rename(found, directory)
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    for path in (last, best):
        path.with_suffix(".new").unlink(missing_ok=True)


def _holds(directory: Path, weights: dict[str, torch.Tensor] | None = None) -> bool:
    """Whether a directory holds a whole model, with the given weights where they are given."""
    try:
        found = CrossEncoder.from_pretrained(str(directory)).state_dict()
    except InputError:
        return False
    return weights is None or all(torch.equal(found[name], weight) for name, weight in weights.items())


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
