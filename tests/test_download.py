"""Downloads against a small HTTP server: whole, resumed, broken off, wrong, and without a network."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

import distill.sources.download
from distill.errors import InputError
from distill.sources.download import local_file

CONTENT = bytes(range(256)) * 40_000  # 10 MB, several blocks
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `server.script` says what goes wrong with the next requests."""

    def do_GET(self):
        self.server.ranges.append(self.headers["Range"])
        fault = self.server.script.pop(0) if self.server.script else None
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        if fault == "no ranges":
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/octet-stream")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 3_000_000] if fault == "cut" else CONTENT[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(distill.sources.download, "PAUSE", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.script, server.ranges = [], []
    server.address = f"http://127.0.0.1:{server.server_port}/files/a.run?download=1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_a_file_is_downloaded_once_and_checked(server, tmp_path):
    for _ in range(2):
        path = local_file(f"{server.address}#md5={MD5}")
        assert path == str(tmp_path / "downloads" / "a.run")
    assert Path(path).read_bytes() == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("fault", [["cut"], ["cut", "cut", 503, "cut"], ["cut", "no ranges"]])
def test_a_download_that_breaks_off_goes_on_where_it_was(server, fault):
    server.script = list(fault)
    assert Path(local_file(f"{server.address}#md5={MD5}")).read_bytes() == CONTENT
    assert server.ranges[:2] == [None, "bytes=3000000-"]


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(server, tmp_path):
    part = tmp_path / "downloads" / "a.run.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:5_000_000])
    assert Path(local_file(server.address)).read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000000-"]


def test_leftovers_that_are_longer_than_the_file_are_thrown_away(server, tmp_path):
    part = tmp_path / "downloads" / "a.run.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    assert Path(local_file(server.address)).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_used_and_checked(server, tmp_path):
    path = tmp_path / "downloads" / "a.run"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert local_file(f"{server.address}#md5={MD5}") == str(path)
    path.write_bytes(CONTENT[1:])
    with pytest.raises(InputError, match=rf"a.run: its md5 is [0-9a-f]+ instead of {MD5}: delete it"):
        local_file(f"{server.address}#md5={MD5}")
    assert server.ranges == []


@pytest.mark.parametrize(
    "script, reason", [([404], "Not Found"), (["cut"] + [500] * 9, "Internal Server Error"), ([500] * 9, "Internal")]
)
def test_what_cannot_be_had_names_file_source_and_place(server, tmp_path, script, reason):
    server.script = script
    with pytest.raises(InputError) as caught:
        local_file(f"{server.address}#md5={MD5}")
    message = str(caught.value)
    assert message.startswith("a.run: cannot be downloaded (") and reason in message
    assert f"get it from {server.address} and put it at {tmp_path / 'downloads' / 'a.run'}" in message
    assert not (tmp_path / "downloads" / "a.run").exists()


def test_a_web_page_in_place_of_the_file_is_refused(server):
    server.script = ["page"]
    with pytest.raises(InputError, match="returns a web page instead of a file"):
        local_file(server.address)


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"b.run: cannot be downloaded \(.+\): get it from https://no.such.host.invalid/b.run"
    ):
        local_file("https://no.such.host.invalid/b.run")


def test_the_hub_is_asked_for_repository_revision_and_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    asked = []

    def download(repository, name, repo_type, revision, local_dir):
        asked.append((repository, name, repo_type, revision))
        path = local_dir / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"rows")
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    path = local_file("hf://datasets/owner/name@refs%2Fconvert%2Fparquet/default/train/0000.parquet#file=mine.parquet")
    assert Path(path).read_bytes() == b"rows" and path == str(tmp_path / "downloads" / "mine.parquet")
    assert asked == [("owner/name", "default/train/0000.parquet", "dataset", "refs/convert/parquet")]


def test_the_hub_without_a_network_names_the_page_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    page = "https://huggingface.co/datasets/webis/rank-distillm/resolve/main/x.parquet"
    with pytest.raises(InputError, match=rf"x.parquet: cannot be downloaded \(.+\): get it from {page} and put it at"):
        local_file("hf://datasets/webis/rank-distillm/x.parquet")


@pytest.mark.parametrize(
    "source, message",
    [
        ("hf://datasets/webis/x.parquet", "expected hf://datasets/OWNER/NAME/FILE"),
        ("hf://webis/rank-distillm/x.parquet", "expected hf://datasets/OWNER/NAME/FILE"),
    ],
)
def test_a_wrong_address_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=message):
        local_file(source)
