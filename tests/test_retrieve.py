"""`distill retrieve` as its user types it: BM25's run, and encoders against every pair compared one by one."""

import json
import subprocess

import pytest
import torch

from distill.config.rules import check_rules
from distill.errors import InputError
from distill.jobs import check_output
from distill.retrieval.bm25 import bm25_run
from distill.retrieval.encoders import _keep, _load, _with_block, encoder_rerank, encoder_run
from distill.sources.run_files import RankedList, write_run
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config


def run_retrieve(*overrides, cwd) -> subprocess.CompletedProcess:
    return run("-m", "distill", "retrieve", *overrides, cwd=cwd)


@pytest.fixture
def sources(collection, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return [f"passages={collection['passages']}", f"queries={collection['queries']}", f"output={tmp_path / 'f.run'}"]


def test_bm25s_run_is_one_that_training_reads(sources, tmp_path):
    run = run_retrieve(*sources, "depth=5", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    found = read_run(str(tmp_path / "f.run"))
    assert set(found) <= {f"q{i}" for i in range(6)} and all(0 < len(ranked) <= 5 for ranked in found.values())
    assert "passages each: " in run.stderr
    again = run_retrieve(*sources[:2], "output=g.run", "depth=5", "bm25.k1=2.0", cwd=tmp_path)
    other = read_run(str(tmp_path / "g.run"))
    assert again.returncode == 0 and other["q0"].scores[0] != found["q0"].scores[0]  # another k1, another index


def test_only_the_run_is_written_and_never_over_another_file(sources, tmp_path):
    before = set(tmp_path.rglob("*"))
    assert run_retrieve(*sources, cwd=tmp_path).returncode == 0
    written = (tmp_path / "f.run").read_bytes()
    again = run_retrieve(*sources, "bm25.k1=2", cwd=tmp_path)
    assert again.returncode == 2 and (tmp_path / "f.run").read_bytes() == written
    assert f"error: output={tmp_path / 'f.run'}: already exists: choose another name, or remove it" in again.stderr
    found = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert {path.relative_to(tmp_path).parts[0] for path in found} == {"f.run", "cache"}
    assert not list((tmp_path / "outputs").rglob("*.*")) and not list((tmp_path / "outputs").rglob(".hydra"))
    assert run_retrieve(*sources[:2], cwd=tmp_path).returncode == 0
    [run] = (tmp_path / "outputs" / "retrieve").rglob("*.run")
    assert run.name == "first_stage.run" and run.read_bytes() == written and len(list(run.parent.iterdir())) == 1


def test_the_keys_of_bm25_reach_the_index(sources, collection, tmp_path):
    (tmp_path / "q.tsv").write_text("q0\tdancing of the bees\n")
    (tmp_path / "p.tsv").write_text("d0\tthe bee dances\nd1\tbees\nd2\tof\nd3\tdancing\n")
    found = {}
    for name, overrides in {
        "default": [],
        "plain": ["bm25.stemmer=none", "bm25.stop_words=bm25s"],
        "all": ["bm25.stemmer=none", "bm25.stop_words=none"],
    }.items():
        files = [f"passages={tmp_path}/p.tsv", f"queries={tmp_path}/q.tsv", f"output={tmp_path}/{name}.run"]
        assert run_retrieve(*files, *overrides, cwd=tmp_path).returncode == 0
        found[name] = read_run(str(tmp_path / f"{name}.run"))["q0"].doc_ids
    assert found["default"] == ["d0", "d1", "d3"]  # d1 and d3 hold one of both stems each: as in the source
    assert found["plain"] == ["d1", "d3"]
    assert found["all"] == ["d1", "d2", "d3", "d0"]  # d0 holds only "the"


def encoder(tmp_path, kind: str):
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
    from transformers import AutoConfig, BertForMaskedLM

    directory = make_backbone(tmp_path / "bert", words=WORDS)
    if kind == "dense":
        transformer = Transformer(str(directory))
        model = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    else:
        torch.manual_seed(0)
        masked = BertForMaskedLM(AutoConfig.from_pretrained(directory))
        torch.nn.init.normal_(masked.cls.predictions.decoder.weight, std=0.5)
        masked.save_pretrained(directory)
        model = SparseEncoder(modules=[MLMTransformer(str(directory)), SpladePooling()], device="cpu")
    model.save(str(tmp_path / kind))
    return model


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_pickled_weights_of_an_encoder_are_never_opened(collection, tmp_path, kind, monkeypatch):
    encoder(tmp_path, kind)
    weights = next((tmp_path / kind).rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    monkeypatch.setattr(torch, "load", None)
    files = [f"passages={collection['passages']}", f"queries={collection['queries']}", f"output={tmp_path}/o.run"]
    done = run_retrieve(*files, f"method={kind}", f"model={tmp_path / kind}", cwd=tmp_path)
    assert done.returncode == 2 and "pytorch_model.bin: is a pickle, which is never opened" in done.stderr


def test_the_precision_asked_for_is_that_of_the_weights(tmp_path):
    encoder(tmp_path, "dense").half().save(str(tmp_path / "half"))
    loaded = _load(str(tmp_path / "half"), "dense", torch.device("cpu"))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_an_encoder_keeps_each_querys_best_over_all_blocks(collection, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("distill.retrieval.encoders.BLOCK", 7)  # of 30 passages: the best come from several blocks
    model = encoder(tmp_path, kind)
    queries = read_queries(str(collection["queries"]))
    passages = read_passages(str(collection["passages"]), {f"d{i}" for i in range(30)})
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    options = (str(collection["passages"]), queries, 10, str(tmp_path / kind), kind, 4, torch.device("cpu"))
    run, stored = encoder_run(*options), encoder_run(*options, vectors="float32")
    assert (tmp_path / "cache" / "vectors").is_dir() == (kind == "dense")
    for query_id, text in queries.items():
        scores = {}
        for doc_id, passage in passages.items():
            one, other = (encode([t], convert_to_tensor=True) for encode, t in
                          ((model.encode_query, text), (model.encode_document, passage)))  # fmt: skip
            scores[doc_id] = model.similarity(one, other).item()
        expected = sorted(scores.values(), reverse=True)[:10]
        assert run[query_id].scores.tolist() == pytest.approx(expected, rel=1e-4)
        found = [scores[doc_id] for doc_id in run[query_id].doc_ids]
        assert found == pytest.approx(run[query_id].scores.tolist(), rel=1e-4)
        assert stored[query_id].scores.tolist() == pytest.approx(expected, rel=1e-4)


def test_texts_that_an_encoder_does_not_know_are_warned_of_once(collection, tmp_path, caplog):
    encoder(tmp_path, "dense")
    (tmp_path / "p.tsv").write_text("".join(f"d{n}\t蜜蜂\n" for n in range(5)), encoding="utf-8")
    queries = {"q": read_passages(str(collection["passages"]), {"d1"})["d1"]}
    encoder_run(str(tmp_path / "p.tsv"), queries, 5, str(tmp_path / "dense"), "dense", 4, torch.device("cpu"))
    said = [record.message for record in caplog.records if "unknown to the model" in record.message]
    assert [line.partition(" of their")[0] for line in said] == ["passages: 100%"]


def test_passages_of_equal_similarity_keep_the_order_of_the_source_also_at_the_cut():
    best, rows = torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.long)
    for first, block in ((0, [1.0, 3.0, 1.0, 1.0]), (4, [1.0, 3.0, 1.0]), (7, [0.0, 1.0])):
        places = torch.arange(first, first + len(block)).unsqueeze(0)
        best, rows = _keep(torch.cat([best, torch.tensor([block])], 1), torch.cat([rows, places], 1), depth=4)
    assert best.tolist() == [[3.0, 3.0, 1.0, 1.0]] and rows.tolist() == [[1, 5, 0, 2]]


def test_the_best_of_many_blocks_are_those_of_a_stable_sort():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-20, 20, (40, 500), generator=generator) / 8.0  # many ties, on both sides of 0
    scores[scores == 1] *= -0.0
    for depth in (1, 7, 100, 600):
        best, rows = torch.zeros(40, 0), torch.zeros(40, 0, dtype=torch.long)
        for first in range(0, 500, 60):
            best, rows = _with_block(best, rows, scores[:, first : first + 60], first, depth)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :depth]
        assert torch.equal(rows, order) and torch.equal(best, scores.gather(1, order))


def test_a_similarity_that_is_not_finite_is_refused(collection, tmp_path):
    model = encoder(tmp_path, "dense")
    torch.nn.init.constant_(model[0].auto_model.embeddings.LayerNorm.weight, float("nan"))
    model.save(str(tmp_path / "damaged"))
    queries = read_queries(str(collection["queries"]))
    with pytest.raises(InputError, match="query q0 and passage d0 have a similarity of nan: "):
        encoder_run(str(collection["passages"]), queries, 5, str(tmp_path / "damaged"), "dense", 4, torch.device("cpu"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["passages=nope.tsv"], "passages=nope.tsv: no such file"),
        (["method=dense"], "method=dense needs model, an encoder's directory or Hub id"),
        (["method=dense", "model=./nowhere"], "model=./nowhere: cannot be loaded as a dense encoder"),
        (["method=bm52"], "method=bm52 is unknown: choose one of bm25, dense, sparse"),
        (["bm25.b=2"], "bm25.b=2.0: must be between 0 and 1"),
        (["k1=2"], "k1: did you mean bm25.k1?"),
        (["bm25.stop_words=en"], "bm25.stop_words=en is unknown: choose one of lucene, bm25s, none"),
        (["bm25.stemmer=poter"], "bm25.stemmer=poter is unknown: choose one of porter, none, bigrams, auto, arabic"),
        (["depth=0"], "depth=0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(sources, tmp_path, overrides, message):
    run = run_retrieve(*sources, *overrides, cwd=tmp_path)
    assert run.returncode == 2 and f"error: {message}" in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "f.run").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", "is a directory: name a file in it"),
        ("passages.tsv", "is one of the inputs, which would be lost"),
        ("passages.tsv/f.run", "cannot be written"),
        ("f" * 250, "cannot be written"),
        ("f.run.gz", "is written as a TREC run, plain, but whoever reads it goes by .gz: choose a name without that"),
        ("f.parquet", "goes by .parquet"),
        ("f.jsonl", "goes by .jsonl"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(collection, tmp_path, output, message):
    before = sorted(tmp_path.iterdir()), collection["passages"].read_bytes()
    with pytest.raises(InputError, match=message):
        check_output(tmp_path / output, str(collection["passages"]), str(collection["queries"]))
    assert (sorted(tmp_path.iterdir()), collection["passages"].read_bytes()) == before


def test_named_fields_of_csv_and_jsonl_are_retrieved(sources, collection, tmp_path):
    rows = [line.split("\t") for line in collection["passages"].read_text().splitlines()]
    (tmp_path / "p.csv").write_text("\n".join(["sku,title,body", *(f"{doc_id},a bee,{text}" for doc_id, text in rows)]))
    lines = [json.dumps({"nr": 7, "ask": "bee"}), json.dumps({"nr": 8, "ask": ""})]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    fields = ["id_field=sku", "text_fields=[title,body]", "query_id_field=nr", "query_text_fields=[ask]"]
    run = run_retrieve(*sources[2:], f"passages={tmp_path}/p.csv", f"queries={tmp_path}/q.jsonl", *fields, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "1 of 2 queries have no text: left out (first: 8)" in run.stderr
    assert {q: set(one.doc_ids) for q, one in read_run(str(tmp_path / "f.run")).items()} == {"7": {d for d, _ in rows}}


@pytest.mark.parametrize("line", ["d5\tagain", "d 5\ta bee", "\ta bee"], ids=["twice", "blank", "empty"])
@pytest.mark.parametrize("method", ["bm25", "dense"])
def test_bad_ids_are_refused_before_any_work(collection, tmp_path, monkeypatch, line, method):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    with open(collection["passages"], "a") as file:
        file.write(line + "\n")
    messages = {
        "d5\tagain": "31: id d5 appears twice",
        "d 5\ta bee": "31: id 'd 5' holds a space",
        "\ta bee": "31: id is",
    }
    queries = read_queries(str(collection["queries"]))
    with pytest.raises(InputError, match=f"passages.tsv:{messages[line]}"):
        if method == "bm25":
            bm25_run(str(collection["passages"]), queries, 5)
        else:
            encoder_run(str(collection["passages"]), queries, 5, "./nowhere", "dense", 4, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_an_encoder_orders_the_passages_of_a_run_as_it_orders_the_collection(kind, collection, tmp_path):
    encoder(tmp_path, kind)
    source, queries = str(collection["passages"]), read_queries(str(collection["queries"]))
    options = (str(tmp_path / kind), kind, 4, torch.device("cpu"))
    whole = encoder_run(source, queries, 10_000, *options)
    few = {
        query_id: RankedList.in_order(ranked.doc_ids[5:1:-1], ranked.scores[2:6]) for query_id, ranked in whole.items()
    }
    write_run(few, tmp_path / "few.run", tag="few")
    reranked = encoder_rerank(source, queries, str(tmp_path / "few.run"), 3, *options)
    for query_id, ranked in reranked.items():
        assert ranked.doc_ids == whole[query_id].doc_ids[2:5]
        assert ranked.scores == pytest.approx(whole[query_id].scores[2:5], abs=1e-5)


def test_bm25_does_not_reorder_a_run(sources, tmp_path):
    (tmp_path / "r.run").write_text("q0 Q0 d0 1 1.0 x\n")
    refused = run_retrieve(*sources, f"run={tmp_path / 'r.run'}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "method=bm25: only encoders order the passages of a run: set run=null" in refused.stderr


@pytest.mark.parametrize("key", ["index=hnsw", "vectors=float16"])
def test_what_a_search_keeps_is_refused_beside_a_run(sources, tmp_path, key):
    (tmp_path / "r.run").write_text("q0 Q0 d0 1 1.0 x\n")
    dense = [f"run={tmp_path / 'r.run'}", "method=dense", "model=any", "vectors=float32", key]
    refused = run_retrieve(*sources, *(dense if key != "vectors=float16" else [*dense[:3], key]), cwd=tmp_path)
    assert refused.returncode == 2
    assert ": is of a search of all passages, but run=FILE gives those to order: leave it out" in refused.stderr


def test_bm25_has_no_encoder(tmp_path):
    (tmp_path / "texts.tsv").write_text("1\ta text\n")
    texts = tmp_path / "texts.tsv"
    cfg = compose_config("retrieve", f"passages={texts}", f"queries={texts}", "model=DIR", "output=o.run")
    with pytest.raises(InputError, match="model=DIR and method=bm25: it uses no encoder: set method=dense or sparse"):
        check_rules(cfg)
