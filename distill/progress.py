"""Show the progress of anything that takes more than a few seconds: a bar on a terminal, lines in a log.

    with Progress(total=num_steps, desc="training", unit="step") as bar:
        bar.update()

If standard error is not a terminal, the first line is logged after ten seconds, later ones less and less often, but at
least every five minutes: `training: 400 of 2,000 steps (20%), 3.1 steps a second, about 9 min left`.
"""

import io
import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)

FIRST_LINE = 10.0  # seconds until the first line of a log
RHYTHM = 1.5  # the next line is logged after this many times the time so far ...
LONGEST_PAUSE = 300.0  # ... but after five minutes at the latest


class Progress(tqdm):
    """tqdm with log lines in place of its bar if standard error is not a terminal.

    shown: False for short work, and for all ranks but the first. The other arguments are those of tqdm.
    """

    def __init__(self, *arguments, shown: bool = True, **options):
        """Show nothing yet."""
        self.in_log = shown and not sys.stderr.isatty()
        if self.in_log:  # with miniters set, tqdm starts no monitor thread, which a forked worker would lack
            options |= {"file": io.StringIO(), "mininterval": 1.0, "miniters": 1, "unit_scale": False}
        self.began, self.next_line = time.monotonic(), FIRST_LINE
        super().__init__(*arguments, disable=not shown, **options)

    def display(self, *arguments, **options) -> None:
        """Draw the bar, or log a line if one is due."""
        if not self.in_log:
            super().display(*arguments, **options)
            return
        elapsed = time.monotonic() - self.began
        if elapsed >= self.next_line and self.n != self.total:
            self.next_line = elapsed + min(elapsed * (RHYTHM - 1), LONGEST_PAUSE)
            log.info(
                "%s", progress_line(self.desc.removesuffix(": "), self.unit, self.n, self.initial, self.total, elapsed)
            )


def progress_line(what: str, unit: str, done: int, initial: int, total: int | None, elapsed: float) -> str:
    """Return the line to log: done of total units, units per second, and the time left.

    initial: units that an earlier process did. elapsed: seconds.
    """
    rate = (done - initial) / elapsed
    speed = f"{_amount(rate, unit)} a second"
    if not total:
        return f"{what}: {_amount(done, unit)}, {speed}"
    so_far = f"{done / 1e6:,.0f}" if unit == "B" else f"{done:,}"
    left = f", about {duration((total - done) / rate)} left" if rate else ""
    return f"{what}: {so_far} of {_amount(total, unit)} ({done / total:.0%}), {speed}{left}"


def _amount(number: float, unit: str) -> str:
    """Return a number with its unit, bytes ("B") in megabytes."""
    if unit == "B":
        return f"{number / 1e6:,.{0 if number >= 1e7 else 1}f} MB"
    digits = 0 if isinstance(number, int) or number >= 100 else 1
    return f"{number:,.{digits}f} {unit.strip().removesuffix('s')}s"


def duration(seconds: float) -> str:
    """Return a time in readable form: 8 s, 1 min 38 s, 12 min, 2 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 9.5:
        whole, rest = divmod(round(seconds), 60)
        return f"{whole} min {rest} s" if rest else f"{whole} min"
    if minutes < 59.5:
        return f"{minutes:.0f} min"
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
