"""Architectures beside those of the papers: scored exactly as in their library, alone and in a batch, or refused."""

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PhobertTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.parts import Parts, pair_length
from distill.training.flops import FlopCounter
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.models import make_classifier
from tests.test_heads import NATIVE, PAIRS, start

ONE_TYPE = {"type_vocab_size": 1}
SCORED = [
    ("convbert", {"embedding_size": 16, "head_ratio": 1, "conv_kernel_size": 3, "hidden_act": "relu"}),
    ("roformer", {"embedding_size": 16, "hidden_act": "silu"}),
    ("big_bird", {"attention_type": "original_full"}),
    ("squeezebert", {"embedding_size": 16} | {f"{name}_groups": 1 for name in ("q", "k", "v", "post_attention",
                                                                               "intermediate", "output")}),
    ("layoutlm", {}),
    ("ernie", {}),
    ("deberta", {"pooler_hidden_act": "relu"}),
    ("bert", ONE_TYPE),
    ("roberta", ONE_TYPE),
]  # fmt: skip
REFUSED = [
    ("big_bird", {}, "its attention is block-sparse"),
    ("nystromformer", {"num_landmarks": 4}, "cannot be loaded with transformers: shape"),
    ("longformer", {"attention_window": 8}, "the head of LongformerForSequenceClassification is not known here"),
    ("canine", {"num_hash_buckets": 64, "num_hash_functions": 2, "downsampling_rate": 2,
                "local_transformer_stride": 8, "upsampling_kernel_size": 2}, "cannot be loaded"),
    ("xlm", {"emb_dim": 16, "n_layers": 2, "n_heads": 2}, "the head of XLMForSequenceClassification is not supported"),
    ("bart", {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
              "decoder_attention_heads": 2}, "BartForSequenceClassification is not supported|is a bart, which"),
]  # fmt: skip


def make_other(path, family: str, sizes: dict):
    """Write a classifier of any architecture over the test's tokenizer."""
    make_backbone(path)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    change(path / "tokenizer_config.json", model_input_names=names)
    tokenizer = AutoTokenizer.from_pretrained(path)
    usual = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    usual |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0, "num_labels": 1}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **usual | sizes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return model, tokenizer


@pytest.mark.parametrize(("family", "sizes"), SCORED, ids=lambda value: value if isinstance(value, str) else "")
def test_an_architecture_is_scored_as_in_its_library(tmp_path, family, sizes):
    model, tokenizer = make_other(tmp_path, family, sizes)
    expected = []
    for pair in PAIRS:
        inputs = tokenizer(*pair, return_tensors="pt")
        assert inputs["token_type_ids"].max() == 1
        if sizes == ONE_TYPE:
            inputs.pop("token_type_ids")  # of which the model has one
        with torch.no_grad():
            expected.append(model(**inputs).logits[0, 0])
    scores = torch.from_numpy(CrossEncoder.from_pretrained(str(tmp_path)).predict(PAIRS))
    torch.testing.assert_close(scores, torch.stack(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(start(tmp_path).predict(PAIRS)), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "sizes", "message"), REFUSED, ids=lambda value: value if type(value) is str else "")
def test_an_architecture_that_would_be_scored_otherwise_is_refused(tmp_path, family, sizes, message):
    make_other(tmp_path, family, sizes)
    opened = [lambda: CrossEncoder.from_pretrained(str(tmp_path)), lambda: start(tmp_path)]
    for load in opened[:1] if family == "big_bird" else opened:  # that is trained with full attention
        with pytest.raises(InputError, match=message) as caught:
            load()
        assert "\n" not in str(caught.value)


def make_encoder(path, family: str, sizes: dict) -> None:
    """Write an encoder of any architecture over the test's tokenizer."""
    make_other(path, family, sizes)
    AutoModelForSequenceClassification.from_pretrained(path).base_model.save_pretrained(path)


def test_block_sparse_attention_is_trained_full_and_saved_so(tmp_path, caplog):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    make_encoder(tmp_path / "encoder", "big_bird", {"block_size": 2, "num_random_blocks": 1})
    with caplog.at_level("INFO"):
        model = CrossEncoder.from_backbone(str(tmp_path / "encoder"), query_length=8, passage_length=40).eval()
    assert "trained with full attention" in caplog.text
    model.save_pretrained(tmp_path / "saved")
    pairs = [(query, " ".join([passage] * 4)) for query, passage in PAIRS]  # long enough for sparse blocks
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "saved"), device="cpu").predict(pairs)
    torch.testing.assert_close(torch.from_numpy(model.predict(pairs)), torch.from_numpy(theirs), rtol=1e-5, atol=1e-6)
    change(tmp_path / "saved" / "config.json", attention_type="block_sparse")
    change(tmp_path / "saved" / "distill.json", crc32=None)
    with pytest.raises(InputError, match="its attention is block-sparse, .*: set attention_type to original_full"):
        CrossEncoder.from_pretrained(str(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("mobilebert", {"embedding_size": 16}), ("nystromformer", {"num_landmarks": 2, "segment_means_seq_len": 2})],
)
def test_a_pair_scores_the_same_beside_longer_ones_where_padding_is_read(tmp_path, family, sizes):
    make_encoder(tmp_path, family, sizes)
    model = start(tmp_path, head="linear").eval()
    query, passages = PAIRS[0][0], ["bees", "bees and honey", " ".join(WORDS[:15])]
    alone = [model.predict([(query, passage)])[0] for passage in passages]
    together = model.predict([(query, passage) for passage in passages])
    torch.testing.assert_close(torch.from_numpy(together), torch.tensor(alone), rtol=1e-5, atol=1e-6)


