"""Answers shared by annotations: the same call with more queries pays for the new ones only."""

import json
import signal
import time

import pytest
from omegaconf import OmegaConf

from distill.errors import InputError
from distill.teachers.asking import ask_llm
from distill.teachers.entries import line_of
from distill.teachers.journal import Journal
from distill.teachers.shared_journal import SharedJournal, summarise
from tests.helpers.chat_server import overrides_of
from tests.helpers.commands import run, run_annotate, start
from tests.helpers.configuration import compose_config

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


def test_two_annotations_at_once_leave_one_whole_journal(collection, tmp_path, serve):
    shared, server = tmp_path / "shared.jsonl", serve(together=2)  # each answer waits for one of the other annotation
    overrides = overrides_of(collection, server, f"journal={shared}", "num_queries=2", "teacher.llm.concurrency=1")
    names = ("one", "two")
    both = [start("-m", "distill", "annotate", *overrides, f"hydra.run.dir={tmp_path / name}") for name in names]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert server.most == 2 and sum(server.asked.values()) == 16
    lines = [json.loads(line) for line in shared.read_text().splitlines()]
    asked = {line["key"] for line in lines}
    assert len(asked) == 8 and set(SharedJournal(shared).answers) == asked
    runs = [(tmp_path / name / "teacher.run").read_text() for name in names]
    assert runs[0] == runs[1] != ""
    server.gate = None  # a third finds all answers there
    third = run_annotate(tmp_path / "three", *overrides)
    assert third.returncode == 0 and sum(server.asked.values()) == 16, third.stderr
    assert (tmp_path / "three" / "teacher.run").read_text() == runs[0]


def test_of_two_resumes_at_once_one_works_and_the_other_is_refused(collection, tmp_path, serve):
    directory, server = tmp_path / "out", serve()
    overrides = overrides_of(collection, server, "num_queries=2", "teacher.llm.concurrency=1")
    assert run_annotate(directory, *overrides).returncode == 0
    expected = (directory / "teacher.run").read_bytes()
    asked = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for path in directory.iterdir():
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    (directory / "journal.jsonl").write_bytes(b"".join(asked[:3]))  # as if it had been killed
    server.hold()
    both = [start("-m", "distill", "annotate", f"resume={directory}") for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.02)  # one waits for its answer
    refused, working = sorted(both, key=lambda process: process.poll() is None)
    assert refused.returncode == 2 and "still works there: wait for it" in refused.communicate()[1]
    assert len((directory / "journal.jsonl").read_bytes().splitlines()) == 3
    server.release()
    assert working.wait() == 0, working.communicate()
    assert (directory / "teacher.run").read_bytes() == expected
    assert sum(server.asked.values()) == 8 + 5


def test_a_killed_month_that_is_never_resumed_is_not_paid_for_again(collection, tmp_path, serve):
    server = serve(delay=0.05)
    overrides = overrides_of(collection, server, f"journal={tmp_path / 'shared.jsonl'}")  # concurrency=3
    process = start("-m", "distill", "annotate", *overrides, "num_queries=4", f"hydra.run.dir={tmp_path / 'one'}")
    while sum(server.asked.values()) < 9:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    own, shared = ((tmp_path / name).read_text().splitlines() for name in ("one/journal.jsonl", "shared.jsonl"))
    assert set(shared) == set(own) and len(own) >= 6
    done = run_annotate(tmp_path / "two", *overrides)  # next month, with two more queries
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 24 and sum(server.asked.values()) <= 24 + 3  # those in flight at the kill
    asked = sum(server.asked.values())
    done = run_annotate(tmp_path / "unused", f"resume={tmp_path / 'one'}")
    assert done.returncode == 0 and sum(server.asked.values()) == asked, done.stderr


def test_queries_and_passages_that_repeat_themselves_are_paid_for_once(collection, tmp_path, serve):
    lists = {f"q{n}": ("bees", ["a bee", "no", "a bee", "a bear"]) for n in range(5)}
    for method, number in (("listwise", 1), ("pointwise", 3)):
        server = serve(delay=0.05)
        cfg = compose_config("annotate", *overrides_of(collection, server, f"method={method}"))
        OmegaConf.resolve(cfg)
        orders, flagged, totals = ask_llm(cfg, tmp_path / method, lists)
        assert sum(server.asked.values()) == number == totals.requests
        assert list(orders) == list(flagged) == list(lists) and len({tuple(order) for order in orders.values()}) == 1


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


def test_what_another_run_has_paid_for_is_no_cost(tmp_path):
    with Journal(tmp_path / "own.jsonl") as own:
        own.add("a", ENTRY)
        own.add("b", ENTRY | {"is_shared": True})
    held = summarise(tmp_path / "own.jsonl")
    assert (held.answers, held.tokens_in, held.tokens_out) == (2, ENTRY["tokens_in"], ENTRY["tokens_out"])


def test_the_journal_of_one_run_is_not_shared(tmp_path):
    (tmp_path / "config.yaml").write_text("window: 20\n")
    message = "journal=.*journal.jsonl: belongs to one run, which holds it"  # and would be waited for without end
    with Journal(tmp_path / "journal.jsonl"), pytest.raises(InputError, match=message):
        SharedJournal(tmp_path / "journal.jsonl")


def test_a_shared_journal_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "j.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be written .* set journal=none"):
            SharedJournal(path)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "notes": "precious, no final newline"}',
        b'{"a": 1, "notes": "precious"}\n',
        b'{"a": 1, "notes": "precious"}\n{"key": "half',
        b"\n",
        b"\0\0\0\0",
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^journal=.*notes.json: is no journal: give another file$"):
        SharedJournal(path)
    assert path.read_bytes() == content


def test_only_what_a_killed_process_leaves_is_cut_off_a_journal(tmp_path):
    path = tmp_path / "shared.jsonl"
    for whole in (b"", line_of("a", ENTRY), b"no entry\n" + line_of("a", ENTRY)):
        for half in (b"", b"{", b'{"key": ', line_of("b", ENTRY)[:-1], *([b"\0" * 100] if whole else [])):
            path.write_bytes(whole + half)
            shared = SharedJournal(path)
            assert path.read_bytes() == whole and len(shared.answers) == bool(whole)
            shared.close()
        path.write_bytes(whole + b"a list of my own")
        with pytest.raises(InputError, match="is no journal"):
            SharedJournal(path)
        assert path.read_bytes() == whole + b"a list of my own"


def test_an_annotation_does_not_touch_a_file_that_is_no_journal(collection, tmp_path, serve):
    server, notes = serve(), tmp_path / "notes.json"
    notes.write_text('{"notes": "precious"}')
    done = run_annotate(tmp_path / "out", *overrides_of(collection, server, f"journal={notes}"))
    assert done.returncode == 2 and f"error: journal={notes}: is no journal: give another file" in done.stderr
    assert notes.read_text() == '{"notes": "precious"}' and not server.asked
