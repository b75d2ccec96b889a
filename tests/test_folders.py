"""A folder of documents is a collection: ids, titles, and what is left out or refused."""

import gzip
import os
import time

import numpy as np
import pytest

from distill.config.resumable import COMMANDS
from distill.errors import InputError
from distill.retrieval.bm25 import bm25_run
from distill.sources.documents import document_fields, read_document
from distill.sources.fields import Fields
from distill.sources.folders import OWN_KEYS, _warn_of_others, _warn_of_unread, folder_state
from distill.sources.locate import source_state
from distill.sources.run_files import RankedList
from distill.sources.stored_passages import store_passages
from distill.sources.texts import iterate_texts, passage_parts, read_passages, read_queries, refuse_duplicates
from tests.helpers.configuration import compose_config


@pytest.fixture
def folder(tmp_path):
    _warn_of_others.cache_clear()
    _warn_of_unread.cache_clear()
    files = {
        "bees.md": "---\ntitle: Bees\ntags: [wing, sting]\n---\n\nThey *steer* by\nthe sun.\n",
        "a b/100%.md": "# Trains #\n\nThey follow rails.\n",
        "a b/ü.html": "<title>Ants &amp; co</title><nav>Home</nav><h1>Ants</h1><p>They<b>m</b>arch<br>home<script>x",
        "z.txt": "plain\ttext",
        ".git/x.md": "hidden",
        "z/logo.png": "\x89PNG",
    }
    for name, content in files.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path / "docs"


def test_what_our_own_commands_have_written_is_no_document(folder, caplog):
    before = folder_state(str(folder))
    for place, mark in (("outputs/generate/1", "results.json"), ("outputs/2", "run.lock")):
        (folder / place).mkdir(parents=True)
        for name in ("config.yaml", mark, "card.md", "origins.txt"):
            (folder / place / name).write_text("resume: null\nround_trip: bm25\n")
    os.symlink(folder / "a b", folder / "z" / "link")
    assert folder_state(str(folder)) == before
    for _ in range(2):
        assert len(list(iterate_texts(str(folder), "passages"))) == 4
    said = [record.message for record in caplog.records if "folders" in record.message]
    assert said == [
        f"{folder}: 3 folders are symbolic links or outputs of our commands: left out (first: outputs/2)"
    ]  # once
    with pytest.raises(InputError, match="name a file .* .2 is a symbolic link or an output of our commands: not read"):
        folder_state(str(folder / "outputs"))
    assert {key.decode() for key in OWN_KEYS} == {command.key for command in COMMANDS}


@pytest.mark.parametrize("config", ["x", "train: data\nresults: 1\n", "resume: true\nname: x\n"])
def test_a_folder_with_a_configuration_of_somebody_else_is_read(folder, config):
    for name, content in (("config.yaml", config), ("results.json", "{}"), ("run.lock", ""), ("more.md", "more")):
        (folder / "z" / name).write_text(content)
    assert read_passages(str(folder), {"z/more.md"}) == {"z/more.md": "more"}


def test_a_folder_of_documents_gives_ids_titles_and_texts(folder, caplog):
    assert list(iterate_texts(str(folder), "passages")) == [
        ("a%20b/100%25.md", "Trains They follow rails."),
        ("a%20b/ü.html", "Ants & co Ants Theymarch home"),
        ("bees.md", "Bees They *steer* by the sun."),
        ("z.txt", "plain text"),
    ]
    assert list(iterate_texts(f"{folder}/", "passages", Fields(None, ("tags", "text"))))[2] == (
        "bees.md", "wing sting They *steer* by the sun.",
    )  # fmt: skip
    said = [record.message for record in caplog.records if "left out" in record.message]
    assert said == [f"{folder}: 1 of 5 files are not Markdown, HTML or plain text: left out (first: z/logo.png)"]
    run = {"q": RankedList.in_order(["z.txt", "gone"], np.array([2.0, 1.0]))}
    stored = store_passages(str(folder), run)
    assert stored["z.txt"] == "plain text" and "gone" not in stored
    with pytest.raises(InputError, match="docs: is a folder: queries are read from a file"):
        read_queries(str(folder))


