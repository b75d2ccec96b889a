"""Endpoints that send too much, too slowly, the wrong thing or nothing: one line, one flag, or still the answer."""

import gzip
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from distill.config.checks import check_values
from distill.errors import InputError
from distill.teachers.endpoint import HttpEngine
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import Prompt
from tests.helpers.configuration import compose_config
from tests.helpers.raw_server import RawServer, completion, drip, respond

RANKING = "[2] > [1]"
MESSAGES = [{"role": "user", "content": "Rank them."}]
KEY = "sk-0123456789abcdef"
PROMPT = Prompt("", "", "[{number}] {text}", "{query}", 300)


@pytest.fixture
def endpoint():
    """Return a function that opens an engine on a server with a reply."""
    servers = []

    def start(reply, *overrides, method: str = "listwise", url: str = "http://{}/v1"):
        server = RawServer(reply)
        servers.append(server)
        files = ["passages=p", "queries=q", "run=r", "teacher.llm.model=m", f"method={method}"]
        limits = ["teacher.llm.retries=0", "teacher.llm.timeout=20", "teacher.llm.concurrency=1"]
        address = f"teacher.llm.base_url='{url.format(server.address)}'"
        return server, HttpEngine(compose_config("annotate", *files, *limits, address, *overrides).teacher.llm, method)

    yield start
    for server in servers:
        server.close()


def ask(engine) -> str:
    (answer,) = engine.ask([MESSAGES])
    return answer.refused or answer.text


ENDLESS = {
    "a body": lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b" "),
    "a body without length": lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "headers": lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "informational replies": lambda connection: drip(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_reply_that_never_ends_is_given_up_at_the_timeout(endpoint, name):
    _, engine = endpoint(lambda connection, *_: ENDLESS[name](connection), "teacher.llm.timeout=0.5")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"ReadTimeout: no complete answer after 0.5 s"):
        ask(engine)
    assert time.monotonic() - start < 5


def test_a_late_answer_is_requested_twice_more_at_most_and_the_remedy_names_the_timeout(endpoint, monkeypatch):
    _, engine = endpoint(lambda *_: time.sleep(0.4), "teacher.llm.timeout=0.1", "teacher.llm.retries=8")
    monkeypatch.setattr(engine, "_pause", lambda _: None)
    remedy = "raise teacher.llm.timeout, or lower teacher.llm.max_tokens or teacher.llm.concurrency; the same command"
    with pytest.raises(InputError, match=rf"failed 3 times in a row \(ReadTimeout.*\): {remedy}"):
        ask(engine)


def test_pauses_grow_though_the_server_asks_for_short_ones(endpoint, monkeypatch):
    def busy(connection, *_):
        respond(connection, b"", 429, "Retry-After: 1\r\n")

    _, engine = endpoint(busy, "teacher.llm.retries=8")
    pauses = []
    monkeypatch.setattr(engine, "_pause", pauses.append)
    with pytest.raises(
        InputError, match=r"status 429.*: set teacher.llm.requests_per_minute, or lower teacher.llm.con"
    ):
        ask(engine)
    assert len(pauses) == 8 and min(pauses) >= 1
    assert all(0.25 * 2**number <= max(pause, 1.0) * 1.01 for number, pause in enumerate(pauses[:7]))
    assert sum(pauses) > 60


def test_a_reply_is_read_up_to_its_limit_only(endpoint):
    def large(connection, *_):
        drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n", b" " * 2**20, seconds=0)

    def bomb(connection, *_):
        respond(connection, gzip.compress(b" " * 2**26), headers="Content-Encoding: gzip\r\n")

    for reply in (large, bomb):
        _, engine = endpoint(reply, "teacher.llm.max_bytes=1000000", "teacher.llm.retries=8")
        with pytest.raises(InputError, match=r"its reply is larger than teacher.llm.max_bytes=1000000"):
            ask(engine)


def test_a_gzipped_reply_is_unpacked_and_other_encodings_are_refused(endpoint):
    packed = gzip.compress(json.dumps(completion(RANKING)).encode())
    _, engine = endpoint(lambda connection, *_: respond(connection, packed, headers="Content-Encoding: gzip\r\n"))
    assert ask(engine) == RANKING
    _, engine = endpoint(lambda connection, *_: respond(connection, packed, headers="Content-Encoding: br\r\n"))
    with pytest.raises(InputError, match="an encoding that was not asked for"):
        ask(engine)


