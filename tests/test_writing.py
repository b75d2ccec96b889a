"""A full disk, or one that refuses: one line with the path, and what was there before is whole."""

import errno
import json
import os
import resource
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

import distill.storage.writing
from distill.commands.cut import cut
from distill.commands.fuse import fuse_files
from distill.commands.retrieve import retrieve
from distill.commands.split import split
from distill.errors import DiskError, InputError, exit_on_bad_input
from distill.models.cross_encoder import CrossEncoder
from distill.models.interpolation import Interpolation
from distill.storage.writing import append, write_text, write_whole, write_whole_directory, writing
from tests.helpers.configuration import compose_config

WRITERS = {
    "text": lambda path: path.write_text("bee " * 20_000),
    "torch": lambda path: _save(path),
    "safetensors": lambda path: save_file({"a": torch.zeros(20_000)}, path),
    "NumPy": lambda path: np.zeros(20_000).tofile(path),
    "parquet": lambda path: pq.write_table(pa.table({"a": np.random.default_rng(0).random(20_000)}), path),
    "YAML": lambda path: OmegaConf.save(OmegaConf.create({"a": "bee " * 20_000}), path),
}


def _save(path: Path) -> None:
    with open(path, "wb") as file:
        torch.save({"a": torch.zeros(20_000)}, file)


