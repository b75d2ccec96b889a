"""`distill annotate` and its parts, against servers that behave and servers that do not."""

import contextlib
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from distill.config.local_files import with_local_files
from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.sources.chains import find_ranking
from distill.sources.permutations import mend_permutation
from distill.sources.runs import read_run
from distill.sources.thinking import answer_after_thinking
from distill.teachers.annotation import rank_with_teacher, write_annotation
from distill.teachers.answer import Answer
from distill.teachers.asking import ask_llm, estimate_requests
from distill.teachers.endpoint import HttpEngine, _retry_after
from distill.teachers.ensemble import _normalise
from distill.teachers.journal import Journal
from distill.teachers.lists_to_rank import read_lists_to_rank
from distill.teachers.listwise import WindowRanker, Windows, window_places
from distill.teachers.local import LocalEngine
from distill.teachers.prompt import read_prompt
from tests.helpers.backbones import WORDS, make_language_model
from tests.helpers.chat_server import overrides_of
from tests.helpers.commands import run_annotate, run_evaluate, start
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

PIECES = [
    "[1]",
    "[2]",
    "[3]",
    "[9]",
    " > ",
    "2",
    ", ",
    "\n",
    "1. ",
    "<think>",
    "</think>",
    "Passage ",
    "A",
    "B",
    " is ",
]
PROMPT = ROOT / "distill" / "teachers" / "prompts" / "listwise.yaml"


@pytest.mark.parametrize(
    ("answer", "order", "faults"),
    [
        ("[2] > [3] > [1]", [1, 2, 0], set()),
        ("Here are the 3 passages in order: [2] > [3] > [1].", [1, 2, 0], set()),
        ("2 > 3 > 1", [1, 2, 0], set()),
        ("[2] > [2] > [3]", [1, 2, 0], {"repeated", "missing"}),
        ("[9] > [2] > [0] > [1] > [3]", [1, 0, 2], {"out of range"}),
        ("[3]", [2, 0, 1], {"missing"}),
        ("I cannot help with that.", [0, 1, 2], {"unusable"}),
        ("", [0, 1, 2], {"unusable"}),
        ("<think>\nPerhaps [3] > [1]?\n</think>\n[2] > [3] > [1]", [1, 2, 0], set()),
        ("<think>\nPerhaps [3] > [1]?", [0, 1, 2], {"unusable"}),
        ("[12345678901] > [2] > [3] > [1]", [1, 2, 0], {"out of range"}),
        ("12345678901", [0, 1, 2], {"unusable"}),
        ("9" * 5000, [0, 1, 2], {"unusable"}),
    ],
)
def test_answers_are_mended_as_defined(answer, order, faults):
    assert mend_permutation(answer, 3) == (order, faults)


def test_windows_go_from_the_bottom_to_the_top():
    assert window_places(100, 20, 10) == [(start, start + 20) for start in range(80, -1, -10)]
    assert window_places(25, 20, 10) == [(5, 25), (0, 15)]
    assert window_places(7, 20, 10) == [(0, 7)]


class Judge:
    """An engine that knows how good each passage is, up to some noise; passages are numbers."""

    in_batches, at_once, options, tokenizer = True, 4, {}, None

    def __init__(self, noise: float = 0.0):
        self.noise, self.generator, self.asked = noise, np.random.default_rng(0), 0

    def ask(self, requests):
        self.asked += len(requests)
        return [Answer(self._order(messages[-1]["content"]), 1, 1, 0.0) for messages in requests]

    def _order(self, text: str) -> str:
        goodness = [-float(found) for found in re.findall(r"^\[\d+\] (\d+)$", text, re.MULTILINE)]
        noisy = np.array(goodness) + self.noise * self.generator.standard_normal(len(goodness))
        return " > ".join(f"[{place + 1}]" for place in np.argsort(-noisy))


def rank_numbers(tmp_path, engine, passes: int = 1, seed: int = 0, depth: int = 100) -> list[int]:
    numbers = np.random.default_rng(seed).permutation(depth).tolist()
    with Journal(tmp_path / f"{id(engine)}-{seed}-{passes}.jsonl") as journal:
        ranker = WindowRanker(
            engine, "judge", journal, read_prompt(str(PROMPT)), Windows("listwise", 20, 10, passes), 2
        )
        ((_, order, flagged, _),) = ranker.rank(
            {"q": ("which is least", [str(n) for n in numbers])}, lambda totals: True
        )
    assert not flagged
    return [numbers[place] for place in order]


