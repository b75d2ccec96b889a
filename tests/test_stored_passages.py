"""Passages on disk are those that are read into memory, and so are the lists of an annotation."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from transformers import AutoTokenizer

import distill.sources.runs
from distill.data.tokens import TokenStore
from distill.errors import InputError
from distill.evaluation.tasks import read_task
from distill.sources.fields import Fields
from distill.sources.run_files import RankedList, write_run
from distill.sources.runs import read_run, stored_run
from distill.sources.stored_passages import store_passages
from distill.sources.texts import read_passages
from distill.teachers.asking import with_first
from distill.teachers.lists_to_rank import lists_to_rank, read_lists_to_rank, store_texts
from distill.teachers.orders import OrderedRun, PackedOrders
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.configuration import compose_config

TEXTS = {"d1": "Bees  steer\tby the sun.", "d2": "蜜蜂用太阳导航", "d3": "", "x": "never asked for"}


def run_of(*doc_ids: str) -> dict[str, RankedList]:
    return {"q": RankedList.in_order(list(doc_ids), np.arange(len(doc_ids), 0, -1.0))}


def write_jsonl(path, texts: dict[str, str]) -> str:
    lines = "".join(json.dumps({"id": doc_id, "text": text}) + "\n" for doc_id, text in texts.items())
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return str(path)


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_passages_on_disk_are_those_read_into_memory(tmp_path, name):
    path = write_jsonl(tmp_path / name, TEXTS | {f"f{n}": f"filler {n}" for n in range(9000)})
    wanted = ("d1", "d2", "d3", "f8999", "f1", "d9")
    stored, read = store_passages(path, run_of(*wanted)), read_passages(path, set(wanted))
    assert read == {doc_id: stored[doc_id] for doc_id in wanted if doc_id in stored}
    assert stored["d1"] == "Bees steer by the sun." and stored["d3"] == "" and "d9" not in stored and "x" not in stored
    with pytest.raises(KeyError):
        stored["d9"]
    assert list(stored.items()) == list(read.items()) and len(stored) == len(read) == 5


def test_a_large_task_has_its_passages_on_disk_and_is_the_same(collection, tmp_path, monkeypatch, caplog):
    with open(collection["passages"], "a") as file:
        file.write("d30\t\n")
    with open(collection["first_stage"], "a") as file:
        file.write("q0 Q0 d30 11 -9 x\n")
    keys = {"passages": "passages", "queries": "queries", "run": "first_stage", "qrels": "qrels"}
    cfg = compose_config("evaluate", "task=files", *(f"task.{key}={collection[name]}" for key, name in keys.items()))
    small = read_task(cfg.task)
    monkeypatch.setattr("distill.sources.stored_passages.MANY", 5)
    large = read_task(cfg.task)
    assert isinstance(small.passages, dict) and dict(large.passages.items()) == small.passages
    assert not isinstance(large.passages, dict) and "d30" not in large.run["q0"].doc_ids
    assert {q: ranked.doc_ids for q, ranked in large.run.items()} == {q: one.doc_ids for q, one in small.run.items()}
    said = [record.message for record in caplog.records if "empty passages" in record.message]
    assert (
        len(said) == 2 and said[0] == said[1] and said[0].endswith("1 empty passages left out of the run (first: d30)")
    )
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path / "bert", words=WORDS))
    stores = [TokenStore.of(tokenizer, task.passages, 16) for task in (small, large)]
    assert (stores[0].tokens == stores[1].tokens).all() and (stores[0].hashes == stores[1].hashes).all()


@pytest.mark.parametrize(
    "lines",
    [
        ["d1\tone", "d2\ttwo", "d1\tthree", "no column"],  # the duplicate comes first
        ["d1\tone", "no column", "d1\tthree"],
        ["x\tone", "x\ttwo", "d1\tone"],  # a duplicate that the run does not name
        ["d1\tone", "a b\ttwo"],
        ["", ""],
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_the_same_words(tmp_path, lines):
    path = tmp_path / "p.tsv"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as stored:
        store_passages(str(path), run_of("d1", "d2"))
    with pytest.raises(InputError) as read:
        read_passages(str(path), {"d1", "d2"})
    assert str(stored.value) == str(read.value)


def test_named_fields_are_read(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("sku,title,body\nd1,Bees,steer\n")
    assert store_passages(str(path), run_of("d1"), Fields("sku", ("title", "body")))["d1"] == "Bees steer"


def make_files(tmp_path, num_queries: int, depth: int = 10, words: int = 5):
    passages = {f"d{n}": f"passage {n} " + "bee " * words for n in range(num_queries * depth)} | {"d3": " "}
    (tmp_path / "p.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in passages.items()))
    (tmp_path / "q.tsv").write_text("".join(f"q{n}\tquestion {n}\n" for n in range(num_queries)))
    run = {
        f"q{n}": RankedList.in_order([f"d{n * depth + place}" for place in range(depth)], np.arange(depth, 0, -1.0))
        for n in range(num_queries)
    }
    write_run(run, tmp_path / "f.run", "first")
    return [f"passages={tmp_path}/p.tsv", f"queries={tmp_path}/q.tsv", f"run={tmp_path}/f.run", "teacher.llm.model=m"]


def test_lists_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    cfg = compose_config("annotate", *make_files(tmp_path, 4), "depth=7", "num_queries=3")
    in_memory = read_lists_to_rank(cfg, cfg)
    monkeypatch.setattr(distill.sources.runs, "SMALL_FILE", 0)
    assert not isinstance(stored_run(cfg.run), dict) and isinstance(read_run(cfg.run), dict)
    on_disk = read_lists_to_rank(cfg, cfg)
    assert list(on_disk.run) == list(in_memory.run) and dict(on_disk.texts) == dict(in_memory.texts)
    for query_id, ranked in on_disk.run.items():
        assert ranked.doc_ids == in_memory.run[query_id].doc_ids
        query, texts = on_disk.texts[query_id]
        assert query == f"question {query_id[1:]}" and len(texts) == len(ranked)
        assert texts == [f"passage {doc_id[1:]} bee bee bee bee bee" for doc_id in ranked.doc_ids]
    assert all("d3" not in ranked.doc_ids for ranked in on_disk.run.values())  # it is empty
    assert "q9" not in on_disk.run and "q9" not in on_disk.texts


def test_a_passage_that_is_missing_is_refused_with_its_line(tmp_path):
    cfg = compose_config("annotate", *make_files(tmp_path, 2))
    passages = (tmp_path / "p.tsv").read_text().replace("d12\t", "e12\t")
    (tmp_path / "p.tsv").write_text(passages)
    with pytest.raises(InputError, match=r"f.run:13: passage d12 is not in .*p.tsv: use the collection of the run"):
        read_lists_to_rank(cfg, cfg)


def test_memory_does_not_hold_the_texts(tmp_path):
    files = make_files(tmp_path, 100, words=250)  # 1 MB
    cfg = compose_config("annotate", *files)
    run = read_run(cfg.run)
    queries = {f"q{n}": f"question {n}" for n in range(100)}
    tracemalloc.start()
    passages = store_passages(cfg.passages, run)
    texts = store_texts(lists_to_rank(run, cfg, passages), queries, passages)
    del passages
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200_000 and len(texts) == 100 and len(texts["q7"][1]) == 10


def test_orders_are_packed_and_make_a_run():
    orders, run = PackedOrders(), run_of("a", "b", "c") | {"r": run_of("a", "b", "c")["q"]}
    orders.add("q", [2, 0, 1])
    orders.repeat("r", "q")
    ordered = OrderedRun(run, orders)
    assert orders == {"q": [2, 0, 1], "r": [2, 0, 1]} and list(ordered) == ["q", "r"]
    assert ordered["q"].doc_ids == ["c", "a", "b"] and ordered["q"].scores.tolist() == [3.0, 2.0, 1.0]
    orders.add("long", range(70_000, -1, -1))
    assert orders["long"][0] == 70_000


def test_lists_that_repeat_another_name_the_first():
    lists = {"a": ("bees", ["x", "y"]), "b": ("bees", ["x", "y"]), "c": ("bees", ["x y"]), "d": ("bees x", ["y"])}
    assert [(query_id, first) for query_id, first, _, _ in with_first(lists)] == [
        ("a", "a"), ("b", "a"), ("c", "c"), ("d", "d"),
    ]  # fmt: skip
