"""The cache on disk: damage is noticed wherever it is, two at once do not mix, and a place that cannot be written."""

import logging
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from transformers import AutoTokenizer

import distill.data.lists
import distill.data.teacher_lists
import distill.data.token_store
from distill.data.token_store import open_token_store
from distill.errors import InputError, exit_on_bad_input
from distill.retrieval.bm25 import bm25_run
from distill.sources.runs import cached_run
from distill.storage.cache import cache_directory, make_once
from distill.storage.checksums import damage, write_checksums
from distill.storage.writing import write_text, write_whole_directory
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists

FLIPS = 8  # of each file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def check_flips(cache, caplog, read) -> None:
    """Flip bits of each file of the only entry: each flip is noticed, and what is read stays the same."""
    expected = read()
    (entry,) = (path for path in cache.iterdir() if path.is_dir())
    rng, names = random.Random(0), sorted(path.name for path in entry.iterdir())
    assert "checksums.json" in names
    for name in names:
        size = (entry / name).stat().st_size
        for place in sorted({0, size - 1, *(rng.randrange(size) for _ in range(FLIPS - 2))}):
            damaged = bytearray((entry / name).read_bytes())
            damaged[place] ^= 1 << rng.randrange(8)
            (entry / name).write_bytes(damaged)
            caplog.clear()
            assert read() == expected
            # A flip in the white space of the checksums changes nothing that is read
            assert "rebuilding it" in caplog.text or name == "checksums.json", f"{name}, byte {place}"
            assert damage(entry) is None


def test_flips_in_a_cached_run_are_noticed(tmp_path, cache, caplog):
    lines = [f"q{query} Q0 d{place} {place} {-place / 3} tag\n" for query in range(9) for place in range(7)]
    (tmp_path / "a.run").write_text("".join(lines))

    def read():
        run = cached_run(str(tmp_path / "a.run"))
        return {query: (ranked.doc_ids, ranked.scores.tolist(), ranked.ranks.tolist()) for query, ranked in run.items()}

    check_flips(cache / "runs", caplog, read)


def test_flips_in_an_index_of_bm25_are_noticed(tmp_path, cache, caplog):
    (tmp_path / "p.tsv").write_text("".join(f"d{n}\tbees dance {'home ' * (n % 5)} w{n}\n" for n in range(20)))

    def read():
        run = bm25_run(str(tmp_path / "p.tsv"), {"q1": "bees at home", "q2": "w7"}, depth=9)
        return {query: (ranked.doc_ids, ranked.scores.tolist()) for query, ranked in run.items()}

    check_flips(cache / "bm25", caplog, read)


def test_flips_in_a_token_store_are_noticed(tmp_path, cache, caplog, backbone, in_process):
    (tmp_path / "p.tsv").write_text("".join(f"d{n}\tbee ant snow {n}\n" for n in range(20)))
    tokenizer = AutoTokenizer.from_pretrained(backbone)

    def read():
        store = open_token_store(str(tmp_path / "p.tsv"), tokenizer, 8)
        return [(store.text_id(row), store[row].tolist()) for row in range(len(store))], store.rows(["d3"]).tolist()

    check_flips(cache / "tokens", caplog, read)


def test_flips_in_training_lists_are_noticed(file_overrides, cache, caplog, in_process, monkeypatch):
    cfg = compose_config("train", *file_overrides, "data.depth=6")
    monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)
    check_flips(cache / "lists", caplog, lambda: as_tuples(decoded_lists(cfg)))


