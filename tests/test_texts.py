"""Passages and queries from every format."""

import gzip
import json
import shutil
import sys

import pytest
import requests

from distill.errors import InputError
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from tests.helpers.configuration import as_tuples, compose_config, decoded_lists


def test_tsv_and_beir_jsonl_give_the_same_texts(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tBees fly  home  by day\n2\t\n3\tunused\n")
    rows = [
        {"_id": "1", "title": "Bees", "text": "fly home by\nday"},
        {"_id": "2", "text": ""},
        {"_id": 3, "text": "x"},
    ]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    expected = {"1": "Bees fly home by day", "2": ""}
    assert read_passages(str(tmp_path / "a.tsv"), {"1", "2", "9"}) == expected
    assert read_passages(str(tmp_path / "a.jsonl.gz"), {"1", "2"}) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "1\tx\n2 y\n", "a.tsv:2: one column instead of two"),
        ("a.tsv", "1\tx\n1\ty\n", "a.tsv:2: id 1 appears twice"),
        ("a.tsv", "1\t\n2\t \n", "a.tsv: holds no query with a text"),
        ("a.tsv", "1\tx\ty\n", "a.tsv:1: 3 columns instead of two.*text_fields"),
        ("a.tsv", "", "a.tsv: is empty"),
        ("a.jsonl", '{"_id": "1", "text": "x"}\n{oops}\n', "a.jsonl:2: is not a JSON object"),
        (
            "a.jsonl",
            '{"sku": "1", "text": "x"}\n',
            "a.jsonl:1: lacks an id: its fields are sku, text: .*query_id_field",
        ),
    ],
)
def test_a_bad_file_is_answered_with_file_line_and_reason(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_queries(str(tmp_path / name))


@pytest.fixture
def ir_datasets_home(shared, tmp_path, monkeypatch):
    """A copy of the offline ir_datasets home, which builds an index inside."""
    home = tmp_path / "irds_home"
    shutil.copytree(shared / "data" / "irds_home", home)
    monkeypatch.setenv("IR_DATASETS_HOME", str(home))
    for name in [name for name in sys.modules if name.split(".")[0] == "ir_datasets"]:
        monkeypatch.delitem(sys.modules, name)  # it keeps the home that it found when another test imported it


@pytest.mark.shared
def test_cranfield_by_its_id_gives_the_texts_of_the_files(shared, ir_datasets_home):
    folder = shared / "data" / "cranfield"
    doc_ids = {doc_id for ranked in read_run(str(folder / "bm25.run")).values() for doc_id in ranked.doc_ids}
    assert read_passages("cranfield", doc_ids) == read_passages(str(folder / "docs.tsv"), doc_ids)
    assert read_queries("cranfield") == read_queries(str(folder / "queries.tsv"))
    assert sum(map(len, read_qrels("cranfield").values())) == 1837  # as counted in the data's own notes


@pytest.mark.shared
def test_cranfield_by_its_id_gives_the_same_training_lists(shared, ir_datasets_home):
    folder = shared / "data" / "cranfield"
    teacher = ["data=files", "teacher=run", f"teacher.path={folder / 'oracle.train.run'}", "data.depth=20"]
    by_id, by_file = (
        decoded_lists(compose_config("train", *teacher, f"data.passages={passages}", f"data.queries={queries}"))
        for passages, queries in (("cranfield", "cranfield"), (folder / "docs.tsv", folder / "queries.train.tsv"))
    )
    assert len(by_id) == 150
    assert as_tuples(by_id) == as_tuples(by_file)
    doc_ids = {doc_id for one in by_id for doc_id in one.doc_ids}
    assert read_passages("cranfield", doc_ids) == read_passages(str(folder / "docs.tsv"), doc_ids)


def test_an_id_that_cannot_be_downloaded_is_answered_with_file_and_place(monkeypatch, tmp_path):
    url = "https://msmarco.z22.web.core.windows.net/msmarcoranking/qrels.train.tsv"

    class Unreachable:
        has_qrels = has_docs = staticmethod(lambda: True)

        def qrels_iter(self):
            raise requests.ConnectionError("no route to host", request=requests.Request("GET", url))
            yield

        def docs_store(self):
            raise FileNotFoundError("WashingtonPost.v2.tar.gz")

    monkeypatch.setattr("ir_datasets.load", lambda name: Unreachable())
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    place = tmp_path / "downloads" / "733fb9fe12d93e497f7289409316eccf"  # as ir_datasets names it
    with pytest.raises(InputError, match=rf"cannot download its qrels \(no route.*\): get {url} and put it at {place}"):
        read_qrels("msmarco-passage/train")
    with pytest.raises(InputError, match=r"cannot download its docs \(Wash.*\): see its messages above"):
        read_passages("wapo/v2", {"1"})


@pytest.mark.shared
def test_an_id_without_the_wanted_part_is_refused(ir_datasets_home):
    with pytest.raises(InputError, match="cranfield: this ir_datasets id has no scoreddocs"):
        read_run("cranfield")
