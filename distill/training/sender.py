"""Send metrics to W&B from a thread, so that a service or a disk that is slow never holds a training step.

    sender = Sender(run)
    sender.send({"train/loss": 0.4}, step=10)
    sender.flush(5.0)                           # before a checkpoint; False if W&B does not take them in time

W&B hands each line to a process of its own, and waits for it once that is some hundred lines behind.
"""

import contextlib
import logging
import queue
import threading
from typing import Any

log = logging.getLogger(__name__)

WAITING = 2000  # lines; further ones are left out of W&B, and are in metrics.jsonl
Line = tuple[dict[str, float], int]


class Sender:
    """A thread that logs to a W&B run, in order."""

    def __init__(self, run: Any):
        """Take a run; nobody else may log to it before `flush` has returned True."""
        self.run = run
        self.lines: queue.Queue[Line | None] = queue.Queue(WAITING)  # None: the end
        self.num_left_out, self.is_stuck, self.has_failed = 0, False, False
        threading.Thread(target=self._run, daemon=True, name="wandb sender").start()

    def send(self, metrics: dict[str, float], step: int) -> None:
        """Send the metrics of a step soon; if too many wait already, leave them out, and warn at the first."""
        try:
            self.lines.put_nowait((metrics, step))
        except queue.Full:
            if not self.num_left_out:
                log.warning(
                    "wandb: does not keep up, so step %d and others are left out there: metrics.jsonl has them all",
                    step,
                )
            self.num_left_out += 1

    def flush(self, seconds: float, *, at_end: bool = False) -> bool:
        """Wait until W&B has taken everything, but no longer than so many seconds; return whether it has.

        If it was too slow the last time, and has taken nothing since, do not wait at all, unless at the end.
        """
        with self.lines.all_tasks_done:
            if at_end or not self.is_stuck:
                self.lines.all_tasks_done.wait_for(lambda: not self.lines.unfinished_tasks, seconds)
            self.is_stuck = bool(self.lines.unfinished_tasks)
            return not self.is_stuck

    def close(self) -> None:
        """Let the thread end, after `flush`."""
        with contextlib.suppress(queue.Full):
            self.lines.put_nowait(None)

    def _run(self) -> None:
        while (line := self.lines.get()) is not None:
            try:
                if not self.has_failed:
                    self.run.log(line[0], step=line[1])
            except Exception as error:  # of many kinds; training must not stop for any of them
                self.has_failed = True
                reason = " ".join(str(error).split())[:200]
                log.warning("wandb: cannot log any more (%s): metrics.jsonl has what is missing there", reason)
            self.is_stuck = False
            self.lines.task_done()
