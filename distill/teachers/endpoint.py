"""An OpenAI-compatible endpoint: `POST base_url/chat/completions`.

    engine = HttpEngine(cfg.teacher.llm, "listwise")
    (answer,) = engine.ask([messages])              # Answer(text, tokens_in, tokens_out, seconds, score)

`at_once` is how many requests it takes at a time; it may be called from that many threads.
"""

import contextlib
import json
import logging
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

from omegaconf import DictConfig

from distill.errors import InputError, printable
from distill.secrets import Secrets
from distill.teachers.answer import Answer, read_completion, read_logprobs, well_formed
from distill.teachers.connection import Connection, Deadlines, ReplyFault
from distill.teachers.endpoint_key import read_key
from distill.teachers.first_token import ranking_of_letters
from distill.teachers.grades import expected_grade
from distill.teachers.parameters import Parameters, body_of
from distill.teachers.pointwise import yes_no_score
from distill.teachers.prompt import Messages

log = logging.getLogger(__name__)

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # HTTP statuses of transient errors
OF_ONE_REQUEST = (400, 413, 422)  # HTTP statuses that may be about the texts of this request only
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds, if the server does not ask for more
LATE, LATE_RETRIES = "ReadTimeout", 2  # the kind of failure of an answer that takes longer than teacher.llm.timeout
QUOTED = 150  # characters of a server's reply in a message
TOO_LONG = re.compile(
    r"context.{0,20}(?:length|size|window|limit)|(?:too|maximum|max).{0,20}(?:long|length)|too many tokens"
    r"|max_model_len|exceeds? .{0,40}tokens|(?:prompt|input|request) is too (?:long|large)",
    re.IGNORECASE,
)
FILTERED = re.compile(r"moderat|content.{0,10}(?:filter|polic)|flagged|safety", re.IGNORECASE)


