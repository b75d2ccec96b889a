"""BM25: its formula by hand, the order of ties, words and stems, its index, and published figures."""

import math

import numpy as np
import pytest
from bm25s.stopwords import STOPWORDS_EN

from distill.errors import InputError
from distill.evaluation.measures import measure
from distill.evaluation.tasks import read_task
from distill.retrieval.bm25 import Bm25, bm25_run
from distill.retrieval.words import ENGLISH, word_reader
from distill.sources.runs import read_run
from tests.helpers.configuration import compose_config

PORTER = {  # of Porter's article, 1980; Snowball's English makes "tie" of "ties"
    "caresses": "caress", "ponies": "poni", "ties": "ti", "cats": "cat", "feed": "feed", "plastered": "plaster",
    "motoring": "motor", "sing": "sing", "hopping": "hop", "falling": "fall", "hissing": "hiss", "happy": "happi",
    "sky": "sky", "relational": "relat", "conditional": "condit", "hopefulness": "hope", "formality": "formal",
}  # fmt: skip


def test_words_are_cut_as_by_porter_and_lucene():
    assert {word: word_reader("porter", "lucene")(word)[0] for word in PORTER} == PORTER
    text = "The B-2's wings, don't they? Bees\u2019 U.S. Äpfel's 's x_1"
    assert word_reader("none", "lucene")(text) == "b 2 wings don t bees u s äpfel x_1".split()
    assert word_reader("none", "bm25s")(text) == "wings don bees äpfel x_1".split()
    assert word_reader("none", "none")(text) == "the b 2 s wings don t they bees u s äpfel s s x_1".split()
    assert word_reader("german", "none")("Häuser") == word_reader("german", "none")("haus")
    assert word_reader("english", "none")("ties") == ["tie"]


def test_both_lists_are_the_same_33_words():
    assert len(ENGLISH) == 33 and frozenset(STOPWORDS_EN) == ENGLISH


def test_bm25_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "p.tsv").write_text("d1\tThe bees dance\nd2\tbees, a bee\n")
    run = bm25_run(str(tmp_path / "p.tsv"), {"q": "dancing bees"}, depth=2)
    # Two words each, so the length has no effect. danc: ln(1 + 1.5 / 1.5) / (1 + 0.9); bee: ln(1 + 0.5 / 2.5) times
    # 1 / (1 + 0.9) and 2 / (2 + 0.9)
    assert run["q"].doc_ids == ["d1", "d2"]
    assert run["q"].scores.tolist() == pytest.approx([0.364814 + 0.095959, 0.125739], abs=2e-6)