def test_a_perfect_judge_sorts_the_top_ten_in_one_pass_and_more_in_more(tmp_path):
    for seed in range(5):
        assert rank_numbers(tmp_path, Judge(), seed=seed)[:10] == list(range(10))
        assert rank_numbers(tmp_path, Judge(), passes=2, seed=seed)[:20] == list(range(20))


def test_a_noisy_judge_raises_ndcg(tmp_path):
    def ndcg(numbers) -> float:
        gains = [1 / np.log2(place + 2) for place, number in enumerate(numbers[:10]) if number < 10]
        return sum(gains) / sum(1 / np.log2(place + 2) for place in range(10))

    for seed in range(5):
        before = ndcg(np.random.default_rng(seed).permutation(100).tolist())
        assert ndcg(rank_numbers(tmp_path, Judge(noise=10), seed=seed)) > before + 0.3


def test_lists_in_batches_are_ranked_as_alone(tmp_path):
    lists = {f"q{n}": ("least", [str(i) for i in np.random.default_rng(n).permutation(10 + 7 * n)]) for n in range(6)}
    with Journal(tmp_path / "j.jsonl") as journal:
        ranker = WindowRanker(Judge(), "judge", journal, read_prompt(str(PROMPT)), Windows("listwise", 20, 10, 2), 2)
        found = {query_id: order for query_id, order, *_ in ranker.rank(lists, lambda totals: True)}
    assert set(found) == set(lists)
    for query_id, order in found.items():
        assert [int(lists[query_id][1][place]) for place in order[:10]] == list(range(10))


def test_whatever_a_server_does_nothing_is_lost_and_every_case_is_counted(collection, tmp_path, serve):
    # Spread out, since a request waits the longer the more often it has failed
    script = [429, 500, "prose", "cut", "repeated", "slow", "invented", "no json", "empty", "refusal", 503, "good"]
    server = serve(script=script)
    more = [f"qrels={collection['qrels']}", f"reference={collection['teacher']}", "teacher.llm.concurrency=1"]
    more += ["teacher.llm.retries=6", "teacher.llm.timeout=10"]  # seconds, which only the slow answer takes
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, *more))
    assert run.returncode == 0, run.stderr
    first, teacher = read_run(str(collection["first_stage"])), read_run(str(tmp_path / "out" / "teacher.run"))
    assert list(first) == list(teacher)
    assert all(sorted(first[q].doc_ids) == sorted(teacher[q].doc_ids) for q in first)
    card = (tmp_path / "out" / "card.md").read_text()
    assert "1 out of range" in card and "1 repeated" in card and "2 unusable" in card and "24 windows" in card
    assert "no answer was usable: 0, in 0 lists" in card
    kinds = "1 ReadTimeout, 1 RemoteProtocolError, 1 no chat completion, 1 status 429, 1 status 500, 1 status 503"
    assert f"retries in the last run: 6 ({kinds})" in card
    table = pq.read_table(tmp_path / "out" / "teacher.parquet").to_pydict()
    assert table["rank"][:10] == list(range(1, 11)) and sorted(table["first_stage_rank"][:10]) == list(range(1, 11))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    names = {f"teacher/{name}" for name in ("nDCG@10", "helped", "harmed", "unchanged", "p")}
    names |= {"first_stage/nDCG@10", "tau/first_stage", "tau/reference", "chance/tau/reference", "noise/reference"}
    assert set(results) == names  # no overlap@10: lists have ten passages
    assert "\npaired t-test           p = " in run.stdout and "against reference       Kendall's tau " in run.stdout
    assert not any(table["flagged"])


def test_a_window_without_any_usable_answer_keeps_its_order_and_is_flagged(collection, tmp_path, serve):
    server = serve(script=itertools.repeat("refusal"))
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, "tries=2"))
    assert run.returncode == 2 and "windows got no usable answer, more than max_unusable=0.5" in run.stderr
    assert "× `I cannot.`: try another prompt or model, or raise max_unusable and resume with" in run.stderr
    asked = sum(server.asked.values())
    assert 2 * 16 <= asked <= 2 * (16 + 3) and not (tmp_path / "out" / "teacher.run").exists()  # of 48
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, "tries=2", "max_unusable=1"))
    assert run.returncode == 0, run.stderr
    assert sum(server.asked.values()) == 48  # the answers are in the journal
    first, teacher = read_run(str(collection["first_stage"])), read_run(str(tmp_path / "out" / "teacher.run"))
    assert all(first[q].doc_ids == teacher[q].doc_ids for q in first)
    assert all(pq.read_table(tmp_path / "out" / "teacher.parquet").to_pydict()["flagged"])
    card = (tmp_path / "out" / "card.md").read_text()
    assert "48 unusable" in card and "no answer was usable: 24, in 6 lists" in card  # 24 windows, two tries each


