"""Uploads to the Hub, against a server that answers as the Hub does."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

from distill.models.saved import download
from tests.helpers.commands import run_patched
from tests.helpers.models import make_model


class Hub(BaseHTTPRequestHandler):
    """Makes repositories, asks for every file within the commit, and keeps what comes."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != "Bearer good":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            self.server.repository = json.loads(body)
            return self.answer(200, {"url": self.server.address + "/owner/name", "name": "owner/name"})
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.answer(
            200, {"commitUrl": self.server.address + "/owner/name/commit/abc", "commitOid": "abc", "success": True}
        )

    def do_GET(self):
        self.answer(200, {"id": "owner/name", "sha": "abc", "siblings": [], "tags": []})

    def answer(self, status: int, content) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.asked, server.repository = {}, [], {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def export_command(tmp_path, output: str) -> list[str]:
    return [
        "export",
        f"model={tmp_path / 'model'}",
        "format=sentence-transformers",
        f"output={output}",
        "hub=owner/name",
    ]


def export(tmp_path, output: str, address: str) -> subprocess.CompletedProcess:
    """Export in a process as a user starts it, with a good token."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "distill", *export_command(tmp_path, output)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment | {"HF_TOKEN": "good"})


PATCH = """
import huggingface_hub.constants as constants
constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_TOKEN_PATH = {address!r}, False, "nowhere"
os.environ["HF_TOKEN"] = {token!r}
"""


def export_in_a_fork(tmp_path, output: str, address: str, token: str) -> subprocess.CompletedProcess:
    """The same, without the seconds that new imports take; an empty token is none."""
    patch = PATCH.format(address=address, token=token)
    return run_patched(tmp_path, patch, "distill/__main__.py", *export_command(tmp_path, str(tmp_path / output)))


def test_an_upload_holds_the_directory_and_a_refusal_keeps_it(tmp_path, hub):
    make_model(tmp_path / "backbone", "bert").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Mine\n")
    run = export(tmp_path, "out", hub.address)
    assert run.returncode == 0 and f"uploaded: {hub.address}/owner/name/commit/abc" in run.stderr, run.stderr
    made = hub.repository  # newer versions of huggingface_hub say visibility
    assert made["name"] == "name" and (made.get("private") is True or made.get("visibility") == "private")
    written = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {str(name): path.read_bytes() for name, path in written.items()} == hub.files
    assert hub.files["README.md"] == b"# Mine\n"
    for token, output, address in (("", "again", hub.address), ("good", "third", "http://127.0.0.1:9")):
        run = export_in_a_fork(tmp_path, output, address, token)
        assert run.returncode == 2 and "hub=owner/name: not uploaded" in run.stderr and "HF_TOKEN" in run.stderr
        assert len(run.stderr.splitlines()) == 3 and (tmp_path / output / "model.safetensors").is_file()


@pytest.mark.parametrize("weights", [True, False])
def test_a_graph_is_downloaded_where_the_repository_has_no_weights(tmp_path, monkeypatch, weights):
    asked = []

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str] | str) -> str:
        asked.append(allow_patterns)
        if weights:
            (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert download("owner/name") == tmp_path
    assert asked[1:] == ([] if weights else ["onnx/model.onnx*"])
