"""Runs and qrels: what is read, in which order, and what a bad line is answered with."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList, write_run
from distill.sources.runs import read_run


def write(path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_order_follows_the_scores_and_the_rank_column_breaks_ties(tmp_path):
    path = write(tmp_path / "a.run", "q Q0 a 1 1.0 x\nq Q0 b 3 2.0 x\nq\tQ0\tc  2 2.0 x\n")
    ranked = read_run(path)["q"]
    assert ranked.doc_ids == ["c", "b", "a"]
    np.testing.assert_array_equal(ranked.ranks, [1, 2, 3])


def test_passages_equal_in_score_and_rank_share_their_average_rank(tmp_path):
    path = write(tmp_path / "a.run", "q Q0 a 0 3 x\nq Q0 b 0 2 x\nq Q0 c 0 2 x\nq Q0 d 0 1 x\n")
    np.testing.assert_array_equal(read_run(path)["q"].ranks, [1, 2.5, 2.5, 4])


def test_a_contradicting_rank_column_is_reported(tmp_path, caplog):
    read_run(write(tmp_path / "a.run", "q Q0 a 1 1.0 x\nq Q0 b 2 2.0 x\n"))
    assert "rank column contradicts the scores in 1 of 1 queries" in caplog.text


@pytest.mark.parametrize("columns", [("score",), ("rank",), ("score", "rank")])
def test_parquet_gives_the_same_run(tmp_path, columns):
    values = {"query_id": ["q", "q", "p"], "doc_id": ["a", "b", "a"], "score": [1.0, 2.0, 1.0], "rank": [2, 1, 1]}
    pq.write_table(
        pa.table({k: v for k, v in values.items() if k.endswith("id") or k in columns}), tmp_path / "a.parquet"
    )
    run = read_run(str(tmp_path / "a.parquet"))
    assert run["q"].doc_ids == ["b", "a"] and run["p"].doc_ids == ["a"]


def test_gzipped_run_is_read_and_a_written_run_comes_back_unchanged(tmp_path):
    with gzip.open(tmp_path / "a.run.gz", "wt") as file:
        file.write(f"q Q0 a 1 {1 / 3!r} x\nq Q0 b 2 1e-7 x\n")
    run = read_run(str(tmp_path / "a.run.gz"))
    write_run(run, tmp_path / "b.run", tag="y")
    again = read_run(str(tmp_path / "b.run"))
    assert again["q"].doc_ids == run["q"].doc_ids
    np.testing.assert_array_equal(again["q"].scores, run["q"].scores)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 2.0 x\nq Q0 b 2 1.0\n", "a.run:2: 5 columns instead of six"),
        ("q Q0 a 1 high x\n", "a.run:1: score 'high' is not a number"),
        ("q Q0 a 1 nan x\n", "a.run:1: score 'nan' is not finite"),
        ("q Q0 a one 2.0 x\n", "a.run:1: rank 'one' is not a number"),
        ("q Q0 a 1 2.0 x\n\nq Q0 a 2 1.0 x\n", "a.run:3: passage a appears twice for query q"),
        ("", "a.run: holds no ranking"),
    ],
)
def test_a_bad_run_is_answered_with_file_line_and_reason(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_run(write(tmp_path / "a.run", text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.run").write_bytes(b"q Q0 a 1 2.0 x\nq Q0 \xff 1 2.0 x\n")
    with pytest.raises(InputError, match="a.run:.*cannot be read"):
        read_run(str(tmp_path / "a.run"))
    (tmp_path / "b.run.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="b.run.gz:1: cannot be read"):
        read_run(str(tmp_path / "b.run.gz"))


def test_parquet_without_the_columns_is_refused(tmp_path):
    pq.write_table(pa.table({"question": ["q"], "doc_id": ["a"], "score": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="lacks column \\['query_id'\\]"):
        read_run(str(tmp_path / "a.parquet"))
    (tmp_path / "b.parquet").write_text("q Q0 a 1 1.0 t")
    with pytest.raises(InputError, match="b.parquet: is not a parquet file"):
        read_run(str(tmp_path / "b.parquet"))


def test_parquet_columns_may_have_their_other_names_and_whole_numbers_as_ids(tmp_path):
    pq.write_table(pa.table({"query-id": [1, 1], "corpus-id": [7, 8], "rank": [2, 1]}), tmp_path / "a.parquet")
    assert read_run(str(tmp_path / "a.parquet"))["1"].doc_ids == ["8", "7"]


def test_trec_and_beir_qrels_are_read(tmp_path):
    trec = write(tmp_path / "a.txt", "q 0 a 2\nq 0 b -1\n")
    beir = write(tmp_path / "b.tsv", "query-id\tcorpus-id\tscore\nq\ta\t2\nq\tb\t-1\n")
    assert read_qrels(trec) == read_qrels(beir) == {"q": {"a": 2, "b": -1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 a 1\nq 0 b\n", "a.txt:2: 3 columns, but earlier lines have 4"),
        ("q 0\n", "a.txt:1: 2 columns"),
        ("q 0 a high\n", "a.txt:1: grade 'high' is not a whole number"),
        ("q 0 a 1\nq 0 a 1\n", "a.txt:2: passage a is judged twice"),
        ("q a 1\n", "a.txt:1: three columns without BEIR's header"),
        ("", "a.txt: holds no judgment"),
    ],
)
def test_bad_qrels_are_answered_with_file_line_and_reason(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_qrels(write(tmp_path / "a.txt", text))


def test_a_name_that_is_neither_file_nor_id_is_refused():
    with pytest.raises(InputError, match="no-such-thing: no such file, and not an ir_datasets id"):
        read_run("no-such-thing")


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    one = RankedList.in_order(["a"], np.ones(1))
    write_run({"q": one}, tmp_path / "a.run", tag="my model\u2028")
    assert (tmp_path / "a.run").read_text() == "q Q0 a 1 1.0 my_model_\n"
    for run in ({"q 1": one}, {"q": RankedList.in_order(["a\n"], np.ones(1))}):
        with pytest.raises(InputError, match="b.run: .* holds a"):
            write_run(run, tmp_path / "b.run", tag="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 a 2147483647\n", "a.txt:1: grade '2147483647' is beyond ±1000"),
        ("q 0 a 9223372036854775808\n", "a.txt:1: grade '9223372036854775808' is beyond"),
        ("q 0 a 1_0\n", "a.txt:1: grade '1_0' is not a whole number"),
        ("q a 1.0\nq b 1\n", "a.txt:1: three columns without BEIR's header"),
        ("qid d7 1\nq b 1\n", "a.txt:1: three columns without BEIR's header"),
        ("query-id score corpus-id\nq 1 b\n", "a.txt:1: three columns without BEIR's header"),
        ("q 0 a\xa0b 1\n", "a.txt:1: passage id 'a\\\\xa0b' holds the character U\\+00A0"),
        ("query_id,doc_id,grade\nq,a,1\n", "a.txt:1: 1 columns: expected"),
    ],
)
def test_odd_qrels_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_qrels(write(tmp_path / "a.txt", text))
