"""A `python` for shell scripts whose commands are forks of the tests' warm process.

    with warm_python(tmp_path) as python:
        subprocess.run(["bash", "recipes/sample.sh"], env=os.environ | {"PYTHON": python})

It is a script that runs this file as a client: it hands its arguments, directory, environment and output to the server,
a thread here, and ends with the exit status of the command. `-c` code runs in a process of its own.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

CLIENT = '#!/bin/sh\n[ "$1" = -c ] && exec {python} "$@"\nexec {python} -I -S {file} {address} "$@"\n'


@contextlib.contextmanager
def warm_python(directory: Path) -> Iterator[str]:
    """Yield the path of the script, which works within the `with` block."""
    address, script = directory / "warm.socket", directory / "python"
    script.write_text(CLIENT.format(python=sys.executable, file=Path(__file__).resolve(), address=address))
    script.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        try:
            yield str(script)
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was shut down
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # nobody may wait for the end any more
                connection.sendall(bytes([_run(connection) & 0xFF]))


def _run(connection: socket.socket) -> int:
    from tests.helpers.commands import as_user, warm_process  # not in the client, which starts at once

    head, outputs, _, _ = socket.recv_fds(connection, 8, 2)
    request = json.loads(connection.makefile("rb").read(int(head)))
    env = {name: value for name, value in as_user(request["env"]).items() if name != "PYTHON"}
    with os.fdopen(outputs[0], "w") as stdout, os.fdopen(outputs[1], "w") as stderr:
        job = warm_process().start(request["arguments"], stdout=stdout, stderr=stderr, env=env, cwd=request["cwd"])
    return job.wait()


def main(address: str, *arguments: str) -> None:
    """Be the client."""
    body = json.dumps({"arguments": arguments, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [b"%8d" % len(body)], [1, 2])
        server.sendall(body)
        sys.exit(server.recv(1)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
