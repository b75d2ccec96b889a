"""A dense encoder's vectors on disk: the run of a single pass bit for bit, stops, damage, and graphs."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from distill import device
from distill.config.rules import check_rules
from distill.errors import InputError
from distill.retrieval import encoders, graphs, vectors
from distill.retrieval.encoders import encoder_run
from distill.sources.run_files import Run
from tests.helpers.backbones import WORDS
from tests.helpers.configuration import compose_config

QUERIES = {f"q{n}": " ".join(random.Random(n).choices(WORDS, k=3)) for n in range(9)}


SIMILARITIES = {
    "cosine": lambda one, other: torch.nn.functional.normalize(one) @ torch.nn.functional.normalize(other).T,
    "dot": lambda one, other: one @ other.T,
    "euclidean": lambda one, other: -torch.cdist(one, other),
    "manhattan": lambda one, other: -torch.cdist(one, other, p=1),
}


class Encoder(torch.nn.Module):
    """What is used of a sentence-transformers model, whose import takes seconds: means of random vectors of words."""

    prompts, default_prompt_name, max_seq_length = {}, None, 512

    def __init__(self, similarity: str, seed: int = 0, scale: float = 1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.words = torch.nn.Parameter(torch.randn(len(WORDS), 8) * scale)
        self.similarity_fn_name, self.similarity = similarity, SIMILARITIES[similarity]

    def encode_document(self, texts, **options):
        return torch.stack([self.words[[WORDS.index(word) for word in text.split()]].mean(0) for text in texts])

    encode_query = encode_document


@pytest.fixture
def source(tmp_path, monkeypatch) -> str:
    """90 passages in parts of 20 and blocks of 5; every fifth is a copy of the first."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    for module in (encoders, vectors):
        monkeypatch.setattr(module, "BLOCK", 5)
    for module in (vectors, graphs):
        monkeypatch.setattr(module, "PART", 20)
    monkeypatch.setattr(graphs, "GRAPH", 40)
    draw = random.Random(1)
    texts = [WORDS[0] if n % 5 == 0 else " ".join(draw.choices(WORDS, k=1 + n % 6)) for n in range(90)]
    (tmp_path / "p.tsv").write_text("".join(f"d{n * 37 % 97}\t{text}\n" for n, text in enumerate(texts)))
    return str(tmp_path / "p.tsv")


@pytest.fixture
def use(monkeypatch):
    """Use another encoder from here on."""

    def using(*arguments, **options):
        monkeypatch.setattr(encoders, "_load", lambda *given: Encoder(*arguments, **options))

    using("cosine")
    return using


def retrieve(source: str, depth: int = 10, **options) -> dict:
    return as_lists(encoder_run(source, QUERIES, depth, "name", "dense", 4, torch.device("cpu"), **options))


def as_lists(run: Run) -> dict:
    return {query_id: (ranked.doc_ids, ranked.scores.tolist()) for query_id, ranked in run.items()}


def directory(tmp_path) -> Path:
    [found] = (path for path in (tmp_path / "cache" / "vectors").iterdir() if path.is_dir())
    return found


