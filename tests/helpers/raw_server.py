"""A server that sends exactly the bytes it is told to, for clients that must survive them."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable


class RawServer:
    """Reads one request at a time and lets `reply(connection, request body, number)` answer; then it hangs up."""

    def __init__(self, reply: Callable[[socket.socket, dict, int], None]):
        self.reply, self.bodies, self.heads = reply, [], []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.url = f"http://{self.address}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.socket.accept()
                with connection, contextlib.suppress(OSError, ValueError):
                    self._read(connection)
                    self.reply(connection, self.bodies[-1], len(self.bodies))

    def _read(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or self._lost()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l"))
        while len(body) < length:
            body += connection.recv(65536) or self._lost()
        self.heads.append(head.decode())
        self.bodies.append(json.loads(body))

    @staticmethod
    def _lost() -> bytes:
        raise OSError("the client has given up")

    def close(self) -> None:
        self.socket.close()


def respond(connection: socket.socket, body: bytes | dict, status: int = 200, headers: str = "") -> None:
    """Send a whole reply."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n{headers}\r\n"
    connection.sendall(head.encode() + payload)


def completion(content, **more) -> dict:
    """A chat completion."""
    choice = {"message": {"content": content}, "finish_reason": "stop"} | more.pop("choice", {})
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}} | more


def drip(connection: socket.socket, first: bytes, piece: bytes, seconds: float = 0.05) -> None:
    """Send a piece again and again, until the client hangs up."""
    connection.sendall(first)
    while True:
        time.sleep(seconds)
        connection.sendall(piece)
