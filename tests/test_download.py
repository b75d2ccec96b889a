"""Downloads against a small HTTP server: whole, resumed, changed meanwhile, two at once, hostile, without a network."""

import contextlib
import email.message
import hashlib
import http.server
import io
import json
import re
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

import distill.sources.download
import distill.sources.fetching
from distill.errors import InputError
from distill.sources.download import local_file, place_of

CONTENT = bytes(range(256)) * 40_000  # 10 MB, several blocks
OTHER = CONTENT[::-1]  # another version, of the same size
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `server.script` says what goes wrong with the next requests."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers["Range"])
        server.paths.append(self.path)
        fault = server.script.pop(0) if server.script else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if callable(fault):
            fault(self)
            return
        content = server.content
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if fault == "no ranges" or (self.headers["If-Range"] or server.tag) != server.tag:
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have left
            self.wfile.write(content[start : start + 3_000_000] if fault == "cut" else content[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(distill.sources.fetching, "PAUSE", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.script, server.ranges, server.paths, server.content, server.tag = [], [], [], CONTENT, None
    server.root = f"http://127.0.0.1:{server.server_port}"
    server.address = f"{server.root}/files/a.run?download=1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def made_place(address: str) -> Path:
    """Where a file is kept, or is to be put by hand, in its directory."""
    path = place_of(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_file_is_downloaded_once_and_checked(server, tmp_path):
    for _ in range(2):
        path = Path(local_file(f"{server.address}#md5={MD5}"))
        assert path.name == "a.run" and path.parent.parent == tmp_path / "downloads"
    assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("fault", [["cut"], ["cut", "cut", 503, "cut"], ["cut", "no ranges"]])
@pytest.mark.parametrize("tag", [None, '"one"'])
def test_a_download_that_breaks_off_is_resumed_where_it_was(server, fault, tag):
    server.script, server.tag = list(fault), tag
    assert Path(local_file(f"{server.address}#md5={MD5}")).read_bytes() == CONTENT
    assert server.ranges[:2] == [None, "bytes=3000000-"]


def test_without_etag_and_checksum_a_download_begins_anew(server):
    server.script = ["cut"]
    assert Path(local_file(server.address)).read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_later_call_resumes_what_a_killed_one_has_left(server):
    part = made_place(server.address).with_name(".part")
    part.write_bytes(CONTENT[:5_000_000])
    part.with_name(".part.json").write_text(json.dumps({"validator": '"one"', "total": len(CONTENT)}))
    server.tag = '"one"'
    assert Path(local_file(server.address)).read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000000-"]
    assert sorted(path.name for path in part.parent.iterdir()) == [".lock", ".record.json", "a.run"]


@pytest.mark.parametrize("change", ["If-Range", "206", "length", "range", "damaged note", "checksum"])
def test_another_version_is_never_appended(server, change):
    part = made_place(server.address).with_name(".part")
    part.write_bytes(OTHER[:5_000_000])
    part.with_name(".part.json").write_text(json.dumps({"validator": '"old"', "total": len(OTHER)}))
    server.tag, checksum = '"new"', ""

    def answer(start: int, total: int, tag: str):
        def respond(handler):  # a server that ignores If-Range
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            handler.send_header("Content-Length", str(total - start))
            handler.send_header("ETag", tag)
            handler.end_headers()
            handler.wfile.write(CONTENT[start:])

        return respond

    if change == "206":
        server.script = [answer(5_000_000, len(CONTENT), '"new"')]
    elif change == "length":
        server.script = [answer(5_000_000, len(CONTENT) + 1, '"old"')]
    elif change == "range":
        server.script = [answer(4_999_999, len(CONTENT), '"old"')]
    elif change == "damaged note":
        part.with_name(".part.json").write_text("{")
    elif change == "checksum":
        part.with_name(".part.json").unlink()
        server.tag, checksum = None, f"#md5={MD5}"
    assert Path(local_file(server.address + checksum)).read_bytes() == CONTENT


def test_leftovers_that_are_longer_than_the_file_are_thrown_away(server):
    made_place(server.address).with_name(".part").write_bytes(CONTENT + b"more")
    assert Path(local_file(f"{server.address}#md5={MD5}")).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_used_and_checked(server):
    path = made_place(server.address)
    path.write_bytes(CONTENT)
    assert local_file(f"{server.address}#md5={MD5}") == str(path)
    path.write_bytes(CONTENT[1:])
    with pytest.raises(InputError, match=rf"a.run: its md5 is [0-9a-f]+ instead of {MD5}: delete it"):
        local_file(f"{server.address}#md5={MD5}")
    assert server.ranges == []


@pytest.mark.parametrize("name", ["a.run", ".record.json"])
def test_a_damaged_download_is_noticed_and_downloaded_again(server, caplog, name):
    path = Path(local_file(server.address))
    for place in (0, 77, -1):
        damaged = bytearray((path.parent / name).read_bytes())
        damaged[place] ^= 16
        (path.parent / name).write_bytes(damaged)
        caplog.clear()
        assert Path(local_file(server.address)).read_bytes() == CONTENT
        noticed = "is not what was downloaded: downloading it again" in caplog.text
        assert noticed or (name == ".record.json" and place == 77), place  # there: a digit of the address


def test_a_file_put_over_a_download_stays_until_another_is_whole(server):
    path = Path(local_file(server.address))
    record = path.with_name(".record.json")
    path.write_bytes(OTHER)
    server.script = [404]
    with pytest.raises(InputError) as caught:
        local_file(server.address)
    assert str(caught.value).endswith(f"put it at {path}, or, to use the file that is there, delete {record}")
    server.script = ["cut"] + [500] * 9  # a part of it arrives
    with pytest.raises(InputError, match="cannot be downloaded"):
        local_file(server.address)
    assert path.read_bytes() == OTHER
    record.unlink()
    assert Path(local_file(server.address)).read_bytes() == OTHER
    record.write_text(json.dumps({"size": len(CONTENT), "crc32": 0}))
    path.write_bytes(OTHER)  # another time of change, so that it is read again
    server.script = []
    assert Path(local_file(server.address)).read_bytes() == CONTENT


def test_what_was_known_of_a_file_that_is_gone_does_not_bind_one_put_there_by_hand(server):
    path = Path(local_file(server.address))
    path.unlink()
    server.script = [404]
    with pytest.raises(InputError, match=rf"put it at {path}$"):
        local_file(server.address)
    path.write_bytes(OTHER)
    assert Path(local_file(server.address)).read_bytes() == OTHER


def test_two_addresses_with_one_file_name_are_two_files(server):
    first = Path(local_file(f"{server.root}/one/a.run"))
    server.content = OTHER
    second = Path(local_file(f"{server.root}/two/a.run"))
    third = Path(local_file(f"{server.root}/one/a.run?version=2"))
    assert (first.read_bytes(), second.read_bytes(), third.read_bytes()) == (CONTENT, OTHER, OTHER)
    assert first.name == second.name == third.name == "a.run"


@pytest.mark.parametrize(
    "ending, name",
    [
        ("/x/..%2F..%2F..%2Fout.run", "_.._.._out.run"),
        ("/x/%2e%2e", "file"),
        ("/x/..", "file"),
        ("/x/a.run#file=../../../out.run", "_.._.._out.run"),
        ("/x/a.run#file=/etc/passwd", "_etc_passwd"),
        ("/x/a.run#file=.lock", "lock"),
        ("/x/a.run#file=%00%0a", "__"),
        ("/x/a.run#file=" + "x" * 999 + ".tsv.gz", "x" * 93 + ".tsv.gz"),
        ("/x/", "file"),
    ],
)
def test_nothing_is_written_outside_of_the_cache(server, tmp_path, monkeypatch, ending, name):
    cache = tmp_path / "a" / "b" / "cache"
    monkeypatch.setenv("DISTILL_CACHE", str(cache))
    server.content = b"rows"
    path = Path(local_file(server.root + ending))
    assert path.name == name and path.read_bytes() == b"rows"
    assert path.resolve().parent.parent == (cache / "downloads").resolve()
    assert [found for found in tmp_path.rglob("*") if found.is_file() and cache not in found.parents] == []


def test_two_threads_download_a_file_once(server, caplog):
    server.script, paths = [lambda handler: (time.sleep(0.3), handler.send_error(503))], []
    threads = [threading.Thread(target=lambda: paths.append(local_file(server.address))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(paths)) == 1 and len(paths) == 3 and len(server.ranges) == 2
    assert Path(paths[0]).read_bytes() == CONTENT


def redirect(target: str):
    def respond(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                handler.wfile.write(b"a body that is not read " * 1000)

    return respond


def test_redirects_to_files_and_other_schemes_are_refused(server, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for target in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/a", "data:text/plain,secret", "//[", "gopher://a"):
        server.script = [redirect(target)]
        with pytest.raises(InputError, match="a.run: cannot be downloaded"):
            local_file(server.address)
    assert len(server.ranges) == 5
    server.script = [redirect("/files/moved.run")]
    assert Path(local_file(server.address)).read_bytes() == CONTENT
    assert server.paths[-1] == "/files/moved.run"


def test_a_redirect_from_https_to_http_is_refused():
    request, headers = urllib.request.Request("https://example.org/a.run"), email.message.Message()
    headers["Location"] = "http://example.org/a.run"
    with pytest.raises(OSError, match="redirects to http://example.org/a.run, which is not safe"):
        distill.sources.fetching._Redirects().http_error_302(request, io.BytesIO(), 302, "Found", headers)


def drip(*lines: bytes, pause: float = 0.05):
    """Send some lines, then a byte now and then, for ever."""

    def respond(handler):
        with contextlib.suppress(OSError):
            handler.wfile.write(b"".join(lines))
            while True:
                handler.wfile.write(b"x")
                time.sleep(pause)

    return respond


@pytest.mark.parametrize(
    "lines, reason",
    [
        ([b"HTTP/1.0 200 OK\r\nX-Header: "], "no answer in"),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 999999\r\n\r\n"], "the server is too slow"),
        ([b"HTTP/1.0 200 OK\r\n\r\n"], "the server is too slow"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"], "the server is too slow"),
    ],
)
def test_servers_that_drip_are_given_up(server, monkeypatch, lines, reason):
    monkeypatch.setattr(distill.sources.fetching, "OPEN_SECONDS", 0.2)
    monkeypatch.setattr(distill.sources.fetching, "SLOW_SECONDS", 0.2)
    server.script = [drip(*lines)] * 5
    start = time.monotonic()
    with pytest.raises(InputError, match=rf"a.run: cannot be downloaded \({reason}"):
        local_file(server.address)
    assert time.monotonic() - start < 5 and len(server.ranges) == 5


def test_all_tries_together_end(server, monkeypatch):
    monkeypatch.setattr(distill.sources.fetching, "MAX_SECONDS", 0.3)
    monkeypatch.setattr(distill.sources.fetching, "SLOW_BYTES", 1)
    server.script = [drip(b"HTTP/1.0 200 OK\r\n\r\n", pause=0.01)] * 5
    with pytest.raises(InputError, match=r"cannot be downloaded \(the server is too slow"):
        local_file(server.address)
    assert len(server.ranges) == 1


def test_what_retry_after_asks_for_is_not_waited_for(server):
    def respond(handler):
        handler.send_response(503)
        handler.send_header("Retry-After", "999999999")
        handler.end_headers()

    server.script = [respond]
    start = time.monotonic()
    assert Path(local_file(server.address)).read_bytes() == CONTENT
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_file_that_is_too_large_is_refused(server, is_announced):
    lines = [b"HTTP/1.0 200 OK\r\n", b"Content-Length: 3000000000\r\n" * is_announced, b"\r\n", b"y" * 1_200_000]
    server.script = [drip(*lines)]
    reason = "it has 3.0 GB, more than 0.001 GB" if is_announced else "it goes on after 0.001 GB"
    with pytest.raises(InputError, match=rf"a.run: {reason}: if the file is so large, put max_gb=NUMBER behind"):
        local_file(f"{server.address}#max_gb=0.001")
    assert sum(path.stat().st_size for path in made_place(server.address).parent.glob(".part")) == 0
    assert Path(local_file(f"{server.address}#max_gb=0.02")).read_bytes() == CONTENT


def test_a_disk_without_room_is_answered_before_the_download(server, monkeypatch):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: distill.sources.fetching.shutil._ntuple_diskusage(10**9, 10**9, 10**6)
    )
    with pytest.raises(InputError, match=r"a.run: needs 0.010 GB in .+, where 0.001 GB are free: make room"):
        local_file(server.address)


def test_a_body_of_unknown_length_is_warned_of(server, caplog):
    def respond(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nrows")

    server.script = [respond] * 2
    assert Path(local_file(server.address)).read_bytes() == b"rows"
    assert "a.run: the server does not say how long it is: add #md5=" in caplog.text


@pytest.mark.parametrize(
    "source, message",
    [
        ("https://example.org/a#sha1=0", "sha1= is unknown: use md5=, sha256=, file= or max_gb= after #"),
        ("https://example.org/a.run#sha256:abcd", "expected NAME=VALUE after #, as in #sha256=, not sha256:abcd"),
        ("https://example.org/a.run#md5=", "md5= has no value: give one, or leave it out"),
        ("https://example.org/a#max_gb=much", "max_gb=much: expected a number of gigabytes"),
        ("https://[::1/a", "is not an address"),
        ("https://me:hunter2@example.org/a", "https://***@example.org/a: a user and a password are not sent: download"),
        ("http://a\x00b/c.run", "c.run: cannot be downloaded"),
        ("hf://datasets/owner/name/../../../x.parquet", "leads out of the data set"),
        ("hf://datasets/owner/name/a%2F..%2Fx.parquet", "leads out of the data set"),
    ],
)
def test_a_malformed_address_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=re.escape(message)):
        local_file(source)


def test_a_cache_that_cannot_be_written_is_answered_before_the_download(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be created .+ set DISTILL_CACHE to a directory of your own"):
        local_file(server.address)
    assert server.ranges == []


def nothing(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "script, reason",
    [
        ([404], "Not Found"),
        (["cut"] + [500] * 9, "Internal Server Error"),
        ([500] * 9, "Internal"),
        ([nothing] * 9, "an empty file"),
    ],
)
def test_what_cannot_be_had_names_file_source_and_place(server, tmp_path, script, reason):
    server.script = script
    with pytest.raises(InputError) as caught:
        local_file(f"{server.address}#md5={MD5}")
    message = str(caught.value)
    assert message.startswith("a.run: cannot be downloaded (") and reason in message
    assert f"get it from {server.address} and put it at {made_place(server.address)}" in message
    assert not made_place(server.address).exists()


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
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: SimpleNamespace(size=5_000_000))
    with pytest.raises(
        InputError, match=r"^c.run: it has 0.0 GB, more than 0.001 GB: if the file is so large, put max_gb"
    ):
        local_file("hf://datasets/a/b/c.run#max_gb=0.001")
    assert asked == []
    path = local_file("hf://datasets/owner/name@refs%2Fconvert%2Fparquet/default/train/0000.parquet#file=mine.parquet")
    assert Path(path).read_bytes() == b"rows" and Path(path).name == "mine.parquet"
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
