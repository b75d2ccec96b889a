"""A source is opened once: file, address or id, its form, and the same rows for the same content at any size."""

import gzip
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distill.sources.opening
from distill.errors import InputError
from distill.sources.download import place_of
from distill.sources.fields import Fields
from distill.sources.opening import open_source
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from distill.sources.texts import passage_parts, read_passages, read_queries
from tests.helpers.paths import ROOT

RUN = "q1 Q0 d1 1 2.5 t\nq1 Q0 d2 2 1.5 t\nq2 Q0 d1 1 0.5 t\n"
LINE = '{"query": "a bee", "pos": ["bees steer"], "neg": ["trains"]}\n'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, content: str) -> str:
    path.write_bytes(gzip.compress(content.encode()) if path.name.endswith(".gz") else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "kind", "form", "is_inline"),
    [
        ("a.run", RUN, "run", "lines", False),
        ("a.run.gz", RUN, "run", "lines", False),
        ("a.jsonl", LINE, "run", "jsonl", True),
        ("a.jsonl", LINE, "passages", "jsonl", True),
        ("a.jsonl", '{"_id": "1", "text": "x"}\n', "passages", "jsonl", False),
        ("a.csv", "anchor,positive\na,b\n", "queries", "csv", True),
        ("a.tsv", "1\ta bee\n", "queries", "lines", False),
        ("a.tsv.gz", "id\ttext\n1\ta bee\n", "queries", "columns", False),
        ("a.tsv", "id\ttext\n1\ta bee\n", "triples", "lines", False),
        ("a.json", '["[1] > [2]"]', "permutations", "answers", False),
    ],
)
def test_kind_and_content_give_the_form(tmp_path, name, content, kind, form, is_inline):
    source = open_source(write(tmp_path / name, content), kind)
    assert (source.form, source.is_inline, source.is_large) == (form, is_inline, False)


def test_named_fields_are_columns_and_no_training_lines(tmp_path):
    fields = Fields("sku", ("body",))
    assert open_source(write(tmp_path / "a.tsv", "sku\tbody\n1\tx\n"), "passages", fields).form == "columns"
    assert not open_source(write(tmp_path / "a.jsonl", LINE), "passages", fields).is_inline


@pytest.mark.parametrize(
    ("name", "first", "second", "form", "is_inline"),
    [
        ("a.jsonl", "not json\n", '{"_id": "1", "text": "x"}\n', "jsonl", False),
        ("a.jsonl", "not json\n", '{"_id": "1", "_source": {"text": "x"}}\n', "hits", False),
        ("a.jsonl", "not json\n", LINE, "jsonl", True),
        ("a.csv", "1\n", "1,x\n", "csv", False),
        ("a.tsv", "id\t\udcff\n", "1\tx\n", "lines", False),
    ],
)
def test_the_form_comes_from_the_first_row_that_can_be_read(tmp_path, name, first, second, form, is_inline):
    header = "id,text\n" if form == "csv" else ""
    (tmp_path / name).write_bytes((header + first + second).encode("utf-8", "surrogateescape"))
    source = open_source(str(tmp_path / name), "passages")
    assert (source.form, source.is_inline) == (form, is_inline)
    with pytest.raises(InputError, match=rf"{name}:{2 if header else 1}: "):
        read_passages(str(tmp_path / name), {"1"})
    refused = list[InputError]()
    if not is_inline:
        parts = passage_parts(str(tmp_path / name), Fields(), refused.append)
        assert [part[1:] for part in parts] == [("1", {"text": "x"})] and len(refused) == 1


@pytest.mark.parametrize(
    ("header", "is_one"),
    [
        ("query-id\tquery-text", True),
        ("id\ttext_v2", True),
        ("id\tTexte-français", True),
        ("id\tarticle body", True),
        ("qid\tThe Query", True),
        ("doc_id\tthe words of a passage", True),
        ("#docno\t1st passage (German)", True),
        ("id\tpart of the psyche", False),
        ("pid\tproportional integral derivative", False),
        ("id\tsee also: text", False),
        ("id\tin a foreign body", False),
        ("id\t", False),
        ("w1\ttext_v2", False),
        ("body\tparts of an animal", False),
    ],
)
def test_a_first_line_of_names_is_a_header_and_no_text(tmp_path, header, is_one):
    path = write(tmp_path / "q.tsv", f"{header}\nq1\thow do bees find home\n")
    assert (open_source(path, "queries").form == "columns") is is_one
    if is_one:
        with pytest.raises(InputError, match=r"q.tsv:2: lacks a text: its fields are .*: name yours by query_text_f"):
            read_queries(path)
        named = Fields(header.split("\t")[0], (header.split("\t")[1],))
        assert read_queries(path, named) == {"q1": "how do bees find home"}
    else:
        doc_id, text = header.split("\t")
        first = {doc_id: text} if text else {}
        assert read_queries(path) == first | {"q1": "how do bees find home"}


def test_what_is_no_file_is_an_id_or_refused():
    assert open_source("msmarco-passage/train", "qrels").form == "records"
    for kind in ("triples", "permutations"):
        with pytest.raises(InputError, match=f"nowhere.tsv: no such file: {kind} are read from a file"):
            open_source("nowhere.tsv", kind)


def test_an_address_is_read_from_the_downloaded_file(cache):
    place = place_of("https://example.org/a.run.gz")
    place.parent.mkdir(parents=True)
    write(place, RUN)
    assert list(read_run("https://example.org/a.run.gz")) == ["q1", "q2"]
    with pytest.raises(
        InputError, match=r"downloads/\w+/a.run.gz:1: 6 columns: expected `query_id iteration doc_id grade`"
    ):
        read_qrels("https://example.org/a.run.gz")


@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_one_run_reads_alike_from_every_file(tmp_path, monkeypatch, is_large):
    if is_large:
        monkeypatch.setattr(distill.sources.opening, "LARGE_FILE", 0)
    rows = [line.split() for line in RUN.splitlines()]
    columns = {"query_id": [row[0] for row in rows], "doc_id": [row[2] for row in rows]}
    columns |= {"rank": [int(row[3]) for row in rows], "score": [float(row[4]) for row in rows]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (tmp_path / "no_suffix").write_bytes((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "packed").write_bytes(gzip.compress(RUN.encode()))
    names = [write(tmp_path / "a.run", RUN), write(tmp_path / "a.run.gz", RUN), str(tmp_path / "a.parquet")]
    for name in [*names, str(tmp_path / "no_suffix"), str(tmp_path / "packed")]:
        run = read_run(name)
        assert isinstance(run, dict) is not is_large
        lists = [(query_id, run[query_id].doc_ids, run[query_id].scores.tolist()) for query_id in run]
        assert lists == [("q1", ["d1", "d2"], [2.5, 1.5]), ("q2", ["d1"], [0.5])]
        assert run["q1"].ranks.tolist() == [1, 2]


def test_training_lines_are_queries_passages_qrels_and_run(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", LINE)
    assert read_queries(path) == {"1": "a bee"}
    assert read_passages(path, {"1+1", "1-1"}) == {"1+1": "bees steer", "1-1": "trains"}
    assert read_qrels(path) == {"1": {"1+1": 1}}
    assert read_run(path)["1"].doc_ids == ["1+1", "1-1"]


def test_a_small_trec_run_is_read_without_pyarrow(tmp_path):
    code = (
        "import sys; from distill.sources.runs import read_run; read_run(sys.argv[1]); print('pyarrow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, write(tmp_path / "a.run", RUN)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