def test_bm25_scores_by_its_formula(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    texts = {"d1": "the bees dance home", "d2": "bees bees bees", "d3": "trains follow rails home and home"}
    (tmp_path / "p.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in texts.items()))
    run = bm25_run(str(tmp_path / "p.tsv"), {"q1": "Do bees dance?", "q2": "the zebra"}, depth=2)
    words = {"d1": ["bee", "danc", "home"], "d2": ["bee"] * 3, "d3": ["train", "follow", "rail", "home", "home"]}
    k1, b = Bm25().k1, Bm25().b
    average = np.mean([len(found) for found in words.values()])

    def score(doc_id: str) -> float:
        total = 0.0
        for word in ("bee", "danc"):
            frequency = words[doc_id].count(word)
            containing = sum(word in found for found in words.values())
            idf = math.log(1 + (3 - containing + 0.5) / (containing + 0.5))
            total += idf * frequency / (frequency + k1 * (1 - b + b * len(words[doc_id]) / average))
        return total

    assert list(run) == ["q1"]  # no passage has a word of q2
    assert run["q1"].doc_ids == ["d1", "d2"]  # d3 shares no word
    assert run["q1"].scores.tolist() == pytest.approx([score("d1"), score("d2")], rel=1e-5)
    (tmp_path / "p.tsv").write_text("d9\tzebra stripes\n")  # another file, another index
    assert bm25_run(str(tmp_path / "p.tsv"), {"q2": "the zebra"}, depth=5)["q2"].doc_ids == ["d9"]
    with pytest.raises(InputError, match="no query shares a word with any passage"):
        bm25_run(str(tmp_path / "p.tsv"), {"q": "rails"}, depth=5)


def test_passages_of_equal_bm25_score_keep_the_order_of_the_source_also_at_the_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    doc_ids = [f"d{place * 37 % 101}" for place in range(101)]  # neither by id nor by number
    texts = {doc_id: "bees and rails" for doc_id in doc_ids} | {"best": "bees", "other": "snow", "empty": "the"}
    (tmp_path / "p.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in texts.items()))
    for depth in (1, 2, 50, 102, 1000):
        run = bm25_run(str(tmp_path / "p.tsv"), {"q": "bees", "none": "the"}, depth)
        assert list(run) == ["q"] and run["q"].doc_ids == ["best", *doc_ids][:depth]  # "the" does not find "empty"


def test_a_bm25_index_is_read_by_any_version_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "p.tsv").write_text("d1\tbees dance\nd2\tbees\n")
    first = bm25_run(str(tmp_path / "p.tsv"), {"q": "bees bees dance"}, depth=5)
    monkeypatch.delattr("bm25s.BM25")  # what differs from version to version: scores, order and files
    again = bm25_run(str(tmp_path / "p.tsv"), {"q": "bees bees dance"}, depth=5)
    assert again["q"].doc_ids == first["q"].doc_ids == ["d1", "d2"]
    assert again["q"].scores.tolist() == first["q"].scores.tolist()


def test_an_index_belongs_to_one_stemmer_of_one_version(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "p.tsv").write_text("d1\tbees dance\n")
    indexes = lambda: len([path for path in (tmp_path / "cache" / "bm25").iterdir() if path.is_dir()])  # noqa: E731
    ways = [Bm25(), Bm25(stemmer="english"), Bm25(stemmer="none"), Bm25(stop_words="none"), Bm25(k1=1.2), Bm25(b=0.7)]
    for count, way in enumerate(ways, 1):
        bm25_run(str(tmp_path / "p.tsv"), {"q": "bees"}, 1, way)
        assert indexes() == count
    monkeypatch.setattr("Stemmer.version", lambda: "99")
    for way in ways:
        bm25_run(str(tmp_path / "p.tsv"), {"q": "bees"}, 1, way)
    assert indexes() == 2 * len(ways) - 1  # without a stemmer, its version has no effect


@pytest.mark.shared
def test_bm25_made_here_is_the_reference_run_on_cranfield(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    folder = shared / "data" / "cranfield"
    overrides = [f"task.passages={folder / 'docs.tsv'}", f"task.queries={folder / 'queries.tsv'}", "task.run=bm25"]
    overrides += ["task.bm25.stemmer=none", "task.bm25.stop_words=bm25s"]
    task = read_task(compose_config("evaluate", "task=files", *overrides, f"task.qrels={folder / 'qrels.txt'}").task)
    expected = read_run(str(folder / "bm25.run"))
    assert set(task.run) == set(expected)
    for query_id, theirs in expected.items():
        ours, theirs = task.run[query_id], theirs.keep(theirs.scores > 0)  # the rest shares no word with the query
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)  # theirs were added in float32
        one, other = (dict(zip(ranked.doc_ids, ranked.scores, strict=True)) for ranked in (ours, theirs))
        for doc_id in one.keys() | other.keys():  # only ties with the last may be in one run and not in the other
            score, last = one.get(doc_id, ours.scores[-1]), other.get(doc_id, theirs.scores[-1])
            assert score == pytest.approx(last, rel=1e-5), (query_id, doc_id)
    assert measure(task.run, task.qrels, task.measures)[0]["nDCG@10"] == pytest.approx(0.348, abs=0.0005)


@pytest.mark.shared
def test_bm25_made_here_has_the_published_value_on_nfcorpus(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    folder = shared / "data" / "nfcorpus"
    overrides = [f"task.passages={folder / 'corpus.jsonl.gz'}", f"task.queries={folder / 'queries.test.tsv'}"]
    overrides += [f"task.qrels={folder / 'qrels.test.tsv.gz'}", "task.run=bm25", "task.depth=100"]
    task = read_task(compose_config("evaluate", "task=files", *overrides).task, texts=False)
    values, per_query = measure(task.run, task.qrels, task.measures)
    assert len(per_query) == 323
    assert values["nDCG@10"] == pytest.approx(0.3218, abs=0.004)  # Anserini, title and text as one
