"""The benchmarks run on a CPU, and the limits that they set beside a time are the ones they say."""

import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.less_work import Way, read_way
from benchmarks.losses import extra_memory, limit_ms
from benchmarks.processes import measure
from distill.errors import InputError
from distill.serving.server import open_socket
from kernels import LOSSES
from tests.helpers.models import make_model
from tests.helpers.paths import ROOT


def run_module(name: str, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.long
def test_losses_prints_a_table_and_leaves_a_file(tmp_path):
    arguments = ["--device", "cpu", "--shapes", "4x10", "--losses", "ranknet", "--results", str(tmp_path)]
    table = run_module("losses", *arguments)
    assert "ours (plain)" in table and "eager" in table and "compile" in table
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert {"device", "date", "versions", "commit", "command"} <= found.keys()
    assert found["command"].startswith("python -m benchmarks.losses --device cpu")
    row = found["rows"][0]
    low, high = row["wall_ms"]["quartiles"]
    assert 0 < low <= row["wall_ms"]["median"] <= high
    # Eager keeps at least the [B, K, K] differences and their softplus
    assert row["extra_bytes"] >= 2 * 4 * 10 * 10 * 4


def test_extra_memory_is_the_most_at_any_time():
    def step() -> None:
        first = torch.empty(1000)  # 4000 bytes
        del first
        torch.empty(500), torch.empty(250)  # 3000 bytes together

    assert 4000 <= extra_memory(step, torch.device("cpu")) < 4000 + 256


def test_ways_of_less_work_are_read_from_their_names():
    assert read_way("bfloat16+exit-20+cut-96") == Way(torch.bfloat16, exit_keep=20, cut=96)
    assert read_way("cascade-10+int8") == Way(cascade_keep=10, int8=True)
    for name in ("float16", "exit", "exit-0", "cut-x"):
        with pytest.raises(InputError, match=f"{name}: {name} is unknown"):
            read_way(name)


def test_limit_of_the_losses_by_hand():
    rates = {"special_per_second": 1e12, "bytes_per_second": 1e9}
    # 2 lists of 5: 20 unordered pairs of 3 special functions are nothing beside 10 passages of 20 bytes
    assert limit_ms("ranknet", 2, 5, rates) == pytest.approx(1e3 * 200 / 1e9)
    # 64 lists of 1000: 31 968 000 pairs
    assert limit_ms("adrmse", 64, 1000, {**rates, "bytes_per_second": 1e12}) == pytest.approx(4 * 31.968e6 / 1e9)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux alone")
@pytest.mark.parametrize("arch", ["90", *(pytest.param(arch, marks=pytest.mark.long) for arch in ("80", "100"))])
def test_kernels_compile_for_gpus_without_spills(arch):
    rows = [line.split() for line in run_module("machine_code", "--arch", arch).splitlines()[2:]]
    assert {row[0] for row in rows} == set(LOSSES) and len(rows) == len(LOSSES) + 2  # two have two loops
    for name, registers, spilled, _, _, instructions, special in rows:
        assert int(registers) <= 128 and spilled == "0"  # two programs of 8 warps fit in a multiprocessor's registers
        most = {"lambda_loss": (40, 2.25), "bradley_terry": (32, 4.25)}.get(name, (24, 2.25))
        assert float(instructions) <= most[0] and float(special) <= most[1]


@pytest.mark.long
def test_rerank_takes_models_of_several_kinds(tmp_path):
    pytest.importorskip("onnxruntime")

    from distill.export.formats import export

    model = make_model(tmp_path / "backbone", "electra")
    model.save_pretrained(tmp_path / "ours")
    for target in ("onnx", "transformers"):
        export(model, tmp_path / target, target)
    others = ",".join(f"{name}={tmp_path / name}" for name in ("onnx", "transformers"))
    contenders = f"packed,packed-bf16,padded,{others}"
    sizes = ["--queries-number", "2", "--passages", "3", "--rounds", "1", "--device", "cpu"]
    options = ["--model", str(tmp_path / "ours"), "--contenders", contenders, *sizes]
    table = run_module("rerank", *options, "--results", str(tmp_path / "results"))
    assert table.count("pairs/s") == 5
    (path,) = (tmp_path / "results").iterdir()
    differences = {row["name"]: row["largest_difference"] for row in json.loads(path.read_text())["rows"]}
    assert differences["packed"] == 0 and differences["packed-bf16"] > 0
    assert max(differences["padded"], differences["onnx"]) < 1e-4 and "transformers" in differences


def test_the_clients_of_serve_count_what_was_answered_wrong_or_repeated():
    """Against a server in this process, which refuses every first try, and gives the last request a wrong score."""
    from benchmarks.serve import make_requests, press

    requests, seen = make_requests(num_passages=2, num_words=3)[:3], []
    assert all(len(passages) == 2 and len(passages[0].split()) == 3 for _, passages in requests)

    async def rerank(request):
        seen.append((await request.json())["query"])
        if seen.count(seen[-1]) == 1:
            return JSONResponse({}, status_code=503)
        scores = [0.5, 9.0 if seen[-1] == requests[2][0] else 1.5]
        return JSONResponse([{"index": index, "score": score} for index, score in enumerate(scores)])

    with open_socket("127.0.0.1", 0) as opened:
        app = Starlette(routes=[Route("/rerank", rerank, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        url = f"http://127.0.0.1:{opened.getsockname()[1]}"
        load = asyncio.run(press(url, requests, [[0.5, 1.5]] * 3, num_clients=1, seconds=60, most=6))
        server.should_exit = True
        thread.join()
    assert (load.sent, len(load.seconds), load.repeated, load.wrong) == (6, 6, 3, 2)
    assert load.largest_difference == pytest.approx(7.5)


def test_the_roofline_counts_the_products_of_the_model(tmp_path):
    from benchmarks.roofline import operations, texts
    from distill.training.flops import FlopCounter

    model = make_model(tmp_path, "bert")
    flops = FlopCounter(model)(torch.full((5,), 12))
    assert operations(model.backbone.config, num_pairs=5, length=12) == flops / 3
    [(query, passages)] = texts(model.tokenizer, num_pairs=5, length=20)
    assert [len(model.tokenizer(query, passage)["input_ids"]) for passage in passages] == [20] * 5


def test_a_process_is_measured_until_a_line_or_its_end(tmp_path):
    code = "import sys; print('one', flush=True); kept = b'1' * 50_000_000; print('two', flush=True); sys.exit(3)"
    until = measure([sys.executable, "-c", code], cwd=tmp_path, cache=tmp_path / "cache", lines=2)
    assert until.output == "one\ntwo\n" and until.own_peak_bytes <= until.peak_bytes
    assert until.peak_bytes > 50_000_000 and 0 <= until.cpu_seconds < until.seconds
    with pytest.raises(SystemExit, match="ended with 3\none\ntwo"):
        measure([sys.executable, "-c", code], cwd=tmp_path, cache=tmp_path / "cache")