class HttpEngine:
    """Sends requests and retries transient errors.

    Transient errors are HTTP statuses such as 429 and 503, timeouts, lost connections and answers of the wrong form.
    This loop reads Retry-After, counts failures and can be cancelled: tenacity would need a callback for each.
    """

    in_batches = False  # requests are sent one at a time, from several threads
    tokenizer = None  # the server has it

    def __init__(self, cfg: DictConfig, method: str):
        """Prepare the connections; raises InputError for a key, an address or a proxy that cannot be used."""
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
        self.cfg = SimpleNamespace(**cfg)  # whose values are read faster
        self.at_once, self.method = cfg.concurrency, method
        self.by_logprobs = method != "listwise"
        key = read_key(cfg.api_key_variable)
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.secrets, self.url = Secrets(cfg.base_url, key), cfg.base_url.rstrip("/") + "/chat/completions"
        # What an answer depends on, besides model and messages; not the address of the server
        self.options = {"temperature": cfg.temperature, "max_tokens": 1 if self.by_logprobs else cfg.max_tokens}
        self.options |= {"body": body_of(cfg)} if cfg.body else {}
        self.parameters = Parameters(cfg, self.options, logprobs=self.by_logprobs)
        self.deadlines = Deadlines(cfg.timeout)
        self.lock, self.next_time = threading.Lock(), 0.0
        self.connections: list[Connection] = []
        self.free: list[Connection] = []  # those of the connections that no thread uses
        try:
            httpx.URL(self.url)
            self.context = httpx.create_ssl_context()
            self.free.append(self._opened())
        except (httpx.InvalidURL, ImportError, ValueError, OSError) as error:
            raise InputError(self._unusable(error)) from None
        self.failures: Counter[str] = Counter()  # retries, by kind of error
        self.stopped = threading.Event()

    def _unusable(self, error: Exception) -> str:
        """Return what to say of an address or a proxy that cannot be used."""
        if isinstance(error, ImportError):
            return (
                "ALL_PROXY or HTTPS_PROXY names a SOCKS proxy, which needs another package: pip install "
                "'httpx[socks]', or set NO_PROXY for the endpoint's host"
            )
        reason = self._shown(str(error))[:QUOTED]
        return f"{self.secrets.url}: cannot be used ({reason}): check teacher.llm.base_url and the proxy variables"

    def _opened(self) -> Connection:
        connection = Connection(self.headers, self.context, self.deadlines, self.cfg.max_bytes)
        with self.lock:
            self.connections.append(connection)
        return connection

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Connection]:
        """Lend a connection that nobody else uses meanwhile."""
        with self.lock:
            connection = self.free.pop() if self.free else None
        connection = connection or self._opened()
        try:
            yield connection
        finally:
            with self.lock:
                self.free.append(connection)

    @property
    def adapted(self) -> list[str]:
        """What was changed in the parameters, since the endpoint refuses them."""
        return self.parameters.adapted

    def ask(self, requests: list[Messages]) -> list[Answer]:
        """Answer requests one after the other.

        Raises InputError for an error that is not about one request, and after too many retries.
        """
        return [self._ask(messages) for messages in requests]

    def _ask(self, messages: Messages) -> Answer:
        import httpx

        attempt = 0
        while True:
            self._wait_for_turn()
            sent, pause = self.parameters.current(), None
            start = time.perf_counter()
            try:
                body = {"model": self.cfg.model, "messages": messages, **sent}
                with self._lent() as connection:
                    status, headers, reply = connection.post(self.url, body)
                if status == 200:
                    return self._read(reply, messages, time.perf_counter() - start)
                kind = f"status {status}"
                reason = f"{kind}: {self._quoted(reply)}"
                if status in OF_ONE_REQUEST and self.parameters.adapt(sent, _text(reply)):
                    continue
                if status not in RETRIED:
                    return self._refused(status, reason, _text(reply))
                pause = self._asked_pause(headers)
            except httpx.TransportError as error:
                kind = type(error).__name__
                reason = f"{kind}: {self._shown(str(error))}"
            except ReplyFault as error:
                kind, reason = error.kind, str(error)
                if error.is_lasting:
                    raise InputError(f"{self.secrets.url}: {reason}") from None
            # The server may work on, and bill, a request that nobody waits for any more
            if attempt >= min(self.cfg.retries, LATE_RETRIES if kind == LATE else self.cfg.retries):
                break
            attempt += 1
            self._pause_after(attempt, kind, pause)
        raise InputError(
            f"{self.secrets.url}/chat/completions failed {attempt + 1} times in a row ({reason}): {_remedy(kind)}"
        )

    def _read(self, reply: bytes, messages: Messages, seconds: float) -> Answer:
        """Return the answer in a reply; raises ReplyFault if there is none."""
        try:
            completion = json.loads(reply)
            answer = read_completion(completion, messages, seconds)
            if self.method == "pointwise":
                answer.score = yes_no_score(self._read_logprobs(completion))
            elif self.method == "graded":
                answer.score = expected_grade(self._read_logprobs(completion))
            elif self.method == "first-token":
                answer.text = ranking_of_letters(self._read_logprobs(completion)) or answer.text
            return answer
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise ReplyFault("no chat completion", f"no chat completion, but {self._quoted(reply)}") from None

    def _read_logprobs(self, completion: dict) -> list[tuple[str, float]]:
        logprobs = read_logprobs(completion)
        if logprobs is None:
            raise InputError(
                f"{self.secrets.url} answers without logprobs, which method={self.method} needs: use another endpoint, "
                "llm@teacher.llm=local or method=listwise"
            )
        return logprobs

    def _refused(self, status: int, reason: str, text: str) -> Answer:
        """Return an answer that was refused for its texts; raises InputError if no other request could do better."""
        if status in OF_ONE_REQUEST or (status in (403, 451) and FILTERED.search(text)):
            return Answer("", 0, 0, 0.0, refused=reason, is_too_long=bool(TOO_LONG.search(text)) or status == 413)
        raise InputError(f"{self.secrets.url}/chat/completions refuses the request with {reason}: check teacher.llm")

    def _shown(self, text: str) -> str:
        """Return a text of the server's as one line, without secrets and control characters."""
        return printable(" ".join(self.secrets.hide(text).split()))

    def _quoted(self, reply: bytes) -> str:
        """Return the beginning of a reply, for a message."""
        return self._shown(_text(reply))[:QUOTED] or "nothing"

    def _asked_pause(self, headers: Mapping[str, str]) -> float | None:
        """Return the seconds that the server asks to wait; raises InputError if they are too many."""
        pause = _retry_after(headers.get("Retry-After"), datetime.now(UTC))
        if pause is not None and pause > self.cfg.max_wait:
            raise InputError(
                f"{self.secrets.url} asks to wait {pause:.0f} seconds before the next request, more than "
                f"teacher.llm.max_wait={self.cfg.max_wait:g}: resume=DIRECTORY later, or raise it"
            )
        return pause

    def _pause_after(self, attempt: int, kind: str, pause: float | None) -> None:
        """Count a failure and wait: longer each time, and at least as long as the server asks."""
        with self.lock:
            self.failures[kind] += 1
        if pause is not None and pause > LONGEST_PAUSE:
            log.warning("%s asks to wait %.0f seconds before the next request", self.secrets.url, pause)
        backoff = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * (0.5 + random.random())
        self._pause(max(pause or 0.0, backoff))

    def _wait_for_turn(self) -> None:
        """Wait so that requests are spaced evenly, if requests_per_minute is set."""
        if not self.cfg.requests_per_minute:
            return
        with self.lock:
            turn = max(self.next_time, time.monotonic())
            self.next_time = turn + 60 / self.cfg.requests_per_minute
        self._pause(max(turn - time.monotonic(), 0))

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise InputError("stopped: resume=DIRECTORY requests only what is missing")

    def stop(self) -> None:
        """Cancel requests that wait for their turn or for a retry; those in flight still return."""
        self.stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self.deadlines.close()
        for connection in self.connections:
            connection.close()


def _remedy(kind: str) -> str:
    """Return what to do about requests that keep failing in one way."""
    again = "the same command or resume=DIRECTORY requests only what is missing"
    if kind == LATE:
        return f"raise teacher.llm.timeout, or lower teacher.llm.max_tokens or teacher.llm.concurrency; {again}"
    if kind == "status 429":
        return f"set teacher.llm.requests_per_minute, or lower teacher.llm.concurrency; {again}"
    return f"once it works again, {again}"


def _text(reply: bytes) -> str:
    return well_formed(reply[: 2**16].decode("utf-8", "replace"))


def _retry_after(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header, a number or a date, asks for; None if it is absent or invalid."""
    if header is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header.strip(), re.ASCII):
        return float(header)
    try:
        return max((parsedate_to_datetime(header) - now).total_seconds(), 0)
    except (TypeError, ValueError, OverflowError):
        return None
