"""Uploads to the Hub, against a server that answers as the Hub does."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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


def export(tmp_path, output: str, hub_address: str, token: str | None) -> subprocess.CompletedProcess:
    environment = os.environ | {"HF_ENDPOINT": hub_address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    environment.pop("HF_TOKEN", None)
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "distill", "export", f"model={tmp_path / 'model'}", "format=sentence-transformers"]
    command += [f"output={tmp_path / output}", "hub=owner/name"]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)


def test_an_upload_holds_the_directory_and_a_refusal_keeps_it(tmp_path, hub):
    make_model(tmp_path / "backbone", "bert").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Mine\n")
    run = export(tmp_path, "out", hub.address, "good")
    assert run.returncode == 0 and f"uploaded: {hub.address}/owner/name/commit/abc" in run.stderr, run.stderr
    made = hub.repository  # newer versions of huggingface_hub say visibility
    assert made["name"] == "name" and (made.get("private") is True or made.get("visibility") == "private")
    written = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {str(name): path.read_bytes() for name, path in written.items()} == hub.files
    assert hub.files["README.md"] == b"# Mine\n"
    for token, output, address in ((None, "again", hub.address), ("good", "third", "http://127.0.0.1:9")):
        run = export(tmp_path, output, address, token)
        assert run.returncode == 2 and "hub=owner/name: not uploaded" in run.stderr and "HF_TOKEN" in run.stderr
        assert len(run.stderr.splitlines()) == 3 and (tmp_path / output / "model.safetensors").is_file()
