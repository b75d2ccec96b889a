"""How many cores this process may use, and whether it gets them.

    fit_threads()                   # no more threads than cores
    watch = CoreWatch(device)
    watch.look()                    # after each piece of work: warns once if other processes take the cores

Threads that share a core with a busy process wait for one another at the end of every operation: two of them can take
ten times as long as one.
"""

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from distill.errors import InputError

if TYPE_CHECKING:
    import torch  # imported where it is used: some commands count cores without it

log = logging.getLogger(__name__)

Item = TypeVar("Item")

CGROUP = Path("/sys/fs/cgroup")
SETTING = "OMP_NUM_THREADS"
LONG_ENOUGH = 10.0  # seconds of work, after which the share of a core is judged
ENOUGH = 0.75  # share of a core that a thread gets on a free machine, with a margin for waits on files


def rank_variable(name: str, default: int | None = None) -> int:
    """Return a whole number that torchrun gives each process in its environment.

    Raises InputError for another value, and for none without a default.
    """
    text = os.environ.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit()):
        what = f"{name}={text} is no whole number" if text else f"{name} is not set, though WORLD_SIZE is"
        raise InputError(f"{what}: start several processes with torchrun, or unset WORLD_SIZE")
    return int(text)


def fit_threads() -> None:
    """Set PyTorch's threads to the cores that this process may use, unless OMP_NUM_THREADS is set.

    PyTorch counts the cores that the process is bound to. A container's quota of CPU time is not among what it sees.
    """
    import torch

    if cpu_quota(CGROUP) is None or os.environ.get(SETTING):
        return
    num_threads = usable_cores()
    if num_threads < torch.get_num_threads():
        torch.set_num_threads(num_threads)


def usable_cores() -> int:
    """Return how many cores this process may use: those that it is bound to, within a container's quota."""
    bound, quota = len(os.sched_getaffinity(0)), cpu_quota(CGROUP)
    return bound if quota is None else max(1, min(bound, math.floor(quota)))


def cpu_quota(directory: Path) -> float | None:
    """Return the cores' worth of CPU time that a container may use, None without a limit.

    directory: where control groups are mounted, of version 2 (cpu.max) or 1 (cpu/cpu.cfs_quota_us).
    """
    try:
        quota, period = (directory / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((directory / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # `max`: no limit
        return None
    return cores if cores > 0 else None  # -1 in version 1: no limit


class CoreWatch:
    """Compares CPU time with wall time over the first seconds of work on the CPU, and warns once in a process."""

    warned = False  # in this process

    def __init__(self, device: "torch.device"):
        """Start the clocks, unless the work is done by a GPU."""
        self.wanted = device.type == "cpu" and not CoreWatch.warned
        self.restart()

    def restart(self) -> None:
        """Leave out what has happened since: a validation, a checkpoint."""
        self.wall, self.busy = time.perf_counter(), _busy()

    def without_waits(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; leave out the time that each one is waited for, as for what another thread prepares."""
        rest = iter(items)
        while True:
            wall, busy = time.perf_counter(), _busy()
            try:
                item = next(rest)
            except StopIteration:
                return
            self.wall += time.perf_counter() - wall
            self.busy += _busy() - busy
            yield item

    def look(self) -> None:
        """After ten seconds of work, say so if this thread did not have a core most of the time."""
        seconds = time.perf_counter() - self.wall
        if not self.wanted or seconds < LONG_ENOUGH:
            return
        self.wanted = False
        share = (_busy() - self.busy) / seconds
        if share < ENOUGH:
            import torch

            CoreWatch.warned = True
            log.warning("%s", contention(share, torch.get_num_threads()))


def _busy() -> float:
    """Return the CPU seconds of this thread; of the process where its other threads share the core with this one."""
    import torch

    return time.process_time() if torch.get_num_threads() == 1 else time.thread_time()


def contention(share: float, num_threads: int) -> str:
    """Return the warning for a thread that had a core for only a share of the time."""
    had = f"other processes use the cores: this run had {share:.0%} of one for each thread"
    if num_threads == 1:
        return f"{had}, and takes that much longer"
    return f"{had}, and its {num_threads} threads wait for one another: stop the others, or set {SETTING}=1"