@pytest.mark.parametrize(
    ("name", "text", "title", "body"),
    [
        ("a.md", "Bees\n====\nfly", "Bees", "fly"),
        ("a.md", "+++\ntitle = 'Bees'\ndate = 2024-01-02\n+++\nfly", "Bees", "fly"),
        ("a.md", "---\r\ntitle: Bees\r\n---\r\n# All\r\nfly", "Bees", "# All fly"),
        ("a.md", "---\ntitle: []\ntags: {}\n---\nfly", "", "fly"),
        ("a.md", "---\nno end\n# Bees", "", "--- no end # Bees"),
        ("a.md", "---\n\nSlow.\n\nBees\n---\nfly", "", "--- Slow. Bees --- fly"),
        ("a.md", "---\n---\nfly", "", "fly"),
        ("a.md", "## Bees\nfly", "", "## Bees fly"),
        ("a.md", "# Programming in C#\nfly", "Programming in C#", "fly"),
        ("a.md", "#\tF# and C# ##  \nfly", "F# and C#", "fly"),
        ("a.md", "# ##\nfly", "", "fly"),
        ("a.md", "---\ntitle: null\n---\n# Bees\nfly", "Bees", "fly"),
        ("a.md", "---\ntitle: ~\ntags: [null]\n---\n# Bees\nfly", "Bees", "fly"),
        ("a.md", "---\ntitle: 'null'\n---\n# Bees\nfly", "null", "# Bees fly"),
        ("a.MD", "---\ntext: no\n---\nfly", "", "fly"),
        ("a.html", "<html><h1>Bees</h1>fly", "Bees", "fly"),
        ("a.html", "<h1>Bees<p>fly", "Bees", "fly"),
        ("a.html", "<head><title>T</title><style>p</style><p>a<p>b", "T", "a b"),
        ("a.htm", "<title>T</title><ul><li>a<li>b</ul><td>c</td><td>d</td>&lt;e&gt;<!-- f -->", "T", "a b c d <e>"),
        ("a.htm", "<p>seen<svg><title>no</title></svg><footer>no<p>no</footer><h1>x</h1><h1>y</h1>", "x", "seen y"),
        ("a.htm", "<nav>a<nav>b</nav>c</nav>d <!-- e", "", "d e"),
        ("a.htm", "a<![ENTITY x]>b <![ if IE ]>c<![endif]--> arr<![0]> <![]>d<![x>e", "", "ab c arr de"),
        ("a.htm", "a<![CDATA[ b > c ]]>d<![CDATA[e", "", "ad e"),
        ("a.htm", f"&#{'1' * 5000};&#{'0' * 5000}65; <a title='&#{'1' * 5000};'>b", "", "\ufffdA b"),
        ("a.txt", "# kept", "", "# kept"),
    ],
)  # fmt: skip
def test_a_document_gives_its_title_and_text(name, text, title, body):
    fields = document_fields(name, text)
    assert (fields["title"], " ".join(fields["text"].split())) == (title, body)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("---\na: " + "[" * 5000, "nested too deeply"),
        ("---\na: " + "[\n" * 5000, "nested too deeply"),
        ("---\n" + "- " * 5000, "nested too deeply"),
        ("+++\na = " + "[" * 5000, "recursion"),
        ("+++\n" + "a." * 30_000 + "a = 1", "a line has more than 1000 dots"),
        ("---\n" + "a: b\n" * 50_000, "it has more than 65536 characters"),
        ("+++\n" + "a = b\n" * 50_000, "it has more than 65536 characters"),
        ("+++\na = 0x" + "f" * 5000, "Exceeds the limit"),
        ('---\ntitle: "\\UFFFFFFFF"', "too large"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_front_matter_is_refused_at_once(content, reason):
    started = time.process_time()
    with pytest.raises(InputError, match=f"a.md:1: its front matter cannot be read .*{reason}"):
        document_fields("a.md", f"{content}\n{content[:3]}\nfly")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text",
    "<a |<!--|<![cdata[|<![CDATA[|<![x|<?|</|<a b='|<nav>|<nav></footer>|<script></scrip|<!doctype [|&#".split("|"),
)
def test_a_hostile_page_takes_no_longer_than_others(text):
    started = time.process_time()
    for end in ("", ">"):
        document_fields("a.html", text * 20_000 + end)  # of some of them, the parser by itself would take a minute
    assert time.process_time() - started < 5


