"""Measure a command in a process of its own: seconds, CPU seconds and peak memory.

    used = measure([sys.executable, "-m", "distill", "cut", ...], cwd=ROOT, cache=directory)
    used.seconds, used.cpu_seconds, used.peak_bytes

CPU seconds are those of the command and of all processes that it has started and waited for; other work on the machine
does not lengthen them. The peak is that of the largest of these processes. It counts what is memory-mapped, which the
system takes back when it needs it; `own_peak_bytes`, of the command's first process, does not.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

# A process of its own, as small as can be: a child's peak is at least what its parent has
WATCH = """
import json, os, select, signal, sys, time
stop_after, file = int(sys.argv[1]), sys.argv[2]
reader, writer = os.pipe()
start, own, lines, at_line = time.monotonic(), 0, 0, None
sent = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
pid = os.posix_spawn(sys.argv[3], sys.argv[3:], os.environ, file_actions=sent)
os.close(writer)
while True:
    ready = select.select([reader], [], [], 0.02)[0]
    try:
        with open(f"/proc/{pid}/status") as status:
            own = max([own, *(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))])
        with open(f"/proc/{pid}/stat") as stat:
            ticks = stat.read().rpartition(")")[2].split()[11:13]
    except OSError:
        pass
    data = os.read(reader, 65536) if ready else b""
    if ready and not data:
        break
    os.write(1, data)
    lines += data.count(b"\\n")
    if stop_after and at_line is None and lines >= stop_after:
        at_line = time.monotonic() - start, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        os.kill(pid, signal.SIGKILL)
_, status, usage = os.wait4(pid, 0)
seconds, cpu = at_line or (time.monotonic() - start, usage.ru_utime + usage.ru_stime)
with open(file, "w") as found:
    json.dump({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": usage.ru_maxrss * 1024, "own_peak_bytes": own},
              found)
sys.exit(0 if at_line else os.waitstatus_to_exitcode(status) & 255)
"""


@dataclass(frozen=True)
class Used:
    """What a command has taken, and what it has printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    own_peak_bytes: int
    output: str = ""

    def numbers(self) -> dict[str, float]:
        """Return all but the output."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "output"}


def measure(
    command: Sequence[str], *, cwd: Path, cache: Path, fresh: bool = True, lines: int = 0, env: Mapping | None = None
) -> Used:
    """Run a command on the CPU, with a cache; raises SystemExit with the end of its output where it fails.

    fresh: empty the cache before. lines: stop the command once it has printed so many lines, and measure until then.
    """
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    variables = os.environ | {"DISTILL_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": ""} | (env or {})
    with tempfile.NamedTemporaryFile("r") as file:
        watched = [sys.executable, "-S", "-c", WATCH, str(lines), file.name, *command]
        done = subprocess.run(
            watched, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stdout[-2000:]}")
        return Used(**json.load(file), output=done.stdout)
