"""Small files that unpack to much, and lines without an end, are refused in one line and in little memory."""

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distill.sources.opening
import distill.sources.run_tables
import distill.storage.files
import distill.storage.parquet
import distill.storage.unpacking
from distill.errors import InputError
from distill.sources.opening import open_source
from distill.sources.runs import cached_run, read_run
from distill.sources.texts import read_passages, read_queries
from distill.storage.parquet import parquet_batches, parquet_rows


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(distill.storage.files, "MAX_LINE", 10_000)
    monkeypatch.setattr(distill.sources.run_tables, "MAX_LINE", 10_000)
    monkeypatch.setattr(distill.sources.run_tables, "BLOCK_BYTES", 5_000)
    monkeypatch.setattr(distill.storage.unpacking, "FREELY", 500_000)


@pytest.mark.parametrize("read", [read_run, cached_run])
def test_gzip_that_unpacks_to_far_too_much_is_refused(tmp_path, small_limits, read):
    path = tmp_path / "bomb.run.gz"
    path.write_bytes(gzip.compress(b"\n" * 2_000_000))
    tracemalloc.start()
    with pytest.raises(InputError, match="bomb.run.gz: unpacks to more than 200 times its size, as hostile files do"):
        read(str(path))
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_gzip_of_text_is_read_however_large(tmp_path, small_limits):
    path = tmp_path / "p.tsv.gz"
    path.write_bytes(gzip.compress("".join(f"d{n}\tpassage {n * 7919}\n" for n in range(40_000)).encode()))
    assert len(read_passages(str(path), {f"d{n}" for n in range(40_000)})) == 40_000


@pytest.mark.parametrize("name", ["a.run", "a.run.gz", "q.tsv", "q.jsonl", "q.csv", "q.csv.gz"])
def test_a_line_without_an_end_is_refused(tmp_path, small_limits, name):
    start = {"q.jsonl": b'{"_id": "1", "text": "', "q.csv": b'id,text\n1,"', "q.csv.gz": b"id,text\n"}.get(
        name, b"q1 Q0 "
    )
    content = start + b"x" * 50_000
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    number = 2 if "csv" in name else 1
    for read in (read_run, cached_run) if "run" in name else (read_queries,):
        with pytest.raises(InputError, match=rf"{name}:{number}: has more than 0 MB: expected one query or passage"):
            read(str(tmp_path / name))


def test_a_csv_row_of_endless_lines_is_refused(tmp_path, small_limits):
    (tmp_path / "q.csv").write_text("id,text\n1," + '"\n",' * 9_000)
    with pytest.raises(InputError, match="q.csv:2: has more than 0 MB"):
        read_queries(str(tmp_path / "q.csv"))


def test_permutations_without_an_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distill.storage.files, "MAX_ANSWERS", 1_000)
    (tmp_path / "a.json").write_text(json.dumps(["[1] > [2]"] * 1_000))
    with pytest.raises(InputError, match="a.json: has more than 0 MB: expected an array of short answers"):
        list(open_source(str(tmp_path / "a.json"), "permutations").rows())


def test_a_small_file_of_many_rows_is_read_as_a_large_one(tmp_path, monkeypatch):
    monkeypatch.setattr(distill.sources.opening, "LARGE_FILE", 100_000)
    line = "q1 Q0 d1 1 1.0 a_long_tag_that_gzip_takes_no_room_for\n"
    (tmp_path / "a.run.gz").write_bytes(gzip.compress(line.encode() * 5_000))
    (tmp_path / "b.run.gz").write_bytes(gzip.compress(line.encode() * 1_500))
    (tmp_path / "c.run.gz").write_bytes(gzip.compress(line.encode() * 5_000)[:-9])
    pq.write_table(pa.table({"query_id": ["q1"] * 10_000, "doc_id": ["d"] * 10_000}), tmp_path / "a.parquet")
    assert [open_source(str(path), "run").is_large for path in sorted(tmp_path.glob("*.*"))] == [
        True,
        True,
        False,
        True,
    ]


def shapes(text: str, count: int) -> dict:
    """A value once in a dictionary and `count` times in a column: flat, in lists and in structs."""
    return {
        "flat": pa.array(["short", *[text] * (count - 1)]),
        "lists": pa.array([["short"], *[[text] * 3] * (count - 1)]),
        "structs": pa.array([{"text": "short"}, *[{"text": text}] * (count - 1)]),
    }


@pytest.mark.parametrize("shape", ["flat", "lists", "structs"])
def test_a_long_text_that_parquet_repeats_is_read_a_few_rows_at_a_time(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(distill.storage.parquet, "BATCH_BYTES", 500_000)
    column = shapes("x" * 50_000, 200)[shape]
    pq.write_table(pa.table({shape: column, "n": range(200)}), tmp_path / "a.parquet", row_group_size=100)
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    batches = [batch for _, batch in parquet_batches(str(tmp_path / "a.parquet"))]
    assert max(batch.nbytes for batch in batches) <= 520_000
    assert pa.Table.from_batches(batches)[shape].to_pylist() == column.to_pylist()
    monkeypatch.setattr(distill.storage.parquet, "BATCH_BYTES", 40_000)
    with pytest.raises(InputError, match=r"a.parquet: has rows of 0 MB: a row may have 0 MB"):
        next(parquet_batches(str(tmp_path / "a.parquet")))


def test_parquet_that_unpacks_to_far_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distill.storage.unpacking, "FREELY", 500_000)
    pq.write_table(pa.table({"_id": [str(n) for n in range(900)], "text": ["x" * 5_000] * 900}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet: unpacks to more than 200 times its size"):
        list(parquet_rows(str(tmp_path / "a.parquet")))


def test_parquet_of_every_type_is_read_as_before(tmp_path):
    columns = shapes("text", 9) | {
        "large": pa.array(["a"] * 9, pa.large_string()),
        "view": pa.array(["a"] * 9, pa.string_view()),
        "binary": pa.array([b"\xff"] * 9),
        "category": pa.array(["a", "b", "a"] * 3).dictionary_encode(),
        "decimal": pa.array([1] * 9, pa.decimal128(30, 2)),
        "map": pa.array([[("key", "value")]] * 9, pa.map_(pa.string(), pa.string())),
        "null": pa.array([None] * 9),
        "nothing": pa.array([None] * 9, pa.string()),
    }
    path, table = str(tmp_path / "a.parquet"), pa.table(columns)
    for options in ({}, {"row_group_size": 2}, {"use_dictionary": False}, {"version": "1.0"}):
        pq.write_table(table, path, **options)
        expected = [row for batch in pq.ParquetFile(path).iter_batches(1000) for row in batch.to_pylist()]
        assert [row for _, row in parquet_rows(path)] == expected
    pq.write_table(table.slice(0, 0), path)
    assert list(parquet_rows(path)) == []