def test_a_file_that_cannot_be_read_is_refused_or_counted(folder):
    (folder / "c.html").write_bytes('<meta charset="iso-8859-1"><p>Grün'.encode("latin-1"))
    (folder / "d.txt").write_bytes("Grün".encode("utf-16"))
    assert read_passages(str(folder), {"c.html", "d.txt"}) == {"c.html": "Grün", "d.txt": "Grün"}
    (folder / "e.txt").write_bytes("Grün".encode("latin-1"))
    with pytest.raises(InputError, match="docs/e.txt: cannot be read .*: `iconv -f WINDOWS-1252 -t UTF-8` converts"):
        refuse_duplicates(str(folder), "passages")
    (folder / "f.md").write_text("---\na: &a [x]\nb: *a\n---\n")
    (folder / "g.md").write_text("---\na: [\n---\n")
    refused: list[InputError] = []
    assert len(list(passage_parts(str(folder), Fields(), refused.append))) == 6
    assert [str(error).split("(")[0] for error in refused] == [
        f"{folder}/e.txt: cannot be read ",
        f"{folder}/f.md:1: its front matter cannot be read ",
        f"{folder}/g.md:1: its front matter cannot be read ",
    ]


@pytest.mark.parametrize(
    ("label", "content", "text"),
    [
        ("iso-8859-1", b"\x93Gr\xfcn\x94 \x80 \x81", "“Grün” € \x81"),
        ("Latin1", b"\x85", "…"),
        ("US-ASCII", b"\x92", "’"),
        ("x-cp1251", b"\xcf\xcf\x98", "ПП\x98"),
        ("iso-8859-9", b"\x80\xfe", "€ş"),
        ("gb2312", "镕€".encode("gb18030"), "镕€"),
        ("GBK", "龦".encode("gb18030"), "龦"),
        ("shift_jis", b"\x87\x40\x81\x60", "①～"),
        ("X-SJIS", b"\x87\x40", "①"),
        ("euc-kr", "똠".encode("cp949"), "똠"),
        ("ks_c_5601-1987", "똠".encode("cp949"), "똠"),
        ("iso-8859-8-i", b"\xf9", "ש"),
    ],
)
def test_a_declared_encoding_is_read_as_browsers_read_it(tmp_path, label, content, text):
    (tmp_path / "a.html").write_bytes(f'<meta charset="{label}"><p>'.encode() + content)
    assert read_document(str(tmp_path / "a.html")).endswith(f"<p>{text}")


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        *((label, "unknown encoding") for label in ("undefined", "idna", "punycode", "unicode_escape", "utf-16", "x")),
        *((label, "can't decode byte 0xff") for label in ("utf-8", "windows-1253", "euc-jp")),
    ],
)
def test_a_page_in_no_encoding_is_refused_in_one_line(tmp_path, label, reason):
    (tmp_path / "a.html").write_bytes(f"<meta charset={label}><p>".encode() + b"\xff")
    with pytest.raises(InputError, match=f"a.html: cannot be read .*{reason}"):
        read_document(str(tmp_path / "a.html"))


