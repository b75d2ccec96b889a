"""Kill this process at a file-system event, or let it write no large file.

install({"below": DIR, "kill_at": 7})           # SIGKILL before the seventh event
install({"below": DIR, "count_to": FILE})       # only count
install({"largest": 8192})                      # no file can grow beyond so many bytes: EFBIG, much as a full disk

An event is a call that changes files below the directory: open for writing, rename, remove, mkdir, rmdir, link,
truncate, fsync and os.write; the last counts twice, the second time when half of the data is written. Python reports
the others to audit hooks. What libraries write without Python is not counted: it goes to a temporary file or
directory, whose creation and renaming are.
"""

import os
import resource
import signal
import sys

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Events:
    """Counts the events of this process, and kills it before one of them."""

    def __init__(self, below: str, kill_at: int = 0):
        """Start at none; install() begins."""
        self.below, self.kill_at, self.count = os.path.realpath(below) + os.sep, kill_at, 0
        self.write, self.fsync = os.write, os.fsync

    def install(self) -> None:
        """Begin; it cannot be ended in this process."""
        sys.addaudithook(self.audit)
        os.write, os.fsync = self.patched_write, self.patched_fsync
        os.register_at_fork(after_in_child=self.restart)

    def restart(self) -> None:
        self.count = 0

    def note(self, path) -> bool:
        """Count an event on a path, and die if it is the one; return whether the next one would be."""
        if isinstance(path, str | bytes | os.PathLike):
            name = os.path.join(os.getcwd(), os.fsdecode(path))
            if name.startswith(self.below):
                self.count += 1
                if self.count == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return self.count + 1 == self.kill_at
        return False

    def audit(self, event: str, arguments: tuple) -> None:
        if event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITES):
            self.note(arguments[0])

    def patched_write(self, number: int, data) -> int:
        path = os.readlink(f"/proc/self/fd/{number}")
        if self.note(path):
            self.write(number, memoryview(data)[: len(data) // 2])
        self.note(path)
        return self.write(number, data)

    def patched_fsync(self, number: int) -> None:
        self.note(os.readlink(f"/proc/self/fd/{number}"))
        self.fsync(number)


def install(options: dict) -> Events:
    """Prepare this process; `large`: bytes from which a source is read as a large file, with a cache."""
    events = Events(options["below"], options.get("kill_at", 0))
    if "large" in options:
        import distill.sources.opening

        distill.sources.opening.LARGE_FILE = options["large"]
    if "largest" in options:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["largest"], resource.RLIM_INFINITY))
    if "kill_at" in options or "count_to" in options:
        events.install()
    return events
