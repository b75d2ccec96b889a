"""The addresses of the server: an ASGI application around a Service.

    app = make_app(service, key="...")

/rerank, /v1/rerank, /v2/rerank, /score and /v1/score take requests; /health, /info, /v1/models and /metrics say how the
server is. With a key, all but /health need `Authorization: Bearer KEY`.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from distill.errors import printable
from distill.serving.metrics import TYPE
from distill.serving.refusals import Refused, error_body
from distill.serving.service import Service

log = logging.getLogger(__name__)

SCORING = ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")
LINGER = 2.0  # seconds that the rest of a refused body has to arrive
GONE = 499  # nobody reads it; in the metrics it stands for clients that left
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(service: Service, key: str | None = None) -> Starlette:
    """Return the application; it starts and stops the service."""

    async def score(request: Request) -> Response:
        with service.admitted():
            body = await read_body(request, service.cfg.max_bytes, service.cfg.body_timeout)
            return JSONResponse(await service.answer(request.url.path, body, lambda: disconnected(request)))

    async def health(request: Request) -> Response:
        service.check_ready()
        return JSONResponse({"status": "ok"})

    async def info(request: Request) -> Response:
        service.check_ready()
        return JSONResponse(service.describe())

    async def models(request: Request) -> Response:
        service.check_ready()
        return JSONResponse(service.list_models())

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=TYPE)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    def route(path: str, endpoint: Endpoint, method: str, needed: str | None) -> Route:
        return Route(path, guarded(endpoint, path, service, needed), methods=[method])

    return Starlette(
        routes=[
            *(route(path, score, "POST", key) for path in SCORING),
            route("/health", health, "GET", None),  # of load balancers, which have no key
            route("/info", info, "GET", key),
            route("/v1/models", models, "GET", key),
            route("/metrics", metrics, "GET", key),
        ],
        exception_handlers={HTTPException: answer_unknown},
        lifespan=lifespan,
    )


def guarded(endpoint: Endpoint, path: str, service: Service, key: str | None) -> Endpoint:
    """Return an endpoint that checks the key, answers refusals and failures, and counts."""

    async def answer(request: Request) -> Response:
        started, task = time.monotonic(), asyncio.current_task()
        assert task is not None
        try:
            try:
                check_key(request, key)
                response = await endpoint(request)
            except Refused as refused:
                await discard_body(request)
                response = refusal(refused.status, refused.message)
        except (ClientDisconnect, asyncio.CancelledError):
            response = Response(status_code=GONE)
            if task.cancelling():  # the server stops, and does not wait any longer
                task.uncancel()
                response = refusal(503, "the server is stopping: ask again")
        except Exception as error:  # a fault of the model or of ours: the server lives on, and the log has it
            log.error("%s: %s: %s", path, type(error).__name__, printable(str(error)))
            response = refusal(500, "the request could not be scored: the server's log says why")
        service.metrics.note_request(path, response.status_code, time.monotonic() - started)
        return response

    return answer


def check_key(request: Request, key: str | None) -> None:
    """Raise Refused unless the request has the key, in a time that does not depend on how much of a key is right."""
    if key is None:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
        raise Refused(401, "the key is missing or wrong: send the header Authorization: Bearer KEY")


async def read_body(request: Request, max_bytes: int, timeout: float) -> bytes:
    """Return a request's body; raises Refused for one that is too long or too slow, or that is compressed."""
    too_long = Refused(413, f"the body has more than {max_bytes} bytes (max_bytes): send fewer or shorter passages")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_long
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise Refused(415, "the body is compressed: send it as it is")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_long
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {timeout:g} s (body_timeout)") from None
    return bytes(body)


async def discard_body(request: Request) -> None:
    """Read what is left of a refused body, for a while: a client that is still sending would not see the answer.

    uvicorn closes a connection that is not kept alive right after the answer, and what then still arrives resets it. A
    client that asks before it sends (Expect: 100-continue) sends nothing.
    """
    if "expect" in request.headers:
        return
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the last one: all of it was read before
        async with asyncio.timeout(LINGER):
            async for _ in request.stream():
                pass


async def disconnected(request: Request) -> None:
    """Return once the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refusal(status: int, message: str) -> Response:
    """Return the answer to a request that is refused."""
    headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(status)
    return JSONResponse(error_body(status, message), status_code=status, headers=headers)


async def answer_unknown(request: Request, error: Exception) -> Response:
    """Answer a request to an address or with a method that the server does not have."""
    assert isinstance(error, HTTPException)
    await discard_body(request)
    known = f"POST {', '.join(SCORING)}; GET /health, /info, /v1/models, /metrics"
    response = refusal(error.status_code, f"{request.method} {request.url.path[:80]}: is not served: there are {known}")
    response.headers.update(error.headers or {})
    return response