def annotate_here(tmp_path, collection, server, *more) -> tuple[str, str]:
    """Annotate in this process; return what was printed of the books: in the last state of the bar, and in the card."""
    cfg = compose_config("annotate", *overrides_of(collection, server, *more))
    OmegaConf.resolve(cfg)
    (tmp_path / "out").mkdir(exist_ok=True)
    local = with_local_files(cfg)
    lists = read_lists_to_rank(cfg, local)
    ranking = rank_with_teacher(cfg, tmp_path / "out", lists)
    write_annotation(tmp_path / "out", cfg, local, lists, ranking)
    return ranking.totals.describe(cfg.teacher.llm), (tmp_path / "out" / "card.md").read_text()


def test_the_books_are_the_same_on_the_screen_in_the_log_and_in_the_card(collection, tmp_path, serve, caplog):
    caplog.set_level("INFO")
    script = [429, "refusal", 400, *["good"] * 20]
    prices = ["teacher.llm.price_in=10000", "teacher.llm.concurrency=1", "max_unusable=1"]
    server = serve(script=script)
    shown, card = annotate_here(tmp_path, collection, server, *prices)
    # 24 windows: one asked twice, since its first answer was refused by the model; one refused by the server
    assert sum(server.asked.values()) == 26 and shown == "24 requests, 2400 tokens in, 240 out, cost 24.0000"
    assert f"- requests: {shown}" in card and shown in caplog.text and "- cost: 24.0000 at" in card
    assert "- windows whose request was refused: 1" in card and "retries in the last run: 1 (1 status 429)" in card
    assert "1 of 24 windows keep their order" in caplog.text and caplog.text.count("estimate") <= 1
    shown, card = annotate_here(tmp_path, collection, server, *prices)  # what was refused is asked again
    number = sum(server.asked.values()) - 26
    assert 1 <= number <= 4  # and the windows above it in its list, whose passages may have changed
    assert shown == f"{24 + number} requests ({number} in this run), {2400 + 100 * number} tokens in, " + (
        f"{240 + 10 * number} out, cost {24 + number}.0000"
    )
    assert f"- requests: {shown}" in card


def test_measuring_a_finished_annotation_asks_nothing_again_and_keeps_its_ranking(collection, tmp_path, serve):
    server = serve(script=["good", "good", 400, *["good"] * 40])
    annotate_here(tmp_path, collection, server, "teacher.llm.concurrency=1", "max_unusable=1")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("teacher.run", "journal.jsonl")}
    (asked,) = [sum(server.asked.values())]
    more = ["teacher.llm.concurrency=1", "max_unusable=1", f"resume={tmp_path / 'out'}"]
    _, card = annotate_here(tmp_path, collection, server, *more, f"qrels={collection['qrels']}")
    assert sum(server.asked.values()) == asked and "- windows whose request was refused: 1" in card
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in before}


def test_a_model_that_only_thinks_ends_the_run_with_what_came_back(collection, tmp_path, serve):
    server = serve(script=itertools.repeat("only thinks"))
    with pytest.raises(InputError) as caught:
        annotate_here(tmp_path, collection, server, "tries=1")
    assert re.search(
        r"of \d+ windows got no usable answer, more than max_unusable=0.5; what came back: \d+ × no text "
        r"\(finish_reason: length\): raise teacher.llm.max_tokens, or turn the model's thinking off with",
        str(caught.value),
    )
    assert 16 <= sum(server.asked.values()) <= 19 and not (tmp_path / "out" / "teacher.run").exists()


def test_a_pasted_key_is_refused_before_anything_is_written(collection, tmp_path, serve):
    key = "teacher.llm.api_key_variable=sk-0123456789abcdef"
    run = run_annotate(tmp_path / "out", *overrides_of(collection, serve(), key))
    assert run.returncode == 2 and "must be the name of an environment variable" in run.stderr
    assert "sk-0123" not in run.stdout + run.stderr and not (tmp_path / "out" / "config.yaml").exists()


