"""benchmarks.annotate, small_llm and small_llm_queries, small and within the process."""

import asyncio
import json
import threading
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import benchmarks.annotate as benchmark
from benchmarks import small_llm, small_llm_queries
from benchmarks.processes import Used
from tests.helpers.chat_server import Server


@contextmanager
def endpoint(latency: float, core=None):
    """The benchmark's endpoint, in a thread."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    benchmark.Endpoint.latency, ports = latency, []

    async def serve() -> None:
        server = await loop.create_server(benchmark.Endpoint, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    ready.wait(60)
    yield f"http://127.0.0.1:{ports[0]}/v1"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


@pytest.mark.parametrize(("method", "requests"), [("listwise", 2 * 9), ("pointwise", 2 * 100)])
def test_the_rate_is_that_of_all_requests_below_the_limit(monkeypatch, method, requests):
    monkeypatch.setattr(benchmark, "endpoint", endpoint)
    args = Namespace(latency=0.002, seconds=1, queries=2, method=method, window=None, core=None)
    row = benchmark.measure_rate(args, 4)
    assert (row["requests"], row["queries"], row["passages"], row["limit_per_s"]) == (requests, 2, 100, 2000)
    assert 0 < row["requests_per_s"] < row["limit_per_s"] and row["cpu_ms"] > 0


def test_the_number_of_lists_follows_from_the_limit(monkeypatch):
    monkeypatch.setattr(benchmark, "endpoint", endpoint)
    args = Namespace(latency=0.05, seconds=0.2, queries=None, method="listwise", window=None, core=None)
    row = benchmark.measure_rate(args, 2)
    assert (row["requests"], row["passages"]) == (2 / 0.05 * 0.2, 20)  # a window each


def test_peak_memory_is_that_of_the_command(monkeypatch):
    started = []

    def measure(command, *, cwd: Path, cache: Path) -> Used:
        options = dict(one.split("=", 1) for one in command if "=" in one)
        started.append({key: Path(options[key]).read_text().count("\n") for key in ("passages", "run", "queries")})
        journal = Path(options["hydra.run.dir"]) / "journal.jsonl"
        journal.parent.mkdir()
        journal.write_bytes(b"x" * 2000)
        return Used(seconds=9.0, cpu_seconds=1.5, peak_bytes=2 * 2**20, own_peak_bytes=2**20)

    monkeypatch.setattr(benchmark, "endpoint", endpoint)
    monkeypatch.setattr(benchmark, "measure", measure)
    row = benchmark.measure_memory(Namespace(method="listwise", window=100), 3)
    assert started == [{"passages": 300, "run": 300, "queries": 3}]
    assert (row["queries"], row["peak_mb"], row["journal_mb"], row["cpu_s"]) == (3, 2.0, 0.002, 1.5)
    assert row["texts_mb"] == sum(len(benchmark.text(number, 5)) for number in range(300)) / 1e6


def make_collection(directory: Path) -> Path:
    """Three queries of four passages each, with judgments."""
    texts = ["bees see the sun", "trains run on rails", "ants walk far", "bees dance"]
    (directory / "docs.tsv").write_text("".join(f"d{place}\t{text}\n" for place, text in enumerate(texts)))
    (directory / "queries.test.tsv").write_text("".join(f"q{n}\thow do bees find home {n}\n" for n in range(3)))
    lines = [f"q{n} Q0 d{place} {place + 1} {9 - place} bm25\n" for n in range(3) for place in range(4)]
    (directory / "bm25.run").write_text("".join(lines))
    (directory / "qrels.txt").write_text("".join(f"q{n} 0 d0 1\n" for n in range(3)))
    return directory


def test_a_small_llm_is_asked_by_method_and_prompt_and_its_answers_are_counted(tmp_path, monkeypatch, capsys):
    server = Server(script=["good", "refusal", "repeated"])
    (tmp_path / "results").mkdir()
    command = ["small_llm", "--url", server.url, "--collection", str(make_collection(tmp_path)), "--model", "tiny"]
    command += ["--methods", "listwise/rankzephyr", "--queries", "3", "--max-words", "2", "--max-tokens", "32"]
    monkeypatch.setattr("sys.argv", [*command, "--results", str(tmp_path / "results")])
    small_llm.main()
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["method"], row["prompt"], row["lists"], row["requests"]) == ("listwise", "rankzephyr", 3, 3)
    assert row["usable"] == pytest.approx(2 / 3) and row["flagged_lists"] == 1
    assert row["answers"] == {"whole": 1, "unusable": 1, "repeated": 1}
    assert row["useless"] == [["`I cannot.`", 1]] and row["first_stage/nDCG@10"] == 1
    assert all("bees see" in text and "sun" not in text for text in server.asked)  # cut to two words
    (saved,) = (tmp_path / "results").iterdir()
    assert json.loads(saved.read_text())["rows"] == [row]


def test_queries_of_a_small_llm_are_counted_and_ranked(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    server = Server(script=["good", "empty"])
    passages = [" ".join(f"word{number}x{place}" for place in range(25)) for number in range(9)]
    (tmp_path / "p.tsv").write_text("".join(f"d{number}\t{text}\n" for number, text in enumerate(passages)))
    command = ["small_llm_queries", "--url", server.url, "--passages", str(tmp_path / "p.tsv"), "--model", "tiny"]
    monkeypatch.setattr("sys.argv", [*command, "--queries", "6", "--max-words", "15", "--results", str(tmp_path)])
    small_llm_queries.main()
    row = json.loads(capsys.readouterr().out)
    assert (row["kept"], row["checked"], row["rejected"]) == (5, 5, {"empty": 1}) and len(row["ten"]) == 5
    assert row["within"] == {"1": 5, "5": 5, "20": 5, "100": 5} and row["within_of_random"]["100"] < 5
    assert sum(server.asked.values()) == 6 and not any("x15" in text for text in server.asked)  # cut to 15 words
    (saved,) = tmp_path.glob("small-llm-queries-*.json")
    assert json.loads(saved.read_text())["within"] == row["within"]


def test_the_endpoint_answers_as_it_is_asked():
    sent = []
    protocol = benchmark.Endpoint()
    protocol.connection_made(SimpleNamespace(write=sent.append))
    protocol.reply(b'{"content": "query\\\\n[1] one\\\\n[2] two\\\\n[3] three"}')
    protocol.reply(b'{"logprobs": true}')
    answers = [json.loads(one.partition(b"\r\n\r\n")[2])["choices"][0] for one in sent]
    assert answers[0]["message"]["content"] == "[3] > [2] > [1]"
    tokens = answers[1]["logprobs"]["content"][0]["top_logprobs"]
    assert [one["token"] for one in tokens] == ["Yes", "No"] and np.isfinite(tokens[0]["logprob"])
