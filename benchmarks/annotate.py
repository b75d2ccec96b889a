"""Measure annotation against a local endpoint that answers after a fixed time: requests per second, and peak memory.

    python -m benchmarks.annotate                                  # 50 ms an answer, concurrency 1, 8 and 64
    python -m benchmarks.annotate --method pointwise --queries 20  # fewer lists than requests in flight
    python -m benchmarks.annotate --memory 500,5000                # peak memory with so many queries x 100 passages
    taskset -c 0 python -m benchmarks.annotate --core 1            # the client on one core, the endpoint on another

The limit of requests per second is concurrency / latency. The endpoint is a process of its own; if both share one core,
that core is a limit, too: `cpu_ms` is what a request takes of the annotation's own process.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.composed import compose_config
from benchmarks.processes import measure
from benchmarks.report import ROOT, environment, save

WORDS = "bees find their way home by the sun and by what they have seen of the land on earlier flights".split()


class Endpoint(asyncio.Protocol):
    """A connection of an OpenAI-compatible endpoint; each request is answered after `latency` seconds."""

    latency = 0.05

    def connection_made(self, transport) -> None:
        """Keep the connection."""
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer later, once a request is complete."""
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        size = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not found or size is None or len(body) < int(size[1]):
            return
        self.received = b""
        asyncio.get_running_loop().call_later(self.latency, self.reply, body)

    def reply(self, body: bytes) -> None:
        """Rank the passages backwards, or say yes."""
        numbers = range(body.count(b"\\n["), 0, -1)
        choice: dict = {"message": {"content": " > ".join(f"[{number}]" for number in numbers)}}
        if b'"logprobs"' in body:
            tokens = [{"token": "Yes", "logprob": -(hash(body) % 1000) / 1e3}, {"token": "No", "logprob": -3}]
            choice = {"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": tokens}]}}
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": 80}
        payload = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload)


async def serve(latency: float) -> None:
    """Print the port, and serve until stdin closes."""
    Endpoint.latency = latency
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Endpoint, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def endpoint(latency: float, core: int | None = None) -> Iterator[str]:
    """Run the endpoint in a process of its own, on a core if one is given; yield its address."""
    command = [sys.executable, "-m", "benchmarks.annotate", "--serve", str(latency)]
    if core is not None:
        command += ["--core", str(core)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait()


def text(number: int, words: int) -> str:
    """Return a passage that no other number has."""
    return " ".join([f"passage {number}", *(WORDS[(number + place) % len(WORDS)] for place in range(words))])


def overrides(url: str, args: argparse.Namespace, concurrency: int, place: Path) -> list[str]:
    """Return the configuration of an annotation of the files in a directory."""
    names = {"passages": "passages.tsv", "queries": "queries.tsv", "run": "first.run", "journal": "shared.jsonl"}
    files = [f"{key}={place / name}" for key, name in names.items()]
    llm = {"base_url": url, "model": "judge", "concurrency": concurrency}
    files += [f"window={args.window}"] if args.window else []
    return [*files, f"method={args.method}", *(f"teacher.llm.{key}={value}" for key, value in llm.items())]


def measure_rate(args: argparse.Namespace, concurrency: int) -> dict:
    """Annotate for args.seconds, if the client took no time; return requests per second beside the limit."""
    from omegaconf import OmegaConf

    from distill.teachers.asking import ask_llm

    limit = concurrency / args.latency
    num_queries = args.queries or max(round(limit * args.seconds), 1)
    num_passages = 100 if args.queries else 20  # one window each, or many
    lists = {f"q{n}": (f"question {n}", [text(n * num_passages + place, 20) for place in range(num_passages)])
             for n in range(num_queries)}  # fmt: skip
    with tempfile.TemporaryDirectory() as directory, endpoint(args.latency, args.core) as url:
        place = Path(directory)
        cfg = compose_config("annotate", overrides(url, args, concurrency, place))
        OmegaConf.resolve(cfg)
        start, cpu = time.perf_counter(), time.process_time()
        _, _, totals = ask_llm(cfg, place, lists)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "concurrency": concurrency, "queries": num_queries, "passages": num_passages, "requests": totals.requests,
        "requests_per_s": totals.requests / seconds, "limit_per_s": limit, "cpu_ms": 1000 * cpu / totals.requests,
    }  # fmt: skip


def measure_memory(args: argparse.Namespace, num_queries: int) -> dict:
    """Annotate from the command line; return the peak memory of its process."""
    with tempfile.TemporaryDirectory() as directory, endpoint(0.0) as url:
        place, letters = Path(directory), 0
        with open(place / "passages.tsv", "w") as passages, open(place / "first.run", "w") as run:
            for number in range(num_queries * 100):
                line = text(number, 5)
                letters += len(line)
                passages.write(f"d{number}\t{line}\n")
                run.write(f"q{number // 100} Q0 d{number} {number % 100 + 1} {100 - number % 100} first\n")
        (place / "queries.tsv").write_text("".join(f"q{n}\tquestion {n}\n" for n in range(num_queries)))
        command = [sys.executable, "-m", "distill", "annotate", *overrides(url, args, 32, place)]
        used = measure([*command, f"hydra.run.dir={place / 'out'}"], cwd=ROOT, cache=place / "cache")
        journal_mb = (place / "out" / "journal.jsonl").stat().st_size / 1e6
    return {"queries": num_queries, "peak_mb": used.peak_bytes / 2**20, "texts_mb": letters / 1e6,
            "journal_mb": journal_mb, "cpu_s": used.cpu_seconds}  # fmt: skip


def main() -> None:
    """Parse arguments, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", default="1,8,64")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that an answer takes")
    parser.add_argument("--seconds", type=float, default=5, help="that each measurement would take at the limit")
    parser.add_argument("--rounds", type=int, default=3, help="the median is reported")
    parser.add_argument("--method", default="listwise")
    parser.add_argument("--queries", type=int, help="with 100 passages each; default: with 20, as --seconds needs")
    parser.add_argument("--window", type=int, help="passages of a request; default: 20")
    parser.add_argument("--memory", help="numbers of queries, whose peak memory is measured instead")
    parser.add_argument("--core", type=int, help="that the endpoint runs on; taskset gives the client another")
    parser.add_argument("--results", type=Path, help="directory for the file; default: none is written")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        if args.core is not None:
            os.sched_setaffinity(0, {args.core})
        asyncio.run(serve(args.serve))
        return
    if args.memory:
        rows = [measure_memory(args, int(number)) for number in args.memory.split(",")]
    else:
        rows = []
        for concurrency in map(int, args.concurrency.split(",")):
            rounds = [measure_rate(args, concurrency) for _ in range(args.rounds)]
            rows.append(sorted(rounds, key=lambda row: row["requests_per_s"])[len(rounds) // 2])
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if args.results:
        name = f"annotate-{'memory' if args.memory else args.method}"
        save(name, environment(torch.device("cpu")) | {"method": args.method, "rows": rows}, args.results)


if __name__ == "__main__":
    main()
