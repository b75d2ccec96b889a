"""`distill serve`, mostly without a socket: forms of four servers, shared batches, limits, keys and refusals."""

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from torch import nn

from distill.commands.serve import check_packages
from distill.errors import InputError
from distill.models.interpolation import Interpolation
from distill.serving.scoring import Scorer, load_scorer
from distill.serving.server import make_server, open_socket, serve
from distill.serving.service import Service
from distill.teachers.endpoint_key import read_key
from tests.helpers.commands import start
from tests.helpers.models import PASSAGES, QUERY, make_model
from tests.helpers.serving import SaidScores, recorded, serving, settings, wait_until

ASKED = {"query": "how do bees find home", "documents": ["score 0", "score 1"]}
INTERPOLATED = {"query": "a", "texts": ["b", "c"], "first_stage_scores": [1, 2], "weight": 0.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("backbone") / "bert", "bert")


@pytest.fixture(scope="module")
def said():
    """A client of a server whose passages say their scores."""
    with serving() as client:
        yield client


def agrees(found, expected) -> bool:
    """Whether an answer is the recorded one: * is anything, numbers agree to float32."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(agrees(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(agrees, found, expected))
    if isinstance(expected, float):
        return isinstance(found, float) and found == pytest.approx(expected, abs=1e-7)
    return expected == "*" or (type(found) is type(expected) and found == expected)


@pytest.mark.parametrize("pair", recorded(), ids=lambda pair: f"{pair['server']}-{pair['what'][:40]}")
def test_an_answer_is_as_the_server_of_that_name_would_give_it(said, pair):
    response = said.post(pair["path"], json=pair["request"])
    assert response.status_code == pair.get("status", 200)
    assert response.headers["content-type"] == "application/json"
    assert agrees(response.json(), pair["response"]), response.text


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_logits_in_every_form_are_those_of_rank(model, path):
    order, scores = model.rank(QUERY, PASSAGES)
    with serving(Scorer(model, 16384, torch.float32)) as client:
        asked = {"query": QUERY, "documents": PASSAGES, "raw_scores": True}
        answer = client.post(path, json=asked).json()
        probabilities = client.post(path, json=asked | {"raw_scores": False}).json()
        texts = client.post("/rerank", json={"query": QUERY, "texts": PASSAGES, "raw_scores": True}).json()
        scored = client.post("/score", json={"text_1": QUERY, "text_2": PASSAGES, "use_activation": False}).json()
    assert [result["index"] for result in answer["results"]] == order == [result["index"] for result in texts]
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx(scores, abs=1e-6)
    assert [result["score"] for result in texts] == pytest.approx(scores, abs=1e-6)
    assert [scored["data"][index]["score"] for index in order] == pytest.approx(scores, abs=1e-6)
    sigmoid = torch.sigmoid(torch.tensor(scores, dtype=torch.float64)).tolist()
    assert [result["relevance_score"] for result in probabilities["results"]] == pytest.approx(sigmoid, abs=1e-6)
    lengths = [len(model.tokenizer(QUERY, passage)["input_ids"]) for passage in PASSAGES]
    assert answer["usage"]["total_tokens"] == sum(lengths)


def test_requests_that_arrive_together_share_a_batch_and_get_their_own_scores(model):
    lists = [[f"{PASSAGES[number % 4]} {'rain ' * (number % 5)}", *PASSAGES[: number % 4]] for number in range(24)]
    service = Service(settings(max_wait=0.2), lambda cfg: Scorer(model, 16384, torch.float32))

    async def ask() -> list[httpx.Response]:
        from distill.serving.app import make_app

        app = make_app(service)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            service.loading.join()
            bodies = [{"query": QUERY, "texts": passages, "raw_scores": True} for passages in lists]
            return await asyncio.gather(*(client.post("/rerank", json=body) for body in bodies))

    responses = asyncio.run(ask())
    for response, passages in zip(responses, lists, strict=True):
        order, scores = model.rank(QUERY, passages)
        assert [result["index"] for result in response.json()] == order
        assert [result["score"] for result in response.json()] == pytest.approx(scores, abs=1e-5)
    counted = service.metrics.text().decode()
    [batches] = [line for line in counted.splitlines() if line.startswith("distill_batch_requests_count")]
    assert float(batches.split()[1]) <= 8  # of 24 requests
    assert f"distill_passages_total {sum(map(len, lists))}.0" in counted


# Interpolation


@pytest.fixture
def weighted(model, monkeypatch):
    """The model, with a weight of 0.6 in its files."""
    monkeypatch.setattr(model, "interpolation", Interpolation(0.6, ("bm25.run",), "nDCG@10", 200))
    return model


@pytest.mark.parametrize("weight", [None, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("field", ["texts", "documents"])
def test_scores_are_interpolated_with_those_of_the_first_stage_as_rank_does(weighted, field, weight):
    first_stage = [float((7 * index) % 5) for index in range(len(PASSAGES))]
    order, scores = weighted.rank(QUERY, PASSAGES, first_stage_scores=first_stage, weight=weight)
    asked = {"query": QUERY, field: PASSAGES, "first_stage_scores": first_stage, "weight": weight}
    with serving(Scorer(weighted, 16384, torch.float32)) as client:
        for raw in (True, False):
            results = client.post("/rerank", json=asked | {"raw_scores": raw}).json()
            results = results if field == "texts" else results["results"]
            assert [one["index"] for one in results] == order
            expected = scores if raw else [1 / (1 + np.exp(-score)) for score in scores]
            found = [one.get("score", one.get("relevance_score")) for one in results]
            assert found == pytest.approx(expected, abs=1e-6)


def test_the_interpolation_of_known_scores(said):
    asked = {"query": "a", "texts": ["score 1", "score 3"], "raw_scores": True, "first_stage_scores": [7, 5]}
    answers = said.post("/rerank", json=asked | {"weight": 0.25}).json()
    assert answers == [{"index": 0, "score": 0.5}, {"index": 1, "score": -0.5}]  # 0.25 * (-1, 1) + 0.75 * (1, -1)


def test_info_says_the_weight_and_its_first_stage(weighted):
    with serving(Scorer(weighted, 16384, torch.float32)) as client:
        assert client.get("/info").json()["interpolation"] == {
            "weight": 0.6,
            "first_stages": ["bm25.run"],
            "measure": "nDCG@10",
            "num_queries": 200,
        }


def test_in_a_cascade_the_weight_must_be_sent(weighted, model):
    with serving(Scorer(weighted, 16384, torch.float32, first=model, keep=1)) as client:
        asked = {"query": QUERY, "texts": PASSAGES[:2], "first_stage_scores": [1, 2]}
        assert "is not for a cascade" in client.post("/rerank", json=asked).json()["error"]
        assert client.post("/rerank", json=asked | {"weight": 0.5}).status_code == 200
        assert client.get("/info").json()["interpolation"] is None


# What is refused


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/rerank", b"{", 400, "the body is not JSON: Expecting property name"),
        ("/rerank", b"\xff\xfe\x00", 400, "the body is not JSON"),
        ("/rerank", b"[" * 200_000, 400, "nested too deeply"),
        ("/rerank", b'{"query": "a", "texts": ["b"], "top_n": NaN}', 400, "NaN is no number there"),
        ("/rerank", b'{"query": "a", "texts": ["\\ud800"]}', 422, "texts[0] holds half of a surrogate pair"),
        ("/rerank", [], 422, "the body is not a JSON object"),
        ("/rerank", {"query": "a"}, 422, "the body has no passages: send documents (Jina, Cohere) or texts"),
        ("/rerank", {"query": "a", "texts": ["b"], "documents": ["b"]}, 422, "both texts and documents"),
        ("/rerank", {"query": ["a"], "texts": ["b"]}, 422, "query is a list: send a text"),
        ("/rerank", {"query": None, "texts": ["b"]}, 422, "query is missing"),
        ("/rerank", {"query": "a", "texts": "b"}, 422, "texts is a text: send a list of texts"),
        ("/rerank", {"query": "a", "texts": ["b", 1]}, 422, "texts[1] is a number: send a text"),
        ("/rerank", {"query": "a", "texts": [{"text": "b"}]}, 422, "texts[0] is an object: send a text"),
        ("/rerank", {"query": "a", "texts": ["b"], "raw_scores": 1}, 422, "raw_scores is a number: send true or false"),
        ("/rerank", {"query": "a", "texts": ["b"], "truncation_direction": "Left"}, 422, "texts are only cut at"),
        ("/v1/rerank", {"query": "a", "documents": [{"image": "b"}]}, 422, "documents[0].text is missing"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, 422, "top_n is -1: send a whole number from 1"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 1.5}, 422, "top_n is a number"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": True}, 422, "top_n is true or false"),
        (
            "/v1/rerank",
            {"query": "a", "documents": ["b"], "rank_fields": ["title"]},
            422,
            "rank_fields is not supported",
        ),
        ("/score", {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 5}, 422, "truncate_prompt_tokens is not"),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "model": "other"}, 404, "model=other: is not served here"),
        (
            "/rerank",
            INTERPOLATED | {"first_stage_scores": [1]},
            422,
            "first_stage_scores holds 1 scores for 2 passages",
        ),
        ("/rerank", INTERPOLATED | {"first_stage_scores": 1}, 422, "first_stage_scores is a number: send a list of"),
        ("/rerank", INTERPOLATED | {"first_stage_scores": [1, "2"]}, 422, "first_stage_scores[1] is a text: send a n"),
        ("/rerank", b'{"query": "a", "texts": ["b"], "first_stage_scores": [1e999]}', 422, "scores[0] is too large"),
        ("/rerank", INTERPOLATED | {"first_stage_scores": [1, 10**400]}, 422, "first_stage_scores[1] is too large"),
        ("/rerank", INTERPOLATED | {"weight": None}, 422, "weight is missing: the model's files hold none: send"),
        ("/rerank", INTERPOLATED | {"weight": 2}, 422, "weight is 2.0: send the model's share, a number from 0 to"),
        ("/rerank", INTERPOLATED | {"first_stage_scores": None}, 422, "weight without first_stage_scores: give"),
        ("/score", {"text_1": "a", "text_2": "b", "weight": 0.5}, 422, "weight: /score scores each pair by itself"),
        ("/score", {"text_1": "a"}, 422, "the body has no pairs: send queries and documents"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, 422, "text_1 has 2 texts and text_2 3"),
        ("/score", {"text_1": "a", "text_2": []}, 422, "text_2 is empty"),
        ("/v3/rerank", {}, 404, "POST /v3/rerank: is not served: there are POST /rerank, "),
    ],
)
def test_a_bad_request_is_answered_with_reason_and_remedy(said, path, body, status, message):
    response = said.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    assert response.status_code == status, response.text
    found = response.json()
    assert message in found["error"] and found["error"] == found["message"] == found["detail"]


def test_another_method_is_refused(said):
    response = said.get("/rerank")
    assert response.status_code == 405 and "POST" in response.headers["allow"]


def test_numbers_of_passages_characters_and_bytes_are_limited():
    with serving(max_passages=2, max_characters=30, max_bytes=1000) as client:
        for body, message in (
            (ASKED | {"documents": ["a", "b", "c"]}, "3 passages: send at most 2 at once (max_passages)"),
            (ASKED | {"documents": ["a", "b" * 31]}, "passage 1 has 31 characters: send at most 30 (max_characters)"),
            (ASKED | {"query": "b" * 31}, "query 0 has 31 characters"),
            (ASKED | {"user": "b" * 1000}, "the body has more than 1000 bytes (max_bytes)"),
        ):
            response = client.post("/rerank", json=body)
            assert response.status_code == 413 and message in response.json()["error"]
        chunked = client.post("/rerank", content=(b" " * 100 for _ in range(11)))
        assert chunked.status_code == 413
        compressed = client.post("/rerank", content=b"{}", headers={"Content-Encoding": "gzip"})
        assert compressed.status_code == 415
        for encoding in ("identity", "Identity", " identity ", ""):
            plain = client.post("/rerank", json=ASKED, headers={"Content-Encoding": encoding})
            assert plain.status_code == 200
        assert client.post("/rerank", json=ASKED).status_code == 200


def test_a_body_must_arrive_in_time():
    with serving(body_timeout=0.05) as client:

        async def ask() -> list[dict]:
            sent: list[dict] = []

            async def receive():
                await asyncio.sleep(60)

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/rerank", "headers": [], "query_string": b""}
            await client.app(scope | {"http_version": "1.1", "scheme": "http"}, receive, send)
            return sent

        assert client.portal.call(ask)[0]["status"] == 408


@pytest.mark.parametrize(
    ("path", "key", "status"), [("/rerank", None, 413), ("/rerank", "bees-home-17", 401), ("/v3/rerank", None, 404)]
)
def test_a_client_that_sends_all_of_its_body_first_sees_why_it_is_refused(path, key, status):
    with listening(SaidScores(), key, max_bytes=1000) as (url, _, _):
        with pytest.raises(urllib.error.HTTPError) as refused:  # urllib closes its connections
            urllib.request.urlopen(url + path, data=b" " * 12_000_000, timeout=60)
        assert refused.value.code == status and json.load(refused.value)["error"]


def test_a_client_that_asks_before_it_sends_a_body_is_refused_without_sending_it():
    with serving(max_bytes=1000) as client:

        async def ask() -> list[dict]:
            sent: list[dict] = []

            async def receive():
                raise AssertionError("uvicorn would ask for the body")

            async def send(message):
                sent.append(message)

            headers = [(b"content-length", b"2000"), (b"expect", b"100-continue")]
            scope = {"type": "http", "method": "POST", "path": "/rerank", "headers": headers, "query_string": b""}
            await client.app(scope | {"http_version": "1.1", "scheme": "http"}, receive, send)
            return sent

        assert client.portal.call(ask)[0]["status"] == 413


def test_texts_are_cut_as_in_training_and_refused_without_leave(model):
    long = " ".join(PASSAGES * 10)
    with serving(Scorer(model, 16384, torch.float32)) as client:
        asked = {"query": QUERY, "texts": [PASSAGES[0], long], "raw_scores": True}
        cut = client.post("/rerank", json=asked)
        assert [result["score"] for result in cut.json()] == pytest.approx(
            model.rank(QUERY, asked["texts"])[1], abs=1e-6
        )
        whole = client.post("/rerank", json=asked | {"truncate": False})
        assert whole.status_code == 422
        assert whole.json()["error"].startswith(
            "1 of 2 passages would be cut (first: 1): the model reads 8 tokens of a query and 20 of"
        )
        assert client.post("/rerank", json=asked | {"texts": PASSAGES, "truncate": False}).status_code == 200
        assert client.post("/rerank", json=asked | {"query": long, "truncate": False}).status_code == 422


@pytest.mark.parametrize(
    ("path", "names"),
    [("/rerank", ("query", "texts")), ("/v2/rerank", ("query", "documents")), ("/score", ("text_1", "text_2"))],
)
def test_max_tokens_per_doc_cuts_passages_shorter_in_every_form(model, path, names):
    long = " ".join(PASSAGES)
    asked = dict(zip(names, (QUERY, [long]), strict=True)) | {"raw_scores": True}
    [short] = model.score_lists([model.encode([QUERY], [long], passage_length=2)])
    with serving(Scorer(model, 16384, torch.float32)) as client:
        answer = client.post(path, json=asked | {"max_tokens_per_doc": 2}).json()
        [found] = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
        assert found.get("score", found.get("relevance_score")) == pytest.approx(short.item(), abs=1e-6)
        assert short.item() != pytest.approx(model.rank(QUERY, [long])[1][0], abs=1e-4)
        refused = client.post(path, json=asked | {"max_tokens_per_doc": 2, "truncate": False})
        assert refused.status_code == 422
        assert refused.json()["error"].startswith("max_tokens_per_doc cuts passages, which truncate=false forbids")


# Keys


def test_with_a_key_all_but_health_needs_it_and_it_is_never_logged(caplog):
    key = "bees-home-17"
    with caplog.at_level(logging.DEBUG), serving(key=key) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": key.encode()}, {"X-Api-Key": "a"}):
            response = client.post("/rerank", json=ASKED, headers=headers)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer KEY" in response.json()["error"]
        for path in ("/info", "/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
        assert client.get("/health").status_code == 200
        for kind in ("Bearer", "bearer"):
            response = client.post("/rerank", json=ASKED, headers={"Authorization": f"{kind} {key}"})
            assert response.status_code == 200
    assert key not in caplog.text


# Loading, full, failing, stopping


def test_requests_are_refused_while_the_model_is_loaded():
    gate = threading.Event()

    def load(cfg):
        assert gate.wait(60)
        return SaidScores()

    with serving(load=load, wait=False) as client:
        for response in (client.get("/health"), client.post("/rerank", json=ASKED), client.get("/info")):
            assert response.status_code == 503 and response.headers["retry-after"] == "1"
            assert "the model is being loaded" in response.json()["error"]
        assert "distill_ready 0.0" in client.get("/metrics").text
        gate.set()
        client.service.loading.join()
        assert client.get("/health").json() == {"status": "ok"}
        assert client.post("/rerank", json=ASKED).status_code == 200
        assert "distill_ready 1.0" in client.get("/metrics").text


def test_more_requests_than_the_queue_holds_are_refused():
    gate = threading.Event()
    with serving(SaidScores(before=lambda: gate.wait(60)), max_queue=2) as client:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(client.post("/rerank", json=ASKED).status_code))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: client.service.in_flight == 2)
        full = client.post("/rerank", json=ASKED)
        assert full.status_code == 503 and full.json()["error_type"] == "Overloaded"
        assert "2 requests are waiting (max_queue=2): ask again" in full.json()["error"]
        assert client.get("/health").status_code == 200  # busy, not broken
        assert "distill_requests_in_flight 2.0" in client.get("/metrics").text
        gate.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200] and client.service.in_flight == 0
        assert client.post("/rerank", json=ASKED).status_code == 200


def test_a_failure_fails_one_request_and_the_server_lives_on(said, caplog):
    with caplog.at_level(logging.ERROR):
        response = said.post("/rerank", json=ASKED | {"documents": ["score 666"]})
    assert response.status_code == 500 and response.json()["error_type"] == "Backend"
    assert "the number of the beast" not in response.text and "the number of the beast" in caplog.text
    assert said.post("/rerank", json=ASKED).status_code == 200


def test_a_request_whose_client_is_gone_is_dropped():
    gate, batches = threading.Event(), []

    def before() -> None:
        batches.append(1)
        assert gate.wait(60)

    with serving(SaidScores(before)) as client:
        body = json.dumps(ASKED).encode()

        async def leave():
            async def gone() -> None:
                while not client.service.batcher.jobs:
                    await asyncio.sleep(0.001)

            with pytest.raises(asyncio.CancelledError):
                await client.service.answer("/rerank", body, gone)

        busy = threading.Thread(target=lambda: client.post("/rerank", json=ASKED))
        busy.start()
        wait_until(lambda: batches)
        client.portal.call(leave)
        gate.set()
        busy.join()
        assert client.post("/rerank", json=ASKED).status_code == 200
        assert len(batches) == 2  # of the first and of the last request


def test_info_models_and_metrics_say_what_is_served(model):
    with serving(Scorer(model, 16384, torch.float32), names=["bees", "rerank-v3.5"], max_queue=7) as client:
        info = client.get("/info").json()
        assert (info["model_id"], info["max_input_length"], info["max_concurrent_requests"]) == ("bees", 31, 7)
        assert "reranker" in info["model_type"] and info["model_dtype"] == "float32"
        assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["bees", "rerank-v3.5"]
        assert client.post("/v2/rerank", json=ASKED | {"model": "rerank-v3.5"}).json()["model"] == "bees"
        metrics = client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=")
        assert 'distill_requests_total{path="/v2/rerank",status="200"} 1.0' in metrics.text


def test_the_name_of_a_model_shows_no_path():
    assert Service(settings(names=None, model="/home/me/bees"), load_scorer).names == ["bees"]
    assert Service(settings(names=None, model="webis/monoelectra-base"), load_scorer).names == [
        "webis/monoelectra-base"
    ]


def test_stopping_waits_for_what_is_scored():
    gate, scoring = threading.Event(), threading.Event()

    def before() -> None:
        scoring.set()
        assert gate.wait(60)

    service = Service(settings(), lambda cfg: SaidScores(before))
    service.start()
    service.loading.join()
    job = service.batcher.submit([(np.array([5]), None)])
    assert scoring.wait(60)
    threading.Timer(0.02, gate.set).start()
    service.stop()
    assert job.future.result(0).tolist() == [5.0] and not service.is_ready


def test_a_request_that_is_not_scored_by_the_end_of_stop_timeout_is_told_to_ask_again(caplog):
    gate = threading.Event()
    with (
        caplog.at_level(logging.WARNING),
        listening(SaidScores(before=lambda: gate.wait(60)), stop_timeout=1) as (url, server, service),
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(httpx.post, f"{url}/rerank", json=ASKED, timeout=60)
        wait_until(lambda: service.in_flight)
        server.should_exit = True
        response = asked.result()
        gate.set()
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert response.json()["error"] == response.json()["detail"] == "the server is stopping: ask again"
    assert 'distill_requests_total{path="/rerank",status="503"} 1.0' in service.metrics.text().decode()
    assert len(caplog.text.splitlines()) == 1 and "Cancel 1 running task(s)" in caplog.text


# Scores


@pytest.mark.parametrize(
    ("activation", "scores", "expected"),
    [
        (nn.Identity(), [0.0, np.log(3), 1000.0, -1000.0], [0.5, 0.75, 1.0, 0.0]),
        (nn.LogSigmoid(), [0.0, np.log(0.25)], [1.0, 0.25]),  # log-probabilities, as monoT5's
        (nn.Sigmoid(), [0.25, 1.0], [0.25, 1.0]),
    ],
)
def test_scores_become_probabilities_once(activation, scores, expected):
    scorer = SimpleNamespace(model=SimpleNamespace(activation=activation, calibration=None))
    assert Scorer.returned(scorer, np.array(scores), raw=False).tolist() == pytest.approx(expected)
    assert Scorer.returned(scorer, np.array(scores), raw=True).tolist() == scores


def test_a_model_that_reads_first_stage_scores_is_not_served(model, monkeypatch):
    monkeypatch.setattr(model.template, "first_stage_score", "min-max")
    with pytest.raises(InputError, match="reads the first stage's score of each passage, which clients"):
        Scorer(model, 100, torch.float32)


# The command


@contextlib.contextmanager
def listening(scorer, key: str | None = None, **changes) -> Iterator[tuple[str, uvicorn.Server, Service]]:
    """The address of a server with a socket, in a thread; and the server, which `should_exit` stops."""
    service = Service(settings(**changes), lambda cfg: scorer)
    server = make_server(service, key)
    with open_socket("127.0.0.1", 0) as opened:
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            wait_until(lambda: service.is_ready)
            yield f"http://127.0.0.1:{opened.getsockname()[1]}", server, service
        finally:
            server.should_exit = True
            thread.join()


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_line(tmp_path):
    addresses: list[str] = []
    with pytest.raises(InputError, match="no_such_model"):
        serve(settings(model=str(tmp_path / "no_such_model"), port=0), None, addresses.append)
    assert addresses[0].startswith("http://127.0.0.1:")


def test_an_address_in_use_is_one_line_with_the_remedy():
    with open_socket("127.0.0.1", 0) as used:
        port = used.getsockname()[1]
        with pytest.raises(InputError, match=f"host=127.0.0.1 port={port}: Address already in use: choose another"):
            open_socket("127.0.0.1", port)


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_package_is_one_line_with_the_remedy(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"serve needs {name}, which is not installed: pip install starlette uvicorn"):
        check_packages()


def test_a_server_finishes_its_requests_on_sigterm_and_answers_rerankers(model, tmp_path):
    """The one test with a process."""
    rerankers = pytest.importorskip("rerankers")
    from rerankers.models.api_rankers import APIRanker

    model.save_pretrained(tmp_path / "model")
    with open_socket("127.0.0.1", 0) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    server = start(
        *("-m", "distill", "serve", "model=model", f"port={url.rpartition(':')[2]}", "api_key_variable=BEES_KEY"),
        cwd=tmp_path,
        env=os.environ | {"BEES_KEY": "bees-home-17"},
    )
    try:
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer bees-home-17"}, timeout=60) as client:
            wait_until(lambda: server.poll() is not None or is_ready(client))
            order, scores = model.rank(QUERY, PASSAGES)
            for provider, path in (
                ("cohere", "/v1/rerank"),
                ("jina", "/v1/rerank"),
                ("text-embeddings-inference", "/rerank"),
            ):
                ranker = APIRanker("model", "bees-home-17", provider, url=url + path)
                ranked = ranker.rank(QUERY, [rerankers.Document(text) for text in PASSAGES])
                assert [PASSAGES.index(result.document.text) for result in ranked.results] == order
                sigmoid = torch.sigmoid(torch.tensor(scores)).tolist()
                assert [result.score for result in ranked.results] == pytest.approx(sigmoid, abs=1e-6)
            with ThreadPoolExecutor(4) as pool:
                large = {"query": QUERY, "texts": PASSAGES * 250, "raw_scores": True}  # all that a request may have
                asked = [
                    pool.submit(httpx.post, f"{url}/rerank", json=large, headers=client.headers, timeout=60)
                    for _ in range(4)
                ]
                wait_until(lambda: num_received(client.get("/metrics").text) == 3 + len(asked))
                server.terminate()
                answers = [future.result() for future in asked]
        output, errors = server.communicate()
    finally:
        server.kill()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [result["score"] for result in answers[0].json()[::250]] == pytest.approx(scores, abs=1e-5)
    assert server.returncode == 0, output + errors
    assert "stopped by SIGTERM: 7 requests answered" in errors and "bees-home-17" not in output + errors
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def num_received(metrics: str) -> float:
    """Return how many requests to rank a server has received, answered or not: on a slow day, some are answered."""
    counts = re.findall(r"^distill_requests(?:_in_flight|_total\{path=\"\S*rerank\",\S*) (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, counts))


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.ConnectError:  # it does not listen yet
        return False


def test_a_key_in_place_of_its_variables_name_is_refused_without_being_shown():
    with pytest.raises(InputError, match="^api_key_variable: must be the name of an environment variable") as caught:
        read_key("sk-bees17", "api_key_variable")
    assert "sk-bees17" not in str(caught.value)


def test_a_batch_on_a_cpu_is_no_larger_than_what_its_threads_gain_from(model):
    threads = torch.get_num_threads()
    assert Scorer(model, 16384, torch.float32).max_tokens == min(2048, 512 * threads)
    assert Scorer(model, 100, torch.float32).max_tokens == 100