def test_a_killed_annotation_goes_on_and_asks_no_window_twice(collection, tmp_path, serve):
    whole, server = serve(), serve(delay=0.1)
    run = run_annotate(tmp_path / "whole", *overrides_of(collection, whole))
    assert run.returncode == 0, run.stderr
    overrides = overrides_of(collection, server, "teacher.llm.concurrency=1")
    process = start("-m", "distill", "annotate", *overrides, f"hydra.run.dir={tmp_path / 'out'}")
    while sum(server.asked.values()) < 10:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    in_journal = len((tmp_path / "out" / "journal.jsonl").read_bytes().splitlines())
    with open(tmp_path / "out" / "journal.jsonl", "ab") as file:
        file.write(b'{"key": "half a li')
    before = sum(server.asked.values())
    again = run_annotate(tmp_path / "unused", *overrides, f"resume={tmp_path / 'out'}")
    assert again.returncode == 0, again.stderr
    assert sum(server.asked.values()) - before == 24 - in_journal and before - in_journal <= 1  # one was in flight
    assert (tmp_path / "out" / "teacher.run").read_text() == (tmp_path / "whole" / "teacher.run").read_text()
    ours, theirs = (pq.read_table(tmp_path / name / "teacher.parquet").to_pydict() for name in ("out", "whole"))
    assert ours == theirs
    asked = sum(server.asked.values())
    third = run_annotate(tmp_path / "unused", f"resume={tmp_path / 'out'}", f"qrels={collection['qrels']}")
    assert third.returncode == 0 and sum(server.asked.values()) == asked  # to measure it costs nothing
    assert "teacher/nDCG@10" in json.loads((tmp_path / "out" / "results.json").read_text())


def test_ctrl_c_ends_an_annotation_with_one_line_that_resumes_it(collection, tmp_path, serve):
    server = serve(delay=0.1)
    overrides = overrides_of(collection, server)
    process = start("-m", "distill", "annotate", *overrides, f"hydra.run.dir={tmp_path / 'out'}")
    while sum(server.asked.values()) < 6:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    line = f"stopped by Ctrl-C; resume with: python -m distill annotate resume={tmp_path / 'out'}"
    assert process.returncode == 130 and "Traceback" not in errors and errors.count(line) == 1, errors
    again = run_annotate(tmp_path / "unused", f"resume={tmp_path / 'out'}")
    assert again.returncode == 0 and (tmp_path / "out" / "teacher.run").is_file()
    assert 24 <= sum(server.asked.values()) <= 24 + 3  # those in flight are asked again


