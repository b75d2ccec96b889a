"""Measure the server: many clients at once, against requests scored one by one, and against sentence-transformers.

    python -m benchmarks.serve --model DIR                                      # 64 clients for a minute each
    python -m benchmarks.serve --model DIR --contenders shared --kill TERM      # a stop, or KILL, in the middle

DIR is a cross-encoder that evaluate.py opens or an encoder that train.py starts with: a directory, a packaged model's
name or a Hub id. A contender that does not start is left out, with the reason in one line; the exit status is 1 if it
is one of ours. The contenders:

- shared: `distill serve`, whose requests share batches
- one-by-one: the same model behind Starlette, where a request is one call of `CrossEncoder.rank`
- sentence-transformers: behind Starlette too, where a request is one call of its `predict`

Each is a process of its own with the same threads. Every client sends its next request when it has the answer to its
last; every answer's scores are compared with those of `rank`. With --kill, the server is killed in the middle of the
time and started again; clients repeat what was not answered. --texts-per-request and --words set the requests' size.
"""

import argparse
import asyncio
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import torch

from benchmarks.workers import last_line

CONTENDERS = ("shared", "one-by-one", "sentence-transformers")
DIFFERENT = 50  # requests
STARTING = 120  # seconds that a server may take to start
PAUSE = 0.2  # seconds before a client repeats a request
TOLERANCE = 1e-4  # of scores


@dataclass
class Load:
    """What the clients have sent and got."""

    seconds: list[float] = field(default_factory=list)  # of each answer
    sent: int = 0
    repeated: int = 0  # requests whose connection broke or was refused, or that got status 503
    wrong: int = 0  # answers with another status, or with scores that differ
    largest_difference: float = 0.0
    elapsed: float = 0.0
    cpu_seconds: float | None = None  # of the server, for all of them: what a busy machine leaves comparable


class NotStarted(RuntimeError):
    """A contender's server does not answer."""


def make_requests(num_passages: int, num_words: int) -> list[tuple[str, list[str]]]:
    """Return different requests with passages of so many common words, a token each in most vocabularies."""
    words = "the of and to in is for on by with as at from that was are it be this an or which have has not but".split()
    words += "water city year world music house river school state war people time work family light sound".split()
    chance = random.Random(0)
    text = lambda size: " ".join(chance.choices(words, k=size))  # noqa: E731
    return [(text(8), [text(num_words) for _ in range(num_passages)]) for _ in range(DIFFERENT)]


async def press(url: str, requests, expected, num_clients: int, seconds: float, most: float = math.inf) -> Load:
    """Let so many clients send requests, for so long or at most so many, and return what came of it."""
    load = Load()
    limits = httpx.Limits(max_connections=num_clients, max_keepalive_connections=num_clients)
    start = time.perf_counter()

    async def one(number: int, client: httpx.AsyncClient) -> None:
        while time.perf_counter() < start + seconds and load.sent < most:
            index = (number + load.sent) % len(requests)
            load.sent += 1
            began = time.perf_counter()
            while (response := await ask(client, requests[index])) is None or response.status_code == 503:
                load.repeated += 1
                await asyncio.sleep(PAUSE)
            load.seconds.append(time.perf_counter() - began)
            found = {one["index"]: one["score"] for one in response.json()} if response.status_code == 200 else {}
            difference = max((abs(found.get(i, np.inf) - s) for i, s in enumerate(expected[index])), default=np.inf)
            load.largest_difference = max(load.largest_difference, difference)
            load.wrong += difference > TOLERANCE

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=None) as client:
        await asyncio.gather(*(one(number, client) for number in range(num_clients)))
    load.elapsed = time.perf_counter() - start
    return load


async def ask(client: httpx.AsyncClient, request: tuple[str, list[str]]) -> httpx.Response | None:
    """Return the answer to a request; None if the connection breaks or there is none."""
    query, passages = request
    try:
        return await client.post("/rerank", json={"query": query, "texts": passages, "raw_scores": True})
    except httpx.TransportError:
        return None


def start_server(name: str, model: str, port: int) -> subprocess.Popen:
    """Start a contender, and wait until it is ready; raises NotStarted with the last line that it has written."""
    command = ["benchmarks.serve", "--worker", name, "--model", model, "--port", str(port)]
    if name == "shared":
        command = [
            "distill",
            "serve",
            f"model={model}",
            f"port={port}",
            "layout=auto",
            "device=cpu",
            "precision=float32",
        ]
    errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
    server = subprocess.Popen([sys.executable, "-m", *command], stderr=errors)
    end = time.monotonic() + STARTING
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return server
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    server.kill()
    raise NotStarted(last_line(errors) or f"not ready after {STARTING} s")


