"""Kill annotations with SIGKILL at any time, resume or abandon them, annotate more queries next month, count requests.

    python -m tests.stress.paid rounds=20 concurrency=8

The server counts how often it gets each request. What is in flight at a kill is asked again, so a kill costs at most
`concurrency` requests; nothing else is asked twice. Exit status 1 if it is.
"""

import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx  # noqa: F401 - imported before the forks
from omegaconf import DictConfig, OmegaConf

from distill.teachers.asking import Lists, ask_llm
from tests.helpers.chat_server import Server
from tests.helpers.configuration import compose_config


@dataclass
class Paid:
    """What a round has cost."""

    distinct: int  # requests
    repeated: int  # sent again
    kills: int


def lists_of(numbers: range, seed: int) -> Lists:
    """Return lists of ten passages that no other seed has."""
    texts = {n: [f"passage {seed} {n} {place} {hash((n, place)) % 97}" for place in range(10)] for n in numbers}
    return {f"q{n}": (f"question {seed} {n}", passages) for n, passages in texts.items()}


def configure(server: Server, place: Path, concurrency: int) -> DictConfig:
    """Return the configuration of the annotations."""
    llm = {"base_url": server.url, "model": "judge", "concurrency": concurrency}
    overrides = ["passages=-", "queries=-", "run=-", "window=4", "stride=2", f"journal={place / 'shared.jsonl'}"]
    cfg = compose_config("annotate", *overrides, *(f"teacher.llm.{key}={value}" for key, value in llm.items()))
    OmegaConf.resolve(cfg)
    return cfg


def annotate(cfg: DictConfig, lists: Lists, directory: Path) -> int:
    """Annotate in a child process; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        ask_llm(cfg, directory, lists)
        os._exit(0)
    finally:
        os._exit(1)


def play(seed: int, concurrency: int, place: Path) -> Paid:
    """Annotate one month and the next, with kills at random times; every other first month is abandoned at a kill."""
    generator, server, kills = random.Random(seed), Server(delay=0.1), 0
    server.server.handle_error = lambda *arguments: None  # of connections that a kill cuts
    cfg = configure(server, place, concurrency)
    months = {"one": lists_of(range(10), seed), "two": lists_of(range(20), seed)}
    for name, lists in months.items():
        while True:
            pid = annotate(cfg, lists, place / name)
            ends = time.monotonic() + generator.uniform(0.05, 0.6)
            while time.monotonic() < ends and not (done := os.waitpid(pid, os.WNOHANG))[0]:
                time.sleep(0.005)
            if done[0]:
                assert done[1] == 0, "it failed"
                break
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
            if name == "one" and seed % 2:
                break  # it is never resumed
    server.server.shutdown()
    return Paid(len(server.asked), sum(server.asked.values()) - len(server.asked), kills)


def main(arguments: list[str]) -> int:
    """Play the rounds and print what each has cost; return the exit status."""
    options = {"rounds": "10", "concurrency": "8"} | dict(argument.split("=") for argument in arguments)
    concurrency, is_bad = int(options["concurrency"]), False
    for seed in range(int(options["rounds"])):
        with tempfile.TemporaryDirectory() as directory:
            paid = play(seed, concurrency, Path(directory))
        is_bad |= paid.repeated > paid.kills * concurrency or paid.distinct != 80
        print(f"{paid.distinct} requests, {paid.repeated} of them in flight at one of {paid.kills} kills", flush=True)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
