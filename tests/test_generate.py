"""`distill generate`, against an endpoint that answers by a script."""

import json
import logging

import pytest
from omegaconf import OmegaConf

from distill.commands.generate import check, generate
from distill.config.resuming import changes
from distill.config.saved import as_plain
from distill.errors import InputError
from distill.teachers.journal import Journal
from tests.helpers.chat_server import GUARD
from tests.helpers.configuration import compose_config

FILES = ("queries.tsv", "origins.txt", "rejected.tsv", "results.json")
THINGS = "anchor bottle candle dragon engine feather garden hammer island jacket kettle lantern mirror needle".split()
TOPICS = "ancient broken copper distant eastern frozen golden hidden iron jolly knotted lonely marble narrow".split()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def passages(tmp_path):
    """Fourteen articles of two passages, and one that is too short."""
    rows = [("short", "too short")]
    for number, (thing, topic) in enumerate(zip(THINGS, TOPICS, strict=True)):
        for part in range(2):
            words = " ".join(f"{word}{number}{part}x" for word in ("how", "that", "which", "some", "more", "here") * 3)
            rows.append((f"d{number}#{part}", f"The {topic} {thing} is {words}"))
    path = tmp_path / "p.tsv"
    path.write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in rows))
    return path


def configured(passages, server, *more):
    llm = {"base_url": server.url, "model": "writer", "concurrency": 3, "timeout": GUARD, "retries": 3}
    overrides = [f"passages={passages}", *(f"teacher.llm.{key}={value}" for key, value in llm.items())]
    return compose_config("generate", *overrides, "journal=none", "types=[keyword,question]", *more)


def generated(passages, server, directory, *more) -> dict[str, float]:
    cfg = configured(passages, server, *more)
    OmegaConf.resolve(cfg.teacher)
    check(cfg)
    return generate(cfg, directory)


def read(directory) -> dict[str, str]:
    return {name: (directory / name).read_text() for name in FILES}


def test_queries_have_their_passages_as_judgments(passages, serve, tmp_path, capsys):
    server = serve()
    results = generated(passages, server, tmp_path / "out", "num_queries=6")
    rows = [line.split("\t") for line in (tmp_path / "out" / "queries.tsv").read_text().splitlines()]
    assert [query_id for query_id, _ in rows] == [f"g{number}" for number in range(1, 7)]
    origins = [line.split() for line in (tmp_path / "out" / "origins.txt").read_text().splitlines()]
    assert [(one, zero, grade) for one, zero, _, grade in origins] == [(f"g{n}", "0", "1") for n in range(1, 7)]
    assert len({doc_id.split("#")[0] for _, _, doc_id, _ in origins}) == 6
    texts = dict(line.split("\t") for line in passages.read_text().splitlines())
    for (_, query), (_, _, doc_id, _) in zip(rows, origins, strict=True):
        assert {*texts[doc_id].split()[1:3]} <= {*query.replace("?", "").split()}
    assert [query.startswith("How does this work: ") for _, query in rows] == [False, True] * 3
    assert results["requests"] == 6 == sum(server.asked.values()) and results["tokens_in"] == 600
    assert results["kept/keyword"] == results["asked/question"] == 3 and results["passages/too-short"] == 1
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert "keyword     3 of 3 kept\n" in capsys.readouterr().out
    card = (tmp_path / "out" / "card.md").read_text()
    assert "- passages: a sample of 14 of 29, at most 18, seed 42" in card and "- question: 3 of 3 kept" in card


def test_rejected_queries_are_replaced_and_named(passages, serve, tmp_path):
    server = serve(script=["empty", "good", 400, "good"])
    results = generated(passages, server, tmp_path / "out", "num_queries=4", "teacher.llm.concurrency=1")
    rejected = [line.split("\t") for line in (tmp_path / "out" / "rejected.tsv").read_text().splitlines()]
    assert [(query_id, text, reason) for query_id, text, _, reason in rejected] == [
        *(("g1", "", "empty"), ("g3", "", "refused"))
    ]
    assert len((tmp_path / "out" / "queries.tsv").read_text().splitlines()) == 4
    assert results["asked/keyword"] == 4 and results["asked/question"] == 2
    assert results["rejected/keyword/empty"] == results["rejected/keyword/refused"] == 1