def worker(name: str, model: str, port: int) -> None:
    """Be a server that scores one request after the other, in a thread."""
    import threading

    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    if name == "sentence-transformers":
        from sentence_transformers import CrossEncoder as Theirs

        theirs = Theirs(model, device="cpu", trust_remote_code=False)

        def score(query: str, passages: list[str]) -> list[float]:
            return theirs.predict([(query, passage) for passage in passages], show_progress_bar=False).tolist()

    else:
        from distill import CrossEncoder

        ours = CrossEncoder.from_pretrained(model)

        def score(query: str, passages: list[str]) -> list[float]:
            order, scores = ours.rank(query, passages)
            return [value for _, value in sorted(zip(order, scores, strict=True))]

    alone = threading.Lock()

    def answer(body: bytes) -> list[dict]:
        asked = json.loads(body)
        with alone:
            scores = score(asked["query"], asked["texts"])
        return [{"index": index, "score": value} for index, value in enumerate(scores)]

    async def rerank(request):
        return JSONResponse(await run_in_threadpool(answer, await request.body()))

    async def health(request):
        return JSONResponse({})

    routes = [Route("/rerank", rerank, methods=["POST"]), Route("/health", health)]
    uvicorn.run(Starlette(routes=routes), port=port, log_level="error", access_log=False)


def expected_scores(model: str, requests) -> list[list[float]]:
    """Return the scores of `rank` for each request, in the order of its passages."""
    from distill import CrossEncoder

    ours = CrossEncoder.from_pretrained(model)
    ranked = [ours.rank(query, passages) for query, passages in requests]
    return [[value for _, value in sorted(zip(order, scores, strict=True))] for order, scores in ranked]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(arguments, name: str, model: str, requests, expected) -> Load:
    """Start a contender, press it, and kill it in the middle if asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start_server(name, model, port)
    url = f"http://127.0.0.1:{port}"
    try:
        await press(url, requests, expected, 4, 2.0)  # memory is allocated, pages are mapped
        before = cpu_seconds(server.pid)
        pressed = asyncio.create_task(press(url, requests, expected, arguments.clients, arguments.seconds))
        if arguments.kill:
            await asyncio.sleep(arguments.seconds / 2)
            server.send_signal(getattr(signal, f"SIG{arguments.kill}"))
            await asyncio.to_thread(server.wait)
            server = await asyncio.to_thread(start_server, name, model, port)
        load = await pressed
        load.cpu_seconds = None if arguments.kill else cpu_seconds(server.pid) - before  # of one server, not of two
        return load
    finally:
        server.terminate()
        server.wait()


def describe(name: str, load: Load, num_passages: int) -> dict:
    """Return the row of a contender, and print it."""
    p50, p95, p99 = np.percentile(load.seconds, [50, 95, 99])
    rate = len(load.seconds) / load.elapsed
    row = {"name": name, "requests_per_second": rate, "pairs_per_second": rate * num_passages}
    cpu = None if load.cpu_seconds is None else 1000 * load.cpu_seconds / len(load.seconds)
    row |= {"cpu_ms_per_request": cpu}
    row |= {"p50_s": p50, "p95_s": p95, "p99_s": p99, "answered": len(load.seconds), "sent": load.sent}
    row |= {"repeated": load.repeated, "wrong": load.wrong, "largest_difference": load.largest_difference}
    print(f"{name:22} {rate:7.1f} requests/s {rate * num_passages:8.0f} pairs/s", end="   ")
    print(f"p50 {p50:6.3f} s  p95 {p95:6.3f} s  p99 {p99:6.3f} s   CPU {cpu or 0:.0f} ms", end="   ")
    print(f"sent {load.sent}, answered {len(load.seconds)}, repeated {load.repeated}, wrong {load.wrong}", end=", ")
    print(f"scores within {load.largest_difference:.1e}", flush=True)
    return row


def main() -> None:
    """Measure the contenders one after the other, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory, packaged model or Hub id")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--texts-per-request", type=int, default=20)
    parser.add_argument("--words", type=int, default=30, help="of each passage")
    parser.add_argument("--kill", choices=["TERM", "KILL"], help="signal in the middle of the time")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--worker")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.model, arguments.port)
        return

    from benchmarks.models import forms, ranking_model
    from benchmarks.report import RESULTS, environment, save
    from benchmarks.workers import Race
    from distill.errors import exit_on_bad_input

    with tempfile.TemporaryDirectory() as directory, exit_on_bad_input(sweep=False):
        model = ranking_model(arguments.model, Path(directory))
        requests = make_requests(arguments.texts_per_request, arguments.words)
        expected = expected_scores(model, requests)
        race = Race()
        for name, path in forms(dict.fromkeys(arguments.contenders.split(","), model), Path(directory), race).items():
            try:
                load = asyncio.run(measure(arguments, name, path, requests, expected))
            except NotStarted as error:
                race.leave_out(name, str(error))
                continue
            race.answers[name] = [describe(name, load, arguments.texts_per_request)]
    sizes = {"clients": arguments.clients, "seconds": arguments.seconds, "kill": arguments.kill}
    sizes |= {"passages": arguments.texts_per_request, "words": arguments.words, "load": os.getloadavg()}
    name = f"serve-{arguments.kill.lower()}" if arguments.kill else "serve"
    found = environment(torch.device("cpu")) | sizes | {"rows": [row for [row] in race.answers.values()]}
    print(save(name, found | {"left_out": race.left_out}, arguments.results or RESULTS))
    race.end()


if __name__ == "__main__":
    main()
