"""What ids, numbers, grades and texts may be, and which fields of a row are read."""

import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill.commands.annotate import training_command
from distill.config.checks import check_values
from distill.config.overrides import field_overrides
from distill.errors import InputError
from distill.report.two_runs import _with_given
from distill.sources.fields import (
    ID_NAMES,
    TEXT_NAMES,
    Fields,
    _not_in_id,
    checked_id,
    checked_text,
    json_number,
    read_grade,
    read_number,
)
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("value", ["7", "d-1", "D:1/x?y=z#1", "é", "日本", "a" * 2048, "\u200d"])
def test_an_id_is_taken_as_it_is(value):
    assert checked_id(value, "a:1") == value


def test_whole_numbers_are_ids():
    assert [checked_id(value, "a:1") for value in (7, 0, -3, 2**63)] == ["7", "0", "-3", "9223372036854775808"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "a:1: id is empty"),
        ("q 1", "a:1: id 'q 1' holds a space"),
        ("q\t1", r"a:1: id 'q\\t1' holds a tab"),
        ("q\n1 Q0 forged 1 9 x", "holds a line's end"),
        ("q\r", "holds a carriage return"),
        ("q\0", "holds a NUL character"),
        ("\xa0q", "holds the character U\\+00A0"),
        ("q\u2028", "holds the character U\\+2028"),
        ("\ufeffq", "holds the character U\\+FEFF"),
        ("q\ud800", "half a character"),
        ("a" * 2049, "a:1: id has 2049 characters: an id may have 2048"),
        (None, "a:1: id is missing: an id must be text or a whole number"),
        (1.0, "a:1: id is a number with a fraction"),
        (True, "a:1: id is true or false"),
        (b"1", "a:1: id is bytes"),
        (["1"], "a:1: id is a list"),
        pytest.param(10**5000, "a:1: id is a number of more than 300 digits", id="huge"),
    ],
)
def test_what_is_no_id_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        checked_id(value, "a:1")


def test_no_white_space_control_or_direction_of_unicode_can_be_in_an_id():
    odd = {"Cc", "Zs", "Zl", "Zp"}
    unseen = {0x200B, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF}
    for code in range(sys.maxunicode + 1):
        is_odd = unicodedata.category(chr(code)) in odd or chr(code).isspace() or code in unseen
        assert bool(_not_in_id.search(chr(code))) == is_odd, hex(code)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-1.5", -1.5), (".5", 0.5), ("5.", 5), ("1E-3", 0.001), (b"+2e1", 20), (7, 7), (0.5, 0.5)],
)
def test_numbers_are_read(text, value):
    assert read_number(text, "score", "a:1") == value


@pytest.mark.parametrize("text", ["1_0", "１", "0x10", "1,5", "", "one", b"1_0", True, None, "1 ", [1]])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(InputError, match="a:1: score .* is not a number"):
        read_number(text, "score", "a:1")


@pytest.mark.parametrize(
    "text", ["nan", "-inf", "Infinity", "1e999", "9" * 5000, pytest.param(10**5000, id="huge"), float("nan")]
)
def test_what_is_not_finite_is_refused(text):
    with pytest.raises(InputError, match="a:1: score .* is not finite") as error:
        read_number(text, "score", "a:1")
    assert len(str(error.value)) < 300


def test_text_is_no_number_in_json():
    assert json_number(2, "score", "a:1") == 2
    with pytest.raises(InputError, match="a:1: score '2' is not a number: write it without quotes"):
        json_number("2", "score", "a:1")


@pytest.mark.parametrize(("value", "grade"), [("2", 2), ("-1", -1), ("+3", 3), (0, 0), ("1000", 1000)])
def test_grades_are_read(value, grade):
    assert read_grade(value, "a:1") == grade


@pytest.mark.parametrize("value", ["1.0", "1_0", "２", "high", "", 1.0, None, True])
def test_a_grade_that_is_no_whole_number_is_refused(value):
    with pytest.raises(InputError, match="a:1: grade .* is not a whole number"):
        read_grade(value, "a:1")