def test_a_query_that_says_the_same_is_kept_once(passages, serve, tmp_path):
    log = tmp_path / "log.tsv"
    results = generated(passages, serve(), tmp_path / "one", "num_queries=4")
    first, second, *_ = (tmp_path / "one" / "queries.tsv").read_text().splitlines()
    log.write_text(f"g1\t{first.split(chr(9))[1].upper()}!\nb\tthe {second.split(chr(9))[1]} of\nc\tsomething else\n")
    results = generated(passages, serve(), tmp_path / "two", "num_queries=4", f"logged={log}")
    rejected = (tmp_path / "two" / "rejected.tsv").read_text().splitlines()
    assert [line.split("\t")[3] for line in rejected] == ["duplicate", "near-duplicate"]
    ids = [line.split("\t")[0] for line in (tmp_path / "two" / "queries.tsv").read_text().splitlines()]
    assert ids == ["g1", "b", "c", "g4", "g5", "g6", "g7"]  # g1 is an id of the log
    assert "g1 " not in (tmp_path / "two" / "origins.txt").read_text()
    assert (results["queries"], results["generated"], results["logged"]) == (7, 4, 3)


def test_a_stopped_generation_ends_in_the_same_files_and_pays_nothing_twice(passages, serve, tmp_path, monkeypatch):
    def script():  # so that there are several rounds
        return ["good", "empty", "good", "good", "prose", "empty", "good", "empty"]

    options = ["num_queries=8", "teacher.llm.concurrency=1"]
    generated(passages, serve(script=script()), tmp_path / "whole", *options)
    expected, server, add = read(tmp_path / "whole"), serve(script=script()), Journal.add
    for stop in (3, 1, 5):

        def stopping(journal, key, answer, left=[stop]):  # noqa: B006 - counts down
            add(journal, key, answer)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            generated(passages, server, tmp_path / "out", *options)
        assert not (tmp_path / "out" / "queries.tsv").exists()
    monkeypatch.setattr(Journal, "add", add)
    generated(passages, server, tmp_path / "out", *options)
    assert read(tmp_path / "out") == expected
    assert max(server.asked.values()) == 1
    with pytest.raises(InputError, match="holds the finished generation of this configuration"):
        generated(passages, server, tmp_path / "out", *options)
    with pytest.raises(InputError, match="belongs to another configuration \\(num_queries: 8 -> 7\\)"):
        generated(passages, server, tmp_path / "out", "num_queries=7")


def test_the_order_in_which_answers_arrive_changes_nothing(passages, serve, tmp_path):
    generated(passages, serve(), tmp_path / "one", "num_queries=12", "teacher.llm.concurrency=1")
    generated(passages, serve(delay=0.01), tmp_path / "eight", "num_queries=12", "teacher.llm.concurrency=8")
    assert read(tmp_path / "one") == read(tmp_path / "eight")


def test_an_estimate_names_the_requests_that_are_sent(passages, serve, tmp_path, capsys):
    prices = ["teacher.llm.price_in=1000", "teacher.llm.price_out=1000"]
    assert generated(passages, serve(), tmp_path / "dry", "num_queries=5", "dry_run=true", *prices) == {}
    said = capsys.readouterr().out
    assert said.startswith("5 queries, 5 requests, about ") and "at most 15 requests" in said and ", cost " in said
    server = serve()
    generated(passages, server, tmp_path / "kept", "num_queries=5")
    assert sum(server.asked.values()) == 5
    server = serve(script=["empty"] * 99)
    with pytest.raises(InputError, match="none of 15 queries is kept: .*rejected.tsv has the reasons"):
        generated(passages, server, tmp_path / "none", "num_queries=5", "max_unusable=1")
    assert sum(server.asked.values()) == 15
    assert len((tmp_path / "none" / "rejected.tsv").read_text().splitlines()) == 15
    capsys.readouterr()
    generated(passages, serve(), tmp_path / "dry", "num_queries=5", "max_passages=5", "dry_run=true")
    assert "at most 5 requests" not in capsys.readouterr().out
    server = serve(script=["empty"] * 99)  # 14 articles for two types: each is asked about twice, no more
    with pytest.raises(InputError, match="none of 28 queries is kept"):
        generated(passages, server, tmp_path / "all", "num_queries=20", "max_unusable=1")


def test_the_cost_and_useless_answers_stop_it(passages, serve, tmp_path, caplog):
    prices = ["teacher.llm.price_in=10000", "teacher.llm.price_out=0", "teacher.llm.concurrency=1"]  # 1 a request
    server = serve()
    with pytest.raises(InputError, match="max_cost=3.0: reached after 3 answers, at 3.0000: raise it and resume with"):
        generated(passages, server, tmp_path / "out", "num_queries=6", "teacher.llm.max_cost=3", *prices)
    caplog.set_level(logging.INFO)
    results = generated(passages, server, tmp_path / "out", "num_queries=6", "teacher.llm.max_cost=9", *prices)
    assert results["cost"] == 6 == sum(server.asked.values())
    assert "6 requests (3 in this run)" in caplog.text
    server = serve(script=["only thinks"] * 99)
    message = "6 of 6 answers are no usable queries, .*length.*: raise teacher.llm.max_tokens"
    with pytest.raises(InputError, match=message):
        generated(passages, server, tmp_path / "useless", "num_queries=6", "teacher.llm.concurrency=1")
    assert sum(server.asked.values()) == 6


