"""Articles cut into passages, and measured by their best one: by hand, and from end to end."""

import json
import math

import numpy as np
import pytest

from distill.commands.cut import cut
from distill.commands.fuse import fuse_files
from distill.config.checks import check_values
from distill.data.cutting import article_of, cut_text, passage_id
from distill.errors import InputError
from distill.evaluation.articles import article_run
from distill.evaluation.averages import measure_rows
from distill.evaluation.tasks import read_task
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.sources.texts import iterate_texts
from distill.teachers.lengths import atoms_of, tokens_in, words_in
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT

BEES = "Bees dance. They fly home. Ants march."  # 2, 3 and 2 words


def cut_words(text: str, size: int, overlap: int, sentences: bool = True) -> list[str]:
    return cut_text(text, size, overlap, atoms_of, words_in, sentences)


@pytest.mark.parametrize(
    ("text", "size", "overlap", "passages"),
    [
        (BEES, 7, 3, [BEES]),
        (BEES, 5, 3, ["Bees dance. They fly home.", "They fly home. Ants march."]),
        (BEES, 5, 2, ["Bees dance. They fly home.", "Ants march."]),
        (BEES, 4, 3, ["Bees dance.", "They fly home.", "Ants march."]),  # no room for what is repeated and more
        (BEES, 2, 1, ["Bees dance.", "They fly", "fly home.", "Ants march."]),  # a sentence of 3 words is cut
        ("One two\n three\n\nfour", 3, 0, ["One two three", "four"]),
        ("A b. “C d?” (E f!) g", 2, 0, ["A b.", "“C d?”", "(E f!)", "g"]),
        ("v. 3.5 of x.y", 9, 0, ["v. 3.5 of x.y"]),
        # A character is 0.75 tokens, and a word 4/3 tokens: 5 are 2.8 words, 6 are 3.4
        ("蜜蜂跳舞。它们飞回家。", 3, 0, ["蜜蜂跳舞。", "它们飞回家", "。"]),
        (" \n ", 3, 0, []),
    ],
)
def test_a_text_is_cut_between_sentences(text, size, overlap, passages):
    assert cut_words(text, size, overlap) == passages


def test_without_sentences_windows_of_words_overlap():
    assert cut_words("a b c. d e f g", 3, 1, sentences=False) == ["a b c.", "c. d e", "e f g"]
    assert cut_words("a b c. d e f g h", 3, 2, sentences=False) == [
        "a b c.",
        "b c. d",
        "c. d e",
        "d e f",
        "e f g",
        "f g h",
    ]
    words = [f"w{n}" for n in range(1000)]
    passages = [passage.split() for passage in cut_words(" ".join(words), 128, 32, sentences=False)]
    assert [passage[0] for passage in passages] == [f"w{n * 96}" for n in range(len(passages))]
    assert passages[-1][-1] == "w999" and max(map(len, passages)) == 128


def test_a_million_marks_are_one_word():
    assert cut_words("." * 10**6 + " a", 10**6, 0) == ["." * 10**6 + " a"]


def test_every_word_is_in_a_passage_none_longer_than_allowed():
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = " ".join(f"w{n}{rng.choice(['', '', '.', chr(10) * 2])}" for n in range(rng.integers(1, 60)))
        size = int(rng.integers(1, 20))
        passages = cut_words(text, size, int(rng.integers(0, size)), bool(rng.integers(2)))
        words = [word for passage in passages for word in passage.split()]
        assert list(dict.fromkeys(words)) == text.split() and len(set(passages)) == len(passages)
        assert max(len(passage.split()) for passage in passages) <= size


def test_tokens_are_counted_where_they_end():
    from distill.models.parts import load_tokenizer

    tokenizer = load_tokenizer(str(ROOT / "sample" / "backbone"))
    text = "unbelievable bees, dance  quickly"
    lengths = tokens_in(text, atoms_of(text), tokenizer)
    alone = [len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in text.split()]
    assert lengths == alone and max(alone) > 1


def test_ids_lead_back_and_never_meet():
    ids = {passage_id(article, number): article for article in ("a", "a#0", "a#1", "b/c.md#x") for number in range(12)}
    assert len(ids) == 48 and all(article_of(doc_id) == article for doc_id, article in ids.items())
    assert [article_of(doc_id) for doc_id in ("a", "a#", "a#01", "#1", "a#x", "a#٣")] == [None] * 6


def cut_config(directory, *overrides):
    return compose_config("cut", f"passages={directory}/a.jsonl", f"output={directory}/p.jsonl", *overrides)