def test_a_real_server_is_asked_once_for_each_window_and_try(collection, tmp_path):
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi, uvicorn, openai and accelerate")
    model = make_language_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--port", str(port)]
    with open(tmp_path / "server.log", "w") as output:
        server = subprocess.Popen([*command, "--device", "cpu"], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/health", server)
        overrides = [f"{name}={collection[name]}" for name in ("passages", "queries")]
        overrides += [f"run={collection['first_stage']}", "depth=4", "window=4", "stride=2", "tries=2"]
        overrides += [f"teacher.llm.base_url=http://127.0.0.1:{port}/v1", f"teacher.llm.model={model}"]
        for more in ([], [f"resume={tmp_path / 'out'}"]):  # the second time, everything is in the journal
            run = run_annotate(tmp_path / "out", *overrides, "max_unusable=1", "teacher.llm.max_tokens=8", *more)
            assert run.returncode == 0, run.stderr
            asked = (tmp_path / "server.log").read_text().count("POST /v1/chat/completions")
            entries = [json.loads(line) for line in (tmp_path / "out" / "journal.jsonl").read_text().splitlines()]
            assert 6 <= asked <= 12 and len(entries) == asked
            assert all(entry["tokens_in"] > 20 and 0 < entry["tokens_out"] <= 8 for entry in entries)
    finally:
        server.terminate()
        server.wait()


def _wait_until_it_answers(url: str, server: subprocess.Popen) -> None:
    while server.poll() is None:  # pytest's own time-out guards against a server that never answers
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_requests_in_flight_stay_within_the_bound_and_use_it(collection, tmp_path, serve):
    server = serve(together=8)  # with fewer in flight none would ever be answered
    cfg = compose_config("annotate", *overrides_of(collection, server, "teacher.llm.concurrency=8"))
    engine = HttpEngine(cfg.teacher.llm, "listwise")
    lists = {f"q{n}": (f"query {n}", [f"passage {i}" for i in range(20)]) for n in range(80)}
    with Journal(tmp_path / "j.jsonl") as journal:
        ranker = WindowRanker(engine, "judge", journal, read_prompt(str(PROMPT)), Windows("listwise", 20, 10, 1), 1)
        assert len(list(ranker.rank(lists, lambda totals: True))) == 80
    engine.close()
    assert server.most == 8 and not engine.failures


@pytest.mark.parametrize(("method", "options"), [("pointwise", []), ("listwise", ["shuffles=8", "window=20"])])
def test_one_list_keeps_the_endpoint_full_where_its_requests_do_not_wait_for_each_other(
    collection, tmp_path, serve, method, options
):
    server = serve(together=8)  # with fewer in flight none would ever be answered
    options = [f"method={method}", "teacher.llm.concurrency=8", "teacher.llm.max_cost=9", *options]
    cfg = compose_config("annotate", *overrides_of(collection, server, *options))
    OmegaConf.resolve(cfg)
    lists = {"q": ("bees", [f"passage {place}" for place in range(16)])}
    orders, _, totals = ask_llm(cfg, tmp_path / "out", lists)
    assert server.most == 8 and sum(server.asked.values()) == totals.requests == (16 if method == "pointwise" else 8)
    assert sorted(orders["q"]) == list(range(16))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_back_lists_keep_their_passages_and_are_flagged_where_a_window_has_no_answer(tmp_path, data):
    method = data.draw(st.sampled_from(["listwise", "first-token", "pointwise", "graded"]))
    texts = st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
    answers = data.draw(st.lists(st.tuples(texts, st.none() | st.floats(-9, 9)), min_size=1, max_size=40))
    given_back = itertools.cycle(Answer(text, 1, 1, 0.0, score=score) for text, score in answers)
    engine = SimpleNamespace(in_batches=True, at_once=3, options={}, tokenizer=None)
    engine.ask = lambda requests: [next(given_back) for _ in requests]
    windows = Windows(method, 4, 2, *data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3)])))
    lists = {f"q{n}": ("bees", [f"passage {n} {place}" for place in range(2 + 3 * n)]) for n in range(3)}
    path = tmp_path / f"{time.monotonic_ns()}.jsonl"
    with Journal(path) as journal:
        prompt = read_prompt(str(PROMPT.with_name(f"{method}.yaml")), method)
        ranker = WindowRanker(engine, "m", journal, prompt, windows, 1)
        found = {query_id: (order, flagged) for query_id, order, flagged, _ in ranker.rank(lists, lambda totals: True)}
    assert all(sorted(found[query_id][0]) == list(range(len(texts))) for query_id, (_, texts) in lists.items())
    assert any(flagged for _, flagged in found.values()) == (ranker.totals.unanswered > 0)
    if method in ("listwise", "first-token"):
        for order, flagged in found.values():
            rankings = [find_ranking(answer_after_thinking(text), 4) for text, _ in answers]
            if not any(rankings):  # nothing that came back is a ranking
                assert flagged and order == list(range(len(order)))


def test_a_list_that_fits_into_one_window_is_one_request_with_room_for_its_answer(collection, tmp_path, serve):
    server = serve()
    cfg = compose_config("annotate", *overrides_of(collection, server, "window=100", "teacher.llm.price_out=1e6"))
    lists = {"q": ("bees", [f"passage {i}" for i in range(100)])}
    assert re.match(
        r"1 queries, 1 requests, about .* tokens in and 400 out, cost 400.00", estimate_requests(cfg, lists)
    )
    orders, flagged, totals = ask_llm(cfg, tmp_path, lists)
    assert orders["q"] == sorted(range(100), key=lambda i: f"passage {i}"[::-1]) and not flagged["q"]
    assert sum(server.asked.values()) == totals.requests == 1 and dict(totals.answers) == {"whole": 1}
    # "[100] > " is up to 6 tokens, where each digit is one
    assert cfg.teacher.llm.max_tokens == 600
    assert compose_config("annotate", *overrides_of(collection, server)).teacher.llm.max_tokens == 256  # as ever