def test_answers_are_shared_with_other_directories(passages, serve, tmp_path):
    server = serve()
    for number, directory in ((4, "one"), (8, "two")):
        results = generated(passages, server, tmp_path / directory, f"num_queries={number}", "journal=null")
        assert sum(server.asked.values()) == number
    assert results["requests"] == 4 == results["requests/shared"]
    one, two = ((tmp_path / name / "queries.tsv").read_text().splitlines() for name in ("one", "two"))
    assert one == two[:4]


def test_a_log_needs_no_llm(passages, tmp_path):
    log = tmp_path / "log.tsv"
    log.write_text("q1\tOpening hours\nq2\topening hours\nq3\tclosing\n")
    cfg = compose_config("generate", f"passages={passages}", "num_queries=0", f"logged={log}")
    check(cfg)
    generate(cfg, tmp_path / "out")
    assert (tmp_path / "out" / "queries.tsv").read_text() == "q1\tOpening hours\nq3\tclosing\n"
    assert (tmp_path / "out" / "origins.txt").read_text() == ""
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == {"queries": 2, "generated": 0, "logged": 2, "logged/empty": 0, "logged/repeated": 1}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_queries=0"], "num_queries=0 without logged: there is nothing to do"),
        (["llm@teacher.llm=cross-encoder", "teacher.llm.model=m"], "it writes no queries: choose http or local"),
        (["num_queries=9", "max_passages=8"], "max_passages=8 is below num_queries=9: each query takes a passage"),
        (["types=[]"], "types=\\[\\]: must name at least one"),
        (["max_similarity=0"], "max_similarity=0.0: must be above 0, and at most 1"),
        (["round_trip=null", "round_trip_model=m"], "round_trip_model=m with round_trip=null: it re-ranks"),
        (["teacher.llm.api_key_variable=sk-123abc"], "api_key_variable: must be the name of an environment variable"),
    ],
)
def test_what_cannot_be_is_refused(passages, serve, overrides, message):
    llm = [] if any("llm@" in one for one in overrides) else ["teacher.llm.model=writer"]
    with pytest.raises(InputError, match=message):
        check(compose_config("generate", f"passages={passages}", *llm, *overrides))


@pytest.mark.parametrize("more", ["round_trip=20", "round_trip=null", "dry_run=true"])
def test_two_passages_of_one_id_are_refused_before_anything_is_paid_for(passages, serve, tmp_path, more):
    passages.write_text(passages.read_text() + passages.read_text().splitlines()[3] + "\n")
    server = serve()
    with pytest.raises(InputError, match=r"p.tsv:30: id d1#0 appears twice"):
        generated(passages, server, tmp_path / "out", "num_queries=2", more)
    assert not server.asked


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "no such directory"), ("empty", "it has no config.json")],
)
def test_a_round_trip_model_that_cannot_be_loaded_is_refused_before_anything_is_paid_for(
    passages, serve, tmp_path, name, message
):
    (tmp_path / "empty").mkdir()
    server = serve()
    with pytest.raises(InputError, match=f"^round_trip_model: .*{message}"):
        generated(passages, server, tmp_path / "out", "num_queries=2", f"round_trip_model={tmp_path / name}")
    assert not server.asked


def test_what_a_run_fills_in_is_no_difference_when_its_sweep_goes_on(passages, tmp_path):
    (tmp_path / "log.tsv").write_text("q1\topening hours\n")
    given = [f"passages={passages}", "num_queries=0", f"logged={tmp_path}/log.tsv"]
    filled = compose_config("generate", *given)
    check(filled)
    assert changes(as_plain(filled), compose_config("generate", *given)) == {}
    assert "seed" in changes(as_plain(filled), compose_config("generate", *given, "seed=7"))


def test_bad_passages_are_refused_with_their_line(serve, tmp_path):
    path = tmp_path / "p.tsv"
    path.write_text("d1\tsome text\nd2 no tab\n")
    with pytest.raises(InputError, match="p.tsv:2: one column instead of two"):
        generated(path, serve(), tmp_path / "out", "num_queries=2")
    path.write_text("d1\tsome text\nd2\tmore\n")
    with pytest.raises(InputError, match="none of 2 passages has 20 words: lower min_words"):
        generated(path, serve(), tmp_path / "out", "num_queries=2")
    assert not [one for one in (tmp_path / "out").glob("*") if one.is_file()]  # given back as it was
