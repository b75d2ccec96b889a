"""The precision of scoring, with flags and speeds of our own: what is measured, what is chosen, what is kept."""

import json

import pytest
import torch

from distill import device
from distill.device import FEW_WEIGHTS, ScoringPrecision, must_measure, num_weights, scoring_precision
from distill.errors import InputError
from distill.models import precision
from distill.models.cross_encoder import CrossEncoder
from distill.models.precision import fastest_precision, read_precision
from evaluate import evaluate
from tests.helpers.configuration import compose_config
from tests.helpers.models import make_model

CPU = torch.device("cpu")
MANY = FEW_WEIGHTS


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that sets the CPU's flags, and the seconds of a pass in float32 and in bfloat16."""
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "FEW_WEIGHTS", 0)
    calls: list[torch.device] = []

    def setting(flags: str, *seconds: float) -> list[torch.device]:
        (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")

        def timed(run, where):
            run()
            calls.append(where)
            return seconds

        monkeypatch.setattr(device, "time_precisions", timed)
        return calls

    return setting


def chosen(name: str, weights: int = MANY, where: torch.device = CPU) -> ScoringPrecision:
    return scoring_precision(name, where, weights, lambda num_tokens: (lambda: None, num_tokens))


@pytest.mark.parametrize(
    ("flags", "seconds", "expected"),
    [
        ("avx2 avx512_bf16", (0.13, 0.1), torch.bfloat16),  # 1.3 times as fast
        ("avx2 amx_bf16", (0.129, 0.1), torch.float32),
        ("avx2", None, torch.float32),  # not measured: a pass in bfloat16 would take eight times as long
    ],
)
def test_auto_takes_bfloat16_if_it_is_measured_to_be_faster(machine, flags, seconds, expected):
    calls = machine(flags, *(seconds or ()))
    found = chosen("auto")
    assert found.dtype == expected and len(calls) == (seconds is not None) == found.is_measured


def test_nothing_is_measured_on_cuda_for_a_choice_or_for_a_small_model(machine, monkeypatch):
    monkeypatch.setattr(device, "FEW_WEIGHTS", MANY)
    calls = machine("avx512_bf16", 1.0, 0.1)
    assert chosen("auto", where=torch.device("cuda")).dtype == torch.bfloat16
    assert chosen("float32").dtype == torch.float32 and chosen("bfloat16").dtype == torch.bfloat16
    assert chosen("auto", MANY - 1) == ScoringPrecision(torch.float32)
    assert not calls and chosen("auto").dtype == torch.bfloat16 and len(calls) == 1
    assert [must_measure(name, CPU) for name in ("auto", "float32", "bfloat16")] == [True, False, False]


@pytest.mark.parametrize(("weights", "tokens"), [(10_000_000, 270), (10**9, 64), (MANY, 512)])
def test_a_measured_pass_is_shorter_the_larger_the_model(machine, weights, tokens):
    machine("avx512_bf16", 2.0, 1.0)
    found = chosen("auto", weights)
    assert (found.float32, found.bfloat16) == (tokens / 2, tokens)


def test_both_precisions_are_run_in_turn_and_the_shortest_pass_counts(monkeypatch):
    ran, clock = [], iter(range(1000))
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(clock) / 1000)
    layer = torch.nn.Linear(2, 2)
    seconds = device.time_precisions(lambda: ran.append(layer(torch.ones(1, 2)).dtype), CPU)
    assert ran == [torch.float32, torch.bfloat16] * (1 + device.ROUNDS)
    assert seconds == (pytest.approx(0.001), pytest.approx(0.001))


def test_weights_are_counted_without_embeddings():
    model = torch.nn.Sequential(torch.nn.Embedding(100, 4), torch.nn.Linear(4, 3))
    assert num_weights(model) == 4 * 3 + 3


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_cross_encoder_is_measured_once_and_stays_in_its_mode(tmp_path, machine, pooling):
    model = make_model(tmp_path / "bert", "bert", pooling).train()
    calls = machine("avx512_bf16", 2.0, 1.0)
    assert fastest_precision(model) == fastest_precision(model) and len(calls) == 1 and model.training
    assert fastest_precision(model).dtype == torch.bfloat16
    assert fastest_precision(model, "float32").dtype == torch.float32
    assert (
        model.rank("a", ["b"])[1] == model.rank("a", ["b"], precision=torch.float32)[1]
    )  # the library measures nothing


@pytest.fixture
def options(tmp_path, collection, backbone) -> list[str]:
    CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).save_pretrained(tmp_path / "model")
    files = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    tasks = [f"+task.tasks.{name}.run={collection[run]}" for name, run in (("a", "first_stage"), ("b", "teacher"))]
    return [f"model={tmp_path / 'model'}", "task=files", *files, *tasks]


def test_an_evaluation_says_what_was_measured_and_a_resumed_one_keeps_it(tmp_path, machine, options, caplog):
    caplog.set_level("INFO")
    calls = machine("avx512_bf16", 2.0, 1.0)
    out = tmp_path / "out"
    results = evaluate(compose_config("evaluate", *options), out)
    speeds = results["precision/float32_tokens_per_second"], results["precision/bfloat16_tokens_per_second"]
    assert results["precision/bits"] == 16 and speeds[1] == 2 * speeds[0] > 0
    assert f"precision: bfloat16 (tokens/s: float32 {speeds[0]:,.0f}, bfloat16 {speeds[1]:,.0f})" in caplog.messages
    assert any("precision=auto, torch" in message for message in caplog.messages)  # before the model was there
    runs = {path: path.read_bytes() for path in out.rglob("run.txt")}
    (out / "tasks" / "b" / "run.txt").unlink()  # as if stopped in the second task
    (out / "results.json").unlink()
    machine("avx2")
    assert evaluate(compose_config("evaluate", *options, f"resume={out}"), out) == results
    assert len(calls) == 1 and {path: path.read_bytes() for path in out.rglob("run.txt")} == runs


def test_an_evaluation_begun_without_a_measurement_is_resumed_without_one(tmp_path, machine, options):
    machine("avx2")
    out = tmp_path / "out"
    results = evaluate(compose_config("evaluate", *options), out)
    assert not any(name.startswith("precision/") for name in results) and not (out / "precision.json").exists()
    (out / "tasks" / "b" / "run.txt").unlink()
    (out / "results.json").unlink()
    calls = machine("avx512_bf16", 2.0, 1.0)
    assert evaluate(compose_config("evaluate", *options, f"resume={out}"), out) == results and not calls


def test_a_damaged_file_of_a_measurement_is_refused(tmp_path):
    file = tmp_path / "precision.json"
    file.write_text(json.dumps(ScoringPrecision(torch.bfloat16, 2.0, 4.0).results()))
    assert read_precision(file) == ScoringPrecision(torch.bfloat16, 2.0, 4.0)
    file.write_text('{"precision/bits": 16}')
    with pytest.raises(InputError, match=r"precision.json: lacks precision/float32_tokens_per_second: restore"):
        read_precision(file)


def test_an_onnx_graph_keeps_its_precision(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(precision, "OnnxScorer", torch.nn.Module)
    model = make_model(tmp_path / "bert", "bert")
    assert not machine("avx512_bf16", 2.0, 1.0) and fastest_precision(model).dtype == torch.float32
