"""Dumps of Elasticsearch and OpenSearch."""

import json

import pytest

from distill.errors import InputError
from distill.sources.dumps import flattened
from distill.sources.fields import Fields
from distill.sources.opening import open_source
from distill.sources.texts import iterate_texts, passage_parts, read_passages, read_queries

DOCUMENT = {"title": "Bees", "body": "steer by the sun", "meta": {"tags": ["wing", "sting"], "views": 7, "id": "x1"}}


def write(path, *rows) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def hit(doc_id, source) -> dict:
    return {"_index": "help", "_type": "_doc", "_id": doc_id, "_score": 1, "_source": source}


def test_elasticdumps_lines_give_their_documents(tmp_path):
    path = write(tmp_path / "dump.json", hit("7", DOCUMENT), hit("8", {"body": "rails", "_id": "x"}))
    assert open_source(path, "passages").form == "hits"
    assert read_passages(path, {"7", "8"}) == {"7": "Bees steer by the sun", "8": "rails"}
    assert read_queries(write(tmp_path / "q.jsonl", hit("1", {"query": "bees"}))) == {"1": "bees"}
    named = Fields("meta.id", ("meta.tags", "title", "meta.views"))
    assert list(iterate_texts(write(tmp_path / "d", hit("7", DOCUMENT)), "passages", named)) == [
        ("x1", "wing sting Bees 7")
    ]


def test_pairs_of_bulk_requests_give_their_documents(tmp_path):
    lines = [{"index": {"_index": "help", "_id": 7}}, DOCUMENT, {"create": {"_id": "8"}}, {"body": "rails"}]
    path = write(tmp_path / "bulk.ndjson", *lines)
    assert open_source(path, "passages").form == "bulk"
    assert read_passages(path, {"7", "8"}) == {"7": "Bees steer by the sun", "8": "rails"}
    own = write(tmp_path / "own.ndjson", {"index": {}}, {"sku": "s1", "body": "rails"})
    assert list(iterate_texts(own, "passages", Fields("sku", ("body",)))) == [("s1", "rails")]
    with pytest.raises(InputError, match="own.ndjson:2: lacks an id: its fields are sku, body: name yours by id_field"):
        read_passages(own, {"s1"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"index": {"_id": 1}}], "d.json:1: `index` is not followed by its document: the file is cut"),
        ([{"delete": {"_id": 1}}], "d.json:1: `delete` changes an earlier document: dump the documents as they are"),
        ([{"index": {"_id": 1}}, {"body": "x"}, {"body": "y"}], "d.json:3: is no bulk action"),
        ([hit("1", {"body": "x"}), {"_id": "2"}], "d.json:2: has no `_source`: dump the documents with their source"),
        ([{"hits": {"hits": []}}], "d.json:1: is the answer to a search: .* `jq -c '.hits.hits"),
        ([hit("a b", {"body": "x"})], "d.json:1: _id 'a b' holds a space"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_passages(write(tmp_path / "d.json", *rows), {"1"})


def test_what_looks_like_a_dump_and_has_a_text_is_none(tmp_path):
    path = write(tmp_path / "a.jsonl", {"_id": "1", "text": "bees", "_source": {"site": "a"}})
    assert open_source(path, "passages").form == "jsonl" and read_passages(path, {"1"}) == {"1": "bees"}


def test_nested_fields_have_dotted_names_also_in_json_lines(tmp_path):
    assert flattened({"a": {"b": [1, {"c": "x"}, {"c": ["y", None]}], "d": {}}, "e": []}) == {
        "a.b": 1, "a.b.c": "x y", "a.d": None, "e": None,
    }  # fmt: skip
    deep = json.loads('{"a": ' * 900 + '"x"' + "}" * 900)
    assert flattened(deep) == {".".join("a" * 900): "x"}
    path = write(tmp_path / "a.jsonl", {"id": "1", "meta": {"title": "Bees"}, "body": "fly"}, {"id": "2", "body": "x"})
    assert read_passages(path, {"1", "2"}, Fields(None, ("meta.title", "body"))) == {"1": "Bees fly", "2": "x"}
    with pytest.raises(InputError, match="no row has a field 'meta.titel': its fields are id, body: check text_fields"):
        read_passages(path, {"1"}, Fields(None, ("meta.titel", "body")))


def test_rows_that_cannot_be_used_are_given_to_who_counts_them(tmp_path):
    def parts_of(name: str, text: str) -> tuple[list, list[str]]:
        (tmp_path / name).write_text(text)
        refused: list[InputError] = []
        rows = [(text_id, parts) for _, text_id, parts in passage_parts(str(tmp_path / name), Fields(), refused.append)]
        return rows, [str(error).removeprefix(f"{tmp_path}/").partition(": ")[0] for error in refused]

    good = [("1", {"title": "a", "text": "x"}), ("3", {"text": "y"})]
    csv = "id,title,text\n1,a,x\n2,b\n,c,z\n3,,y\n"
    assert parts_of("a.csv", csv) == (good, ["a.csv:3", "a.csv:4"])
    assert parts_of("a.tsv", csv.replace(",", "\t")) == (good, ["a.tsv:3", "a.tsv:4"])
    assert parts_of("b.tsv", "1\tx\n2\n3\ty\tz\n4\t\n") == ([("1", {"text": "x"}), ("4", {})], ["b.tsv:2", "b.tsv:3"])
    lines = (
        '{"_id": 1, "title": "a", "text": "x"}\n{oops\n{"_id": 2, "title": 1.5, "text": "x"}\n{"_id": 3, "text": "y"}\n'
    )
    assert parts_of("a.jsonl", lines) == (good, ["a.jsonl:2", "a.jsonl:3"])
    dump = "\n".join(map(json.dumps, [hit("1", good[0][1]), {"_id": "2"}, hit("3", {"text": "y"})]))
    assert parts_of("d.jsonl", dump) == (good, ["d.jsonl:2"])
    inline = '{"query": "a", "pos": ["bees"], "neg": [""]}\n'
    assert parts_of("i.jsonl", inline) == ([("1+1", {"text": "bees"}), ("1-1", {})], [])
