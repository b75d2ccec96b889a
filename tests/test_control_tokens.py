"""Control tokens typed in a text: text for our own models, in every way that a text is read."""

import json

import pytest
import torch
from transformers import AlbertTokenizer, AutoTokenizer, DebertaV2Tokenizer, XLMRobertaTokenizer

from distill.data.control_tokens import control_tokens_in_text, read_as_text
from distill.data.tokens import TokenStore, portable
from distill.export.formats import export
from distill.models.cross_encoder import CrossEncoder
from distill.models.pair_reading import read_texts
from distill.models.parts import load_tokenizer
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.models import scores_of, without_checksums

LETTERS = [*"abcdefghijklmnopqrstuvwxyzSEPCLMAKD[]<>/."]
UNIGRAM = {  # as SentencePiece makes them: the control tokens are words of the vocabulary
    XLMRobertaTokenizer: ["<s>", "<pad>", "</s>", "<unk>"],
    DebertaV2Tokenizer: ["[PAD]", "[CLS]", "[SEP]", "[UNK]"],
    AlbertTokenizer: ["<pad>", "<unk>", "[CLS]", "[SEP]"],
}


def unigram(cls):
    words = [(f"▁{word}", -4.0 - place / 100) for place, word in enumerate(dict.fromkeys(WORDS))]
    mask = "<mask>" if cls is XLMRobertaTokenizer else "[MASK]"
    pieces = [(token, 0.0) for token in UNIGRAM[cls]] + [("▁", -3.0)] + words
    return cls(vocab=[*pieces, *((letter, -8.0) for letter in LETTERS), (mask, 0.0)])


@pytest.mark.parametrize("cls", UNIGRAM)
def test_a_unigram_tokenizer_reads_control_tokens_as_text_and_all_else_as_before(tmp_path, cls):
    plain, ours = unigram(cls), read_as_text(unigram(cls))
    assert plain.sep_token in control_tokens_in_text(plain) and not control_tokens_in_text(ours)
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (" ".join(WORDS), "a bee.", "ü xyz <s [SEP S E P ]", "  home ", ""):
        pair = text, WORDS[0]
        assert dict(plain(*pair)) == dict(ours(*pair)) == dict(again(*pair)), text
    for token in plain.all_special_tokens:
        text = f"sun{token} {token}rain"
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert ids == again(text, add_special_tokens=False)["input_ids"]
        assert not {*ids} & {*plain.all_special_ids} - {plain.unk_token_id}


def make_own(path, family: str, cls=None) -> CrossEncoder:
    """Write a model of ours: over a word-level tokenizer, or one of SentencePiece."""
    make_backbone(path.with_name("backbone"), family, words=[*dict.fromkeys(WORDS), "[", "]", "sep", "cls"])
    if cls is not None:
        unigram(cls).save_pretrained(path.with_name("backbone"))
        config = json.loads((path.with_name("backbone") / "config.json").read_text())
        (path.with_name("backbone") / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
        (path.with_name("backbone") / "model.safetensors").unlink()
    torch.manual_seed(0)
    options = {"weights": "random"} if cls is not None else {}
    model = CrossEncoder.from_backbone(str(path.with_name("backbone")), "cls", 24, 36, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize(("family", "cls"), [("bert", None), ("deberta-v2", DebertaV2Tokenizer)])
def test_training_scoring_and_sentence_transformers_read_the_same_text(tmp_path, family, cls):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    model = make_own(tmp_path / "model", family, cls)
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert config["split_special_tokens"] is True
    query, texts = (
        "a [SEP] bee",
        ["the [SEP] home", "[CLS] iron [SEP]", "rain [PAD] snow[MASK]", "a bee finds its home"],
    )
    control = {*model.tokenizer.all_special_ids} - {model.tokenizer.unk_token_id}
    again = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert portable(again.tokenizer).startswith("split_special_tokens {")
    for tokenizer in (model.tokenizer, again.tokenizer, load_tokenizer(tmp_path / "model")):
        store = TokenStore.of(tokenizer, {str(index): text for index, text in enumerate(texts)}, 36)
        encoded = [ids.tolist() for ids in read_texts(again.tokenizer, texts, 36)]
        assert [store[row].tolist() for row in range(len(texts))] == encoded  # training, evaluation and rank()
        assert not {index for ids in encoded for index in ids} & control
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "model"), device="cpu")
    expected = theirs.predict([(query, text) for text in texts]).tolist()
    ours = dict(zip(*again.rank(query, texts), strict=True))
    assert [ours[index] for index in range(len(texts))] == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 4) for score in expected}) == len(texts)


@pytest.mark.parametrize("target", ["transformers", "lightning-ir", "onnx"])
def test_exports_read_control_tokens_as_text(tmp_path, target):
    if target == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    model = make_own(tmp_path / "model", "electra")
    export(model, tmp_path / "out", target)
    texts = ["the [SEP] home", "[CLS] iron"]
    exported = CrossEncoder.from_pretrained(str(tmp_path / "out"))
    expected = dict(zip(*model.rank("a [SEP] bee", texts), strict=True))
    assert dict(zip(*exported.rank("a [SEP] bee", texts), strict=True)) == pytest.approx(expected, abs=1e-4)


def test_a_published_model_keeps_what_it_was_published_with(tmp_path):
    model = make_own(tmp_path / "model", "bert")
    file = without_checksums(tmp_path / "model") / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["split_special_tokens"]
    file.write_text(json.dumps(config))
    published = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert published.tokenizer.sep_token_id in read_texts(published.tokenizer, ["the [SEP] home"], 20)[0]
    torch.testing.assert_close(scores_of(published), scores_of(model), rtol=1e-6, atol=1e-6)
    assert not portable(published.tokenizer).startswith("split")
    published.save_pretrained(tmp_path / "copy")
    assert "split_special_tokens" not in json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    second = CrossEncoder.from_backbone(str(tmp_path / "model"), query_length=8, passage_length=20)  # trained again
    assert second.tokenizer.split_special_tokens


def test_the_words_of_first_stage_scores_are_not_changed(tmp_path):
    numbers = [str(number) for number in range(101)]
    make_backbone(tmp_path, words=[*WORDS, *numbers])
    with_text = CrossEncoder.from_backbone(str(tmp_path), "cls", 8, 20, first_stage_score="min-max")
    plain = load_tokenizer(tmp_path)
    expected = [plain(number, add_special_tokens=False)["input_ids"] for number in numbers]
    assert [ids[1:-1].tolist() for ids in with_text.template.middles] == expected