def test_a_damaged_part_of_a_stopped_tokenisation_is_not_continued(tmp_path, cache, backbone, monkeypatch, caplog):
    (tmp_path / "p.tsv").write_text("".join(f"d{n}\tbee ant snow {n}\n" for n in range(40)))
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    monkeypatch.setattr("distill.data.tokens.CHUNK", 10)
    stops = [True]

    def encode(chunks, *arguments):
        encoder = distill.data.token_store.Encoder(*arguments)
        for number, chunk in enumerate(chunks):
            if number == 2 and stops[0]:
                raise KeyboardInterrupt
            yield encoder(chunk)

    monkeypatch.setattr(distill.data.token_store, "_encode_in_processes", encode)
    contents = {}
    for name in ("none", "tokens", "ids", "lengths", "journal.json", "removed"):
        monkeypatch.setenv("DISTILL_CACHE", str(cache / name))
        stops[0] = True
        with pytest.raises(KeyboardInterrupt):
            open_token_store(str(tmp_path / "p.tsv"), tokenizer, 8)
        (partial,) = (cache / name / "tokens").glob("*.partial")
        if name == "removed":
            (partial / "cut").unlink()
        elif name != "none":
            damaged = bytearray((partial / name).read_bytes())
            damaged[len(damaged) // 3] ^= 4
            (partial / name).write_bytes(damaged)
        stops[0] = False
        caplog.clear()
        store = open_token_store(str(tmp_path / "p.tsv"), tokenizer, 8)
        contents[name] = [(store.text_id(row), store[row].tolist()) for row in range(len(store))]
        assert ("starting over" in caplog.text) == (name != "none")
    assert all(content == contents["none"] for content in contents.values()) and len(contents["none"]) == 40


@pytest.mark.parametrize("change", ["missing", "added", "empty", "no checksums", "checksums of another kind"])
def test_files_that_are_missing_added_or_empty_are_noticed(tmp_path, change):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    write_checksums(tmp_path)
    assert damage(tmp_path) is None
    if change == "missing":
        (tmp_path / "a").unlink()
    elif change == "added":
        (tmp_path / "c").write_text("")
    elif change == "empty":
        (tmp_path / "b").write_text("")
    elif change == "no checksums":
        (tmp_path / "checksums.json").unlink()
    else:
        (tmp_path / "checksums.json").write_text("[]")
    assert damage(tmp_path)


def test_two_threads_make_one_entry_and_the_second_waits(cache, caplog):
    caplog.set_level("INFO")
    begun, made = threading.Event(), []

    def write(directory):
        begun.set()
        time.sleep(0.2)
        (directory / "numbers").write_text("1 2 3")
        made.append(threading.get_ident())

    threads = [threading.Thread(target=make_once, args=(cache / "runs" / "a-1", write)) for _ in range(2)]
    threads[0].start()
    begun.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1 and "a-1: another process is writing it: waiting" in caplog.text
    assert (cache / "runs" / "a-1" / "numbers").read_text() == "1 2 3"


def test_many_processes_that_repair_one_entry_do_not_mix(cache):
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom distill.storage.cache import make_once\n"
        "def write(directory):\n"
        "    with open(sys.argv[1] + '/made', 'a') as file: file.write(f'{os.getpid()}\\n')\n"
        "    for part in range(20):\n"
        "        with open(directory / 'numbers', 'a') as file: file.write(f'{os.getpid()} ')\n"
        "        time.sleep(0.01)\n"
        "print((make_once(Path(sys.argv[1]) / 'runs' / 'a-1', write) / 'numbers').read_text())\n"
    )
    entry = make_once(cache / "runs" / "a-1", lambda directory: (directory / "numbers").write_text("damaged later"))
    (entry / "numbers").write_text("damaged now")
    command = [sys.executable, "-c", script, str(cache)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [process.communicate(timeout=30)[0].split() for process in processes]
    (maker,) = (cache / "made").read_text().split()
    assert printed == [[maker] * 20] * 3


def test_what_a_killed_writer_has_left_is_not_mixed_in(cache):
    partial = cache / "runs" / "a-1.partial"
    partial.mkdir(parents=True)
    (partial / "stale").write_text("of an earlier try")
    entry = make_once(cache / "runs" / "a-1", lambda directory: (directory / "numbers").write_text("1"))
    assert sorted(path.name for path in entry.iterdir()) == ["checksums.json", "numbers"]


def test_warnings_are_repeated_when_what_they_are_about_is_used_again(cache, caplog):
    def write(directory):
        logging.getLogger("distill.sources.texts").warning("%s: %d empty passages", "p.tsv", 3)

    for _ in range(2):
        caplog.clear()
        make_once(cache / "runs" / "a-1", write)
        assert caplog.messages == ["p.tsv: 3 empty passages"]


def test_a_rank_that_does_not_log_keeps_its_warnings_for_the_others(cache, caplog, monkeypatch):
    def write(directory):
        log = logging.getLogger("distill.storage.cache")
        log.warning("3 empty passages")
        log.warning("starting over", extra={"passing": True})  # true of this once only

    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    root.setLevel(logging.ERROR)  # as distill/distributed.py does
    make_once(cache / "runs" / "a-1", write)
    assert not caplog.messages and logging.getLogger("distill").propagate
    root.setLevel(logging.INFO)
    make_once(cache / "runs" / "a-1", write)
    assert caplog.messages == ["3 empty passages"]


def test_a_cache_that_cannot_be_written_is_answered_before_the_work(tmp_path, monkeypatch):
    def write(directory):
        raise AssertionError("the work has begun")

    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / place))
        with pytest.raises(InputError, match=r"cannot be created \(.+\): set DISTILL_CACHE to a directory of your own"):
            make_once(cache_directory() / "runs" / "a-1", write)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    with pytest.raises(InputError, match="cache/runs: cannot be written: set DISTILL_CACHE"):
        make_once(cache_directory() / "runs" / "a-1", write)
    (tmp_path / "cache" / "bm25" / "a-1.lock").mkdir(parents=True)
    monkeypatch.undo()
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"a-1.lock: cannot be written \(Is a directory\)"):
        make_once(cache_directory() / "bm25" / "a-1", write)


