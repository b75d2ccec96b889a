"""Token stores on disk: the tokens of memory, made once, resumed, never trusted when damaged or outdated."""

import json
import os
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import distill.data.lists
import distill.data.teacher_lists
import distill.data.token_store
from distill.data.lists import read_lists
from distill.data.loader import BatchLoader
from distill.data.pairs import PairTemplate
from distill.data.token_store import open_token_store
from distill.data.tokens import TokenStore, token_type
from distill.errors import InputError
from distill.sources.texts import iterate_texts
from distill.storage.arrays import FlatFile
from tests.helpers.backbones import make_backbone
from tests.helpers.configuration import compose_config, decoded_lists
from tests.helpers.paths import ROOT

TEXTS = {f"d{n}": " ".join(["bee", "ant", "rails of iron", "snow"][: n % 5]) + f" number {n}" for n in range(60)}
TEXTS |= {"empty": "", "wide": "Straße 東京 naïve\u00a0café 🐝 x₂"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.tsv"
    path.write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in TEXTS.items()))
    return path


@pytest.fixture
def in_process(in_process, monkeypatch):
    """Tokenise in this process, in chunks of ten."""
    monkeypatch.setattr("distill.data.tokens.CHUNK", 10)


def all_tokens(store) -> np.ndarray:
    return store.tokens[0 : len(store.tokens)]