@pytest.mark.parametrize(
    "value", ["1001", "2147483647", "9223372036854775808", "9" * 5000, pytest.param(10**5000, id="huge"), "-1001"]
)
def test_a_grade_beyond_trec_evals_counters_is_refused(value):
    with pytest.raises(InputError, match="a:1: grade .* is beyond ±1000") as error:
        read_grade(value, "a:1")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("row", "fields", "expected"),
    [
        ({"_id": "1", "title": "Bees", "text": "fly"}, Fields(), ("1", "Bees fly")),
        ({"_id": "1", "title": "", "text": "fly"}, Fields(), ("1", "fly")),
        ({"_id": "1", "title": None, "text": None}, Fields(), ("1", "")),
        ({"docid": 7, "contents": "fly", "id": "8"}, Fields(), ("8", "fly")),
        ({"PID": 7, "Passage": "fly"}, Fields(), ("7", "fly")),
        (
            {"sku": "x1", "title": "a", "body": "b", "year": 1999},
            Fields("sku", ("title", "body", "year")),
            ("x1", "a b 1999"),
        ),
        ({"id": "1", "body": "b"}, Fields(None, ("title", "body")), ("1", "b")),
    ],
)
def test_a_row_gives_id_and_text(row, fields, expected):
    assert fields.read(row, "a:1") == expected


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"_id": "1", "query": "how do bees fly", "title": "Bees"}, "how do bees fly"),
        ({"title": "Bees", "question": "how", "qid": 1}, "how"),
        ({"qid": 1, "Title": "Bees"}, "Bees"),
    ],
)
def test_a_title_is_put_before_a_passage_and_stands_for_a_query_without_another_text(row, text):
    assert Fields().read(row, "a:1", "queries") == ("1", text)


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        (
            {"sku": "1", "body": "b"},
            Fields(),
            r"a:1: lacks an id: its fields are sku, body: name yours by id_field=NAME \(data.id_field",
        ),
        (
            {"id": "1", "html": "b"},
            Fields(),
            r"a:1: lacks a text: .* name yours by text_fields=\[NAME\] \(data.text_fields",
        ),
        ({"id": "1", "text": "b"}, Fields("sku"), "a:1: lacks sku: its fields are id, text"),
        ({"id": "1", "title": ["a", "b"], "text": "c"}, Fields(), "a:1: `title` is a list: expected a text"),
        ({"id": "1", "text": 1.5}, Fields(), "a:1: `text` is a number with a fraction: expected a text"),
        ({"id": "1", "text": "\ud800"}, Fields(), "a:1: `text` holds half a character"),
    ],
)
def test_a_row_without_them_is_refused(row, fields, message):
    with pytest.raises(InputError, match=message):
        fields.read(row, "a:1")


def test_a_message_is_one_bounded_line():
    assert checked_text(None, "a:1", "text") == ""
    with pytest.raises(InputError) as error:
        checked_id("a b" * 3000, "a:1")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert str(InputError("x" * 5000 + " y")) == "x" * 60 + "…" + "x" * 20 + " (5000 characters) y"
    assert str(InputError("a\nerror: forged\x1b[31m\u2028")) == "a\\nerror: forged\\x1b[31m\\u2028"


def test_every_usual_name_is_documented():
    page = (ROOT / "docs" / "formats.md").read_text()
    for name in (*ID_NAMES, *TEXT_NAMES["passages"], *TEXT_NAMES["queries"]):
        assert f"`{name}`" in page, name


def test_the_next_command_gets_the_fields_too():
    names = ["id_field=sku", "text_fields=[name,the text]", "query_id_field=nr"]
    cfg = compose_config("annotate", "passages=P.csv", "queries=Q.csv", "run=R.run", "teacher.llm.model=m", *names)
    fields = "data.id_field=sku 'data.text_fields=[name,'\"'\"'the text'\"'\"']' data.query_id_field=nr"
    assert training_command(cfg, Path("out")).endswith(fields)
    assert field_overrides(cfg, kinds=[""]) == ["id_field=sku", "text_fields=[name,'the text']"]


def test_fields_without_their_source_are_refused():
    with pytest.raises(InputError, match="id_field=nope is about passages=...: give that, too, or leave it out"):
        _with_given(SimpleNamespace(task=None), compose_config("inspect", "run=DIR", "id_field=nope"))
    with pytest.raises(InputError, match="passages=.* with run=null: the change is measured on the lists of a run"):
        check_values(compose_config("export", "model=m", "format=onnx", "output=o", "passages=p", "queries=q"))
