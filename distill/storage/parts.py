"""Parts of something large, each written whole or not at all: a stopped build resumes at the next part.

    if not is_whole(directory / "part-007"):
        write_part(directory / "part-007", write)               # write(path) fills a directory
    np.save(path / "rows.npy", rows); load(path, "rows")        # memory-mapped

Each has checksums of its files, so that a part that a disk has damaged can be made again by itself.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distill.storage.checksums import damage, write_checksums
from distill.storage.writing import write_whole_directory


def write_part(directory: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a directory, add checksums, and put it in its place; raises DiskError."""

    def write_and_sum(new: Path) -> None:
        write(new)
        write_checksums(new)

    write_whole_directory(directory, write_and_sum)


def is_whole(directory: Path) -> bool:
    """Whether a part is there and not damaged; its files are read once in each process, unless they change."""
    return directory.is_dir() and damage(directory) is None


def save_arrays(directory: Path, **arrays: np.ndarray) -> None:
    """Write arrays, each into a file of its name."""
    for name, values in arrays.items():
        np.save(directory / f"{name}.npy", values)


def load_arrays(directory: Path, *names: str) -> list[np.ndarray]:
    """Return arrays of a directory, memory-mapped: what is read of them is read from the disk when it is needed."""
    return [np.load(directory / f"{name}.npy", mmap_mode="r") for name in names]
