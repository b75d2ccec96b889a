"""Answers shared by annotations: the same call with more queries pays for the new ones only."""

import pytest

from distill.errors import InputError
from distill.teachers.journal import Journal
from distill.teachers.shared_journal import SharedJournal
from tests.helpers.chat_server import overrides_of
from tests.helpers.commands import run, run_annotate

ENTRY = {"text": "[2] > [1]", "tokens_in": 9, "tokens_out": 5, "seconds": 0.1, "score": None}


def test_next_month_pays_for_the_new_queries_only(collection, tmp_path, serve, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    server = serve()
    prices = ["teacher.llm.price_in=10000", "teacher.llm.price_out=0"]  # 1 a request
    overrides = overrides_of(collection, server, "journal=null", *prices)
    done = run_annotate(tmp_path / "one", *overrides, "num_queries=4")
    assert done.returncode == 0 and sum(server.asked.values()) == 16, done.stderr
    (journal,) = (tmp_path / "cache" / "journals").glob("judge-*.jsonl")
    assert len(journal.read_text().splitlines()) == 16
    done = run_annotate(tmp_path / "two", *overrides, "teacher.llm.max_cost=8.5")  # six queries; old answers are free
    assert done.returncode == 0 and sum(server.asked.values()) == 24, done.stderr
    card = (tmp_path / "two" / "card.md").read_text()
    assert "- requests: 8 requests, 16 answers of earlier annotations, 800 tokens in, 80 out, cost 8.0000" in card
    assert "has 16 answers of earlier annotations, which cost nothing" in done.stdout + done.stderr
    one, two = ((tmp_path / name / "teacher.run").read_text() for name in ("one", "two"))
    assert set(one.splitlines()) <= set(two.splitlines())
    again = run_annotate(tmp_path / "x", f"resume={tmp_path / 'two'}", *prices)
    assert again.returncode == 0 and sum(server.asked.values()) == 24, again.stderr
    done = run_annotate(tmp_path / "three", *overrides_of(collection, server))  # journal=none
    assert done.returncode == 0 and sum(server.asked.values()) == 48


def test_several_annotations_share_a_journal_at_a_time(tmp_path):
    path = tmp_path / "shared" / "answers.jsonl"
    one, other = SharedJournal(path), SharedJournal(path)
    one.add("a", ENTRY)
    assert other.find("a") == ENTRY and other.find("b") is None  # of another process, meanwhile
    other.add("a", ENTRY)
    other.add("b", ENTRY | {"text": "\ud83d"})
    assert len(path.read_bytes().splitlines()) == 2
    with open(path, "ab") as file:
        file.write(b'{"key": "half a li')  # of a killed process
    third = SharedJournal(path)
    assert third.answers == {"a": ENTRY, "b": ENTRY | {"text": "?"}}
    with Journal(tmp_path / "own.jsonl") as own:  # what an annotation of an older version has not shared
        own.add("c", ENTRY | {"is_shared": True})
        third.add_missing(own.answers)
    assert set(SharedJournal(path).answers) == {"a", "b", "c"}


def test_journals_are_listed_with_what_they_hold_and_cost(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    shared = SharedJournal(tmp_path / "journals" / "judge-1.jsonl")
    for key in ("a", "b"):
        shared.add(key, ENTRY)
    (tmp_path / "journals" / "empty-2.jsonl").write_text("no entry\n")
    listed = run("-m", "distill", "journals", "price_in=1e6", "price_out=0")
    assert listed.returncode == 0, listed.stderr
    rows = [line.split() for line in listed.stdout.splitlines()[1:]]
    assert [row[:4] for row in rows] == [["0", "0", "0", "0.00"], ["2", "18", "10", "18.00"]]
    assert rows[1][-1] == str(tmp_path / "journals" / "judge-1.jsonl")
    assert "empty-2.jsonl: 1 lines are no journal entries" in listed.stderr
    missing = run("-m", "distill", "journals", "journal=nope.jsonl")
    assert missing.returncode == 2 and "nope.jsonl: cannot be read" in missing.stderr


def test_a_shared_journal_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "j.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be written .* set journal=none"):
            SharedJournal(path)