def test_requests_per_minute_are_spaced(collection, serve, monkeypatch):
    cfg = compose_config("annotate", *overrides_of(collection, serve(), "teacher.llm.requests_per_minute=600"))
    engine = HttpEngine(cfg.teacher.llm, "listwise")
    pauses = []
    monkeypatch.setattr(engine, "_pause", pauses.append)
    monkeypatch.setattr("distill.teachers.endpoint.time", SimpleNamespace(monotonic=lambda: 100.0, perf_counter=float))
    engine.ask([[{"role": "user", "content": "x"}]] * 6)
    engine.close()
    assert pauses == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])  # of a clock that stands still


def test_the_cost_stops_at_its_limit_and_goes_on_where_it_is_raised(collection, tmp_path, serve):
    server = serve()
    prices = ["teacher.llm.price_in=10000", "teacher.llm.price_out=0", "teacher.llm.concurrency=1"]  # 1 a request
    overrides = overrides_of(collection, server, *prices)
    run = run_annotate(tmp_path / "out", *overrides, "teacher.llm.max_cost=9")
    assert run.returncode == 2 and "teacher.llm.max_cost=9.0: reached after 2 of 6 queries, at 9.0" in run.stderr
    assert sum(server.asked.values()) == 9 and not (tmp_path / "out" / "teacher.run").exists()
    again = run_annotate(tmp_path / "x", *overrides, "teacher.llm.max_cost=100", f"resume={tmp_path / 'out'}")
    assert again.returncode == 0 and sum(server.asked.values()) == 24
    assert "- cost: 24.0000" in (tmp_path / "out" / "card.md").read_text()


def test_requests_side_by_side_do_not_run_past_the_limit(collection, tmp_path, serve):
    server = serve(delay=0.05)
    prices = ["teacher.llm.price_in=10000", "teacher.llm.price_out=0", "teacher.llm.concurrency=6"]  # 1 a request
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, *prices, "teacher.llm.max_cost=9"))
    assert run.returncode == 2 and "at 9.0" in run.stderr
    assert sum(server.asked.values()) == 9


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0.5", 0.5), ("Wed, 01 Jan 2025 13:00:00 GMT", 3600), ("Fri, 01 Jan 2016 00:00:00 GMT", 0),
     ("soon", None), (None, None)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(header, seconds):
    assert _retry_after(header, datetime(2025, 1, 1, 12, tzinfo=UTC)) == seconds


def test_a_dry_run_asks_nothing_and_says_what_it_would_take(collection, tmp_path, serve):
    server = serve()
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, "dry_run=true", "teacher.llm.price_in=1000"))
    assert run.returncode == 0 and re.search(r"6 queries, 24 requests, about .* cost \d", run.stdout)
    assert not server.asked
    more = ["teacher.llm.price_in=0", "teacher.llm.requests_per_minute=6000", f"qrels={collection['qrels']}"]
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, *more))  # and then in the same directory
    assert run.returncode == 0, run.stderr
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, "depth=5"))
    assert run.returncode == 2 and "depth: 100 -> 5" in run.stderr


def test_a_refused_request_and_a_dead_server_are_one_line(collection, tmp_path, serve):
    run = run_annotate(tmp_path / "a", *overrides_of(collection, serve(script=itertools.repeat(401))))
    assert run.returncode == 2 and "refuses the request with status 401" in run.stderr
    overrides = overrides_of(collection, serve(script=itertools.repeat(500)), "teacher.llm.retries=1")
    run = run_annotate(tmp_path / "b", *overrides)
    assert run.returncode == 2 and "failed 2 times in a row (status 500" in run.stderr
    assert "the same command or resume=DIRECTORY requests only what is missing" in run.stderr
    assert "Traceback" not in run.stderr and not [*(tmp_path / "b").glob("*")]


