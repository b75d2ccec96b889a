"""The journal of an LLM's answers: whatever happened to the file, the rest of it is read and it can be continued."""

import errno
import fcntl
import json
import math
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.teachers.entries import read_entry
from distill.teachers.journal import Journal

ENTRY = {"text": "[2] > [1]", "tokens_in": 9, "tokens_out": 5, "seconds": 0.1, "score": None}
BAD = [
    b"not json", b"", b"[1]", b"5", b"null", b'{"key": "x"}', b'{"key": 5, "text": "a"}', b"\xff\xfe", b"[" * 100_000,
    json.dumps({"key": "x", **ENTRY, "tokens_in": None}).encode(),
    json.dumps({"key": "x", **ENTRY, "tokens_out": "5"}).encode(),
    json.dumps({"key": "x", **ENTRY, "text": None}).encode(),
    json.dumps({"key": "x", **ENTRY, "score": float("nan")}).encode(),
    json.dumps({"key": "x", **ENTRY, "seconds": -1}).encode(),
    json.dumps({"key": "x", **ENTRY, "finish": 5}).encode(),
]  # fmt: skip


def test_lines_that_are_no_entries_are_left_out_and_said(tmp_path, caplog):
    path = tmp_path / "journal.jsonl"
    lines = [json.dumps({"key": "a", **ENTRY}).encode(), *BAD, json.dumps({"key": "b", **ENTRY}).encode()]
    path.write_bytes(b"\n".join(lines) + b'\n{"key": "c", "te')  # and half a line, of a killed process
    for _ in range(2):
        with Journal(path) as journal:
            assert journal.answers == {"a": ENTRY, "b": ENTRY}
        assert f"{len(BAD)} lines are no journal entries, the first of them line 2" in caplog.text
    with Journal(path) as journal:
        journal.add("c", ENTRY)
    with Journal(path) as journal:
        assert set(journal.answers) == {"a", "b", "c"}


def test_a_disk_that_is_slow_to_flush_holds_no_answer(tmp_path, monkeypatch):
    path, gate, begun = tmp_path / "journal.jsonl", threading.Event(), threading.Event()

    def fsync(number: int) -> None:
        begun.set()
        assert gate.wait(60)

    monkeypatch.setattr("distill.teachers.journal.os.fsync", fsync)
    with Journal(path) as journal:
        journal.add("first", ENTRY)
        assert begun.wait(60)  # the disk is at work until the gate opens
        for number in range(100):
            journal.add(f"k{number}", ENTRY)
            assert journal.find(f"k{number}") == ENTRY
        assert len(path.read_bytes().splitlines()) == 101  # what add has returned from, a killed process has written
        gate.set()


def test_any_answer_can_be_written_and_read(tmp_path):
    answers = {"half": "\ud83d", "control": "\x00\x1b[0m\u2028\r\n", "scripts": "蜜蜂 ผึ้ง 🐝", "empty": ""}
    with Journal(tmp_path / "journal.jsonl") as journal:
        for key, text in answers.items():
            journal.add(key, ENTRY | {"text": text})
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert {key: entry["text"] for key, entry in journal.answers.items()} == answers | {"half": "?"}


@given(line=st.binary(max_size=60) | st.text(alphabet='{}[]":,0keytx', max_size=40).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_line_is_an_entry_or_none(line):
    entry = read_entry(line)
    assert entry is None or {"key", "text", "tokens_in", "tokens_out", "seconds", "score"} <= set(entry)


@pytest.mark.parametrize("fault", [{"seconds": 10**400}, {"tokens_in": -1}, {"score": True}, {"seconds": math.nan}])
def test_an_entry_has_numbers_that_can_be_counted(fault):
    assert read_entry(json.dumps({"key": "k"} | ENTRY).encode()) is not None
    assert read_entry(json.dumps({"key": "k"} | ENTRY | fault).encode()) is None


def test_entries_of_earlier_versions_are_read():
    line = b'{"key": "k", "text": "[1]", "tokens_in": 1, "tokens_out": 1, "seconds": 0.5, "score": null}'
    assert read_entry(line) == {
        "key": "k",
        "text": "[1]",
        "tokens_in": 1,
        "tokens_out": 1,
        "seconds": 0.5,
        "score": None,
    }


def test_a_second_process_on_a_journal_is_refused(tmp_path):
    with Journal(tmp_path / "j.jsonl"), pytest.raises(InputError, match="another process is writing it"):
        Journal(tmp_path / "j.jsonl")


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def without_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.add("k", ENTRY)
    assert "j.jsonl cannot be locked (Function not implemented): start nothing else there" in caplog.text