@pytest.mark.parametrize("header", ["999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_asks_to_wait_for_years_ends_the_run(endpoint, header):
    headers = f"Retry-After: {header}\r\n"
    _, engine = endpoint(lambda connection, *_: respond(connection, b"", 429, headers), "teacher.llm.retries=8")
    with pytest.raises(InputError, match=r"asks to wait (\d+|inf) seconds .* teacher.llm.max_wait=3600: resume="):
        ask(engine)


SHAPES = [
    (completion([{"type": "thinking", "text": "[1] > [2]"}, {"type": "text", "text": RANKING}]), RANKING, 100, 10),
    (completion([RANKING]), RANKING, 100, 10),
    (completion({"type": "text", "text": RANKING}), RANKING, 100, 10),
    (completion(RANKING, usage=None), RANKING, 2, 2),  # estimates: a quarter of the letters
    (completion(RANKING, usage={"prompt_tokens": "7", "completion_tokens": 5.0}), RANKING, 7, 5),
    (completion(RANKING, usage={"prompt_tokens": -1, "completion_tokens": {"a": 1}}), RANKING, 2, 2),
    (completion(RANKING, usage=[1]), RANKING, 2, 2),
    (completion(f"{RANKING} \ud83d"), f"{RANKING} ?", 100, 10),
    (completion(None, choice={"finish_reason": "length"}), "", 100, 10),
    (completion(None, choice={"message": {"content": None, "reasoning_content": "[1] > [2]"}}), "", 100, 10),
    (completion(RANKING, choice={"message": {"content": RANKING, "reasoning_content": "[1]"}}), RANKING, 100, 10),
    (completion(RANKING, choice={"finish_reason": 5}), RANKING, 100, 10),
]


@pytest.mark.parametrize(("reply", "text", "tokens_in", "tokens_out"), SHAPES)
def test_answers_of_any_shape_are_read(endpoint, tmp_path, reply, text, tokens_in, tokens_out):
    _, engine = endpoint(lambda connection, *_: respond(connection, reply))
    (answer,) = engine.ask([MESSAGES])
    assert (answer.text, answer.tokens_in, answer.tokens_out) == (text, tokens_in, tokens_out)
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.add("k", answer.to_json())
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal.find("k") == answer.to_json()


@pytest.mark.parametrize(
    "reply",
    [b"<html>", b"", b"[" * 100_000, b"[1]", b'{"choices": {}}', b'{"choices": [5]}', b'{"choices": [{"message": 5}]}',
     b'{"choices": [{"message": {"content": 7}}]}', b'{"error": {"message": "no model"}}', b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_answer_is_refused_with_what_came(endpoint, reply):
    _, engine = endpoint(lambda connection, *_: respond(connection, reply))
    with pytest.raises(InputError, match=r"\(no chat completion, but .+\): once it works again"):
        ask(engine)


@pytest.mark.parametrize(
    ("logprobs", "score"),
    [
        ([{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.4}], 2.3),
        ([{"token": "Yes", "logprob": 99.0}, {"token": "No", "logprob": -2.4}], 2.4),  # no probability is above 1
        ([], None),
    ],
)
def test_logprobs_are_read(endpoint, logprobs, score):
    reply = completion("Yes", choice={"logprobs": {"content": [{"top_logprobs": logprobs}]}})
    _, engine = endpoint(lambda connection, *_: respond(connection, reply), method="pointwise")
    assert engine.ask([MESSAGES])[0].score == (score if score is None else pytest.approx(score, abs=0.01))


HUGE = {"token": "Yes", "logprob": -(10**400)}  # which no float can hold


@pytest.mark.parametrize(
    "logprobs",
    [5, [{}], [{"top_logprobs": [{"token": "Yes"}]}], [{"top_logprobs": "Yes"}], [{"top_logprobs": [HUGE]}]],
)
def test_logprobs_that_are_none_are_no_answer(endpoint, logprobs):
    reply = completion("Yes", choice={"logprobs": {"content": logprobs}})
    _, engine = endpoint(lambda connection, *_: respond(connection, reply), method="pointwise")
    with pytest.raises(InputError, match="no chat completion"):
        ask(engine)


def picky(complaints: dict[str, str]):
    """A reply that refuses parameters, by the message that it has for each."""

    def reply(connection, body, _):
        fault = next((text for name, text in complaints.items() if name in body), None)
        if fault and not (fault == LOGPROBS and body["top_logprobs"] <= 5):
            respond(connection, {"error": {"message": fault}}, 400)
        else:
            respond(connection, completion(RANKING, choice={"logprobs": {"content": []}}))

    return reply


LOGPROBS = "Requested sample logprobs of 20, which is greater than max allowed: 5"
OPENAI = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
}


def test_known_complaints_about_parameters_are_adapted_to_once(endpoint):
    server, engine = endpoint(picky(OPENAI))
    assert ask(engine) == RANKING and len(server.bodies) == 3
    assert ask(engine) == RANKING and len(server.bodies) == 4  # it has learned
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 256 and "max_tokens" not in last and "temperature" not in last
    assert engine.options == {"temperature": 0.0, "max_tokens": 256}  # the journal's keys stay
    assert engine.adapted == [
        "max_completion_tokens is sent in place of max_tokens", "temperature is left to the endpoint"
    ]  # fmt: skip
    server, engine = endpoint(picky({"top_logprobs": LOGPROBS}), method="pointwise")
    assert ask(engine) == RANKING and [body["top_logprobs"] for body in server.bodies] == [20, 5]
    server, engine = endpoint(picky({"messages": OPENAI["temperature"]}))
    assert "status 400" in ask(engine) and len(server.bodies) == 2  # without temperature it complains all the same


def test_the_body_takes_any_field(endpoint):
    body = "teacher.llm.body={chat_template_kwargs:{enable_thinking:false},temperature:null,max_completion_tokens:9}"
    server, engine = endpoint(lambda connection, *_: respond(connection, completion(RANKING)), body)
    assert ask(engine) == RANKING
    sent = {"chat_template_kwargs": {"enable_thinking": False}, "max_completion_tokens": 9}
    assert server.bodies == [{"model": "m", "messages": MESSAGES, **sent}]
    assert "body" in engine.options and json.dumps(engine.options)  # other fields, other answers
    check_values(compose_config("annotate", "passages=p", "queries=q", "run=r", "teacher.llm.model=m", body))
    with pytest.raises(InputError, match="teacher.llm.body=5: must be fields of a request"):
        check_values(
            compose_config("annotate", "passages=p", "queries=q", "run=r", "teacher.llm.model=m", "teacher.llm.body=5")
        )


@pytest.mark.parametrize("body", ["{a:nan}", "{a:{b:[1,-inf]}}", "{nan:1}", "{a:1e999}", "{a:'\udcff'}"])
def test_a_body_that_is_no_json_is_refused(body):
    files = ["passages=p", "queries=q", "run=r", "teacher.llm.model=m"]
    with pytest.raises(InputError, match=r"^teacher.llm.body=.*: cannot be sent as JSON: numbers must be finite"):
        check_values(compose_config("annotate", *files, f"teacher.llm.body={body}"))


def annotate_lists(engine, journal, lists, tries: int = 3):
    ranker = WindowRanker(engine, "m", journal, PROMPT, Windows("listwise", 4, 2, 1), tries)
    found = {query_id: (order, flagged) for query_id, order, flagged, _ in ranker.rank(lists, lambda totals: True)}
    return found, ranker.totals


LISTS = {"q1": ("good", ["one", "two"]), "q2": ("bad words", ["one", "two"]), "q3": ("well", ["one", "two"])}


@pytest.mark.parametrize(("status", "fault"), [(400, "content_filter"), (422, "bad"), (403, "flagged by moderation")])
def test_one_refused_query_is_flagged_and_the_others_are_ranked(endpoint, tmp_path, status, fault):
    def reply(connection, body, _):
        is_bad = "bad words" in body["messages"][-1]["content"]
        respond(connection, fault.encode() if is_bad else completion(RANKING), status if is_bad else 200)

    server, engine = endpoint(reply)
    for asked in (3, 4):  # a resumed run asks only what was refused
        with Journal(tmp_path / "journal.jsonl") as journal:
            found, totals = annotate_lists(engine, journal, LISTS)
        assert found == {"q1": ([1, 0], False), "q2": ([0, 1], True), "q3": ([1, 0], False)}
        assert totals.refused == totals.unanswered == 1 and list(totals.useless) == [
            f"a refusal: status {status}: {fault}"
        ]
        assert len(server.bodies) == asked


def test_passages_that_are_too_long_are_asked_again_shorter(endpoint, tmp_path):
    def reply(connection, body, _):
        words = len(body["messages"][-1]["content"].split())
        error = {"error": {"message": "This model's maximum context length is 200 tokens.", "code": "context_length"}}
        respond(connection, completion(RANKING) if words <= 200 else error, 200 if words <= 200 else 400)

    server, engine = endpoint(reply)
    with Journal(tmp_path / "journal.jsonl") as journal:
        found, totals = annotate_lists(engine, journal, {"q1": ("good", ["word " * 400, "two"])})
    assert found == {"q1": ([1, 0], False)} and totals.shortened == 1 and totals.requests == 1
    lengths = [len(body["messages"][-1]["content"].split()) for body in server.bodies]
    assert lengths == [304, 154]  # 300 words, then 150, and two numbers, a word and the query


def test_a_key_is_stripped_and_a_bad_one_is_refused_without_printing_it(endpoint, monkeypatch):
    def echo(connection, *_):
        respond(connection, f"no such key: {KEY}\x1b[31m\n hunter2".encode(), 401)

    monkeypatch.setenv("TEACHER_KEY", f" {KEY}\n")
    variable = "teacher.llm.api_key_variable=TEACHER_KEY"
    server, engine = endpoint(echo, variable, url="http://me:hunter2@{}/v1")
    with pytest.raises(InputError, match=r"http://\*\*\*@127.* status 401: no such key: ") as caught:
        ask(engine)
    assert KEY not in str(caught.value) and "hunter2" not in str(caught.value) and "\x1b" not in str(caught.value)
    server, engine = endpoint(echo, variable)
    with pytest.raises(InputError):
        ask(engine)
    assert f"authorization: bearer {KEY}" in server.heads[0].lower()
    for value in ("sk-schlüssel", "sk-a b", " \n", "sk-a\x00b"[:4] + "\x7f"):
        monkeypatch.setenv("TEACHER_KEY", value)
        with pytest.raises(InputError, match="TEACHER_KEY (is empty|holds a character)") as caught:
            endpoint(echo, variable)
        assert "sk-" not in str(caught.value)
    for pasted in (KEY, "hf_abc123", "Bearer abc"):
        with pytest.raises(InputError, match="must be the name of an environment variable") as caught:
            endpoint(echo, f"teacher.llm.api_key_variable='{pasted}'")
        assert pasted not in str(caught.value)


def test_proxies_and_addresses_that_cannot_be_used_are_one_line(endpoint, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(InputError, match=r"SOCKS proxy, which needs another package: pip install 'httpx\[socks\]'"):
        endpoint(respond)
    monkeypatch.setenv("ALL_PROXY", "gopher://me:hunter2@127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be used") as caught:
        endpoint(respond)
    monkeypatch.delenv("ALL_PROXY")
    for url in ("http://[::1/v1", "http://me:hunter2@a\tb/v1", "http://127.0.0.1:port/v1"):
        with pytest.raises(InputError, match="check teacher.llm.base_url"):
            endpoint(respond, url=url)
    assert "hunter2" not in str(caught.value)


def test_every_message_is_one_line(endpoint):
    _, engine = endpoint(lambda connection, *_: respond(connection, b"a\r\nb\x00\x1b]0;title\x07 c", 404))
    with pytest.raises(InputError) as caught:
        ask(engine)
    assert not re.search(r"[\x00-\x1f\x7f]", str(caught.value))


def test_threads_that_end_leave_their_connection_to_others(endpoint):
    body = json.dumps(completion(RANKING)).encode()
    _, engine = endpoint(lambda connection, *_: respond(connection, body))
    for _ in range(3):  # as for the rounds of `distill generate`, whose threads are new ones
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(engine.ask, [[MESSAGES]] * 4))
    assert 1 <= len(engine.connections) <= 2 and len(engine.free) == len(engine.connections)