def test_a_whole_entry_of_a_cache_that_cannot_be_written_is_used(cache, monkeypatch):
    entry = make_once(cache / "runs" / "a-1", lambda directory: (directory / "numbers").write_text("1"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert make_once(cache / "runs" / "a-1", lambda directory: None) == entry


def test_without_a_home_one_line_names_the_variable(monkeypatch):
    monkeypatch.delenv("DISTILL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with pytest.raises(InputError, match="the cache has no place .* set DISTILL_CACHE to a directory of your own"):
        cache_directory()


def test_a_checksum_is_that_of_zip_and_png(tmp_path):
    (tmp_path / "check").write_bytes(b"123456789")
    write_checksums(tmp_path)
    assert f'"check": {0xCBF43926}' in (tmp_path / "checksums.json").read_text()  # the published check value of CRC-32


def test_a_directory_is_read_once_by_a_process_unless_it_changes(tmp_path, monkeypatch):
    np.arange(9).tofile(tmp_path / "numbers")
    write_checksums(tmp_path)
    assert damage(tmp_path) is None
    monkeypatch.setattr("distill.storage.checksums.checksum", lambda path: -1)
    assert damage(tmp_path) is None
    (tmp_path / "numbers").touch()
    assert damage(tmp_path) == "numbers is damaged"


def test_two_that_write_one_directory_do_not_mix(tmp_path):
    begun, refused = threading.Event(), []

    def write(directory):
        (directory / "first").write_text("1")
        begun.set()
        time.sleep(0.3)
        (directory / "second").write_text("1")

    (tmp_path / ".model.new" / "below").mkdir(parents=True)  # of a killed process
    (tmp_path / ".model.new" / "stale").write_text("0")
    thread = threading.Thread(target=write_whole_directory, args=(tmp_path / "model", write))
    thread.start()
    begun.wait(5)
    with pytest.raises(InputError, match="model: another process is writing it: wait for it, or use another directory"):
        write_whole_directory(tmp_path / "model", lambda directory: refused.append((directory / "x").write_text("2")))
    thread.join(5)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["first", "second"] and not refused
    write_whole_directory(tmp_path / "model", lambda directory: (directory / "third").write_text("3"))
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "third"]


def test_threads_that_write_one_file_leave_it_whole(tmp_path):
    path, texts = tmp_path / "a.txt", [f"{n} " * 1000 for n in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert path.read_text() in texts and [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_in_the_place_of_a_directory_is_answered_in_one_line(tmp_path, capsys):
    (tmp_path / "outputs").write_text("")
    for path in (tmp_path / "outputs", tmp_path / "outputs" / "below"):
        with pytest.raises(SystemExit), exit_on_bad_input(sweep=False):
            path.mkdir()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"error: {tmp_path}/outputs: File exists", f"error: {tmp_path}/outputs/below: Not a directory"]