def test_a_request_that_waits_does_not_hold_up_the_end(collection, tmp_path, serve):
    server = serve(script=["in an hour", *itertools.repeat(401, 2)])
    # It would wait for an hour, which pytest's own time-out would end
    run = run_annotate(tmp_path / "out", *overrides_of(collection, server, "teacher.llm.concurrency=2"))
    assert run.returncode == 2 and "status 401" in run.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stride=5", "stride=5 exceeds window=4"),
        ("run=nope.run", "run=nope.run: no such file"),
        ("prompt=nope.yaml", "nope.yaml: no such file"),
        ("teacher.llm.max_cost=1", "max_cost=1.0 needs teacher.llm.price_in"),
        ("teacher.llm.api_key_variable=NO_SUCH_KEY", "NO_SUCH_KEY is not set"),
        ("teacher.llm.base_url=localhost:8000", "base_url=localhost:8000: must begin with http://"),
        ("teacher.llm.base_url=me:hunter2@host/v1", "base_url=***@host/v1: must begin with http://"),
        ("teacher.llm.base_url='http://host/v1?key=1'", "have no ? or #: give the address up to /v1"),
        ("num_queries=7", "num_queries=7 exceeds the 6 queries"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(collection, tmp_path, serve, override, message):
    run = run_annotate(tmp_path / "out", *overrides_of(collection, serve(), override))
    assert run.returncode == 2 and message in run.stderr and "Traceback" not in run.stderr


def test_a_prompt_must_show_the_model_what_it_ranks(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PROMPT.read_text().replace("{text}", "{txt}"))
    with pytest.raises(InputError, match="passage lacks {text}"):
        read_prompt(str(path))
    prompt = read_prompt(str(PROMPT))
    system, user = prompt.fill("why", ["one two [7]", "three"])
    assert system["role"] == "system" and "[1] one two (7)\n[2] three" in user["content"] and "why" in user["content"]


def test_a_local_model_generates_in_batches_what_it_generates_alone(tmp_path, collection):
    directory = make_language_model(tmp_path / "lm")
    overrides = ["passages=p", "queries=q", "run=r", "llm@teacher.llm=local", f"teacher.llm.model={directory}"]
    cfg = compose_config("annotate", *overrides, "teacher.llm.max_tokens=8")
    engine = LocalEngine(cfg.teacher.llm, torch.device("cpu"), "listwise")
    requests = [[{"role": "user", "content": " ".join(WORDS[:n])}] for n in (3, 9, 5)]
    together = engine.ask(requests)
    assert [answer.text for answer in together] == [engine.ask([one])[0].text for one in requests]
    assert [answer.tokens_in for answer in together] == [3, 9, 5]
    too_long, fits = engine.ask([[{"role": "user", "content": "bee " * 2041}], requests[0]])
    assert too_long.is_too_long and "reads 2048 tokens, but a prompt has 2041" in too_long.refused
    assert fits.text == together[0].text
    files = [f"{name}={collection[name]}" for name in ("passages", "queries")]
    files += [f"run={collection['first_stage']}", "num_queries=2", "window=4", "stride=2", "tries=1", "max_unusable=1"]
    run = run_annotate(tmp_path / "out", *files, *overrides[3:], "teacher.llm.max_tokens=8")
    assert run.returncode == 0, run.stderr
    assert len(read_run(str(tmp_path / "out" / "teacher.run"))) == 2


def test_a_cross_encoder_teaches_its_own_ranking(collection, tmp_path, backbone):
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
        model.save_pretrained(tmp_path / f"model{seed}")
    files = [*(f"{name}={collection[name]}" for name in ("passages", "queries")), f"run={collection['first_stage']}"]
    files.append("llm@teacher.llm=cross-encoder")
    run = run_annotate(tmp_path / "one", *files, f"teacher.llm.model={tmp_path / 'model0'}")
    assert run.returncode == 0, run.stderr
    task = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    task.append(f"task.run={collection['first_stage']}")
    assert run_evaluate(tmp_path / "eval", f"model={tmp_path / 'model0'}", "task=files", *task).returncode == 0
    theirs, ours = (read_run(str(tmp_path / name)) for name in ("eval/run.txt", "one/teacher.run"))
    assert all(theirs[q].doc_ids == ours[q].doc_ids for q in theirs)
    both = f"teacher.llm.model={tmp_path / 'model0'},{tmp_path / 'model1'}"
    run = run_annotate(tmp_path / "two", *files, both)
    assert run.returncode == 0, run.stderr
    scores = read_run(str(tmp_path / "two" / "teacher.run"))["q0"].scores
    assert scores.min() >= 0 and scores.max() <= 1 and len(scores) == 10


def test_scores_are_normalised_for_their_mean():
    scores = np.array([1.0, 3.0, 5.0])
    assert _normalise(scores, "min-max").tolist() == [0, 0.5, 1]
    assert _normalise(scores, "z-score") == pytest.approx(np.array([-1, 0, 1]) * np.sqrt(1.5))
    assert _normalise(np.ones(3), "z-score").tolist() == [0, 0, 0]
