"""Progress of anything that takes more than a few seconds: a bar on a terminal, lines in a log.

    with Progress(total=num_steps, desc="training", unit="step") as bar:
        bar.update()

In a log that is no terminal, a line comes after ten seconds, then less and less often, at most once in five minutes:
`training: step 400 of 2000 (20%), 3.1 steps a second, about 9 min left`.
"""

import io
import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)

FIRST_LINE = 10.0  # seconds until the first line of a log
RHYTHM = 1.5  # the next line comes after so many times the time until now ...
LONGEST_PAUSE = 300.0  # ... but after five minutes at the latest


class Progress(tqdm):
    """tqdm with log lines in place of its bar where standard error is no terminal.

    shown: False for short work, and for all ranks but the first. The rest is as in tqdm.
    """

    def __init__(self, *arguments, shown: bool = True, **options):
        """Show nothing yet."""
        self.in_log = shown and not sys.stderr.isatty()
        if self.in_log:  # miniters: tqdm starts no thread of its own then, which a forked worker would lack
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
    """Return the line of a log: done of total units, those a second, and the time that is left.

    initial: units that were done before, in another process. elapsed: seconds.
    """
    rate = (done - initial) / elapsed
    speed = f"{rate:,.{0 if rate >= 100 else 1}f} {unit.strip()}s a second"
    if not total:
        return f"{what}: {done:,} {unit.strip()}s, {speed}"
    left = f", about {duration((total - done) / rate)} left" if rate else ""
    return f"{what}: {unit.strip()} {done:,} of {total:,} ({done / total:.0%}), {speed}{left}"


def duration(seconds: float) -> str:
    """Return a time as people say it: 8 s, 1 min 38 s, 12 min, 2 h 5 min."""
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


def silent(long: bool) -> bool | None:
    """Value for tqdm's `disable`: True for short work; None (tqdm's word for "unless a terminal") for long work."""
    return None if long else True