def test_articles_are_cut_from_end_to_end(tmp_path, caplog):
    rows = [{"_id": "x", "title": "On bees", "text": BEES}, {"_id": "y#0", "title": "", "text": "Short."}]
    rows += [
        {"_id": "z", "title": "Only a title", "text": ""},
        {"_id": "x", "text": "again"},
        {"_id": "e", "text": " "},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{oops\n")
    with pytest.raises(
        InputError, match="3 of 6 rows cannot be used, more than max_unusable=0.1 allows .first: .*:4: id x"
    ):
        cut(cut_config(tmp_path, "size=5", "overlap=3"))
    assert not (tmp_path / "p.jsonl").exists()
    counts = cut(cut_config(tmp_path, "size=5", "overlap=3", "max_unusable=0.5"))
    assert counts == {"articles": 3, "passages": 4, "unusable": 3}
    assert "a.jsonl: 3 of 6 rows cannot be used: left out (first: " in caplog.text
    assert [*iterate_texts(str(tmp_path / "p.jsonl"), "passages")] == [
        ("x#0", "On bees Bees dance. They fly home."),
        ("x#1", "On bees They fly home. Ants march."),
        ("y#0#0", "Short."),
        ("z#0", "Only a title"),
    ]
    (tmp_path / "p.jsonl").unlink()
    cut(cut_config(tmp_path, "size=5", "overlap=3", "max_unusable=1", "titles=first"))
    assert [text for _, text in iterate_texts(str(tmp_path / "p.jsonl"), "passages")][:2] == [
        "On bees Bees dance. They fly home.", "They fly home. Ants march.",
    ]  # fmt: skip
    (tmp_path / "p.jsonl").unlink()
    assert cut(cut_config(tmp_path, "max_unusable=1", "titles=none"))["unusable"] == 4
    rows = [{"id": f"h{n}", "headline": "On bees", "text": BEES} for n in range(2)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "p.jsonl").unlink(missing_ok=True)
    with pytest.raises(InputError, match="no title was read from title_field=headline: name it among the fields"):
        cut(cut_config(tmp_path, "title_field=headline"))
    assert not (tmp_path / "p.jsonl").exists()
    cut(cut_config(tmp_path, "title_field=headline", "text_fields=[headline,text]"))
    assert next(iter(iterate_texts(str(tmp_path / "p.jsonl"), "passages")))[1].startswith("On bees Bees dance.")
    with pytest.raises(InputError, match="overlap=200 is not below size=200: passages would not advance"):
        check_values(cut_config(tmp_path, "overlap=200"))


def test_rows_of_csv_that_are_no_utf8_are_left_out_and_counted(tmp_path):
    rows = "".join(f"{n},Bees fly.\n" for n in range(9)).encode()
    (tmp_path / "a.csv").write_bytes(b"id,text\n" + rows + b"x,M\xfcll\n")
    cfg = cut_config(tmp_path, f"passages={tmp_path}/a.csv")
    assert cut(cfg) == {"articles": 9, "passages": 9, "unusable": 1}
    (tmp_path / "p.jsonl").unlink()
    with pytest.raises(InputError, match="1 of 10 rows cannot be used, .*first: .*a.csv:11: cannot be read"):
        cut(cut_config(tmp_path, f"passages={tmp_path}/a.csv", "max_unusable=0.05"))


def ranked(*scored: tuple[str, float]) -> RankedList:
    return RankedList.in_order([doc_id for doc_id, _ in scored], np.array([score for _, score in scored]))


def test_the_best_passage_gives_an_article_its_score():
    run = {"q": ranked(("b#1", 5.0), ("a#0", 3.0), ("b#0", 3.0), ("c#2", 3.0), ("a#7", 1.0))}
    found = article_run(run, "x.run")["q"]
    assert found.doc_ids == ["b", "a", "c"] and found.scores.tolist() == [5, 3, 3] and found.ranks.tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="x.run: query q: passage d7 is no part of an article: .* such as d7#0"):
        article_run({"q": ranked(("d7", 1.0))}, "x.run")


def test_a_run_of_passages_is_measured_by_judgments_of_articles(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    texts = {"bees": "Rails. " * 30 + "Bees fly.", "rails": "Rails rust. " + "Snow falls. " * 30, "ants": "Ants march."}
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"_id": n, "text": text}) for n, text in texts.items()))
    assert cut(cut_config(tmp_path, "size=10", "overlap=0"))["passages"] == 12  # 4, 7 and 1
    (tmp_path / "q.tsv").write_text("1\tbees\n2\trails rust\n")
    (tmp_path / "qrels.txt").write_text("1 0 bees 1\n2 0 rails 1\n2 0 ants 1\n2 0 1 1\n")
    keys = [f"task.passages={tmp_path}/p.jsonl", f"task.queries={tmp_path}/q.tsv", f"task.qrels={tmp_path}/qrels.txt"]
    keys += ["task=files", "task.run=bm25", "task.ideal=true", "task.measures=[nDCG@10,RR@10]"]
    task = read_task(compose_config("evaluate", *keys, "task.max_passage=true").task, texts=False)
    assert task.run["2"].doc_ids == ["rails#0", "bees#0", "bees#1", "bees#2"]
    results, _ = measure_rows(task, task.rows)
    # Query 1: bees first. Query 2: rails, bees of three relevant ones: 1 / (1 + 1 / log2(3) + 1 / 2)
    ndcg = (1 + 1 / (1 + 1 / math.log2(3) + 0.5)) / 2
    assert results["first_stage/files/nDCG@10"] == pytest.approx(ndcg)
    assert results["ideal/files/nDCG@10"] == pytest.approx(ndcg) and results["first_stage/files/RR@10"] == 1
    passages, _ = measure_rows(read_task(compose_config("evaluate", *keys).task, texts=False), {"x": task.run})
    assert passages["x/files/nDCG@10"] == 0


def test_runs_of_passages_and_articles_are_fused_as_articles(tmp_path):
    (tmp_path / "p.run").write_text("q Q0 a#1 1 9 t\nq Q0 b#0 2 8 t\nq Q0 a#0 3 7 t\n")
    (tmp_path / "a.run").write_text("q Q0 b 1 5 t\nq Q0 c 2 4 t\n")
    runs = f"runs=[{tmp_path}/p.run,{tmp_path}/a.run]"
    fuse_files(compose_config("fuse", runs, f"output={tmp_path}/f.run", "max_passage=true"))
    fused = read_run(str(tmp_path / "f.run"))["q"]
    assert fused.doc_ids == ["b", "a", "c"]
    assert fused.scores.tolist() == pytest.approx([1 / 61 + 1 / 62, 1 / 61, 1 / 62], rel=1e-6)
