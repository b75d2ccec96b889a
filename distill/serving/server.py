"""Listen: a socket, an application, and what happens on SIGTERM.

serve(cfg, key, listening=print)        # returns once it was stopped
"""

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from distill.config.command_schema import ServeConfig
from distill.errors import InputError
from distill.interrupt import NAMES
from distill.serving.app import make_app
from distill.serving.scoring import load_scorer
from distill.serving.service import Service

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that wait to be accepted
KEEP_ALIVE = 75  # seconds: longer than proxies keep idle connections, 60 by default, so that they are the ones to close


def serve(cfg: ServeConfig, key: str | None, listening: Callable[[str], object]) -> None:
    """Serve a model until SIGTERM or Ctrl-C; then finish the requests in flight, for at most cfg.stop_timeout seconds.

    listening: is called with the address once connections are accepted; until the model is loaded, requests are
    answered with status 503. Raises InputError for an address that cannot be used, and for a model that cannot be
    served.
    """
    service = Service(cfg, load_scorer)
    opened = open_socket(cfg.host, cfg.port)
    host, port = opened.getsockname()[:2]
    listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    server = make_server(service, key)
    service.failed = lambda: setattr(server, "should_exit", True)
    with noted_stops() as stops:
        server.run(sockets=[opened])
    if service.failure is not None:
        raise service.failure
    log.info("stopped by %s: %d requests answered", NAMES.get(next(iter(stops), 0), "itself"), service.num_answered)
    if service.loading.is_alive():  # in the middle of C++ libraries, which may abort if Python ends beneath them
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def make_server(service: Service, key: str | None) -> uvicorn.Server:
    """Return a server that is not listening yet."""
    return uvicorn.Server(
        uvicorn.Config(
            make_app(service, key),
            log_config=None,
            log_level="warning",
            access_log=False,  # a query may be private; /metrics has the counts
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(service.cfg.stop_timeout),
            lifespan="on",
        )
    )


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises InputError if the address is in use or is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:  # asyncio's and socket's own texts repeat the address
        number = error.errno or 0  # below 0, of an unknown host
        reason = os.strerror(number) if number > 0 else error.strerror
        raise InputError(f"host={host} port={port}: {reason}: choose another address or port") from None


@contextlib.contextmanager
def noted_stops() -> Iterator[list[int]]:
    """Collect the signals that stop the server. uvicorn handles them too, and raises them once more at its end."""
    stops: list[int] = []
    before = {number: signal.signal(number, lambda number, _: stops.append(number)) for number in NAMES}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
