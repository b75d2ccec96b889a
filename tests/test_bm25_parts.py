"""BM25's index in parts: the run of the whole index bit for bit, what a stop and a damaged disk cost, and bad input."""

import random
from pathlib import Path

import numpy as np
import pytest

from distill.errors import InputError
from distill.retrieval import bm25_parts
from distill.retrieval.bm25 import Bm25, bm25_run
from distill.sources.run_files import Run

QUERIES = {f"q{n}": " ".join(random.Random(n).choices("abcdefgh", k=1 + n % 4)) for n in range(20)}
QUERIES |= {"new": "zebra b", "twice": "a a c", "rare": "nobody's zebra"}
PLAIN = Bm25(stemmer="none", stop_words="none")


@pytest.fixture
def source(tmp_path, monkeypatch) -> str:
    """300 passages of few different words, so that many are equal; the last ones have a word of their own."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefgh", weights=range(8, 0, -1), k=draw.randrange(9))) for _ in range(300)]
    texts[-3:] = ["zebra", "a zebra", "b " * 300]
    lines = [f"d{n * 37 % 311}\t{text}\n" for n, text in enumerate(texts)]
    (tmp_path / "p.tsv").write_text("".join(lines))
    return str(tmp_path / "p.tsv")


def in_parts(monkeypatch, words: int = 320) -> None:
    monkeypatch.setattr(bm25_parts, "PART_WORDS", words)


def as_lists(run: Run) -> dict:
    return {query_id: (ranked.doc_ids, ranked.scores.tolist()) for query_id, ranked in run.items()}


def directory(tmp_path) -> Path:
    [found] = (path for path in (tmp_path / "cache" / "bm25").iterdir() if path.is_dir())
    return found


@pytest.mark.parametrize("bm25", [PLAIN, Bm25(1.7, 0.9, "none", "none"), Bm25(0, 1, "none", "none")], ids=str)
def test_parts_give_the_run_of_the_whole_index_bit_for_bit(source, tmp_path, monkeypatch, bm25):
    depths = (1, 7, 60, 1000)  # ties at the cut, within a part and between parts
    whole = [as_lists(bm25_run(source, QUERIES, depth, bm25)) for depth in depths]
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "other" / "cache"))
    in_parts(monkeypatch)
    assert [as_lists(bm25_run(source, QUERIES, depth, bm25)) for depth in depths] == whole
    parts = sorted(path.name for path in directory(tmp_path / "other").iterdir() if path.is_dir())
    num_parts = len(parts) // 2
    assert num_parts > 3 and parts == [f"{kind}-{n:03d}" for kind in ("part", "weights") for n in range(num_parts)]
    assert whole[-1]["new"][0][0] == "d104"  # row 297, the "zebra" that only the last part knows


def test_an_index_of_before_and_a_small_collection_have_no_parts(source, tmp_path, monkeypatch):
    first = as_lists(bm25_run(source, QUERIES, 10, PLAIN))
    names = {"weights.npy", "rows.npy", "starts.npy", "ids.npy", "id_offsets.npy", "words.json", "checksums.json"}
    assert {path.name for path in directory(tmp_path).iterdir()} == names
    in_parts(monkeypatch)
    monkeypatch.setattr(bm25_parts.Reader, "read", None)  # nothing is read again
    assert as_lists(bm25_run(source, QUERIES, 10, PLAIN)) == first


def stop_after(monkeypatch, name: str, calls: int) -> None:
    """Let a function of the builder stop the process when it is called once more."""
    done, function = [], getattr(bm25_parts, name)

    def stopping(*arguments):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(function(*arguments))
        return done[-1]

    monkeypatch.setattr(bm25_parts, name, stopping)


@pytest.mark.parametrize(("name", "calls", "left"), [("_write_postings", 3, 3), ("_weights_of", 2, None)])
def test_a_stopped_build_resumes_at_the_next_part(source, tmp_path, monkeypatch, caplog, name, calls, left):
    caplog.set_level("INFO")
    whole = as_lists(bm25_run(source, QUERIES, 50, PLAIN))
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "other" / "cache"))
    in_parts(monkeypatch)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stop_after(stopped, name, calls)
        bm25_run(source, QUERIES, 50, PLAIN)
    [partial] = (tmp_path / "other" / "cache" / "bm25").glob("*.partial")
    before = {path.name: path.stat().st_ino for path in partial.iterdir()}
    counted, weighed = (len([one for one in before if one.startswith(kind)]) for kind in ("part", "weights"))
    assert (counted, weighed) == ((3, 0) if name == "_write_postings" else (counted, 2))
    (partial / ".part-003.new").mkdir(exist_ok=True)  # of a process that was killed while it wrote
    (partial / ".part-003.new" / "rows.npy").write_bytes(b"half")
    assert as_lists(bm25_run(source, QUERIES, 50, PLAIN)) == whole
    after = {path.name: path.stat().st_ino for path in directory(tmp_path / "other").iterdir()}
    assert {one: after[one] for one in before} == before and len(after) > len(before)
    assert "resumed after" in caplog.text


@pytest.mark.parametrize(
    ("when", "damaged"),
    [
        ("used", ["part-001/words.json", "part-002/ids.npy"]),
        ("used", ["weights-003/weights.npy"]),
        ("used", ["part-000/"]),
        ("built", ["part-002/rows.npy", "weights-001/weights.npy"]),
    ],
)
def test_only_a_damaged_part_is_made_again(source, tmp_path, monkeypatch, when, damaged):
    in_parts(monkeypatch)
    if when == "built":
        with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
            stop_after(stopped, "_weights_of", 3)
            bm25_run(source, QUERIES, 50, PLAIN)
        [place] = (tmp_path / "cache" / "bm25").glob("*.partial")
        with monkeypatch.context() as other:
            other.setenv("DISTILL_CACHE", str(tmp_path / "other"))
            expected = as_lists(bm25_run(source, QUERIES, 50, PLAIN))
    else:
        expected = as_lists(bm25_run(source, QUERIES, 50, PLAIN))
        place = directory(tmp_path)
    before = {path.name: path.stat().st_ino for path in place.iterdir() if path.is_dir()}
    for name in damaged:
        if name.endswith("/"):
            (place / name).rename(tmp_path / "removed")
            continue
        data = bytearray((place / name).read_bytes())
        data[-3] ^= 16
        (place / name).write_bytes(data)
    assert as_lists(bm25_run(source, QUERIES, 50, PLAIN)) == expected
    after = {path.name: path.stat().st_ino for path in directory(tmp_path).iterdir() if path.is_dir()}
    assert {one for one in before if after[one] != before[one]} == {name.split("/")[0] for name in damaged}


def test_a_duplicate_id_in_another_part_is_named_with_its_line(source, tmp_path, monkeypatch):
    in_parts(monkeypatch)
    with open(source, "a") as file:
        file.write("d37\tagain\n")
    with pytest.raises(InputError, match="p.tsv:301: id d37 appears twice"):
        bm25_run(source, QUERIES, 5, PLAIN)
    assert not [path for path in (tmp_path / "cache" / "bm25").iterdir() if path.is_dir()]


def test_a_bad_line_after_the_first_part_is_one_error_and_leaves_nothing(source, tmp_path, monkeypatch):
    in_parts(monkeypatch)
    with open(source, "a") as file:
        file.write("no tab\n")
    with pytest.raises(InputError, match="p.tsv:301: one column instead of two"):
        bm25_run(source, QUERIES, 5, PLAIN)
    assert not [path for path in (tmp_path / "cache" / "bm25").iterdir() if path.is_dir()]


def test_a_word_in_many_places_of_a_passage_is_counted_beyond_a_byte(source, tmp_path, monkeypatch):
    in_parts(monkeypatch)
    bm25_run(source, {"q": "b"}, 1, PLAIN)
    place = max(directory(tmp_path).glob("part-*"))
    assert np.load(place / "counts.npy").max() == 300
