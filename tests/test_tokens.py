"""Token store and pair template against the tokenizer's own encoding of a pair."""

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from distill.data import tokens
from distill.data.pairs import PairTemplate
from distill.data.tokens import TokenStore, unknown_share, warn_of_cut_queries
from distill.sources.texts import warn_of_unknown
from distill.storage.arrays import hash_strings
from tests.helpers.backbones import FAMILIES, make_backbone

TEXTS = {"q": "a bee finds its home", "d": "trains follow rails of iron through rain and snow", "e": ""}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_joined_pair_is_what_the_tokenizer_makes_of_it(tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path, family))
    store, template = TokenStore.of(tokenizer, TEXTS, 64), PairTemplate.of(tokenizer)
    query, passage, _ = (store[row] for row in store.rows(list(TEXTS)))
    tokens, types = template.join(query, passage)
    expected = tokenizer(TEXTS["q"], TEXTS["d"], return_token_type_ids=True)
    assert tokens.tolist() == expected["input_ids"] and types.tolist() == expected["token_type_ids"]
    assert template.num_special == len(tokens) - len(query) - len(passage) == (4 if family == "roberta" else 3)


def test_query_and_passage_are_cut_separately(backbone):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    store, whole = TokenStore.of(tokenizer, TEXTS, 3), TokenStore.of(tokenizer, TEXTS, 64)
    assert [len(store[row]) for row in range(3)] == [3, 3, 0] == store.lengths(np.arange(3)).tolist()
    for row in range(3):
        np.testing.assert_array_equal(store[row], whole[row][:3])


def test_texts_that_are_longer_than_what_is_kept_are_known(backbone):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    store = TokenStore.of(tokenizer, TEXTS, 5)  # q has five tokens, d nine
    assert store.cut.tolist() == [0, 1, 0] and store.cut_ids() == ["d"]
    assert store.cut_ids(np.array([0, 2])) == [] and TokenStore.of(tokenizer, TEXTS, 4).cut_ids() == ["q", "d"]


def test_queries_whose_ends_are_not_read_are_counted_once(caplog):
    warn_of_cut_queries([], 3, 32, "sample")
    warn_of_cut_queries(["q7", "q9"], 3, 32, "sample")
    assert caplog.messages == [
        "sample: 2 of 3 queries are longer than model.query_length=32 tokens: their ends are not read (first: q7)"
    ]


def test_rows_are_found_by_id_and_unknown_ids_are_minus_one(backbone):
    store = TokenStore.of(AutoTokenizer.from_pretrained(backbone), TEXTS, 64)
    assert store.rows(["e", "x", "q", ""]).tolist() == [2, -1, 0, -1]
    assert [store.text_id(row) for row in range(len(store))] == list(TEXTS)
    assert TokenStore.of(AutoTokenizer.from_pretrained(backbone), {}, 64).rows(["q"]).tolist() == [-1]


def test_hashes_of_ids_are_fnv_1a():
    # published test vectors of the 64-bit variant
    strings = pa.array(["", "a", "foobar"], pa.large_string())
    expected = [0xCBF29CE484222325, 0xAF63DC4C8601EC8C, 0x85944171F73967E8]
    assert hash_strings(strings).tolist() == expected
    assert hash_strings(strings.slice(1)).tolist() == expected[1:]


def test_unknown_tokens_are_counted_in_places_all_over_a_store(tmp_path, monkeypatch, caplog):
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path, words=["bees", "fly"]))
    texts = {"a": "bees fly bees fly 蜂蜜", "b": "bees"}  # six tokens, the fifth unknown
    store = TokenStore.of(tokenizer, texts, 100)
    assert unknown_share(store, tokenizer) == pytest.approx(1 / 6)
    monkeypatch.setattr(tokens, "UNKNOWN_BLOCKS", 3)
    monkeypatch.setattr(tokens, "UNKNOWN_BLOCK", 1)
    assert unknown_share(store, tokenizer) == pytest.approx(1 / 3)  # the first, the third and the fifth
    assert unknown_share(TokenStore.of(tokenizer, {}, 100), tokenizer) == 0
    tokenizer.unk_token = None
    assert unknown_share(store, tokenizer) == 0
    warn_of_unknown(0.05, "passages of x")
    assert not caplog.text
    warn_of_unknown(0.051, "passages of x")
    assert "passages of x: 5% of their tokens are unknown to the model, which cannot read them" in caplog.text
