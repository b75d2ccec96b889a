"""The bundled sample: made as its script makes it, and a fair task. tests/test_examples.py: it is learned."""

import gzip
import random
import sys

import numpy as np
import pytest

from distill.config.measures import parse_measures
from distill.evaluation.measures import measure
from distill.sources.qrels import read_qrels
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT
from train import train

SAMPLE = ROOT / "sample"
SPLITS = ("train", "val", "test")
NDCG = parse_measures(["nDCG@10"])


def read_split(name: str):
    folder = SAMPLE / name
    runs = [read_run(str(folder / f"{run}.run.gz")) for run in ("first_stage", "teacher")]
    return read_queries(str(folder / "queries.tsv")), *runs, read_qrels(str(folder / "qrels.txt.gz"))


def ndcg(run, qrels) -> float:
    return measure(run, qrels, NDCG)[0]["nDCG@10"]


def rerank_by(run, key):
    """The run in ascending order of a key, ties at random."""
    rng = random.Random(0)
    orders = {q: sorted(ranked.doc_ids, key=lambda doc_id: (key(doc_id), rng.random())) for q, ranked in run.items()}
    places = np.arange(100.0)
    return {query_id: RankedList(order, -places, places + 1) for query_id, order in orders.items()}


def test_the_script_makes_the_files_as_they_are(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SAMPLE))
    import generate

    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    generate.main()
    names = ["passages.tsv", *(f"{s}/{n}" for s in SPLITS for n in ("queries.tsv", "qrels.txt.gz"))]
    names += [f"{s}/{n}.run.gz" for s in SPLITS for n in ("first_stage", "teacher")]
    for name in names:
        made, kept = (path.read_bytes() for path in (tmp_path / name, SAMPLE / name))
        if name.endswith(".gz"):  # other zlib versions compress the same content to other bytes
            made, kept = gzip.decompress(made), gzip.decompress(kept)
        assert made == kept, name
    del sys.modules["generate"]


def test_the_sample_is_small():
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 2_000_000


def test_splits_share_neither_queries_nor_passages():
    ids, texts, doc_ids = [], [], []
    for name in SPLITS:
        queries, first_stage, teacher, _ = read_split(name)
        ids += queries
        texts += queries.values()
        retrieved = {doc_id for ranked in first_stage.values() for doc_id in ranked.doc_ids}
        assert retrieved == {doc_id for ranked in teacher.values() for doc_id in ranked.doc_ids}
        assert all(len(ranked) == 100 for ranked in first_stage.values())
        doc_ids += retrieved
    assert len(set(ids)) == len(ids) and len(set(texts)) == len(texts) and len(set(doc_ids)) == len(doc_ids)
    passages = read_passages(str(SAMPLE / "passages.tsv"), set(doc_ids))
    assert len(set(passages.values())) == len(passages)


@pytest.mark.parametrize("name", SPLITS)
def test_the_first_stage_is_well_below_the_teacher_and_there_is_no_shortcut(name):
    _, first_stage, teacher, qrels = read_split(name)
    assert ndcg(first_stage, qrels) < ndcg(teacher, qrels) - 0.2
    perfect = {q: rerank_by({q: first_stage[q]}, lambda doc_id, q=q: -qrels[q].get(doc_id, 0))[q] for q in first_stage}
    assert ndcg(perfect, qrels) - 0.02 < ndcg(teacher, qrels) < ndcg(perfect, qrels) - 0.005
    passages = read_passages(
        str(SAMPLE / "passages.tsv"), {d for ranked in first_stage.values() for d in ranked.doc_ids}
    )
    by_chance = ndcg(rerank_by(first_stage, lambda doc_id: 0), qrels)
    keys = {"length": lambda doc_id: len(passages[doc_id].split()), "id": lambda doc_id: int(doc_id[1:])}
    for key in keys.values():
        for sign in (1, -1):
            assert ndcg(rerank_by(first_stage, lambda doc_id, k=key, s=sign: s * k(doc_id)), qrels) < by_chance + 0.1


@pytest.mark.long
def test_more_queries_and_longer_lists_help_at_equal_steps(tmp_path):
    cells = {}
    for queries, depth in [(25, 25), (400, 25), (400, 5)]:
        more = ["experiment=figure1-mini", f"data.num_queries={queries}", f"data.depth={depth}"]
        results = train(compose_config("train", *more), tmp_path / f"{queries}-{depth}")
        cells[queries, depth] = results["test/sample/nDCG@10"]
    assert cells[400, 25] > cells[25, 25] + 0.02
    assert cells[400, 25] > cells[400, 5] + 0.02
