"""How files are laid out and cut into lines and rows, and how damaged ones are answered."""

import bz2
import gzip
import lzma
import os
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError, refuse
from distill.sources.fields import Fields
from distill.sources.qrels import read_qrels
from distill.sources.runs import cached_run, find_line, read_run
from distill.sources.texts import passage_parts, read_passages, read_queries
from distill.storage.files import form_of, numbered_lines, numbered_rows
from tests import fuzz_readers

BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


def write(path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_byte_order_mark_is_skipped_everywhere(tmp_path):
    run = write(tmp_path / "a.run", BOM + b"q1 Q0 d1 1 2 t\nq2 Q0 d1 1 2 t\n")
    assert list(read_run(run)) == list(cached_run(run)) == ["q1", "q2"]
    assert read_qrels(write(tmp_path / "q.txt", BOM + b"q1 0 d1 1\n")) == {"q1": {"d1": 1}}
    assert read_qrels(write(tmp_path / "b.txt", BOM + b"query-id\tcorpus-id\tscore\nq1\td1\t1\n")) == {"q1": {"d1": 1}}
    assert read_queries(write(tmp_path / "q.tsv", BOM + b"q1\ta bee\n")) == {"q1": "a bee"}
    assert read_queries(write(tmp_path / "q.csv", BOM + b"id,text\nq1,a bee\n")) == {"q1": "a bee"}
    assert read_passages(write(tmp_path / "p.jsonl", BOM + b'{"_id": "d1", "text": "x"}\n'), {"d1"}) == {"d1": "x"}
    assert read_queries(write(tmp_path / "q.tsv.gz", gzip.compress(BOM + b"q1\ta bee\n"))) == {"q1": "a bee"}


def test_a_line_ends_with_a_line_feed_alone(tmp_path):
    text = "d1\tone\rpart\u2028and\x85another\x0b\r\nd2\ttwo\r\n"
    assert read_passages(write(tmp_path / "p.tsv", text), {"d1", "d2"}) == {"d1": "one part and another", "d2": "two"}
    path = write(tmp_path / "a.txt", "a\n\n \t\r\nb\rc\r\n")
    assert list(numbered_lines(path)) == [(f"{path}:1", b"a"), (f"{path}:4", b"b\rc")]


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.txt", b'{"a": 1}\n', "jsonl"),
        ("a.json", b'{"a": 1}\n', "jsonl"),
        ("a.csv.gz", b"id,text\n", "csv"),
        ("a.run.gz", b"q Q0 d 1 1 t\n", "lines"),
        ("a.tsv", b"{x}\tbraces\n", "lines"),
        ("a.jsonl", b"oops\n", "jsonl"),
        ("a.txt", b"", "lines"),
        ("a.tsv", b"PAR1\tthe first paragraph\n", "lines"),
        ("a.run", b"PAR1-q Q0 d 1 1 t\n", "lines"),
        ("a", b"PAR1\x15\x04\x15", "parquet"),
        ("a.tsv", b"BZh9\tan id\n", "lines"),
    ],
)
def test_the_form_of_a_file_is_found_by_its_content_and_name(tmp_path, name, content, form):
    assert form_of(write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)) == form


def test_a_packed_file_is_found_by_its_first_bytes(tmp_path):
    path = write(tmp_path / "a.run", gzip.compress(b"q Q0 d 1 1 t\n"))
    assert form_of(path) == "lines" and list(read_run(path)) == list(cached_run(path)) == ["q"]