def make_tokenizer(kind: str, texts=None, size: int = 300):
    """Train a small tokenizer of one of the three kinds on the texts."""
    specials = {"special_tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "vocab_size": size, "show_progress": False}
    if kind == "wordpiece":
        tokenizer, trainer = Tokenizer(models.WordPiece(unk_token="[UNK]")), trainers.WordPieceTrainer(**specials)
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    elif kind == "byte-level BPE":
        tokenizer, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer(**specials)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(unk_token="[UNK]", **specials)
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(texts or TEXTS.values(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE", "SentencePiece"])
def test_disk_memory_and_the_tokenizer_itself_give_the_same_ids(passages, in_process, kind):
    tokenizer = make_tokenizer(kind)
    disk, memory = open_token_store(str(passages), tokenizer, 6), TokenStore.of(tokenizer, TEXTS, 6)
    for row, (doc_id, text) in enumerate(TEXTS.items()):
        # the collection's reader makes one blank of any white space
        expected = tokenizer(" ".join(text.split()), add_special_tokens=False, truncation=True, max_length=6)
        assert disk[row].tolist() == expected["input_ids"]
        if text == " ".join(text.split()):
            assert memory[row].tolist() == expected["input_ids"]
        assert disk.text_id(row) == doc_id
    assert disk.rows([*TEXTS, "absent"]).tolist() == [*range(len(TEXTS)), -1]
    assert disk.tokens.dtype == np.uint16


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE", "SentencePiece"])
def test_every_passage_of_the_sample_has_the_tokenizers_ids(kind):
    check_collection(ROOT / "sample" / "passages.tsv", kind)


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE", "SentencePiece"])
def test_every_passage_of_cranfield_has_the_tokenizers_ids(shared, kind):
    check_collection(shared / "data" / "cranfield" / "docs.tsv", kind)


def check_collection(path, kind: str) -> None:
    """Compare the store on disk and the one in memory with the tokenizer's own way, passage by passage."""
    texts = dict(iterate_texts(str(path), "passages"))
    tokenizer = make_tokenizer(kind, texts.values(), 2000)
    disk, memory = open_token_store(str(path), tokenizer, 100), TokenStore.of(tokenizer, texts, 100)
    assert len(disk) == len(memory) == len(texts) > 1000
    for row, (text_id, text) in enumerate(texts.items()):
        expected = tokenizer(text, add_special_tokens=False, truncation=True, max_length=100)["input_ids"]
        assert disk[row].tolist() == memory[row].tolist() == expected
        assert disk.text_id(row) == text_id


def test_several_processes_keep_the_order(passages, backbone, monkeypatch):
    monkeypatch.setattr("distill.data.tokens.CHUNK", 7)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    disk, memory = open_token_store(str(passages), tokenizer, 8), TokenStore.of(tokenizer, TEXTS, 8)
    np.testing.assert_array_equal(disk.offsets, memory.offsets)
    assert all(disk[row].tolist() == memory[row].tolist() for row in range(len(TEXTS)))


def test_a_killed_process_is_one_line_and_the_rest_is_kept(passages, backbone, monkeypatch, cache):
    def killed(*_, **__):
        raise BrokenProcessPool

    with monkeypatch.context() as patched:
        patched.setattr(distill.data.token_store.Future, "result", killed)
        with pytest.raises(InputError, match="a tokenising process was killed, .* repeated, it goes on from there"):
            open_token_store(str(passages), AutoTokenizer.from_pretrained(backbone), 8)
    assert list(cache.rglob("*partial*"))


def test_the_texts_that_were_cut_are_known_on_disk_as_in_memory(passages, backbone, in_process):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    stored, kept = open_token_store(str(passages), tokenizer, 3), TokenStore.of(tokenizer, TEXTS, 3)
    longer = [
        text_id for text_id, text in TEXTS.items() if len(tokenizer(text, add_special_tokens=False).input_ids) > 3
    ]
    assert stored.cut_ids() == kept.cut_ids() == longer and 10 < len(longer) < len(TEXTS)


def test_token_ids_have_the_smallest_type_that_holds_the_vocabulary():
    assert token_type(range(2**16)) == np.uint16 and token_type(range(2**16 + 1)) == np.uint32


def test_a_stopped_run_goes_on_where_it_was(passages, backbone, in_process, monkeypatch, cache):
    tokenizer, encode = AutoTokenizer.from_pretrained(backbone), distill.data.token_store._encode_in_processes
    tokenised = []

    def stopping(chunks, *arguments):
        for number, chunk in enumerate(encode(chunks, *arguments)):
            if number == 3 and not tokenised:
                raise KeyboardInterrupt
            yield chunk

    def counting(chunks, *arguments):
        for chunk in encode(chunks, *arguments):
            tokenised.append(len(chunk.lengths))
            yield chunk

    monkeypatch.setattr(distill.data.token_store, "_encode_in_processes", stopping)
    with pytest.raises(KeyboardInterrupt):
        open_token_store(str(passages), tokenizer, 8)
    (partial,) = cache.glob("*.partial")
    with open(partial / "tokens", "ab") as file:
        file.write(b"half a chunk")  # written, but not yet in the journal
    monkeypatch.setattr(distill.data.token_store, "_encode_in_processes", counting)
    store = open_token_store(str(passages), tokenizer, 8)
    assert sum(tokenised) == len(TEXTS) - 30
    expected = TokenStore.of(tokenizer, TEXTS, 8)
    np.testing.assert_array_equal(all_tokens(store), expected.tokens)
    assert store.rows(list(TEXTS)).tolist() == list(range(len(TEXTS)))
    assert not list(cache.glob("*.partial"))


def test_a_store_is_made_once_for_source_tokenizer_and_length(passages, backbone, in_process, tmp_path, cache):
    tokenizer = AutoTokenizer.from_pretrained(backbone)

    def stores() -> int:
        return len([path for path in cache.iterdir() if path.is_dir()])

    open_token_store(str(passages), tokenizer, 8)
    tokenizer(["a bee"] * 2, padding=True, truncation=True, max_length=3)  # leaves its options in the tokenizer
    open_token_store(str(passages), tokenizer, 8)
    assert stores() == 1
    open_token_store(str(passages), tokenizer, 9)
    assert stores() == 2
    other = AutoTokenizer.from_pretrained(make_backbone(tmp_path / "other", words=["bee", "ant"]))
    same, others = (open_token_store(str(passages), one, 8)[1].tolist() for one in (tokenizer, other))
    assert same != others
    assert stores() == 3
    os.utime(passages, (1, 1))
    open_token_store(str(passages), tokenizer, 8)
    assert stores() == 4


@pytest.mark.parametrize("name", ["tokens", "offsets", "hashes", "meta.json"])
def test_a_damaged_store_is_noticed_and_made_anew(passages, backbone, in_process, cache, caplog, name):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    expected = all_tokens(open_token_store(str(passages), tokenizer, 8)).tolist()
    (path,) = cache.glob(f"*/{name}")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert all_tokens(open_token_store(str(passages), tokenizer, 8)).tolist() == expected
    assert "rebuilding it" in caplog.text


@pytest.mark.parametrize(
    "text, message",
    [
        ("d1\ta\nd2\tb\nd1\tc\n", r"p.tsv:3: id d1 appears twice"),
        ("d1\ta\nd2 b\n", r"p.tsv:2: one column instead of two"),
        ("", r"p.tsv: is empty"),
    ],
)
def test_a_bad_collection_is_answered_with_file_line_and_reason(tmp_path, backbone, in_process, cache, text, message):
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_token_store(str(tmp_path / "p.tsv"), AutoTokenizer.from_pretrained(backbone), 8)
    assert not [path for path in cache.glob("*") if path.is_dir()]


def test_training_from_disk_and_from_memory_gives_the_same_batches(file_overrides, in_process, monkeypatch):
    cfg = compose_config("train", *file_overrides)
    tokenizer = AutoTokenizer.from_pretrained(cfg.backbone.name)
    template = PairTemplate.of(tokenizer)
    memory = BatchLoader(read_lists(cfg, tokenizer), template, cfg)
    monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)
    lists = read_lists(cfg, tokenizer)
    assert isinstance(lists.passages.tokens, FlatFile) and isinstance(lists.queries.tokens, FlatFile)
    disk = BatchLoader(lists, template, cfg)
    for step in range(4):
        one, same = memory[step], disk[step]
        assert one.query_ids == same.query_ids
        for name in ("tokens", "token_types", "lengths"):
            np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert one.targets.keys() == same.targets.keys() != set()
        for name, target in one.targets.items():
            np.testing.assert_array_equal(target, same.targets[name])


def test_a_passage_that_the_store_lacks_is_named(file_overrides, collection, in_process, monkeypatch):
    lines = collection["passages"].read_text().splitlines(keepends=True)
    unknown = json.dumps(lines.pop(3).split("\t")[0]).strip('"')
    collection["passages"].write_text("".join(lines))
    monkeypatch.setattr(distill.data.teacher_lists, "MAX_IN_MEMORY", 5)
    cfg = compose_config("train", *file_overrides)
    with pytest.raises(InputError, match=rf"teacher.txt:\d+: passage {unknown} is not in .*passages.tsv"):
        decoded_lists(cfg)