@pytest.mark.parametrize("name", ["c.html", "c.txt", "c.md"])
def test_a_damaged_packed_document_is_refused_or_counted(folder, name):
    packed = gzip.compress(bytes(range(256)) * 20)
    for damaged in (packed[:-20], packed[:12] + b"\xff\xff" + packed[14:], packed[:-8] + bytes(8), packed[:5]):
        (folder / name).write_bytes(damaged)
        refused: list[InputError] = []
        assert len(list(passage_parts(str(folder), Fields(), refused.append))) == 4
        assert len(refused) == 1 and f"{name}: cannot be read (" in str(refused[0])


@pytest.mark.parametrize("name", ["_id", "_ID", "-id", "id", "docid"])
def test_the_path_is_the_id_whatever_the_front_matter_says(tmp_path, name):
    for file in ("a.md", "b.md"):
        (tmp_path / file).write_text(f"---\n{name}: same\n---\nbees\n")
    assert read_passages(str(tmp_path), {"a.md", "b.md", "same"}) == {"a.md": "bees", "b.md": "bees"}


def test_a_link_to_nowhere_is_refused_in_one_line(folder):
    (folder / "lost.md").symlink_to("nowhere.md")
    with pytest.raises(InputError, match=r"lost\.md: cannot be opened \(No such file or directory\): check the path"):
        source_state(str(folder))


def test_a_folder_without_documents_is_refused_and_pdfs_with_the_remedy(tmp_path, folder, caplog):
    (tmp_path / "pdfs").mkdir()
    with pytest.raises(InputError, match="pdfs: holds no document with a name in .md, .*: name a file"):
        read_passages(str(tmp_path / "pdfs"), {"1"})
    (tmp_path / "pdfs" / "a.PDF").write_bytes(b"%PDF-1.7")
    with pytest.raises(InputError, match="a.PDF is a PDF: extract its text first, as `pdftotext FILE.pdf FILE.txt`"):
        read_passages(str(tmp_path / "pdfs"), {"1"})
    with pytest.raises(InputError, match="a.PDF: is a PDF: extract its text first"):
        read_passages(str(tmp_path / "pdfs" / "a.PDF"), {"1"})
    (folder / "a.pdf").write_bytes(b"%PDF-1.7")
    assert len(read_passages(str(folder), {"z.txt"})) == 1
    assert (
        "2 of 6 files are not Markdown, HTML or plain text: left out (first: a.pdf: is a PDF: extract its"
        in caplog.text
    )


def test_a_changed_folder_is_another_collection(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    before = folder_state(str(folder))
    assert before == source_state(str(folder))
    assert bm25_run(str(folder), {"q": "rails"}, 5)["q"].doc_ids == ["a%20b/100%25.md"]
    (folder / "new.md").write_text("rails")
    assert folder_state(str(folder)) != before
    assert bm25_run(str(folder), {"q": "rails"}, 5)["q"].doc_ids == ["new.md", "a%20b/100%25.md"]
    os.symlink(folder, folder / "loop")
    assert len(read_passages(str(folder), {"new.md", "loop/new.md"})) == 1  # links to folders are not followed


def test_a_folder_may_be_given_where_passages_are_read(folder):
    from distill.config.checks import check_evaluate, check_train, check_values

    texts = [f"passages={folder}", "queries=sample/test/queries.tsv"]
    check_values(compose_config("retrieve", *texts, "output=x.run"))
    check_values(compose_config("annotate", *texts, "run=sample/test/first_stage.run.gz", "teacher.llm.model=x"))
    keys = ["task=files", f"task.passages={folder}", "task.queries=sample/test/queries.tsv", "task.run=bm25"]
    check_evaluate(compose_config("evaluate", "model=null", *keys, "task.qrels=sample/test/qrels.txt.gz"))
    data = ["data=files", f"data.passages={folder}", "data.queries=sample/test/queries.tsv", "teacher=run"]
    check_train(compose_config("train", *data, "teacher.path=sample/test/first_stage.run.gz"))