def test_an_xlnet_is_refused_in_plain_words(tmp_path):
    make_backbone(tmp_path)
    AutoConfig.for_model("xlnet", d_model=16, n_layer=2, n_head=2, d_inner=32).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is an xlnet, whose \[CLS\] token stands last"):
        start(tmp_path, head="linear")


@pytest.mark.parametrize("family", [T5Model, T5EncoderModel])
def test_a_t5_is_no_encoder_to_train(tmp_path, family):
    make_backbone(tmp_path)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    family(T5Config(vocab_size=40, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a t5, wh.*: use an encoder"):
        start(tmp_path)


def test_positions_start_after_the_padding_id(tmp_path):
    make_classifier(tmp_path, "mpnet", 1)
    with pytest.raises(InputError, match="make pairs of 64 tokens, .*, but this backbone reads 62"):
        CrossEncoder.from_backbone(str(tmp_path), query_length=20, passage_length=40)
    text = " ".join(WORDS * 5)
    model = CrossEncoder.from_backbone(str(tmp_path), query_length=18, passage_length=40)
    assert model.rank(text, [text])[0] == [0]  # as long as the positions reach


@pytest.mark.parametrize(
    ("family", "config", "length"),
    [("bert", {}, 64), ("mpnet", {}, 62), ("deberta-v2", {"position_biased_input": False, "relative_attention": True,
                                                           "max_relative_positions": 64}, 64)],
)  # fmt: skip
def test_a_tokenizer_without_a_length_reads_what_the_positions_allow(tmp_path, family, config, length):
    make_classifier(tmp_path, family, 1)
    change(tmp_path / "tokenizer_config.json", model_max_length=int(1e30))
    change(tmp_path / "config.json", **config)
    if config:  # a model with relative positions only has no table of them
        config = AutoConfig.from_pretrained(tmp_path)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    assert CrossEncoder.from_pretrained(str(tmp_path)).max_length == length


def test_without_any_length_pairs_have_512_tokens(tmp_path):
    backbone = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=-1, position_biased_input=False))
    parts = Parts(backbone, SimpleNamespace(model_max_length=int(1e30)), None, None)
    assert pair_length(tmp_path, parts) == 512


@pytest.mark.parametrize("kind", ["PhobertTokenizer", "BertJapaneseTokenizer"])
def test_a_tokenizer_in_python_is_refused(tmp_path, kind):
    make_classifier(tmp_path, "bert", 1)
    (tmp_path / "tokenizer.json").unlink()
    if kind == "PhobertTokenizer":
        (tmp_path / "vocab.txt").write_text("\n".join(f"{word} 1" for word in WORDS))
        (tmp_path / "bpe.codes").write_text("#version: 0.2\n")
        PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes")).save_pretrained(tmp_path)
    else:  # which would ask for a package first
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
        change(tmp_path / "tokenizer_config.json", tokenizer_class=kind, word_tokenizer_type="mecab")
    for load in (lambda: CrossEncoder.from_pretrained(str(tmp_path)), lambda: start(tmp_path)):
        with pytest.raises(InputError, match=rf"its tokenizer \({kind}\) is written in Python") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_unknown_token_leaves_such_words_out(tmp_path):
    model, _ = make_classifier(tmp_path, "bert", 1)
    vocabulary = {
        word: index for index, word in enumerate(["[PAD]", "[CLS]", "[SEP]", *WORDS[0], *map(str.upper, "xyz")])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    specials = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, specials)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", model_max_length=40
    )
    wrapped.save_pretrained(tmp_path)
    query, passage = "X unknown", "Y Z Y"
    with torch.no_grad():
        expected = model(**wrapped(query, passage, return_tensors="pt")).logits[0, 0].item()
    assert CrossEncoder.from_pretrained(str(tmp_path)).rank(query, [passage])[1] == [pytest.approx(expected, abs=1e-5)]
    assert start(tmp_path).rank(query, [passage])[1] == [pytest.approx(expected, abs=1e-5)]


@pytest.mark.parametrize("family", NATIVE)
def test_the_arithmetic_of_every_architecture_is_counted(tmp_path, family):
    make_backbone(tmp_path, family)
    model = CrossEncoder.from_backbone(str(tmp_path), query_length=8, passage_length=20)
    assert len(FlopCounter(model).weights) == 2


def change(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