@contextmanager
def largest_file(size: int):
    """Let no file grow beyond a size: the operating system then answers EFBIG, as it answers ENOSPC on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_what_any_library_raises_on_a_full_disk_is_one_line_and_the_old_file_is_whole(tmp_path, name):
    path = tmp_path / "file"
    path.write_text("old")
    with largest_file(10_000), pytest.raises(DiskError) as raised:
        write_whole(path, WRITERS[name])
    assert str(raised.value).startswith(f"{path}: cannot be written (") and "\n" not in str(raised.value)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    write_whole(path, WRITERS[name])  # with room
    assert path.stat().st_size > 10_000 and [*tmp_path.iterdir()] == [path]


def test_the_line_names_what_is_free_and_what_is_needed(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(distill.storage.writing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 12_000}))
    place, reason = tmp_path / "a", "cannot be written (No space left on device): 12.0 kB are free there, and it needs"
    with pytest.raises(DiskError) as raised:
        write_whole(place, full, size=5_200_000)
    assert str(raised.value) == f"{place}: {reason} 5.2 MB: make room"
    with pytest.raises(DiskError) as raised:
        write_whole(place, full)
    assert str(raised.value) == f"{place}: {reason} more: make room"


def test_other_errors_pass_through(tmp_path):
    for error in (ZeroDivisionError("division"), FileNotFoundError(errno.ENOENT, "No such file"), InputError("bad")):
        with pytest.raises(type(error)) as raised, writing(tmp_path / "a"):
            raise error
        assert raised.value is error


def test_appending_to_a_full_disk_adds_nothing(tmp_path):
    path = tmp_path / "journal"
    with open(path, "ab", buffering=0) as file:
        append(file, b"first\n")
        with largest_file(12), pytest.raises(DiskError, match="journal: cannot be written"):
            append(file, b"a longer second line\n")  # six bytes of it fit
        assert path.read_bytes() == b"first\n"
        append(file, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_directory_that_does_not_fit_leaves_the_old_one(tmp_path):
    directory = tmp_path / "model"
    write_whole_directory(directory, lambda new: write_text(new / "a", "old"))
    with largest_file(10_000), pytest.raises(DiskError, match="model/a: cannot|model: cannot|a: cannot"):
        write_whole_directory(directory, lambda new: WRITERS["safetensors"](new / "a"))
    assert (directory / "a").read_text() == "old" and [*tmp_path.iterdir()] == [directory]


def test_a_link_to_a_directory_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("later")
    for text in ("first", "second"):
        for name in ("link", "nowhere"):
            write_whole_directory(tmp_path / name, lambda new, text=text: write_text(new / "a", text))
        assert (tmp_path / "real" / "a").read_text() == (tmp_path / "later" / "a").read_text() == text
        assert sorted(path.name for path in tmp_path.iterdir()) == ["later", "link", "nowhere", "real"]
    assert (tmp_path / "link").readlink() == Path("real") and (tmp_path / "nowhere").readlink() == Path("later")


def test_links_in_place_of_temporary_directories_are_removed_and_not_followed(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    write_whole_directory(tmp_path / "model", lambda new: write_text(new / "a", "old"))
    for name in (".model.new", ".model.old"):
        (tmp_path / name).symlink_to("other")
    write_whole_directory(tmp_path / "model", lambda new: write_text(new / "a", "new"))
    assert (tmp_path / "model" / "a").read_text() == "new" and (tmp_path / "other" / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]


def test_a_save_that_was_stopped_between_the_two_renames_loses_nothing_if_the_next_one_fails(tmp_path, monkeypatch):
    directory = tmp_path / "model"
    write_whole_directory(directory, lambda new: write_text(new / "a", "old"))

    def stop(*_):
        raise KeyboardInterrupt

    rename = os.rename
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "rename", lambda source, target: stop() if target == directory else rename(source, target))
        write_whole_directory(directory, lambda new: write_text(new / "a", "new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.new", ".model.old"]
    with pytest.raises(ZeroDivisionError):
        write_whole_directory(directory, lambda new: 1 / 0)
    assert (directory / "a").read_text() == "old" and [*tmp_path.iterdir()] == [directory]


def no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_replaces_nothing_that_another_process_has_written_meanwhile(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.run"

    def write(aside):
        aside.write_text("mine")
        path.write_text("theirs")

    with pytest.raises(InputError) as refused:
        write_whole(path, write, is_new=True)
    (kept,) = set(tmp_path.iterdir()) - {path}
    assert (path.read_text(), kept.read_text()) == ("theirs", "mine")
    assert f"{path}: already exists, unlike when this command began" in str(refused.value)
    assert f"is kept as {kept}: " in str(refused.value)
    write_whole(tmp_path / "b.run", lambda aside: aside.write_text("new"), is_new=True)
    assert (tmp_path / "b.run").read_text() == "new" and (tmp_path / "b.run").stat().st_nlink == 1
    (tmp_path / "nowhere").symlink_to("later")
    write_whole(tmp_path / "nowhere", lambda aside: aside.write_text("new"), is_new=True)
    assert {one.name for one in tmp_path.iterdir()} == {"a.run", "b.run", "nowhere", kept.name}


def test_a_new_directory_replaces_none_that_another_process_has_written_meanwhile(tmp_path):
    directory = tmp_path / "split"

    def write(new):
        write_text(new / "a", "mine")
        directory.mkdir()
        write_text(directory / "a", "theirs")

    with pytest.raises(InputError, match="split: already exists, unlike when this command began") as refused:
        write_whole_directory(directory, write, is_new=True)
    (kept,) = set(tmp_path.iterdir()) - {directory}
    assert ((directory / "a").read_text(), (kept / "a").read_text()) == ("theirs", "mine")
    assert f"is kept as {kept}: " in str(refused.value)
    write_whole_directory(tmp_path / "b", lambda new: write_text(new / "a", "new"), is_new=True)
    assert (tmp_path / "b" / "a").read_text() == "new"
    assert {one.name for one in tmp_path.iterdir()} == {"split", "b", kept.name}


@pytest.mark.parametrize(
    ("name", "command", "overrides"),
    [
        ("fuse", fuse_files, ["runs=[a.run,a.run]"]),
        ("cut", cut, ["passages=p.tsv"]),
        ("retrieve", retrieve, ["passages=p.tsv", "queries=q.tsv"]),
        ("split", split, ["queries=q.tsv", "heldout=0.5", "min_heldout=1"]),
    ],
)
def test_of_two_commands_with_one_output_the_second_is_refused(tmp_path, monkeypatch, name, command, overrides):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    Path("p.tsv").write_text("d1\tbees fly\nd2\ttrains run\n")
    Path("q.tsv").write_text("q1\tbees\nq2\ttrains\n")
    Path("a.run").write_text("q1 Q0 d1 1 2 x\n")
    output, flush = tmp_path / "out", distill.storage.writing._flush

    def flush_while_the_other_ends(path):
        flush(path)
        if path.name.startswith(".out") and not output.exists():
            output.mkdir() if name == "split" else output.write_text("theirs")

    monkeypatch.setattr(distill.storage.writing, "_flush", flush_while_the_other_ends)
    with pytest.raises(InputError, match="out: already exists, unlike when this command began: .* is kept as"):
        command(compose_config(name, *overrides, "output=out"))
    assert [*output.iterdir()] == [] if name == "split" else output.read_text() == "theirs"
    assert len([*tmp_path.glob(".out.*")]) == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_the_files_of_a_model_follow_the_umask(backbone, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16).save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert "model.safetensors" in modes and set(modes.values()) == {mode}


def test_what_a_disk_answers_ends_a_command_with_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended, exit_on_bad_input(sweep=False):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: Read-only file system\n"
    with pytest.raises(FileNotFoundError), exit_on_bad_input(sweep=False):  # ours to mend, and so a traceback
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "a")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="Linux: no directory can be made in /proc")
@pytest.mark.parametrize("make", [lambda: Path("/proc/x/y").mkdir(parents=True), lambda: os.makedirs("/proc/x/y")])
def test_a_place_where_no_directory_can_be_made_is_one_line(capsys, make):
    with pytest.raises(SystemExit) as ended, exit_on_bad_input(sweep=False):
        make()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: /proc/x: No such file or directory\n"


@pytest.fixture
def saved(backbone, tmp_path):
    """The directory of a saved model."""
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16)
    model.interpolation = Interpolation(0.25, ("bm25",), "nDCG@10", 8)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def settings_of(directory, **changes):
    """Return what distill.json holds, with changes, which are written."""
    settings = json.loads((directory / "distill.json").read_text()) | changes
    (directory / "distill.json").write_text(json.dumps(settings))
    return settings


def test_a_changed_or_missing_file_of_a_model_is_refused(saved):
    checksums = settings_of(saved)["crc32"]
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert set(checksums) == files >= {"distill.json", "model.safetensors", "tokenizer.json", "2_Dense/config.json"}
    for name in sorted(files - {"distill.json"}):
        assert checksums[name] == zlib.crc32((saved / name).read_bytes())
        whole = (saved / name).read_bytes()
        changed = whole[:-1] + bytes([whole[-1] ^ 64]) if name.endswith(".safetensors") else whole + b"\n"
        (saved / name).write_bytes(changed)
        for attempt in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):  # as a model, and to train it again
            with pytest.raises(InputError, match=f"{name}: differs from its checksum: copy the model again, or, if "):
                attempt(str(saved))
        (saved / name).unlink()
        with pytest.raises(InputError):
            CrossEncoder.from_pretrained(str(saved))
        (saved / name).write_bytes(whole)
    CrossEncoder.from_pretrained(str(saved))


@pytest.mark.parametrize(
    "changes", [{"query_length": 9}, {"interpolation": None}, {"max_length": 12}, {"passage_lengtj": 16}, {"crc32": 5}]
)
def test_changed_settings_of_a_model_are_refused(saved, changes):
    settings_of(saved, **changes)
    with pytest.raises(InputError, match=r"distill\.json: (differs from its checksum|unknown key|crc32=5)"):
        CrossEncoder.from_pretrained(str(saved))


def test_a_file_that_its_user_has_changed_is_read_once_its_checksum_is_null(saved):
    checksums = settings_of(saved)["crc32"]
    settings_of(saved, query_length=4, crc32=checksums | {"distill.json": None, "tokenizer_config.json": None})
    config = json.loads((saved / "tokenizer_config.json").read_text())
    (saved / "tokenizer_config.json").write_text(json.dumps(config | {"note": "mine"}))
    (saved / "README.md").write_text("my own card")
    assert CrossEncoder.from_pretrained(str(saved)).query_length == 4


@pytest.mark.parametrize("checksums", [None, "weights"])
def test_models_of_earlier_versions_have_fewer_checksums_and_open(saved, checksums):
    old = settings_of(saved)["crc32"]
    weights = {name: old[name] for name in ("model.safetensors", "2_Dense/model.safetensors")}
    settings = settings_of(saved, query_length=4, crc32=None if checksums is None else weights)
    if checksums is None:
        (saved / "distill.json").write_text(json.dumps({key: settings[key] for key in settings if key != "crc32"}))
    config = saved / "2_Dense" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert CrossEncoder.from_pretrained(str(saved)).query_length == 4


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "./config.json", "1_Pooling/../config.json"])
def test_checksums_of_files_elsewhere_are_not_read(saved, name):
    settings_of(saved, crc32={name: 1})
    with pytest.raises(InputError, match="must be a file in this directory"):
        CrossEncoder.from_pretrained(str(saved))