def test_a_json_array_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(
        InputError, match="a.json:1: is a JSON array: write one object per line, as `jq -c '.\\[\\]'` does"
    ):
        read_queries(write(tmp_path / "a.json", '[{"_id": "1", "text": "x"}]'))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "1", "_id": "2", "text": "x"}', "a.jsonl:1: .*`_id` appears twice"),
        ('{"_id": "1", "text": "x", "n": ' + "1" * 5000 + "}", "a.jsonl:1: is JSON that cannot be read"),
        ('{"_id":' + "[" * 100_000, "a.jsonl:1: is JSON that cannot be read: it is nested too deeply"),
        ('"_id"', "a.jsonl:1: is not a JSON object"),
        ('{"_id": "1", "text": "\\ud800"}', "a.jsonl:1: `text` holds half a character"),
        ('{"_id": 1.5, "text": "x"}', "a.jsonl:1: _id is a number with a fraction"),
        ('{"_id": "1 2", "text": "x"}', "a.jsonl:1: _id '1 2' holds a space"),
    ],
)
def test_odd_json_is_answered_with_one_line(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_queries(write(tmp_path / "a.jsonl", line + "\n"))


def test_csv_cells_may_hold_commas_quotes_and_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'sku,title,body\r\nx1,"Bees, ""honey""","fly\nhome"\r\nx2,,ants\r\n')
    assert list(numbered_rows(path, "csv"))[1][0] == f"{path}:4"  # of the record's first line
    fields = Fields("sku", ("title", "body"))
    assert read_passages(path, {"x1", "x2"}, fields) == {"x1": 'Bees, "honey" fly home', "x2": "ants"}
    semicolons = write(tmp_path / "b.csv", "id;text\n1;a bee, say\n")
    assert read_queries(semicolons) == {"1": "a bee, say"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,a,b\n", "a.csv:2: 3 columns, but the header has 2"),
        ("a.csv", "id,text,id\n1,a,b\n", "a.csv:1: two columns are called 'id'"),
        ("a.csv", 'id,text\n1,"a"b\n', "a.csv:2: is not CSV"),
        (
            "a.csv",
            'id,text\n1,a\n2,"open\n3,b\n4,c\n',
            "a.csv:3: is not CSV .*: correct the quotes of the row that beg",
        ),
        ("a.csv", b"id,text\n1,\xff\n", "a.csv:2: cannot be read"),
        ("a.tsv", "1,a bee\n", "a.tsv:1: one column instead of two: expected `id<TAB>text`; of CSV, let the name end"),
        ("a.tsv", "id\ttitle\ttext\n1\ta\n", "a.tsv:2: 2 columns, but the header has 3"),
    ],
)
def test_bad_columns_are_answered_with_file_line_and_reason(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        read_queries(write(tmp_path / name, content))


def test_a_row_of_csv_that_is_no_utf8_is_refused_alone(tmp_path):
    content = b'id,text\n1,a\n2,"b\n\xe4\n"\n3,\xff\xfe\n\n4,\xc3\xa4\n\xa0\n'
    path = write(tmp_path / "a.csv", content)
    refused: list[InputError] = []
    assert [row for _, row in numbered_rows(path, "csv", refused.append)] == [
        {"id": "1", "text": "a"},
        {"id": "4", "text": "ä"},
    ]
    assert [str(error).split(" (")[0] for error in refused] == [f"{path}:{n}: cannot be read" for n in (4, 6, 9)]
    with pytest.raises(InputError, match="a.csv:4: cannot be read .*0xe4 .*`iconv -f WINDOWS-1252 -t UTF-8` converts"):
        read_passages(path, {"1"})
    for header in (b"id,t\xe4xt\n1,a\n", b'"id\n\xe4",text\n1,a\n', b"sep=,\nid,t\xe4xt\n1,a\n"):
        with pytest.raises(InputError, match=r"b.csv:[12]: cannot be read"):
            list(numbered_rows(write(tmp_path / "b.csv", header), "csv", refused.append))


def test_a_header_of_usual_names_is_no_text(tmp_path):
    assert read_queries(write(tmp_path / "a.tsv", "qid\tquery\nq1\ta bee\n")) == {"q1": "a bee"}
    assert read_queries(write(tmp_path / "b.tsv", "id\ttitle\ttext\nq1\ta\tbee\n")) == {"q1": "bee"}
    assert read_queries(write(tmp_path / "c.tsv", "id\tof a bee\nq1\ta bee\n")) == {"id": "of a bee", "q1": "a bee"}
    for header in ("doc-id\ttext", "#id\ttext", "Corpus_ID\ttext", "document_id\ttitle"):
        assert read_queries(write(tmp_path / "d.tsv", f"{header}\nq1\ta bee\n")) == {"q1": "a bee"}
    for header in ("sku\tbody", "id\tdocument", "qid\tdescription"):
        with pytest.raises(InputError, match="d.tsv:2: lacks .*: name yours by"):
            read_passages(write(tmp_path / "d.tsv", f"{header}\nq1\ta bee\n"), {"q1"})


def test_a_named_field_that_no_row_has_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"id": "1", "body": "x"}\n')
    with pytest.raises(
        InputError, match="a.jsonl: no row has a field 'titel': its fields are id, body: check text_fields"
    ):
        read_passages(path, {"1"}, Fields(None, ("titel", "body")))
    refused: list[InputError] = []
    assert not list(passage_parts(path, Fields("sku", ("body",)), refused.append))  # it has that field, but no id
    assert "lacks sku: its fields are id, body" in str(refused[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", ""), ("a.tsv", ""), ("a.jsonl", ""), ("a.csv", "sku,title\n"), ("a.tsv", "sku\ttitle\n")],
)
def test_a_file_without_rows_is_said_to_be_empty_whatever_fields_are_named(tmp_path, name, content):
    path, fields = write(tmp_path / name, content), Fields("sku", ("body",))
    with pytest.raises(InputError, match=f"{name}: is empty"):
        read_passages(path, {"1"}, fields)
    assert not list(passage_parts(path, fields, refuse))


def test_passages_may_lie_in_parquet(tmp_path):
    pq.write_table(pa.table({"docid": [1, 2], "title": ["a", None], "text": ["bee", "ant"]}), tmp_path / "p.parquet")
    assert read_passages(str(tmp_path / "p.parquet"), {"1", "2"}) == {"1": "a bee", "2": "ant"}


@pytest.mark.parametrize("reader", [read_run, cached_run], ids=["small", "large"])
def test_cut_and_damaged_files_are_answered_with_one_line(tmp_path, reader):
    rng = random.Random(0)
    lines = "".join(f"q{n} Q0 d{rng.random()} 1 {rng.random()} t\n" for n in range(500)).encode()
    packed = gzip.compress(lines)
    pq.write_table(
        pa.table(
            {
                "query_id": [f"q{n}" for n in range(500)],
                "doc_id": ["d"] * 500,
                "score": [rng.random() for _ in range(500)],
            }
        ),
        tmp_path / "whole.parquet",
    )
    columns = (tmp_path / "whole.parquet").read_bytes()
    damaged = packed[: len(packed) // 2], packed[:2000] + b"\0\0\0\0" + packed[2004:], packed[:1]
    for number, content in enumerate(damaged):
        with pytest.raises(InputError, match=rf"{number}.run.gz:\d+: cannot be read"):
            reader(write(tmp_path / f"{number}.run.gz", content))
    renamed = columns.replace(b"query_id", b"que\x85y_id")
    halves = columns[: len(columns) // 2], columns[:200] + b"\xff" * 50 + columns[250:], b"", renamed
    for number, content in enumerate(halves):
        with pytest.raises(InputError, match=rf"{number}.parquet: (is not a parquet file|cannot be read)"):
            reader(write(tmp_path / f"{number}.parquet", content))


TWO = {"query_id": ["q", "q"], "doc_id": ["a", "b"], "score": [2.0, 1.0]}
STAMPS = pa.array([1, 2], pa.timestamp("s"))


@pytest.mark.parametrize("reader", [read_run, cached_run], ids=["small", "large"])
@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("query_id", ["q", None], "row 2: query_id is missing"),
        ("query_id", ["q", "q\nforged"], "row 2: query_id .* holds a line's end"),
        ("doc_id", ["a", "a b"], "row 2: doc_id 'a b' holds a space"),
        ("doc_id", ["a", ""], "row 2: doc_id is empty"),
        ("query_id", [1.0, 2.0], " column query_id holds double: ids must be text or whole numbers"),
        ("query_id", [b"q", b"q"], " column query_id holds binary"),
        ("query_id", [True, False], " column query_id holds bool"),
        ("query_id", [["q"], ["q"]], " column query_id holds list"),
        ("query_id", [None, None], " column query_id holds null"),
        ("score", [1.0, None], "row 2: score None is not a number"),
        ("score", [1.0, float("nan")], "row 2: score nan is not finite"),
        ("score", STAMPS, " column score holds timestamp"),
        ("score", ["1", "2"], " column score holds string: expected numbers"),
        ("score", [{"a": 1}] * 2, " column score holds struct"),
    ],
)
def test_odd_parquet_columns_are_refused(tmp_path, reader, column, values, message):
    pq.write_table(pa.table(TWO | {column: values}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"a.parquet:{message}"):
        reader(str(tmp_path / "a.parquet"))


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array(["q"]), pa.array(["p"]), pa.array(["d"])], ["query_id", "query_id", "doc_id"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    for reader in (read_run, cached_run):
        with pytest.raises(InputError, match="a.parquet: two columns are called 'query_id'"):
            reader(str(tmp_path / "a.parquet"))


def test_whole_numbers_and_dictionaries_are_ids_in_parquet(tmp_path):
    columns = {"qid": pa.array(["q", "q"]).dictionary_encode(), "docid": [1, 2], "rank": [2, 1]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for reader in (read_run, cached_run):
        assert reader(str(tmp_path / "a.parquet"))["q"].doc_ids == ["2", "1"]


def test_a_csv_run_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match="a.run:1: 1 column instead of six: .*write parquet with query_id"):
        read_run(write(tmp_path / "a.run", "query_id,doc_id,score\nq,d,1\n"))


def test_an_id_of_ten_million_characters_is_refused_at_once(tmp_path):
    path = write(tmp_path / "a.run", b"q Q0 " + b"d" * 10**7 + b" 1 2.0 t\n")
    for reader in (read_run, cached_run):
        with pytest.raises(InputError, match="a.run:1: passage id has 10000000 characters: an id may have 2048"):
            reader(path)


def test_a_line_is_found_by_its_query_and_its_passage(tmp_path):
    path = write(tmp_path / "a.run", "2 Q0 8 1 2 t\n2 Q0 0 1 2 t\n1 Q0 2 1 2 t\n2 Q0 1 1 2 t\n")
    assert find_line(path, "2", "1") == f"{path}:4"  # line 1 has rank 1, and line 3 both names in other columns
    assert find_line(path, "2", "0") == f"{path}:2" and find_line(path, "1") == f"{path}:3"
    assert find_line(path, "2", "9") == path and find_line("no-such-file", "q1") == "no-such-file"
    triples = write(tmp_path / "triples.tsv", "2 4 1 2 3\n0.5 0.25 2 1 4\n")
    assert find_line(triples, "2", "4") == f"{triples}:2"
    pq.write_table(
        pa.table({"query_id": ["q", "q"], "doc_id": ["a", "b"], "score": [2.0, 1.0]}), tmp_path / "a.parquet"
    )
    assert find_line(str(tmp_path / "a.parquet"), "q", "b").endswith("a.parquet:row 2")
    answers = write(tmp_path / "answers.json", '["[2] > [1]"]')
    assert find_line(answers, "q", "b") == answers


@pytest.mark.parametrize("num_cases", [500, pytest.param(4000, marks=pytest.mark.long)])
def test_small_and_large_readers_agree_on_whatever_comes(monkeypatch, tmp_path, num_cases):
    monkeypatch.setattr("distill.data.token_store.portable", lambda _: "bytes")
    monkeypatch.setattr("distill.data.token_store.token_type", lambda _: fuzz_readers.np.dtype("uint16"))
    monkeypatch.setattr("distill.data.token_store._encode_in_processes", fuzz_readers._encode_here)
    for name in ("run_tables.BLOCK_BYTES", "run_tables.BLOCK_ROWS", "run_columns.BLOCK_ROWS"):
        monkeypatch.setattr(f"distill.sources.{name}", 100)  # the fuzzer sets them, and they are set back
    counts = fuzz_readers.main(num_cases=num_cases, seed=0)
    assert sum(counts.values()) == num_cases
    assert all(
        counts[f"{kind}: {end}"] > num_cases / 40
        for kind in ("check_run", "check_texts")
        for end in ("read", "refused")
    )


def test_a_file_that_cannot_be_opened_is_answered_with_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tsv", "q1\ta bee\n")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="a.tsv: cannot be opened \\(Permission denied\\): check the path"):
        read_queries(path)


def test_a_long_file_name_does_not_lengthen_the_caches(tmp_path):
    path = write(tmp_path / ("a" * 240 + ".run"), "q Q0 d 1 1 t\n")
    assert list(cached_run(path)) == ["q"]


def test_a_file_written_anew_with_its_old_time_is_read_anew(tmp_path):
    path = write(tmp_path / "a.run", "q Q0 x 1 1 t\n")
    times = os.stat(path)
    assert cached_run(path)["q"].doc_ids == ["x"]
    write(tmp_path / "a.run", "q Q0 y 1 1 t\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cached_run(path)["q"].doc_ids == ["y"]


def test_two_columns_of_one_meaning_are_refused(tmp_path):
    pq.write_table(pa.table(TWO | {"qid": ["p", "p"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a.parquet: has columns query_id and qid, which mean the same"):
        read_run(str(tmp_path / "a.parquet"))


def test_the_separator_of_csv_cells_is_the_headers(tmp_path):
    path = write(tmp_path / "a.csv", '"id";"text, long"\nq1;"a bee"\n')
    assert read_passages(path, {"q1"}, Fields(None, ("text, long",))) == {"q1": "a bee"}


def test_parquet_text_that_is_no_utf8_is_refused(tmp_path):
    ids = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"q\xff")]
    )
    pq.write_table(pa.table(TWO | {"query_id": ids}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"_id": ["1", "2"], "text": ids}), tmp_path / "p.parquet")
    for reader in (read_run, cached_run, read_queries):
        path = tmp_path / ("p.parquet" if reader is read_queries else "a.parquet")
        with pytest.raises(InputError, match="parquet: cannot be read from row 1 .*UTF8"):
            reader(str(path))


def test_csv_as_spreadsheets_export_it(tmp_path):
    rows = '"id";"title";"text"\r\n7;"Bienen; Bären";"fliegen\r\nheim"\r\n'
    for number, content in enumerate((b"\xef\xbb\xbf" + rows.encode(), b"sep=;\r\n" + rows.encode())):
        path = write(tmp_path / f"{number}.csv", content)
        assert read_passages(path, {"7"}) == {"7": "Bienen; Bären fliegen heim"}
    assert read_queries(write(tmp_path / "tabs.csv", "id\ttext\n1\ta, b; c\n")) == {"1": "a, b; c"}
    for encoding, name in (("cp1252", "WINDOWS-1252"), ("utf-16", "UTF-16")):
        with pytest.raises(InputError, match=f"old.csv:.*: cannot be read .*: `iconv -f {name} -t UTF-8` converts"):
            read_passages(write(tmp_path / "old.csv", rows.encode(encoding)), {"7"})


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"%PDF-1.7\n", "a PDF: extract"),
        (b"PK\3\4", "a zip archive or an Of"),
        (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it"),
        (lzma.compress(b"q\ttext"), "packed by xz: unpack it"),
        (bz2.compress(b"q\ttext"), "packed by bzip2: unpack it"),
    ],
    ids=["pdf", "zip", "zstd", "xz", "bzip2"],
)
def test_files_that_hold_no_text_are_refused_with_the_remedy(tmp_path, start, what):
    for name in ("a.txt", "a.docx", "a.csv", "a"):
        with pytest.raises(InputError, match=f"{name}: is {what}"):
            read_queries(write(tmp_path / name, start + b"\0\1\2"))
