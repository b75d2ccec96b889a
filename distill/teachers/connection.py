"""One thread's connection to an endpoint, with limits on the time and the size of a reply.

    status, headers, body = connection.post(url, {"model": ...})

A timeout of httpx is for each read, so that a server may send a byte a minute for ever. Here a request gets one
deadline, at which its socket is shut. Bodies are unpacked here, too: a few kilobytes of gzip can hold gigabytes.
"""

import contextlib
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

OPENED = (".connect_tcp.complete", ".start_tls.complete")  # events of httpcore that return a stream
CHUNK = 2**16


class ReplyFault(Exception):
    """A reply that ran past a limit or cannot be read; `kind` names the fault for the counters."""

    def __init__(self, kind: str, reason: str, *, is_lasting: bool = False):
        """Take the kind and the reason; is_lasting: another try would end in the same way."""
        super().__init__(reason)
        self.kind, self.is_lasting = kind, is_lasting


class Deadlines:
    """Calls a function when its time is up, unless it is cancelled before.

    One thread serves all of them: a timer for each would take a thread for each. All have the same time, so the first
    to start is the first that is due.
    """

    def __init__(self, seconds: float):
        """Start the thread."""
        self.seconds, self.waiting = seconds, dict[object, tuple[float, Callable[[], None]]]()
        self.lock, self.closed = threading.Lock(), threading.Event()
        threading.Thread(target=self._run, daemon=True, name="deadlines").start()

    def start(self, call: Callable[[], None]) -> object:
        """Call this after the time is up; return the token that `cancel` takes."""
        token = object()
        with self.lock:
            self.waiting[token] = (time.monotonic() + self.seconds, call)
        return token

    def cancel(self, token: object) -> None:
        """Do not call it any more; does nothing if it has been called."""
        with self.lock:
            self.waiting.pop(token, None)

    def _run(self) -> None:
        pause = self.seconds  # what starts meanwhile is due later
        while not self.closed.wait(pause):
            with self.lock:
                now, due = time.monotonic(), []
                for token, (deadline, call) in self.waiting.items():
                    if deadline > now:
                        break
                    due.append((token, call))
                for token, _ in due:
                    del self.waiting[token]
                pause = next(iter(self.waiting.values()))[0] - now if self.waiting else self.seconds
            for _, call in due:
                call()

    def close(self) -> None:
        """End the thread."""
        self.closed.set()


class Connection:
    """A client that one thread uses, for one request after the other."""

    def __init__(self, headers: dict[str, str], context, deadlines: Deadlines, max_bytes: int):
        """Open nothing yet. Raises ImportError or ValueError for a proxy of the environment that cannot be used."""
        import httpx

        self.deadlines, self.max_bytes = deadlines, max_bytes
        timeout = self.timeout = deadlines.seconds
        self.streams: list[Any] = []
        # gzip is not asked for: answers are short
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **headers}
        self.client = httpx.Client(headers=headers, timeout=timeout, verify=context)
        self.prepared: dict[str, httpx.Request] = {}  # by address, without content: merging what never changes is slow

    def post(self, url: str, content: dict) -> tuple[int, Mapping[str, str], bytes]:
        """Send JSON; return status, headers and body of the reply.

        Raises httpx.TransportError for a lost connection, ReplyFault for a reply over the limits.
        """
        import httpx

        late = threading.Event()
        token = self.deadlines.start(lambda: self._shut(late))
        try:
            payload = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
            with contextlib.closing(self.client.send(self._request(url, payload), stream=True)) as response:
                body = read_body(response.headers.get("Content-Encoding", ""), response.iter_raw(CHUNK), self.max_bytes)
                if late.is_set():
                    raise httpx.ReadTimeout(f"no complete answer after {self.timeout:g} s")
                return response.status_code, response.headers, body
        except httpx.TransportError as error:
            if not late.is_set():
                raise
            raise httpx.ReadTimeout(f"no complete answer after {self.timeout:g} s") from error
        finally:
            self.deadlines.cancel(token)

    def _request(self, url: str, payload: bytes):
        """Return a request to an address."""
        import httpx

        if url not in self.prepared:
            self.prepared[url] = self.client.build_request("POST", url, extensions={"trace": self._watch})
        same = self.prepared[url]
        headers = [(name, value) for name, value in same.headers.raw if name.lower() != b"content-length"]
        return httpx.Request("POST", same.url, headers=headers, content=payload, extensions=same.extensions)

    def _watch(self, event: str, info: dict) -> None:
        if event.endswith(OPENED):
            self.streams = [*self.streams[-1:], info["return_value"]]  # of the last connection and its encryption

    def _shut(self, late: threading.Event) -> None:
        late.set()
        for stream in self.streams:
            with contextlib.suppress(OSError):  # closed already
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def read_body(encoding: str, chunks, max_bytes: int) -> bytes:
    """Return a body, unpacked; raises ReplyFault if it has more than max_bytes, or an unknown encoding."""
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "deflate"):
        raise ReplyFault("unknown encoding", "its reply has an encoding that was not asked for", is_lasting=True)
    unpack = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None  # 47: either header
    parts, size = [], 0
    for chunk in chunks:
        try:
            part = chunk if unpack is None else unpack.decompress(chunk, max_bytes - size + 1)
        except zlib.error:
            raise ReplyFault("damaged reply", "its reply cannot be unpacked") from None
        size += len(part)
        if size > max_bytes:
            reason = f"its reply is larger than teacher.llm.max_bytes={max_bytes}: check the address"
            raise ReplyFault("reply too large", reason, is_lasting=True)
        parts.append(part)
    return b"".join(parts)