def parts(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in place.iterdir() if path.is_dir()}


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many passages each call of the encoder got."""
    sizes, encode = [], encoders._Encoder.encode

    def counting(self, texts, kind):
        sizes.extend([len(texts)] if kind == "document" else [])
        return encode(self, texts, kind)

    monkeypatch.setattr(encoders._Encoder, "encode", counting)
    return sizes


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_stored_vectors_give_the_run_of_a_single_pass_bit_for_bit(
    source, tmp_path, monkeypatch, use, similarity, encoded
):
    use(similarity)
    whole = {depth: retrieve(source, depth) for depth in (3, 10, 200)}
    encoded.clear()
    assert {depth: retrieve(source, depth, vectors="float32") for depth in whole} == whole
    assert encoded == [5] * 18  # once for three calls
    with monkeypatch.context() as few:
        few.setattr(encoders, "QUERIES", 4)
        for query_id, (_, scores) in retrieve(source, vectors="float32").items():
            assert scores == pytest.approx(whole[10][query_id][1], abs=1e-6)
    assert sorted(parts(directory(tmp_path))) == [f"part-{n:03d}" for n in range(5)]


def test_vectors_belong_to_one_encoder_one_precision_and_one_source(source, tmp_path, use, encoded):
    first = retrieve(source, vectors="float32")
    use("cosine", seed=1)
    assert retrieve(source, vectors="float32") != first and len(encoded) == 36
    use("cosine")
    half = retrieve(source, vectors="float16")
    for query_id, (_, scores) in half.items():
        assert scores == pytest.approx(first[query_id][1], abs=2e-3) and scores != first[query_id][1]
    assert len(encoded) == 54
    with open(source, "a") as file:
        file.write("new\ta bee\n")
    retrieve(source, vectors="float32")
    assert sum(encoded[54:]) == 91


def test_a_source_of_whole_parts_has_no_empty_part(source, tmp_path, use):
    lines = Path(source).read_text().splitlines(keepends=True)[:40]
    Path(source).write_text("".join(lines))
    assert retrieve(source, 200, vectors="float32") == retrieve(source, 200)
    assert sorted(parts(directory(tmp_path))) == ["part-000", "part-001"]


def test_a_stopped_encoding_resumes_at_the_next_part(source, tmp_path, use, monkeypatch, encoded, caplog):
    caplog.set_level("INFO")
    expected = retrieve(source)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        write, numbers = vectors.write_part, iter(range(3))
        stopped.setattr(vectors, "write_part", lambda *given: write(*given) if next(numbers, 2) < 2 else interrupt())
        retrieve(source, vectors="float32")
    [partial] = (tmp_path / "cache" / "vectors").glob("*.partial")
    before = parts(partial)
    (partial / "part-000" / "vectors.npy").write_bytes(b"damaged")
    encoded.clear()
    assert retrieve(source, vectors="float32") == expected
    assert encoded == [5] * 14  # the first part again, and the three that were missing
    assert parts(directory(tmp_path))["part-001"] == before["part-001"] and len(before) == 2


def interrupt():
    raise KeyboardInterrupt


def test_a_damaged_part_is_encoded_again_by_itself(source, tmp_path, use, encoded):
    expected, place = retrieve(source, vectors="float32"), directory(tmp_path)
    before = parts(place)
    for name in ("part-001/ids.npy", "part-004/vectors.npy"):
        (place / name).write_bytes((place / name).read_bytes()[:-1])
    encoded.clear()
    assert retrieve(source, vectors="float32") == expected
    after = parts(place)
    assert {name for name in before if before[name] != after[name]} == {"part-001", "part-004"}
    assert encoded == [5] * 6


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_graphs_that_compare_everything_give_the_exact_run(source, tmp_path, use, monkeypatch, similarity):
    pytest.importorskip("faiss")
    use(similarity)
    exact = retrieve(source, 200, vectors="float32")
    found = retrieve(source, 200, vectors="float32", index="hnsw")
    for query_id, (doc_ids, scores) in found.items():
        assert scores == pytest.approx(exact[query_id][1][: len(scores)], abs=1e-6) and len(doc_ids) > 80
    names = [f"{similarity}-{n:03d}" for n in range(3)]
    built = {name: inode for name, inode in parts(directory(tmp_path)).items() if name in names}
    assert sorted(built) == names
    (directory(tmp_path) / names[1] / graphs.FILE).write_bytes(b"damaged")
    assert retrieve(source, 200, vectors="float32", index="hnsw") == found
    after = parts(directory(tmp_path))
    assert {name for name in names if after[name] != built[name]} == {names[1]}


def test_what_graphs_cannot_do_is_said_before_the_work(source, tmp_path, use, monkeypatch, encoded):
    pytest.importorskip("faiss")
    use("manhattan")
    with pytest.raises(InputError, match="compares by manhattan, which graphs cannot: set index=exact"):
        retrieve(source, vectors="float32", index="hnsw")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="faiss is not installed: pip install faiss-cpu, or index=exact"):
        retrieve(source, vectors="float32", index="hnsw")
    assert not encoded


def test_values_beyond_float16_are_refused_at_the_first_block(source, tmp_path, use, encoded):
    use("dot", scale=1e6)
    with pytest.raises(InputError, match="vectors=float16: the encoder has values above 65504: set vectors=float32"):
        retrieve(source, vectors="float16")
    assert encoded == [5]
    retrieve(source, vectors="float32")


def test_a_damaged_encoder_is_refused_at_the_first_block(source, tmp_path, use, encoded):
    use("cosine", scale=float("nan"))
    with pytest.raises(InputError, match="query q0 and passage d0 have a similarity of nan: "):
        retrieve(source, vectors="float32")
    assert encoded == [5]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["vectors=int8"], "vectors=int8 is unknown: choose one of float32, float16"),
        (["index=flat"], "index=flat is unknown: choose one of exact, hnsw"),
        (["index=hnsw"], "index=hnsw with method=bm25: graphs are of dense vectors: set it to exact"),
        (["index=hnsw", "method=sparse", "model=m"], "index=hnsw with method=sparse: graphs are of dense vectors"),
        (["index=hnsw", "method=dense", "model=m", "vectors=null"], "with vectors=null: graphs need the vectors in"),
    ],
)
def test_keys_that_do_not_belong_together_are_refused(source, overrides, message):
    cfg = compose_config("retrieve", f"passages={source}", f"queries={source}", "output=o.run", *overrides)
    with pytest.raises(InputError, match=message):
        check_rules(cfg)


def test_rows_of_several_parts_are_found_in_any_order(source, tmp_path, use):
    retrieve(source, vectors="float32")
    stored = vectors.Vectors(directory(tmp_path))
    everything = np.concatenate(list(stored.blocks()))
    rows = np.array([89, 3, 41, 3, 20, 19])
    assert (stored.of(rows) == everything[rows]).all() and stored.id_of(41) == f"d{41 * 37 % 97}"
    assert np.concatenate(list(stored.blocks(40, 80))).tolist() == everything[40:80].tolist()


def test_what_a_tokenizer_is_does_not_depend_on_what_it_has_read(backbone):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    before = encoders._definition(tokenizer)
    tokenizer(["a bee", "a bee finds the sun"], padding=True, truncation=True, max_length=4)
    assert tokenizer.backend_tokenizer.truncation and encoders._definition(tokenizer) == before
    assert encoders._definition(None) == "None"


def test_a_measured_precision_is_that_of_the_vectors_which_are_there(source, use, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t: avx512_bf16\n")
    monkeypatch.setattr(device, "FEW_WEIGHTS", 0)
    monkeypatch.setattr(encoders._Encoder, "_pass", lambda self, num_tokens: (None, num_tokens))
    monkeypatch.setattr(device, "time_precisions", lambda *_: (2.0, 1.0))
    precisions, encode = set(), encoders._Encoder.encode
    monkeypatch.setattr(
        encoders._Encoder, "encode", lambda self, *given: (precisions.add(self.precision), encode(self, *given))[1]
    )
    before = retrieve(source, vectors="float32")
    encoded.clear()
    assert retrieve(source, vectors="float32", precision="auto") == before and not encoded
    assert precisions == {torch.float32}
    assert retrieve(source, vectors="float16", precision="auto") and sum(encoded) == 90  # there are none: measured
    assert precisions == {torch.float32, torch.bfloat16}
